"""One example: galaxy_id, name, image, crop_offset, targets, asked <-> a serialised tf.train.Example. No TensorFlow.

    galaxy_id    int64: the number in the name of the image file, else a hash of its path
    name         bytes: the galaxy's name in UTF-8; only in datasets in which not all names are numbers
    image        bytes: a JPEG or PNG file, or raw height x width x 3 uint8 in row-major order
    crop_offset  int64[2]: row and column at which the size x size crop begins in the stored image
    targets      float32[n]: cumulative vote fractions in the order of the tree's columns; NaN for galaxies without votes
    asked        float32[questions]: how many volunteers answered each question, 0 for galaxies without votes; only in datasets
                 whose table has counts. If nobody answered a question, its targets are 0

The message is declared here with protobuf's own runtime, in a separate descriptor pool: importing TensorFlow
instead would cost each worker 8 s and 790 MB. Serialisation is deterministic (map keys are sorted).
Source: tensorflow/core/example/{example,feature}.proto
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from tfrecords.builtin import builtin_tree
from tfrecords.errors import BUILD_AGAIN, RecordError
from tfrecords.tree import Tree

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "galaxy_zoo"


def _example_class() -> Any:
    """tf.train.Example as a protobuf class, with the same field numbers."""
    file = descriptor_pb2.FileDescriptorProto(name="galaxy_zoo_example.proto", package=_PACKAGE, syntax="proto3")
    for name, kind in (("BytesList", _Field.TYPE_BYTES), ("FloatList", _Field.TYPE_FLOAT), ("Int64List", _Field.TYPE_INT64)):
        file.message_type.add(name=name).field.add(name="value", number=1, type=kind, label=_Field.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), 1):
        kind_name = "".join(part.capitalize() for part in name.split("_"))
        feature.field.add(
            name=name,
            number=number,
            type=_Field.TYPE_MESSAGE,
            type_name=f".{_PACKAGE}.{kind_name}",
            label=_Field.LABEL_OPTIONAL,
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=_Field.TYPE_MESSAGE, type_name=f".{_PACKAGE}.Feature", label=_Field.LABEL_OPTIONAL
    )
    features.field.add(
        name="feature",
        number=1,
        type=_Field.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.Features.FeatureEntry",
        label=_Field.LABEL_REPEATED,
    )
    example = file.message_type.add(name="Example")
    example.field.add(
        name="features", number=1, type=_Field.TYPE_MESSAGE, type_name=f".{_PACKAGE}.Features", label=_Field.LABEL_OPTIONAL
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


_Example = _example_class()


@dataclass(frozen=True)
class Example:
    """One galaxy as stored.

    targets: float32 (n,), all NaN without votes. asked: float32 (questions,), None if the dataset has no counts. name: None if
    the dataset has no names.
    """

    galaxy_id: int
    image: bytes
    crop_offset: tuple[int, int]
    targets: np.ndarray
    asked: np.ndarray | None = None
    name: str | None = None


def serialize(example: Example) -> bytes:
    """The bytes of an example as a tf.train.Example; the same example gives the same bytes."""
    message = _Example()
    feature = message.features.feature
    feature["galaxy_id"].int64_list.value.append(example.galaxy_id)
    feature["image"].bytes_list.value.append(example.image)
    feature["crop_offset"].int64_list.value.extend(example.crop_offset)
    feature["targets"].float_list.value.extend(example.targets.tolist())
    if example.asked is not None:
        feature["asked"].float_list.value.extend(example.asked.tolist())
    if example.name is not None:
        feature["name"].bytes_list.value.append(example.name.encode("utf-8"))
    return message.SerializeToString(deterministic=True)


def parse(data: bytes, tree: Tree | None = None, with_asked: bool = False, with_name: bool = False) -> Example:
    """The inverse of `serialize`, for a dataset with this tree (None: Kaggle's), with or without `asked` and `name`.

    Raises RecordError if a field is missing or does not have the length that the tree gives it.
    """
    tree = tree or builtin_tree()
    message = _Example()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise RecordError(f"a record is not a tf.train.Example: {BUILD_AGAIN}") from error
    feature = message.features.feature
    ids = feature["galaxy_id"].int64_list.value
    images = feature["image"].bytes_list.value
    offset = feature["crop_offset"].int64_list.value
    targets = feature["targets"].float_list.value
    asked = feature["asked"].float_list.value if with_asked else ()
    names = [*feature["name"].bytes_list.value] if with_name else []
    expected = (1, 1, 2, len(tree.columns), len(tree.questions) * with_asked, int(with_name))
    if (len(ids), len(images), len(offset), len(targets), len(asked), len(names)) != expected:
        more = (f", asked[{expected[4]}]" if with_asked else "") + (", name" if with_name else "")
        raise RecordError(f"a record lacks galaxy_id, image, crop_offset[2], targets[{expected[3]}]{more}: {BUILD_AGAIN}")
    of_questions = np.array(asked, np.float32) if with_asked else None
    name = names[0].decode("utf-8", "backslashreplace") if with_name else None
    return Example(ids[0], images[0], (offset[0], offset[1]), np.array(targets, np.float32), of_questions, name)
