"""What is attacked: for each kind of input its originals, and a check of what the program makes of a damaged one.

A check raises AssertionError if the outcome is wrong. Errors of ours are right: they refuse the input.
"""

import contextlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.conftest import SHARED
from tests.fuzz.originals import Originals
from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.errors import GalaxyZooError, one_line

Check = Callable[[bytes], None]


class Target(NamedTuple):
    """A kind of input. check: raises AssertionError for a wrong outcome."""

    originals: list[bytes]
    check: Check


def refused(call: Callable[[], Any]) -> Any:
    """What a call returns; None if it refuses its input, in one line."""
    try:
        return call()
    except GalaxyZooError as error:
        line = one_line(error)
        assert "\n" not in line and len(line) < 3000, f"not one short line: {line[:300]!r}"
        assert "Traceback" not in line
        return None


def _as_pillow(data: bytes) -> np.ndarray | None:
    """The pixels that Pillow decodes; None if it refuses the image, or converts it in a way of its own."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in ("L", "RGB", "CMYK") or "transparency" in image.info or getattr(image, "n_frames", 1) > 1:
                return None
            return np.asarray(image.convert("RGB"))
    except Exception:  # whatever it raises
        return None


def _picture(data: bytes) -> None:
    from tfrecords.decoding import decode

    pixels = refused(lambda: decode(data))
    if pixels is None:
        return
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    expected = _as_pillow(data)
    assert expected is None or np.array_equal(pixels, expected), "other pixels than Pillow's"


def _crop(data: bytes) -> None:
    """A stored crop shows the pixels of the decoded image."""
    from tfrecords.decoding import decode
    from tfrecords.images import CropSettings, crop, decode_stored, store

    size = 32
    settings = CropSettings(0.5, size, "jpeg")
    stored = refused(lambda: store(data, settings, check=False))
    if stored is None or stored.offset == (0, 0):  # encoded again
        return
    whole = refused(lambda: decode(data))
    assert whole is not None, "cut from an image that cannot be decoded"
    pixels = decode_stored(stored.data, "jpeg", size, stored.offset)
    assert np.array_equal(pixels, crop(whole, 0.5, size)), "other pixels than those of the whole image"


def _fits(data: bytes) -> None:
    from preprocess.sources import Content, picture_in
    from tfrecords.fits.look import Look, Stretch
    from tfrecords.fits.planes import quiet

    with quiet():
        drawn = refused(lambda: picture_in("x.fits", Content(data, 0, 0), Look(stretch=Stretch(0.5))))
    if drawn is not None:
        pixels = drawn[0].pixels
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and min(pixels.shape) > 0


def _zip(scratch: Path) -> Check:
    from preprocess.sources import ImageReader, find_images

    path = scratch / "galaxies.zip"

    def members(data: bytes) -> dict[str, bytes]:
        """The files that Python's zipfile reads, without names that occur twice."""
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            names = file.namelist()
            contents = {}
            for name in names:
                with contextlib.suppress(Exception):
                    if names.count(name) == 1 and file.getinfo(name).file_size < 1 << 22:
                        contents[name] = file.read(name)
            return contents

    def check(data: bytes) -> None:
        path.write_bytes(data)
        listed = refused(lambda: find_images(path, scratch))
        if listed is None:
            return
        expected: dict[str, bytes] = {}
        with contextlib.suppress(Exception):
            expected = members(data)
        images = listed[0]
        with ImageReader() as reader:
            for row in range(len(images)):
                content = refused(lambda row=row: reader.read(images, row))
                name = images.path(row)
                if content is not None and name in expected:
                    assert content.data == expected[name], f"other bytes than zipfile's: {name!r}"

    return check


def _votes(kind: str) -> Check:
    """A table of votes gives the numbers that pandas reads."""
    import pandas as pd

    from preprocess.solutions import read_table

    tree = builtin_tree()

    def as_pandas(data: bytes) -> Any:
        with contextlib.suppress(Exception):
            frame = pd.read_csv(io.BytesIO(data)) if kind == "csv" else pd.read_parquet(io.BytesIO(data))
            usual = all(frame[column].dtype == np.float64 for column in tree.columns) and frame.GalaxyID.dtype == np.int64
            return frame if usual and frame.GalaxyID.is_unique and frame.columns.is_unique else None
        return None

    def check(data: bytes) -> None:
        ballots = refused(lambda: read_table(f"votes.{kind}", data))
        if ballots is None:
            return
        assert ballots.targets.shape == (len(ballots.ids), len(ballots.fit.tree.columns))
        assert np.isfinite(ballots.targets).all() and (ballots.targets >= 0).all() and (ballots.targets <= 1).all()
        frame = as_pandas(data)
        if frame is None or ballots.fit.tree.columns != tree.columns or ballots.ids.dtype != np.int64:
            return
        rows = frame.set_index("GalaxyID")
        if not set(ballots.ids.tolist()) <= set(rows.index):
            raise AssertionError("ids that pandas does not read")
        expected = rows.loc[ballots.ids, list(tree.columns)].to_numpy().astype(np.float32)
        close = np.isclose(ballots.targets, np.clip(expected, 0, 1), atol=1e-6) | np.isnan(expected)
        assert close.all(), "other votes than pandas reads"

    return check


