"""We read TensorFlow's TFRecord files, TensorFlow reads ours, and no damage goes unnoticed."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords import framing
from tfrecords.errors import DatasetError, RecordError

RECORDS = [b"", b"spiral", bytes(range(256)), b"\0" * 1000]


def _write(path: Path, records: list[bytes]) -> Path:
    path.write_bytes(b"".join(map(framing.frame, records)))
    return path


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_what_was_framed_is_read_back(records: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = _write(Path(folder) / "shard", records)
        assert list(framing.read_records(path)) == records
        assert path.stat().st_size == sum(map(len, records)) + framing.RECORD_OVERHEAD * len(records)


def test_tensorflow_reads_our_frames(tmp_path: Path) -> None:
    import tensorflow as tf

    path = _write(tmp_path / "ours", RECORDS)
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(path))] == RECORDS


def test_we_read_tensorflows_frames_and_write_the_same_bytes(tmp_path: Path) -> None:
    import tensorflow as tf

    path = tmp_path / "theirs"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(record)
    assert list(framing.read_records(path)) == RECORDS
    assert path.read_bytes() == _write(tmp_path / "ours", RECORDS).read_bytes()


def test_every_single_flipped_bit_is_noticed(tmp_path: Path) -> None:
    content = _write(tmp_path / "shard", [b"elliptical", b"", b"spiral"]).read_bytes()
    damaged = tmp_path / "damaged"
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.write_bytes(flipped)
        with pytest.raises(RecordError, match=r"damaged: record [012] "):
            list(framing.read_records(damaged))


def test_every_cut_within_a_record_is_noticed_and_the_records_before_it_still_come(tmp_path: Path) -> None:
    records = [b"elliptical", b"", b"spiral"]
    content = _write(tmp_path / "shard", records).read_bytes()
    ends = [sum(len(framing.frame(record)) for record in records[:count]) for count in range(len(records) + 1)]
    cut = tmp_path / "cut"
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        whole = sum(end <= length for end in ends[1:])
        got = []
        if length in ends:
            # A file of whole records is valid; only the size and the SHA-256 in the manifest reveal missing ones.
            assert list(framing.read_records(cut)) == records[:whole]
            continue
        with pytest.raises(RecordError, match=f"cut: record {whole} is cut off"):
            for record in framing.read_records(cut):
                got.append(record)
        assert got == records[:whole]


def test_a_length_that_passes_its_checksum_but_not_the_files_end_costs_no_memory(tmp_path: Path) -> None:
    length = (2**60).to_bytes(8, "little")
    path = tmp_path / "shard"
    path.write_bytes(length + framing.masked_crc(length).to_bytes(4, "little") + b"short")
    with pytest.raises(RecordError, match="record 0 is cut off"):
        list(framing.read_records(path))


def test_a_file_that_is_no_shard_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "galaxies.csv"
    path.write_text("GalaxyID,Class1.1\n100008,0.5\n")
    with pytest.raises(DatasetError, match=r"galaxies\.csv: record 0 has a damaged length: build the dataset again"):
        list(framing.read_records(path))


def test_an_empty_file_holds_no_records(tmp_path: Path) -> None:
    assert list(framing.read_records(_write(tmp_path / "empty", []))) == []
