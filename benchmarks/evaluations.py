"""The memory of `trainer evaluate`: for ten times as many galaxies, added up block by block and, as for fewer, in memory.

    .venv/bin/python -m benchmarks.evaluations

Demo galaxies of 8 x 8 pixels, repeated under new numbers until there are enough, and a model of two layers: what is measured is
everything but the model. Each figure is that of a new process. Prints a Markdown table.
"""

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.children import run_child

_SIZE = 8
_DEMO = 400
_SHARD = 10_000
_SPLIT = "test"
# Of so many galaxies in memory, the others are added up.
_SAMPLE = 10_000
_ADDED_UP, _IN_MEMORY = "added up in blocks", "in memory"


def _prepare(work: Path, galaxies: int) -> None:
    """A dataset, a run with random weights, and shards of as many galaxies, listed in shards.json."""
    from preprocess.demo import make_demo
    from preprocess.job import BuildSettings, build_dataset
    from preprocess.plan import PlanSettings
    from tfrecords.framing import frame, read_records
    from tfrecords.images import CropSettings
    from tfrecords.schema import parse, serialize
    from trainer.beginning import create, start
    from trainer.config import TrainConfig

    make_demo(work / "demo", _DEMO)
    settings = BuildSettings(CropSettings(size=_SIZE, encoding="raw"), PlanSettings(test_fraction=0.5))
    dataset = build_dataset(work / "demo", work / "data", settings).dataset
    examples = [parse(record) for path in dataset.paths(_SPLIT) for record in read_records(path)]
    numbers, shards = itertools.count(1), []
    for place in range(-(-galaxies // _SHARD)):
        name = f"more-{place:05d}"
        with (dataset.folder / name).open("wb") as file:
            for number in itertools.islice(numbers, _SHARD):
                galaxy_id = number * 7_368_787 % 2**31  # a prime: neighbours are far apart, and none is twice
                file.write(frame(serialize(replace(examples[number % len(examples)], galaxy_id=galaxy_id))))
        shards.append(name)
    (work / "shards.json").write_text(json.dumps(shards))
    import keras  # not before: what it loads brings another zlib than the workers of the build have

    run, _ = start(work / "run", TrainConfig(work / "data", work / "run", weights="none").settings(), dataset, overwrite=False)
    create(run)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(37, "sigmoid")]
    run.save_model(keras.Sequential([keras.Input((_SIZE, _SIZE, 3)), *layers]))


def _measure(work: Path, galaxies: int, way: str) -> None:
    """Evaluate as many galaxies in this process."""
    from tfrecords.dataset import Shard, open_dataset
    from tfrecords.files import sha256_file
    from trainer import evaluate
    from trainer.run import open_run

    dataset = open_dataset(work / "data")
    paths = [dataset.folder / name for name in json.loads((work / "shards.json").read_text())][: galaxies // _SHARD]
    more = [Shard(path.name, _SPLIT, _SHARD, path.stat().st_size, sha256_file(path)) for path in paths]
    shards = [shard for shard in dataset.shards if shard.split != _SPLIT]
    evaluate.IN_MEMORY = _SAMPLE if way == _ADDED_UP else galaxies
    _, content = evaluate.evaluate_run(open_run(work / "run"), replace(dataset, shards=(*shards, *more)), _SPLIT)
    print(content["galaxies"])


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
            _prepare(Path(work), int(galaxies))
        return
    if args.galaxies % _SHARD or args.galaxies <= _SAMPLE:
        parser.error(f"--galaxies {args.galaxies}: must be a multiple of {_SHARD:,} above {_SAMPLE:,}")
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, "-m", "benchmarks.evaluations", "--child", folder]
        log = Path(folder) / "log.txt"
        run_child([*program, str(10 * args.galaxies), ""], log)
        print("| evaluation | galaxies | peak memory | seconds |\n|---|---|---|---|")
        for way in (_ADDED_UP, _IN_MEMORY):
            for galaxies in (args.galaxies, 10 * args.galaxies):
                seconds, peak, _, rows = run_child([*program, str(galaxies), way], log)
                assert int(rows) == galaxies, rows
                print(f"| {way} | {galaxies:,} | {peak / 1e6:,.0f} MB | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
