"""From images with names and a table of one's own to a dataset: five lines are a tree."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.job import BuildSettings, build_dataset
from preprocess.verify.dataset import verify_dataset
from tests.conftest import galaxy_image
from tests.preprocess.surveys import (
    RINGS,
    examples_by_name,
    named_survey,
    refused,
    rows_of,
    write_rows,
)
from tfrecords.errors import ConfigError, SourceError
from tfrecords.treefile import parse_tree


def test_five_lines_and_a_table_of_two_columns_are_a_survey(rings: Path, small: BuildSettings, tmp_path: Path) -> None:
    source = named_survey(tmp_path / "mine")
    data = build_dataset(source, tmp_path / "out", small, tree=rings).dataset
    assert (data.tree.name, data.tree.title, data.tree.columns, data.asked) == ("rings", "rings", ("ring", "ring_no"), False)
    examples = examples_by_name(data)
    assert len(examples) == 8
    for number in range(8):
        np.testing.assert_allclose(examples[f"ngc {number}a"].targets, [number / 8, 1 - number / 8])
    assert verify_dataset(data.folder, source).findings == ()
    assert build_dataset(source, data.folder, small, tree=rings).already_complete


def test_an_own_tree_that_was_edited_between_two_runs_is_refused(rings: Path, small: BuildSettings, tmp_path: Path) -> None:
    source = named_survey(tmp_path / "mine")
    out = build_dataset(source, tmp_path / "out", small, tree=rings).dataset.folder
    rings.write_text(RINGS.replace('"ring"\nanswers', '"halo"\nanswers'))
    with pytest.raises(ConfigError, match=r"tree was rings \([0-9a-f]{12}\), now rings \([0-9a-f]{12}\)"):
        build_dataset(source, out, small, tree=rings)


def test_images_of_the_same_name_are_told_apart_by_their_paths(rings: Path, small: BuildSettings, tmp_path: Path) -> None:
    source = named_survey(tmp_path / "mine")
    (source / "others").mkdir()
    galaxy_image(np.random.default_rng(5), 48).save(source / "others" / "ngc 3a.jpg")
    with pytest.raises(SourceError) as caught:
        build_dataset(source, tmp_path / "out", small, tree=rings)
    both = ", ".join(sorted(f"{source}/{folder}/ngc 3a.jpg" for folder in ("images", "others")))
    assert str(caught.value) == (
        f"{source}/votes.csv: ngc 3a.jpg is the name of several images ({both}): remove all but one, or write their paths into "
        "column file"
    )
    rows: list[dict[str, Any]] = [{**row, "file": f"images/{row['file']}"} for row in rows_of(source / "votes.csv")]
    write_rows(source / "votes.csv", [*rows, {"file": "others/ngc 3a.jpg", "ring": 0.9}])
    data = build_dataset(source, tmp_path / "out", small, tree=rings).dataset
    examples = examples_by_name(data)
    assert examples.keys() == {"others/ngc 3a", *(f"images/ngc {number}a" for number in range(8))}
    for name, ring in (("others/ngc 3a", 0.9), ("images/ngc 3a", 0.375)):
        assert examples[name].targets[0] == np.float32(ring)
    assert verify_dataset(data.folder, source).findings == ()


def test_a_tree_with_kaggles_name_and_other_questions_is_not_kaggles(small: BuildSettings, tmp_path: Path) -> None:
    source = named_survey(tmp_path / "mine")
    tree = parse_tree(f'name = "kaggle"\n{RINGS}', "rings.toml", "rings")
    # By the columns of its table, which has no usual name.
    assert build_dataset(source, tmp_path / "out", small, tree=tree).dataset.galaxies("train") == 8
    path = tmp_path / "kaggle.toml"
    path.write_text(RINGS)
    what = f'{path}: its name is that of another tree: give it a name of its own, name = "..."'
    assert refused(source, small, tmp_path / "no", tree=path) == what


@pytest.mark.parametrize("packed", [False, True])
def test_the_usual_name_of_a_table_may_start_with_a_folder(
    rings: Path, small: BuildSettings, tmp_path: Path, packed: bool
) -> None:
    source = named_survey(tmp_path / "mine")
    rings.write_text(f'tables = ["votes/final.csv"]\n{RINGS}')
    rows = rows_of(source / "votes.csv")
    for name in ("votes", "drafts"):
        (source / name).mkdir()
        write_rows(source / name / "final.csv", [dict(row) for row in (rows if name == "votes" else rows[:3])])
    (source / "votes.csv").unlink()
    if packed:  # a zip counts as a folder
        shutil.make_archive(str(source / "votes"), "zip", source / "votes")
        shutil.rmtree(source / "votes")
    assert build_dataset(source, tmp_path / "out", small, tree=rings).dataset.galaxies("train") == 8
