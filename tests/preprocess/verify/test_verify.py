"""A dataset that `verify` calls intact is so to the last bit, and with --src agrees with its source; every fault is found."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from preprocess.job import BadImages, BuildSettings, build_dataset
from preprocess.verify.dataset import Report, verify_dataset
from tfrecords import dataset, framing, images, schema
from tfrecords.errors import DatasetError
from tfrecords.files import sha256_file
from tfrecords.schema import Example

Settings = Callable[..., BuildSettings]
Change = Callable[[list[Example]], list[Example]]
Survey = tuple[Path, Path]
BAD = BadImages(max_fraction=0.5)
TRAIN, NEXT = "galaxy_zoo-train.tfrecord-00000-of-00002", "galaxy_zoo-train.tfrecord-00001-of-00002"
TEST, BARE = "galaxy_zoo-test.tfrecord-00000-of-00001", "galaxy_zoo-unlabelled.tfrecord-00000-of-00001"


@pytest.fixture(scope="module")
def made(
    survey: Path, spoil: Callable[[Path], dict[str, str]], build_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Survey:
    """A survey with bad images, and the dataset made from it. Read-only."""
    folder = tmp_path_factory.mktemp("verify")
    src = Path(shutil.copytree(survey, folder / "kaggle"))
    spoil(src / "images_test_rev1")
    return src, build_dataset(src, folder / "data", build_settings(examples_per_shard=12), bad=BAD).dataset.folder


@pytest.fixture
def out(made: Survey, tmp_path: Path) -> Path:
    """A copy of the dataset to change."""
    return Path(shutil.copytree(made[1], tmp_path / "data"))


@pytest.fixture
def src(made: Survey, tmp_path: Path) -> Path:
    """A copy of its source to change."""
    return Path(shutil.copytree(made[0], tmp_path / "kaggle"))


def _errors(report: Report) -> dict[str, str]:
    """The errors found: where -> what."""
    found: dict[str, str] = {}
    for finding in report.findings:
        if finding.level == "error":
            found[finding.where] = f"{found[finding.where]}; {finding.what}" if finding.where in found else finding.what
    return found


def _edit_manifest(out: Path, change: Callable[[dict[str, Any]], object] = lambda content: None) -> None:
    """Change the manifest, and update all hashes in it, including its own."""
    content = json.loads((out / "manifest.json").read_text())
    change(content)
    content["files"] = {name: sha256_file(out / name) for name in content["files"]}
    del content["sha256"]
    text = dataset.to_json({**content, "sha256": dataset.sha256_text(dataset.to_json(content))})
    (out / "manifest.json").write_text(text)


def _forge(out: Path, name: str, change: Change) -> None:
    """Change the examples of a shard, and update all metadata to agree with it."""
    path = out / name
    examples = change([schema.parse(record) for record in framing.read_records(path)])
    path.write_bytes(b"".join(framing.frame(schema.serialize(example)) for example in examples))
    said = {"examples": len(examples), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
    _edit_manifest(out, lambda content: _shard(content, name).update(said))
    (out / "dataset_info.json").write_text(_info(out))
    _edit_manifest(out)


def _info(out: Path) -> str:
    read = dataset.read_manifest(out)
    return dataset.dataset_info_json(read.shards, read.tree)


def _named(survey: Path, folder: Path) -> Path:
    """The images without votes, one of them with a name that is not a number."""
    galaxies = Path(shutil.copytree(survey / "images_test_rev1", folder / "galaxies"))
    (galaxies / "900000.jpg").rename(galaxies / "NGC 4321.jpg")
    return galaxies


def _shard(content: dict[str, Any], name: str) -> dict[str, Any]:
    """The entry of a shard in a manifest."""
    return next(shard for shard in content["shards"] if shard["name"] == name)


def _first(**changes: Any) -> Change:
    return lambda examples: [replace(examples[0], **changes), *examples[1:]]


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "size"), [("jpeg", 32), ("jpeg", 20), ("png", 32), ("raw", 20)])
def test_an_intact_dataset_has_no_findings_and_agrees_with_its_source_however_that_is_packed(
    made: Survey, build_settings: Settings, tmp_path: Path, encoding: str, size: int
) -> None:
    settings = build_settings(encoding=encoding, size=size, examples_per_shard=12)
    data = build_dataset(made[0], tmp_path / "data", settings, bad=BAD).dataset
    assert verify_dataset(data.folder, workers=2) == Report(data, ())
    packed = Path(shutil.make_archive(str(tmp_path / "kaggle"), "zip", made[0]))
    for src in (made[0], packed):
        assert verify_dataset(data.folder, src) == Report(data, ())


@pytest.mark.slow
def test_real_galaxies_cut_losslessly_agree_with_their_source(kaggle: Path, build_settings: Settings, tmp_path: Path) -> None:
    settings = build_settings(size=212, encoding="jpeg", limit=400, examples_per_shard=120)
    data = build_dataset(kaggle, tmp_path / "data", settings, workers=2).dataset
    assert verify_dataset(data.folder, kaggle, workers=2) == Report(data, ())


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [True, False], ids=["with rejected images", "with names"])
def test_one_flipped_bit_anywhere_in_any_file_is_found(
    made: Survey, build_settings: Settings, out: Path, tmp_path: Path, labelled: bool
) -> None:
    if not labelled:
        out = tmp_path / "named"
        settings = build_settings(encoding="jpeg", examples_per_shard=12)
        build_dataset(_named(made[0], tmp_path), out, settings, bad=BadImages(max_fraction=1))
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(whole) == (10 if labelled else 6)
    generator = random.Random(1)

    def flip(name: str) -> None:
        content = bytearray(whole[name])
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        (out / name).write_bytes(content)

    for _ in range(300):  # quick, because a damaged manifest ends the check
        flip("manifest.json")
        assert set(_errors(verify_dataset(out))) == {"manifest.json"}
    (out / "manifest.json").write_bytes(whole["manifest.json"])
    for _ in range(100):  # and so does a damaged tree, without which no record can be read
        flip("tree.toml")
        assert set(_errors(verify_dataset(out))) == {"tree.toml"}
    (out / "tree.toml").write_bytes(whole["tree.toml"])
    others = whole.keys() - {"manifest.json", "tree.toml"}
    for _ in range(8):  # one bit in every file at once: each must be found
        for name in sorted(others):
            flip(name)
        assert others <= set(_errors(verify_dataset(out)))
    for name in others:
        (out / name).write_bytes(whole[name])
    assert verify_dataset(out).findings == ()


@pytest.mark.parametrize("damage", ["cut off by a byte", "cut off in the middle", "emptied", "a byte added", "missing"])
def test_a_truncated_grown_or_missing_file_is_found(out: Path, damage: str) -> None:
    def spoil(path: Path) -> None:
        whole = path.read_bytes()
        path.unlink()
        if damage != "missing":
            half = whole[: len(whole) // 2]
            cut = {
                "cut off by a byte": whole[:-1],
                "cut off in the middle": half,
                "emptied": b"",
                "a byte added": whole + b"\n",
            }
            path.write_bytes(cut[damage])

    # A folder without one of these two is not a dataset, and is refused before any check.
    kept = {"manifest.json", "dataset_info.json"} if damage == "missing" else {"manifest.json"}
    kept.add("tree.toml")
    others = {path.name for path in out.iterdir()} - kept
    for name in others:
        spoil(out / name)
    assert _errors(verify_dataset(out)).keys() == others
    spoil(out / "tree.toml")
    assert _errors(verify_dataset(out)).keys() == {"tree.toml"}
    spoil(out / "manifest.json")
    if damage == "missing":
        with pytest.raises(DatasetError, match=r"not a finished dataset \(manifest\.json is missing\)"):
            verify_dataset(out)
    else:
        assert _errors(verify_dataset(out)).keys() == {"manifest.json"}


@pytest.mark.slow
def test_shards_that_changed_places_and_foreign_ones_are_found(
    made: Survey, out: Path, build_settings: Settings, tmp_path: Path
) -> None:
    other = build_dataset(made[0], tmp_path / "other", build_settings(examples_per_shard=12, seed=5), bad=BAD).dataset.folder
    foreign = min(other.glob("galaxy_zoo-train*"))
    first, second = (out / TRAIN).read_bytes(), (out / NEXT).read_bytes()
    (out / TRAIN).write_bytes(second)
    (out / NEXT).write_bytes(first)
    assert _errors(verify_dataset(out)).keys() == {TRAIN, NEXT}
    shutil.copy(foreign, out / TRAIN)
    (out / NEXT).write_bytes(second)
    assert TRAIN in _errors(verify_dataset(out))
    (out / TRAIN).write_bytes(first)
    shutil.copy(foreign, out / "galaxy_zoo-train.tfrecord-00002-of-00003")
    assert _errors(verify_dataset(out)) == {
        "galaxy_zoo-train.tfrecord-00002-of-00003": "a shard that does not belong to this dataset"
    }


def test_files_of_somebody_else_and_an_interrupted_job_are_odd_but_no_errors(out: Path) -> None:
    (out / "notes.txt").write_text("the good one")
    (out / ".preprocess").mkdir()
    report = verify_dataset(out)
    assert report.errors == 0
    assert [(finding.level, finding.where) for finding in report.findings] == [
        ("warning", ".preprocess"),
        ("warning", "notes.txt"),
    ]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda content: _shard(content, TRAIN).update(examples=3), TRAIN),
        (lambda content: _shard(content, TRAIN).update(bytes=3), TRAIN),
        (lambda content: _shard(content, TRAIN).update(sha256="0" * 64), TRAIN),
        (lambda content: _shard(content, TRAIN).update(split="test"), "manifest.json"),
        (lambda content: _shard(content, TRAIN).update(name=f"../data/{TRAIN}"), "manifest.json"),
        (lambda content: content["shards"].remove(_shard(content, BARE)), BARE),
        (lambda content: content["shards"].clear(), "manifest.json"),
        (lambda content: content["files"].pop("features.json"), "features.json"),
        (lambda content: content["settings"].update(size=64), TRAIN),
        (lambda content: content["settings"].update(size="32"), "manifest.json"),
        (lambda content: content["settings"].pop("size"), "manifest.json"),
        (lambda content: content["settings"].update(size=0), "manifest.json"),
        (lambda content: content["settings"].update(examples_per_shard=0), "manifest.json"),
        (lambda content: content["settings"].update(encoding="raw"), TRAIN),
        (lambda content: content["settings"].update(encoding="gif"), "manifest.json"),
    ],
)
def test_a_manifest_that_was_edited_together_with_its_own_hash_is_found(
    out: Path, change: Callable[[dict[str, Any]], object], where: str
) -> None:
    _edit_manifest(out, change)
    assert where in _errors(verify_dataset(out))


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("dataset_info.json", '"numBytes": "', '"numBytes": "1'),
        ("dataset_info.json", "Galaxy cutouts", "Cutouts"),
        ("features.json", '"32"', '"64"'),
        ("features.json", '"png"', '"jpeg"'),
        ("rejected.csv", "galaxy_id,source path,reason", "id,path,reason"),
    ],
)
def test_other_metadata_that_were_edited_together_with_the_hashes_that_guard_them_are_found(
    out: Path, name: str, before: str, after: str
) -> None:
    text = (out / name).read_text()
    assert before in text
    (out / name).write_text(text.replace(before, after, 1))
    _edit_manifest(out)
    assert _errors(verify_dataset(out)).keys() == {name}


def _png(side: int) -> bytes:
    return images.encode(np.zeros((side, side, 3), np.uint8), "png")


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        (TRAIN, _first(targets=np.full(37, np.nan, np.float32)), "targets missing or outside 0 to 1, galaxies: "),
        (TRAIN, _first(targets=np.full(37, 1.5, np.float32)), "targets missing or outside 0 to 1, galaxies: "),
        (TRAIN, _first(targets=np.full(37, 0.5, np.float32)), "targets that break the decision tree, galaxies: "),
        (BARE, _first(targets=np.full(37, 0.5, np.float32)), "targets in split unlabelled, galaxies: "),
        (TRAIN, _first(image=_png(31)), "images without a whole crop of 32 x 32 at crop_offset, galaxies: "),
        (TRAIN, _first(image=_png(40)), ""),  # large enough, but not of the shape in features.json
        (TRAIN, _first(crop_offset=(1, 0)), "images without a whole crop of 32 x 32 at crop_offset, galaxies: "),
        (TRAIN, _first(crop_offset=(0, -1)), "images without a whole crop of 32 x 32 at crop_offset, galaxies: "),
        (TRAIN, _first(image=b"a galaxy, in words"), "images that cannot be decoded, galaxies: "),
        (TRAIN, lambda examples: [*examples, examples[0]], "galaxies stored twice: "),
    ],
)
def test_examples_that_are_wrong_are_found_even_where_every_hash_and_count_agrees(
    out: Path, name: str, change: Change, what: str
) -> None:
    galaxy_id = schema.parse(next(framing.read_records(out / name))).galaxy_id
    _forge(out, name, change)
    errors = _errors(verify_dataset(out))
    if what:
        assert errors[name].startswith(f"{what}{galaxy_id}")
    else:
        assert errors == {"features.json": "does not agree with the shards"}


def test_a_galaxy_in_two_splits_is_found_and_the_same_image_under_two_ids_is_odd(out: Path) -> None:
    (twin, *_) = [schema.parse(record) for record in framing.read_records(out / TRAIN)]
    _forge(out, TEST, lambda examples: [replace(examples[0], image=twin.image), *examples[1:]])
    report = verify_dataset(out)
    assert report.errors == 0
    (finding,) = report.findings
    assert (finding.level, finding.where) == ("warning", "all splits")
    assert finding.what.startswith(f"1 identical images in two splits: {twin.galaxy_id} (train) and ")
    _forge(out, TEST, lambda examples: [twin, *examples[1:]])
    assert f"galaxies stored twice: {twin.galaxy_id} (also in {TRAIN})" in str(_errors(verify_dataset(out)).values())


def test_an_image_without_a_galaxy_that_an_earlier_version_stored_is_odd(out: Path) -> None:
    grey = images.encode(np.full((32, 32, 3), 127, np.uint8), "png")
    galaxy_id = schema.parse(next(framing.read_records(out / TEST))).galaxy_id
    _forge(out, TEST, lambda examples: [replace(examples[0], image=grey), *examples[1:]])
    (finding,) = verify_dataset(out).findings
    assert (finding.level, finding.where) == ("warning", "all splits")
    reason = "no galaxy: its crop is of one brightness, 127 to 127 of 255"
    assert finding.what == f"1 image shows no galaxy: {galaxy_id} ({reason})"


def test_a_record_that_is_no_example_is_found(out: Path) -> None:
    (out / BARE).write_bytes(framing.frame(b"\x0a\x02\x0a\x00") + framing.frame(b"no protobuf"))
    said = {"bytes": (out / BARE).stat().st_size, "sha256": sha256_file(out / BARE), "examples": 2}
    _edit_manifest(out, lambda content: _shard(content, BARE).update(said))
    assert "records that are not examples of galaxies, numbers: 0, 1" in _errors(verify_dataset(out))[BARE]


def _pixels(src: Path) -> None:
    Image.new("RGB", (64, 64)).save(src / "images_training_rev1" / "100007.jpg")


def _votes(src: Path) -> None:
    table = src / "training_solutions_rev1.csv"
    header, first, second, *rows = table.read_text().splitlines()
    swapped = [f"{one.split(',', 1)[0]},{other.split(',', 1)[1]}" for one, other in ((first, second), (second, first))]
    table.write_text("\n".join([header, *swapped, *rows]) + "\n")


def _removed(src: Path) -> None:
    (src / "images_training_rev1" / "100007.jpg").unlink()


def _added(src: Path) -> None:
    shutil.copy(src / "images_test_rev1" / "900000.jpg", src / "images_test_rev1" / "900001.jpg")


def _readable(src: Path) -> None:
    shutil.copy(src / "images_test_rev1" / "900000.jpg", src / "images_test_rev1" / "800002.jpg")


def _unreadable(src: Path) -> None:
    (src / "images_training_rev1" / "100007.jpg").write_bytes(b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_pixels, "pixels that differ from the source, galaxies: 100007"),
        (_votes, "targets that differ from the source, galaxies: 100000, 100007"),
        (_removed, "galaxies that do not belong here according to the source: 100007"),
        (_added, "galaxies of the source neither stored here nor rejected: 900001"),
        (_readable, "galaxies in rejected.csv whose images are readable: 800002"),
        (_unreadable, "images that cannot be compared with the source, galaxies: 100007 (the file is empty)"),
    ],
)
def test_a_source_that_is_not_the_datasets_is_found(out: Path, src: Path, change: Callable[[Path], None], what: str) -> None:
    change(src)
    assert what in "; ".join(_errors(verify_dataset(out, src)).values())


def test_another_order_than_the_plans_is_found_with_the_source_alone(out: Path, src: Path) -> None:
    _forge(out, TRAIN, lambda examples: examples[::-1])
    assert verify_dataset(out).findings == ()
    assert _errors(verify_dataset(out, src)) == {TRAIN: "its galaxies are not in the planned order"}


@pytest.mark.slow
@pytest.mark.parametrize("setting", [{"seed": 1}, {"crop_fraction": 0.6}])
def test_settings_that_are_not_those_of_the_job_are_found_with_the_source(
    out: Path, src: Path, setting: dict[str, Any]
) -> None:
    _edit_manifest(out, lambda content: content["settings"].update(setting))
    assert _errors(verify_dataset(out, src))


@pytest.mark.slow
@pytest.mark.parametrize("entry", ["images", "votes_without_image", "fingerprint"])
def test_a_manifest_that_says_otherwise_of_the_source_is_found_with_the_source(out: Path, src: Path, entry: str) -> None:
    _edit_manifest(out, lambda content: content["source"].update({entry: 7}))
    assert _errors(verify_dataset(out, src)).keys() == {"manifest.json"}


@pytest.mark.slow
def test_a_name_that_is_not_the_sources_is_found_with_the_source(
    made: Survey, build_settings: Settings, tmp_path: Path
) -> None:
    src, out = _named(made[0], tmp_path), tmp_path / "data"
    data = build_dataset(src, out, build_settings(examples_per_shard=12), bad=BadImages(max_fraction=1)).dataset
    assert verify_dataset(out, src).findings == ()
    (shard,) = data.shards
    examples = [schema.parse(record, with_name=True) for record in framing.read_records(out / shard.name)]
    changed = [replace(one, name="NGC 1") if one.name == "NGC 4321" else one for one in examples]
    (galaxy_id,) = [one.galaxy_id for one in changed if one.name == "NGC 1"]
    (out / shard.name).write_bytes(b"".join(framing.frame(schema.serialize(example)) for example in changed))
    said = {"bytes": (out / shard.name).stat().st_size, "sha256": sha256_file(out / shard.name)}
    _edit_manifest(out, lambda content: _shard(content, shard.name).update(said))
    (out / "dataset_info.json").write_text(_info(out))
    _edit_manifest(out)
    assert verify_dataset(out).findings == ()
    errors = _errors(verify_dataset(out, src))
    assert errors[shard.name] == f"names that differ from the source, galaxies: {galaxy_id}"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change"), [("rejected.csv", (",800002.jpg", ",2.jpg"))])
def test_rejected_images_that_are_not_the_sources_are_found_with_the_source(
    made: Survey, build_settings: Settings, tmp_path: Path, name: str, change: tuple[str, str]
) -> None:
    src, out = _named(made[0], tmp_path), tmp_path / "data"
    build_dataset(src, out, build_settings(examples_per_shard=12), bad=BadImages(max_fraction=1))
    assert verify_dataset(out, src).findings == ()
    (out / name).write_text((out / name).read_text().replace(*change))
    _edit_manifest(out)
    assert name in _errors(verify_dataset(out, src))
