"""The steps of a job besides images and training, each for invented galaxies: no pixels are read, drawn or written.

A step runs in a process of its own. Later steps use what earlier ones of the same size left in their folder.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale.meter import Meter

EXAMPLES_PER_SHARD = 32_768
SHARE = "a part reads its shards in the plan, here all"
_DIGITS = 9
_SUFFIX = b".jpg"
_TIME_NS = 1_700_000_000_123_456_789
_ROWS = 1_000_000
_STEP, _IDS = 7_368_787, 100_000_007  # coprime


def _invented_names(first: int, last: int) -> np.ndarray:
    """The names of the files of galaxies `first` to `last - 1`, uint8 (galaxies, letters)."""
    numbers = np.arange(first, last)
    names = np.empty((len(numbers), _DIGITS + len(_SUFFIX)), np.uint8)
    for place in range(_DIGITS):
        names[:, place] = numbers // 10 ** (_DIGITS - 1 - place) % 10 + ord("0")
    names[:, _DIGITS:] = np.frombuffer(_SUFFIX, np.uint8)
    return names


def list_zip(work: Path, meter: Meter) -> None:
    """Read the directory of a real zip, whose files have names but no contents."""
    from benchmarks.sources import write_names
    from preprocess.sources import find_source

    path = work / "names.zip"
    write_names(path, meter.galaxies)
    with meter.phase("list a zip"):
        images = find_source(path, work).images
    assert len(images) == meter.galaxies
    path.unlink()


def list_folder(work: Path, meter: Meter) -> None:
    """Walk through a real folder of empty files, a thousand in each of its folders."""
    from preprocess.sources import find_source

    folder = work / "files"
    for first in range(0, meter.galaxies, 1000):
        (folder / f"{first // 1000:06d}").mkdir(parents=True)
        for number in range(first, min(first + 1000, meter.galaxies)):
            os.close(os.open(folder / f"{first // 1000:06d}" / f"{number:09d}.jpg", os.O_CREAT | os.O_WRONLY, 0o600))
    with meter.phase("list a folder"):
        images = find_source(folder, work).images
    assert len(images) == meter.galaxies


def plan_job(work: Path, meter: Meter) -> None:
    """Plan the shards of a listing that was filled in at once, and write the plan that the parts of a job array share."""
    from preprocess import surveys
    from preprocess.opening import Request, open_job
    from preprocess.plan import PlanSettings
    from preprocess.settings import BuildSettings
    from preprocess.sharing import write_plan
    from preprocess.solutions import no_votes
    from preprocess.sources import PLAIN, Listing, Source, place_of
    from tfrecords.fits.look import Look

    number = meter.galaxies
    names = bytearray()
    for first in range(0, number, _ROWS):
        names += _invented_names(first, min(first + _ROWS, number)).tobytes()
    length = _DIGITS + len(_SUFFIX)
    columns: dict[str, Any] = {
        "galaxy_id": np.arange(number),
        "place": np.zeros(number, np.uint32),
        "position": np.arange(_TIME_NS, _TIME_NS + number),
        "stored": np.zeros(number, np.uint32),
        "size": np.full(number, 15_000, np.uint32),
        "crc": np.zeros(number, np.uint32),
        "method": np.full(number, PLAIN, np.uint8),
        "named": np.zeros(number, np.uint8),
        "name_start": np.arange(0, number * length, length),
        "name_length": np.full(number, length, np.uint16),
    }
    images = Listing((place_of(work, str(work), b"images/"),), bytes(names), **columns)
    del names, columns
    survey = surveys._survey(Source(work, images, ()), no_votes())
    # All of them labelled, so that `train` is as large as it can be. Their votes are not in memory: benchmarks.votes.
    survey = replace(survey, galaxies=replace(survey.galaxies, labelled=np.ones(number, bool)))
    settings = BuildSettings(plan=PlanSettings(examples_per_shard=EXAMPLES_PER_SHARD))
    request = Request(work, settings, None, None, "", "", "", Look())
    folder = work / "job"
    folder.mkdir()
    with meter.phase("plan the shards"):
        job = open_job(request, survey)
    with meter.phase("write the plan that parts share", folder):
        write_plan(folder, request.asked(), job)


def read_share(work: Path, meter: Meter) -> None:
    """Open the shared plan as a part does, and read its shards: here all, so that their number shows."""
    from preprocess.sharing import shared_plan
    from tfrecords.shares import JobShare

    with meter.phase(SHARE):
        plan = shared_plan(work / "job")
        assert plan is not None
        job = plan.job(JobShare(1, 1).spread([*plan.shards]))
        for shard in job.shards:
            assert len(job.survey.part_of(shard).images) == len(shard.rows)


def commit_job(work: Path, meter: Meter) -> None:
    """Commit a job whose shards have receipts and a byte for each galaxy, as the plain command does after all parts."""
    from preprocess import state, versions
    from preprocess.commit import commit
    from preprocess.shard import Receipt
    from preprocess.sharing import shared_plan
    from tfrecords.dataset import Shard
    from tfrecords.sums import TargetSums

    folder, out = work / "job", work / "dataset"
    out.mkdir()
    with meter.phase("read the shared plan"):
        plan = shared_plan(folder)
        assert plan is not None
        job = plan.job([*plan.shards])
    receipts, digest = folder / "receipts", cache(lambda number: hashlib.sha256(bytes(number)).hexdigest())
    receipts.mkdir()
    answers = len(job.survey.tree.columns)
    with meter.phase("write the receipts", receipts):
        for planned in job.shards:
            number = len(planned.rows)
            (out / planned.name).write_bytes(bytes(number))
            crcs, changed = planned.rows.astype(">u4"), (planned.rows + _TIME_NS).astype(">i8")
            sums = TargetSums((0.5 * number,) * answers, (number,) * answers)
            shard = Shard(planned.name, planned.split, number, number, digest(number))
            by_whom = versions.tool(), "node"
            receipt = Receipt(shard, 0, (224, 224), (), crcs.tobytes().hex(), changed.tobytes().hex(), *by_whom, sums)
            state.save_receipt(folder, receipt)
    with meter.phase("read the receipts"):
        held = state.receipts(out, folder, [*plan.shards])
    assert len(held) == len(job.shards)
    with meter.phase("commit the dataset"):
        commit(out, job, [held[shard.name] for shard in job.shards], folder)


def start_training(work: Path, meter: Meter) -> None:
    """What `trainer` does with a dataset before its first step, whose shards were hashed before, and the order of an epoch."""
    import tensorflow as tf

    from tfrecords.dataset import open_dataset
    from tfrecords.integrity import check_shards
    from tfrecords.reader import target_means
    from trainer.backends.base import WHOLE
    from trainer.input.training import STREAMS, _key, _Order, _streams, steps_per_epoch

    folder = work / "dataset"
    hashed = check_shards(open_dataset(folder), open_dataset(folder).shards)
    with meter.phase("training starts: the manifest, the shards' stamps, the means of targets"):
        dataset = open_dataset(folder)
        check_shards(dataset, dataset.shards, hashed)
        target_means(dataset, "train")
        steps, batch = steps_per_epoch(dataset, 32)
        streams = _streams(dataset, STREAMS, 0, WHOLE)
    with meter.phase("training starts: the first batch of an epoch's order"):
        order = _Order(streams, dataset.encoding, places=True).epoch(_key(0, tf.constant(0, tf.int64))).batch(batch)
        batches = iter(order.as_numpy_iterator())
        galaxies = len(next(batches))
    with meter.phase("an epoch's order, to its end"):
        galaxies += sum(map(len, batches))
    assert galaxies == dataset.galaxies("train") and galaxies // batch == steps


def predict_table(work: Path, meter: Meter) -> None:
    """Keep invented predictions of a split in parts, resume from them, and join them in both forms."""
    from tfrecords.builtin import builtin_tree
    from trainer.blocks import PredictedBlock, PredictedRows
    from trainer.inference import BATCH_SIZE
    from trainer.parts import TableParts, locked_parts
    from trainer.streaming import PART
    from trainer.tablefolder import write_folder
    from trainer.tables import ExtraColumns, Predictions, write_blocks

    tree, number, generator = builtin_tree(), meter.galaxies, np.random.default_rng(0)
    width = len(tree.columns)
    outputs = generator.random((16 * PART, width), np.float32)
    spans = [range(first, min(first + PART, number)) for first in range(0, number, PART)]

    def blocks(span: range) -> Iterator[PredictedBlock]:
        for first in range(span.start, span.stop, BATCH_SIZE):
            numbers = np.arange(first, min(first + BATCH_SIZE, span.stop))
            ids = numbers * _STEP % _IDS  # distinct, and in no order, as in a split
            yield PredictedBlock(PredictedRows(ids, outputs[numbers % len(outputs)]))

    def table(parts: TableParts) -> Iterator[tuple[Predictions, ExtraColumns]]:
        for ids, predicted, names, _ in parts.joined_rows(range(len(spans)), ordered=False):
            nothing = np.full_like(predicted, np.nan)
            yield Predictions(ids, predicted, nothing, None, None, tree, names), ExtraColumns()

    out, folder = work / "table.csv", work / "table.parquet"
    with locked_parts(out) as held:
        parts = TableParts(held, width, {})
        with meter.phase("write the parts of a table of predictions", held.path):
            for place, span in enumerate(spans):
                parts.write(place, [*blocks(span)])
        with meter.phase("resume: read all parts"):
            assert all(parts.finished(place, len(span)) for place, span in enumerate(spans))
        with meter.phase("join them, in order, in a CSV file", out):
            write_blocks(tree, table(parts), out, held.path)
        with meter.phase("join them, in order, in Parquet files", folder):
            write_folder(tree, table(parts), folder, held.path, {})
        parts.forget()


def evaluate_table(work: Path, meter: Meter) -> None:
    """Pair the CSV file of predictions with invented votes, which are sorted in files first, and add up the scores."""
    import tfrecords.reader  # noqa: F401, loads TensorFlow, which is not to be measured
    from tfrecords.builtin import builtin_tree
    from tfrecords.dataset import Dataset
    from trainer.analysis.totals import Sample, Tally
    from trainer.blocks import PredictedRows
    from trainer.evaluate import IN_MEMORY
    from trainer.pairing import _SORTED, _paired
    from trainer.rowfile import merged_files, sliced, write_rows

    tree, number, folder = builtin_tree(), meter.galaxies, work / "votes"
    width = len(tree.columns)
    targets = tree.project(np.random.default_rng(0).random((_SORTED, width), np.float32)).astype(np.float32)
    folder.mkdir()
    files: list[Path] = []
    with meter.phase("evaluation: sort the votes of a split in files", folder):
        for first in range(0, number, _SORTED):
            numbers = np.arange(first, min(first + _SORTED, number))
            rows = PredictedRows(numbers * _STEP % _IDS, targets[: len(numbers)])
            files.append(folder / f"votes-{len(files):05d}.parquet")
            write_rows(files[-1], sliced(rows.in_table_order()), width, {})
    dataset = Dataset(work, {}, {}, {}, {}, (), "")
    with meter.phase("evaluation: read the table back, and add up the scores"):
        tally, sample = Tally(tree), Sample(number, min(number, IN_MEMORY))
        for block in _paired(work / "table.csv", dataset, merged_files(files, folder, width)):
            tally.add(block)
            sample.add(block)
        assert tally.scores().rmse > 0 and tally.totals().galaxies == number
        assert len(sample.predictions().galaxy_ids) == min(number, IN_MEMORY)


Step = Callable[[Path, Meter], None]
STEPS: dict[str, Step] = {
    "list-zip": list_zip,
    "list-folder": list_folder,
    "plan": plan_job,
    "share": read_share,
    "commit": commit_job,
    "train": start_training,
    "predict": predict_table,
    "evaluate": evaluate_table,
}
