"""The benchmark measures what it claims to, and its verdict follows from the measurements."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrecords.dataset import Dataset
from trainer.benchmark import Speed, forward_flops, is_report, verdict

Main = Callable[..., tuple[int, str, str]]
SPEED = Speed("CPU", 212, 32, 10, 5, 1000.0, 100.0, 99.0, 0.01, (0.0, 0.02), 83.0, 8.3, 16.6)
GPU = "1 x GPU NVIDIA H200 with 140 GiB; jax"


def test_the_flops_of_vgg16_are_those_of_its_layers() -> None:
    from trainer.network import model

    net = model.build_model(model.Design(32, scaling="random"), "none", np.full(37, 0.3), "float32", 0)
    blocks = [(32, 3, 64), (32, 64, 64), (16, 64, 128), (16, 128, 128), (8, 128, 256), (8, 256, 256), (8, 256, 256)]
    blocks += [(4, 256, 512), (4, 512, 512), (4, 512, 512), (2, 512, 512), (2, 512, 512), (2, 512, 512)]
    convolutions = sum(2 * side * side * 9 * inputs * outputs for side, inputs, outputs in blocks)
    assert forward_flops(net) == convolutions + 2 * (512 * 1024 + 1024 * 1024 + 1024 * 37)


def test_training_one_image_of_the_article_takes_about_83_gflop() -> None:
    from trainer.network import model

    assert 3 * forward_flops(model.architecture(model.Design(212), "float32")) / 1e9 == pytest.approx(83, rel=0.03)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ("the step is the limit", "10 times as many images")),
        (
            {"pipeline": 90.0, "lost": 0.4, "lost_range": (0.3, 0.5)},
            ("the pipeline is the limit", "--cache memory", "--encoding raw", "CPU cores"),
        ),
        (
            {"pipeline": 900.0, "lost": 0.4, "lost_range": (0.3, 0.5)},
            ("the input takes 40% of the time", "--cache memory"),
        ),
        ({"lost": -0.02}, ("the step is the limit",)),
        # Noise: some rounds lose nothing, so no change is advised.
        ({"lost": 0.08, "lost_range": (-0.01, 0.2)}, ("not clear", "-1% to 20%", "--rounds")),
        ({"lost": 0.05, "lost_range": (0.04, 0.06), "devices": GPU}, ("5% of the time", "10 times as fast", "larger batches")),
    ],
)
def test_the_verdict_names_the_limit_and_the_flag_to_change(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    said = verdict(dataclasses.replace(SPEED, **changes))
    assert all(word in said for word in words)


def test_utilization_is_the_share_of_the_matrix_rate() -> None:
    assert SPEED.utilization == pytest.approx(0.5)


def test_figures_may_be_replaced_but_nothing_else(tmp_path: Path) -> None:
    path, figures = tmp_path / "speed.json", SPEED.to_dict()
    earlier = {name: value for name, value in figures.items() if name != "lost_range"}
    for content, ours in ((figures, True), (earlier, True), ({**figures, "mine": 1}, False), ({"step": 1.0}, False)):
        path.write_text(json.dumps(content))
        assert is_report(path) == ours


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_command_prints_three_speeds_and_writes_them_as_json(
    run_main: Main, plain_dataset: Dataset, tmp_path: Path, precision: str
) -> None:
    file = tmp_path / "speed.json"
    flags = [
        "--batch_size=8",
        "--steps=2",
        "--rounds=2",
        "--limit=16",
        "--augment=full",
        "--backbone=small",
        f"--precision={precision}",
    ]
    flags.append(f"--json={file}")
    code, out, _ = run_main("benchmark", "--tfrecords", plain_dataset.folder, *flags)
    content = json.loads(file.read_text("utf-8"))
    assert code == 0
    assert (content["size"], content["batch_size"], content["steps"], content["rounds"]) == (32, 8, 2, 2)
    assert min(content[name] for name in ("pipeline", "step", "together", "tflops", "matrix_tflops", "utilization")) > 0
    assert content["tflops"] == pytest.approx(content["gflop"] / 1e3 * content["step"])
    for line in ("pipeline alone", "training step alone", "both together", "of this machine's matrix product"):
        assert line in out
    assert f"{content['step']:,.1f}" in out
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"]


def test_a_place_for_the_json_that_is_not_there_is_said_before_anything_is_measured(
    run_main: Main, plain_dataset: Dataset, tmp_path: Path
) -> None:
    code, out, err = run_main("benchmark", "--tfrecords", plain_dataset.folder, "--json", tmp_path / "no" / "speed.json")
    assert (code, out) == (1, "") and err.startswith("error: ") and "does not exist: create it first" in err
