"""A record is a tf.train.Example, for TensorFlow's own parser as well as for ours."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords import schema
from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.errors import RecordError

EXAMPLES = st.builds(
    schema.Example,
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=200),
    st.tuples(st.integers(0, 2**31), st.integers(0, 2**31)),
    st.lists(st.floats(width=32), min_size=37, max_size=37).map(lambda votes: np.array(votes, np.float32)),
)
GALAXY = schema.Example(100008, b"\xff\xd8 not really a jpeg", (10, 12), np.linspace(0, 1, 37, dtype=np.float32))
UNLABELLED = schema.Example(2**63 - 1, b"", (0, 0), np.full(37, np.nan, np.float32))


NAMES = st.text(max_size=50)


def _assert_equal(got: schema.Example, expected: schema.Example) -> None:
    assert (got.galaxy_id, got.image, got.crop_offset) == (expected.galaxy_id, expected.image, expected.crop_offset)
    assert got.name == expected.name
    assert got.targets.dtype == np.float32
    np.testing.assert_array_equal(got.targets, expected.targets)


@given(EXAMPLES)
def test_what_was_serialized_is_parsed_back(example: schema.Example) -> None:
    _assert_equal(schema.parse(schema.serialize(example)), example)


@given(EXAMPLES, NAMES)
def test_any_name_is_parsed_back_and_is_utf_8_for_tensorflow(example: schema.Example, name: str) -> None:
    import tensorflow as tf

    data = schema.serialize(replace(example, name=name))
    _assert_equal(schema.parse(data, with_name=True), replace(example, name=name))
    _assert_equal(schema.parse(data), example)
    assert [*tf.train.Example.FromString(data).features.feature["name"].bytes_list.value] == [name.encode("utf-8")]


@given(EXAMPLES)
def test_the_same_example_gives_the_same_bytes(example: schema.Example) -> None:
    twin = schema.Example(example.galaxy_id, bytes(example.image), tuple(example.crop_offset), example.targets.copy())
    assert schema.serialize(example) == schema.serialize(twin)


def test_the_fields_come_in_the_order_of_their_names() -> None:
    data = schema.serialize(replace(GALAXY, name="spiral/003"))
    places = [data.index(name) for name in (b"crop_offset", b"galaxy_id", b"image", b"name", b"targets")]
    assert places == sorted(places)


@pytest.mark.parametrize("example", [GALAXY, UNLABELLED], ids=["labelled", "unlabelled"])
def test_tensorflow_parses_our_bytes_to_the_same_fields(example: schema.Example) -> None:
    import tensorflow as tf

    message = tf.train.Example.FromString(schema.serialize(example))
    feature = message.features.feature
    assert sorted(feature) == ["crop_offset", "galaxy_id", "image", "targets"]
    assert list(feature["galaxy_id"].int64_list.value) == [example.galaxy_id]
    assert list(feature["image"].bytes_list.value) == [example.image]
    assert tuple(feature["crop_offset"].int64_list.value) == example.crop_offset
    np.testing.assert_array_equal(np.array(feature["targets"].float_list.value, np.float32), example.targets)


@pytest.mark.parametrize("example", [GALAXY, UNLABELLED], ids=["labelled", "unlabelled"])
def test_we_parse_tensorflows_bytes_to_the_same_fields(example: schema.Example) -> None:
    import tensorflow as tf

    features = {
        "galaxy_id": tf.train.Feature(int64_list=tf.train.Int64List(value=[example.galaxy_id])),
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[example.image])),
        "crop_offset": tf.train.Feature(int64_list=tf.train.Int64List(value=example.crop_offset)),
        "targets": tf.train.Feature(float_list=tf.train.FloatList(value=example.targets)),
    }
    theirs = tf.train.Example(features=tf.train.Features(feature=features))
    _assert_equal(schema.parse(theirs.SerializeToString()), example)


def test_bytes_that_are_no_message_are_refused() -> None:
    for data in (b"GalaxyID,Class1.1", b"\xff\xff\xff", schema.serialize(GALAXY)[:-1]):
        with pytest.raises(RecordError, match=r"is not a tf\.train\.Example: build the dataset again"):
            schema.parse(data)


@pytest.mark.parametrize("missing", ["galaxy_id", "image", "crop_offset", "targets"])
def test_a_record_without_one_of_its_fields_is_refused(missing: str) -> None:
    # Renaming the field in the bytes removes it, and adds an unknown one.
    data = schema.serialize(GALAXY).replace(missing.encode(), missing.upper().encode())
    with pytest.raises(RecordError, match="lacks"):
        schema.parse(data)


@pytest.mark.parametrize(
    "example",
    [
        schema.Example(1, b"", (0, 0), np.zeros(36, np.float32)),
        schema.Example(1, b"", (0, 0), np.zeros(38, np.float32)),
        schema.Example(1, b"", (0,), np.zeros(37, np.float32)),  # type: ignore[arg-type]
        schema.Example(1, b"", (0, 0, 0), np.zeros(37, np.float32)),  # type: ignore[arg-type]
    ],
    ids=["36 targets", "38 targets", "one offset", "three offsets"],
)
def test_a_record_with_a_field_of_another_length_is_refused(example: schema.Example) -> None:
    with pytest.raises(RecordError, match=r"targets\[37\]"):
        schema.parse(schema.serialize(example))


@pytest.mark.parametrize("name", builtin_names())
def test_numbers_of_answers_are_kept_beside_the_targets_of_any_tree(name: str) -> None:
    import tensorflow as tf

    tree = builtin_tree(name)
    targets, asked = np.zeros(len(tree.columns), np.float32), np.arange(len(tree.questions), dtype=np.float32) / 2
    example = schema.Example(7, b"image", (1, 2), targets, asked)
    data = schema.serialize(example)
    parsed = schema.parse(data, tree, with_asked=True)
    _assert_equal(parsed, example)
    assert parsed.asked is not None and parsed.asked.dtype == np.float32
    np.testing.assert_array_equal(parsed.asked, asked)
    feature = tf.train.Example.FromString(data).features.feature
    assert sorted(feature) == ["asked", "crop_offset", "galaxy_id", "image", "targets"]
    assert list(feature["asked"].float_list.value) == asked.tolist()
    assert data.index(b"asked") < data.index(b"crop_offset")


def test_a_record_of_another_tree_or_without_numbers_of_answers_is_refused_where_they_are_expected() -> None:
    decals = builtin_tree("decals5")
    counted = schema.serialize(schema.Example(7, b"", (0, 0), np.zeros(34, np.float32), np.zeros(10, np.float32)))
    with pytest.raises(RecordError, match=r"targets\[37\], asked\[11\]: build the dataset again"):
        schema.parse(counted, builtin_tree("gz2"), with_asked=True)
    bare = schema.serialize(schema.Example(7, b"", (0, 0), np.zeros(34, np.float32)))
    with pytest.raises(RecordError, match=r"targets\[34\], asked\[10\]: build the dataset again"):
        schema.parse(bare, decals, with_asked=True)
    assert schema.parse(bare, decals).asked is None


def test_a_record_without_a_name_is_refused_where_names_are_expected() -> None:
    with pytest.raises(
        RecordError, match=r"lacks galaxy_id, image, crop_offset\[2\], targets\[37\], name: build the dataset again"
    ):
        schema.parse(schema.serialize(GALAXY), with_name=True)


def test_a_name_that_is_no_utf_8_is_shown_with_escapes() -> None:
    data = schema.serialize(replace(GALAXY, name="Moewe")).replace(b"Moewe", b"M\xf6we!")
    assert schema.parse(data, with_name=True).name == "M\\xf6we!"


def test_an_empty_record_is_refused() -> None:
    with pytest.raises(RecordError):
        schema.parse(b"")


@given(st.binary(max_size=120))
def test_arbitrary_bytes_give_a_record_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(RecordError):
        schema.parse(data)


@given(st.integers(0, 8 * len(schema.serialize(GALAXY)) - 1))
def test_a_damaged_record_is_an_example_or_a_record_error(bit: int) -> None:
    damaged = bytearray(schema.serialize(GALAXY))
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        example = schema.parse(bytes(damaged))
    except RecordError:
        return
    assert example.targets.shape == (37,)
