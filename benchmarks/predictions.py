"""The memory of `trainer predict`: for ten times as many galaxies, in parts on disk, to CSV or Parquet, and in memory.

    .venv/bin/python -m benchmarks.predictions

Demo galaxies of 32 x 32 pixels, predicted with a model of two layers: what is measured is everything but the model. The
shards are repeated until there are enough galaxies. Each figure is that of a new process. Prints a Markdown table.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.children import run_child

_SIZE = 32
_DEMO = 1000
_SPLIT = "train"
_STREAMED, _FOLDER = "in parts (`trainer predict`)", "in parts, to Parquet (`--out NAME.parquet`)"
_IN_MEMORY = "in memory (`predict_split`, `write_csv`)"


def _prepare(work: Path) -> None:
    """A dataset and a run with random weights."""
    from preprocess.demo import make_demo
    from preprocess.job import BuildSettings, build_dataset
    from preprocess.plan import PlanSettings
    from tfrecords.images import CropSettings
    from trainer.beginning import create, start
    from trainer.config import TrainConfig

    make_demo(work / "demo", _DEMO)
    settings = BuildSettings(CropSettings(size=_SIZE), PlanSettings(examples_per_shard=100))
    dataset = build_dataset(work / "demo", work / "data", settings).dataset
    import keras  # not before: what it loads brings another zlib than the workers of the build have

    config = TrainConfig(work / "data", work / "run", weights="none")
    run, _ = start(config.out, config.settings(), dataset, overwrite=False)
    create(run)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(37, "sigmoid")]
    run.save_model(keras.Sequential([keras.Input((_SIZE, _SIZE, 3)), *layers]))


def _measure(work: Path, galaxies: int, way: str) -> None:
    """Predict as many galaxies in this process."""
    from tfrecords.dataset import open_dataset
    from trainer.predict import predict_split
    from trainer.run import open_run
    from trainer.streaming import tabulate_split
    from trainer.tables import write_csv

    dataset, run, out = open_dataset(work / "data"), open_run(work / "run"), work / "table.csv"
    shards = tuple(shard for shard in dataset.shards if shard.split == _SPLIT)
    times = -(-galaxies // dataset.galaxies(_SPLIT))
    many = replace(dataset, shards=shards * times)
    if way == _FOLDER:
        from pyarrow import parquet

        folder = out.with_suffix(".parquet")
        tabulate_split(run, many, _SPLIT, folder, limit=galaxies)
        print(sum(parquet.read_metadata(path).num_rows for path in folder.iterdir()))
        shutil.rmtree(folder)
        return
    if way == _STREAMED:
        tabulate_split(run, many, _SPLIT, out, limit=galaxies)
    else:
        write_csv(predict_split(run, many, _SPLIT, limit=galaxies), out)
    print(sum(1 for _ in out.open("rb")) - 1)
    out.unlink()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or be a process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--galaxies", type=int, default=20_000, help="the smaller number (default: 20,000)")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.child:
        work, galaxies, way = args.child
        if way:
            _measure(Path(work), int(galaxies), way)
        else:
            _prepare(Path(work))
        return
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, "-m", "benchmarks.predictions", "--child", folder]
        log = Path(folder) / "log.txt"
        run_child([*program, "0", ""], log)
        print("| predictions | galaxies | peak memory | seconds |\n|---|---|---|---|")
        for way in (_STREAMED, _FOLDER, _IN_MEMORY):
            for galaxies in (args.galaxies, 10 * args.galaxies):
                seconds, peak, _, rows = run_child([*program, str(galaxies), way], log)
                assert int(rows) == galaxies, rows
                print(f"| {way} | {galaxies:,} | {peak / 1e6:,.0f} MB | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
