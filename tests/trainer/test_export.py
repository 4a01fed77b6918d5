"""A run's model serves other programs as it serves us."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tfrecords.errors import ConfigError, RunError
from trainer.export import export
from trainer.run import Run, open_run

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def exported(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "deep" / "model"
    export(tiny_run, folder)
    return folder


def test_a_savedmodel_gives_the_votes_that_keras_gives_for_any_batch(exported: Path, tiny_run: Run) -> None:
    import tensorflow as tf

    serve = tf.saved_model.load(str(exported)).signatures["serving_default"]
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    expected = tiny_run.load_model().predict_on_batch(images)
    for batch in (images, images[:1]):
        (votes,) = serve(tf.constant(batch)).values()
        assert votes.dtype == tf.float32
        np.testing.assert_allclose(votes, expected[: len(batch)], atol=1e-5)
    (signature,) = serve.structured_input_signature[1].values()
    assert signature.dtype == tf.uint8 and signature.shape.as_list() == [None, 32, 32, 3]


def test_a_folder_that_exists_is_refused_and_nothing_else_is_left_behind(exported: Path, tiny_run: Run) -> None:
    before = sorted(exported.rglob("*"))
    with pytest.raises(ConfigError, match="exists already: give --out a new folder"):
        export(tiny_run, exported)
    assert sorted(exported.rglob("*")) == before and list(exported.parent.iterdir()) == [exported]


def test_a_damaged_model_is_one_line_and_leaves_nothing(tiny_run: Run, run_main: Main, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_bytes((tiny_run.folder / "config.json").read_bytes())
    with pytest.raises(RunError, match=r"has no model\.keras yet"):
        export(open_run(folder), tmp_path / "out")
    (folder / "model.keras").write_bytes(b"no model")
    code, out, err = run_main("export", "--run", folder, "--out", tmp_path / "out")
    assert (code, out) == (1, "") and err.startswith("error: ") and err.count("\n") == 1
    assert "model.keras: cannot be exported" in err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
