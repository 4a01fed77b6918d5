"""What is drawn from a sample tells so in its finding and its caption; what is about all galaxies does not."""

from dataclasses import replace
from pathlib import Path

from tests.trainer.analysis.evaluations import DECALS, LOSSES, charts_of, evaluation_of, texts_of
from tfrecords.dataset import Dataset
from trainer.analysis.totals import GROUPS

SAMPLE = "a random sample of 40 of the 1,000 galaxies"


def test_only_charts_of_single_galaxies_show_a_sample_and_name_it(plain_dataset: Dataset, tmp_path: Path) -> None:
    head = "dirichlet"
    everything = evaluation_of(tmp_path, plain_dataset, "good", DECALS, "counted", 40, head=head, loss=LOSSES[head])
    sampled = replace(everything, known=replace(everything.totals, galaxies=1000))
    before, after = texts_of(charts_of(everything)), texts_of(charts_of(sampled))
    drawn = {name for name, texts in after.items() if SAMPLE in " ".join(texts)}
    assert drawn == {"calibration", "violation", "intervals"}
    for name in drawn:
        alt, caption = after[name]
        assert f" in {SAMPLE}: " in alt and caption.endswith(f" Drawn from {SAMPLE}.")
        assert (alt.replace(f" in {SAMPLE}", ""), caption.replace(f" Drawn from {SAMPLE}.", "")) == before[name]
    groups = f"{GROUPS:,} random groups of the galaxies"
    assert {name for name, texts in after.items() if groups in " ".join(texts)} == {"ladder"}
    assert {name for name in after if after[name] != before[name]} == {*drawn, "ladder"}
    assert not any("sample of" in " ".join(texts) or "groups" in " ".join(texts) for texts in before.values())
