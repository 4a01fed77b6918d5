"""Files of features: Parquet, written and read in row groups, so that memory does not grow with the number of galaxies.

    galaxy_id  int64                                    as in the table of predictions
    name       string                                   of the galaxy; null if galaxies are numbers
    split      string                                   of the dataset; null for images
    features   fixed_size_list<float32 or float16>      what the head of the model reads: 1,024 values

The metadata of the schema holds, under the key galaxy-zoo-vgg16 and as JSON: kind "features", layer, dimension, run (its
folder), model (SHA-256 of model.keras), crop_fraction and size of the model's images, and dataset (its fingerprint) or images
(their path).
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.dataset import to_json
from tfrecords.errors import ConfigError, RunError, SettingError, squeezed
from tfrecords.files import atomic_file, local_path
from trainer.features import FeatureBlock, Labels
from trainer.tables import refuse_reserved

DTYPES = ("float32", "float16")
# Galaxies in a row group: 16 MB of float32.
GROUP = 4096
_KEY = b"galaxy-zoo-vgg16"
_KIND = "features"
_COLUMNS = ("galaxy_id", "name", "split", "features")
_SUFFIX = ".parquet"


def _metadata(schema: Any) -> dict[str, Any]:
    """What the metadata of a schema hold about features; empty if it is not that of a file of features."""
    try:
        content = json.loads((schema.metadata or {})[_KEY])
        return content if content["kind"] == _KIND and (*schema.names,) == _COLUMNS else {}
    except (KeyError, ValueError, TypeError):
        return {}


def _metadata_of(path: Path) -> dict[str, Any]:
    """The same of a file; empty if it is not Parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return _metadata(parquet.read_schema(path))
    except (pa.ArrowException, OSError):
        return {}


def refuse_other_features(path: Path) -> None:
    """Raise SettingError if `path` does not end in .parquet, ConfigError if anything else than features is there."""
    if path.suffix.lower() != _SUFFIX:
        raise SettingError(f"--out {path}: a file of features must end in {_SUFFIX}: use --out {path.with_suffix(_SUFFIX)}")
    refuse_reserved(path, f"features{_SUFFIX}")
    if os.path.lexists(path) and (path.is_symlink() or not _metadata_of(path)):
        raise ConfigError(f"{path}: exists and is not a file of features: choose another --out, or move it elsewhere")


class _Writer:
    """Collects blocks until they fill a row group."""

    def __init__(self, file: Any, dimension: int, dtype: str, metadata: dict[str, Any]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        values = pa.list_(pa.from_numpy_dtype(dtype), dimension)
        types = (pa.int64(), pa.string(), pa.string(), values)
        self._schema = pa.schema(list(zip(_COLUMNS, types, strict=True)), {_KEY: to_json(metadata)})
        self._dtype = dtype
        self._blocks: list[Any] = []
        self._rows = 0
        # Features hardly repeat, so a dictionary of them would only take time.
        self._parquet = parquet.ParquetWriter(file, self._schema, compression="zstd", use_dictionary=["split"])

    def __call__(self, block: FeatureBlock) -> None:
        """Add the galaxies of a block. Raises RunError if its features are beyond the range of float16."""
        import pyarrow as pa

        (ids, names, splits), features = block
        with np.errstate(over="ignore"):
            values = features.astype(self._dtype)
        if not np.isfinite(values).all():
            cure = "use --dtype float32" if np.isfinite(features).all() else "train again with a lower --learning_rate"
            raise RunError(
                f"the features of galaxy {block.labels.called()[0]} or one near it are not finite {self._dtype}: {cure}"
            )
        empty = pa.nulls(len(ids), pa.string())
        columns = [
            pa.array(ids),
            *(empty if words is None else pa.array(words, pa.string()) for words in (names, splits)),
            pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=self._schema.field("features").type),
        ]
        self._blocks.append(pa.record_batch(columns, schema=self._schema))
        self._rows += len(ids)
        if self._rows >= GROUP:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa

        if self._blocks:
            self._parquet.write_table(pa.Table.from_batches(self._blocks), row_group_size=self._rows)
        self._blocks, self._rows = [], 0

    def close(self) -> None:
        self._write()
        self._parquet.close()


@contextlib.contextmanager
def feature_file(path: Path, dimension: int, dtype: str, metadata: dict[str, Any]) -> Iterator[_Writer]:
    """A function that adds a block to a file of features; the file appears when the `with` block ends.

    If that raises, nothing is left. dtype: one of DTYPES. metadata: what the file holds about the features.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        writer = _Writer(file, dimension, dtype, {"kind": _KIND, "dimension": dimension, **metadata})
        try:
            yield writer
        except BaseException:
            with contextlib.suppress(Exception):  # else it would close itself later, and report that there is no file
                writer.close()
            raise
        writer.close()


class StoredFeatures:
    """A file of features. metadata: what it holds about them."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError if it is not a file of features."""
        self.path = local_path(path)
        if not self.path.is_file():
            what = "is a folder" if self.path.is_dir() else "no such file"
            raise ConfigError(f"{path}: {what}: give --features a file that trainer embed wrote")
        self.metadata = _metadata_of(self.path)
        if not self.metadata:
            raise ConfigError(f"{path}: is not a file of features: give --features a file that trainer embed wrote")

    def blocks(self) -> Iterator[FeatureBlock]:
        """Its galaxies, a row group at a time. Raises ConfigError if the file is damaged."""
        import pyarrow as pa
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(self.path) as file:
                for group in range(file.num_row_groups):
                    yield _block(file.read_row_group(group).combine_chunks())
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{self.path}: damaged ({squeezed(error)}): run trainer embed again") from error


def _block(table: Any) -> FeatureBlock:
    words = [table[name].to_numpy() if table[name].null_count == 0 else None for name in ("name", "split")]
    values = table["features"].chunk(0)
    features = values.flatten().to_numpy().astype(np.float32).reshape(len(values), -1)
    return FeatureBlock(Labels(table["galaxy_id"].to_numpy(), *words), features)