def _tree(data: bytes) -> None:
    from tfrecords.tree import drawing
    from tfrecords.treefile import parse_tree

    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    tree = refused(lambda: parse_tree(text, "tree.toml", "tree"))
    if tree is not None:
        assert drawing(tree)
        assert parse_tree(tree.text, "tree.toml", "tree") == tree
        assert len(set(tree.columns)) == len(tree.columns) > 0


def _manifest(made: Originals) -> Check:
    """A changed manifest is never read as another."""
    from tfrecords.dataset import read_manifest

    path = made.dataset / "manifest.json"
    original = path.read_bytes()

    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            dataset = refused(lambda: read_manifest(made.dataset))
        finally:
            path.write_bytes(original)
        assert dataset is None or data == original, "a changed manifest was read"

    return check


def _signed(made: Originals) -> Check:
    """A manifest with changed values and its right hash is refused, or names only files in its folder."""
    from tfrecords.dataset import read_manifest, sha256_text, to_json

    path = made.dataset / "manifest.json"
    original = path.read_bytes()

    def check(data: bytes) -> None:
        try:
            content = json.loads(data)
            del content["sha256"]
            text = to_json({**content, "sha256": sha256_text(to_json(content))})
            path.write_text(text, "utf-8")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        try:
            dataset = refused(lambda: read_manifest(made.dataset))
        finally:
            path.write_bytes(original)
        if dataset is not None:
            assert all("/" not in shard.name and shard.bytes >= 0 <= shard.examples for shard in dataset.shards)
            assert all("/" not in name for name in dataset.files) and 0 < dataset.size <= 10_000

    return check


def _shard(scratch: Path, originals: list[bytes]) -> Check:
    """Of a damaged shard only whole records of the original are read, in their order, and then an error."""
    from tfrecords import framing

    path, known = scratch / "shard", []
    for content in originals:
        path.write_bytes(content)
        known.extend(framing.read_records(path))

    def check(data: bytes) -> None:
        path.write_bytes(data)
        records = []
        with contextlib.suppress(GalaxyZooError):
            for record in framing.read_records(path):
                records.append(record)
        assert all(record in known for record in records), "a record that nobody wrote"

    return check


def _example(data: bytes) -> None:
    from tfrecords import schema

    example = refused(lambda: schema.parse(data))
    if example is not None:
        assert example.targets.shape == (len(builtin_tree().columns),)


def _config(made: Originals) -> Check:
    """A changed description of a run is never read as another."""
    from trainer.run import open_run

    path = made.run / "config.json"
    original = path.read_bytes()

    def check(data: bytes) -> None:
        path.write_bytes(data)
        run = refused(lambda: open_run(made.run))
        assert run is None or data == original, "a changed config.json was read"

    return check


def _where(data: bytes) -> None:
    from trainer.analysis.selection import parse_selection

    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    tree = builtin_tree()
    selection = refused(lambda: parse_selection(text, tree))
    if selection is not None:
        values = np.random.default_rng(0).random((5, len(tree.columns)))
        assert selection.matches(values).shape == (5,)


def targets(scratch: Path) -> dict[str, Callable[[], Target]]:
    """The targets by name, each made when it is called. scratch: a folder for their files."""
    made = Originals(scratch, SHARED / "kaggle")
    trees = [builtin_tree(name).text.encode() for name in builtin_names()]
    return {
        "jpeg": lambda: Target(made.jpegs, _picture),
        "crop": lambda: Target(made.jpegs, _crop),
        "png": lambda: Target(made.pictures("PNG"), _picture),
        "tiff": lambda: Target(made.pictures("TIFF"), _picture),
        "webp": lambda: Target(made.pictures("WEBP"), _picture),
        "bmp": lambda: Target(made.pictures("BMP"), _picture),
        "fits": lambda: Target(made.fits, _fits),
        "zip": lambda: Target(made.zips, _zip(scratch)),
        "csv": lambda: Target(made.tables("csv"), _votes("csv")),
        "parquet": lambda: Target(made.tables("parquet"), _votes("parquet")),
        "toml": lambda: Target(trees, _tree),
        "manifest": lambda: Target([(made.dataset / "manifest.json").read_bytes()], _manifest(made)),
        "signed manifest": lambda: Target([(made.dataset / "manifest.json").read_bytes()], _signed(made)),
        "shard": lambda: Target(made.shards, _shard(scratch, made.shards)),
        "example": lambda: Target(made.records, _example),
        "config": lambda: Target([(made.run / "config.json").read_bytes()], _config(made)),
        "where": lambda: Target([b"Class1.1 > 0.8 and not (Class3.1 >= .5 or Class6.1 < 4e-1)", b"class11.6 != 1"], _where),
    }
