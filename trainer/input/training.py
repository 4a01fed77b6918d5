"""Records -> shuffled, decoded, batched, prefetched tensors.

Guarantees
- A training batch depends only on the dataset, the batch size, the seed, the epoch and its place in the epoch. It does not
  depend on the cache, the number of devices, the step at which a run was stopped, or the number of machines if that divides
  the number of streams, which a run keeps. (A split smaller than a batch is reduced to what the devices can share equally.)
- An epoch consists of whole batches and has no galaxy twice; the few galaxies left over differ from epoch to epoch. An
  evaluation covers every galaxy exactly once.

How: the records of `train`, whose stored order is random already, are divided into streams, consecutive ranges of equal
length; a batch has the same number of galaxies from each stream. A stream reads the pieces of shards in its range in an
order that is new in every epoch, and passes its records, still encoded, through a shuffle buffer. Several machines divide
the streams among them, so each reads only its own range of the shards.

Memory, besides a cache: the shuffle buffers, together 8,192 records or 64 MB, whichever is less (40 MB for JPEGs of
212 x 212); 1 MB and 16 records read ahead in each stream; up to three finished batches (4 MB each for 32 galaxies at
212 x 212); and the images being decoded: 32 for each core, or four batches of raw ones. Prefetching is bounded because
AUTOTUNE would hold as many batches as fit in memory.
"""

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfrecords import reader
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, RunError
from tfrecords.reader import Piece
from trainer.backends.base import WHOLE, Share
from trainer.input.augmentation import DRAWS, draws
from trainer.input.cache import Cache
from trainer.input.evaluation import PREFETCH_BATCHES

SHUFFLE_RECORDS = 8192
SHUFFLE_BYTES = 64 * 2**20
STREAMS = 8
_AHEAD_RECORDS = 16
_READERS = 2


def steps_per_epoch(dataset: Dataset, batch_size: int, limit: int = 0, replicas: int = 1) -> tuple[int, int]:
    """Steps per epoch and galaxies per batch, over all machines; an epoch has only whole batches.

    A split smaller than `batch_size` is one batch of as many galaxies as the `replicas` (devices) can share equally. Raises
    ConfigError if they cannot share `batch_size` equally, RunError if there are fewer galaxies than replicas.
    """
    if batch_size % replicas:
        below = batch_size // replicas * replicas
        better = f"{below} or {below + replicas}" if below else str(replicas)
        raise ConfigError(f"--batch_size {batch_size}: {replicas} devices cannot share it equally: use {better}")
    galaxies = dataset.galaxies("train", limit)
    batch_size = min(batch_size, galaxies // replicas * replicas)
    if not batch_size:
        raise RunError(
            f"{dataset.folder}: split 'train' has fewer galaxies than there are devices ({replicas}): use fewer devices"
        )
    return galaxies // batch_size, batch_size


def stream_count(batch_size: int, processes: int, kept: int = 0) -> int:
    """The number of streams, which determines the order of the galaxies; `kept`: that of the run so far, 0 if unknown.

    It stays the same as long as the processes can divide it among them.
    """
    if kept and batch_size % kept == 0 and kept % processes == 0:
        return kept
    count = math.gcd(batch_size, STREAMS)
    return processes if count % processes else count


@dataclass(frozen=True)
class _Streams:
    """The pieces of all streams of a process, in sequence: those of stream s are bounds[s] up to bounds[s + 1].

    firsts: the place in the split at which each piece begins. number: of the first stream, counted over all processes.
    buffer: records in the shuffle buffer of each stream.
    """

    pieces: tuple[Piece, ...]
    firsts: tuple[int, ...]
    bounds: tuple[int, ...]
    number: int
    buffer: int

    @property
    def start(self) -> int:
        return self.firsts[0]

    @property
    def stop(self) -> int:
        return self.firsts[-1] + self.pieces[-1].take


def _streams(dataset: Dataset, count: int, limit: int, share: Share) -> _Streams:
    """This process' part of `count` streams."""
    galaxies = dataset.galaxies("train", limit)
    each = count // share.processes
    pieces: list[Piece] = []
    firsts: list[int] = []
    bounds = [0]
    for stream in range(share.index * each, (share.index + 1) * each):
        start, stop = galaxies * stream // count, galaxies * (stream + 1) // count
        for piece in reader.pieces(dataset, "train", start, stop):
            pieces.append(piece)
            firsts.append(start)
            start += piece.take
        bounds.append(len(pieces))
    shards = [shard for shard in dataset.shards if shard.split == "train"]
    record_bytes = sum(shard.bytes for shard in shards) // sum(shard.examples for shard in shards)
    buffer = min(SHUFFLE_RECORDS, SHUFFLE_BYTES // record_bytes)
    return _Streams(tuple(pieces), tuple(firsts), tuple(bounds), share.index * each, max(1, buffer // count))


@dataclass(frozen=True)
class TrainingInput:
    """Everything that determines the training batches; batch_size counts the galaxies of all processes together.

    cache: "decoded", "stored" or "none", see `cache`. augmented: draw the numbers for `augmentation`; otherwise they are zeros.
    streams: the number of streams kept by the run, 0 if it has none, see `stream_count`.
    """

    dataset: Dataset
    batch_size: int
    seed: int
    limit: int = 0
    cache: str = "none"
    share: Share = WHOLE
    augmented: bool = True
    streams: int = 0

    def batches(self, first_epoch: int, epochs: int, skip: int = 0) -> tf.data.Dataset:
        """This process' part of the batches from `first_epoch` up to `epochs`: images, votes, numbers for `augmentation`.

        uint8 (batch, size, size, 3), float32 (batch, width), float32 (batch, 7) in [0, 1). Epochs count from 0, and `epochs`
        itself is excluded. The first `skip` batches of `first_epoch` are omitted, and not decoded. Leave TensorFlow's
        global seed unset: it would change the order, and with a global seed of 0 tf.data refuses seeds that are tensors.
        """
        steps, batch_size = steps_per_epoch(self.dataset, self.batch_size, self.limit)
        count = stream_count(batch_size, self.share.processes, self.streams)
        batch_size //= self.share.processes
        streams = _streams(self.dataset, count, self.limit, self.share)
        cache = None
        if self.cache != "none":
            cache = Cache(self.dataset, "train", streams.start, streams.stop, self.cache)
        encoding, size = self.dataset.encoding, self.dataset.size
        order = _Order(streams, encoding, places=cache is not None)

        @tf.autograph.experimental.do_not_convert
        def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            skipped = tf.where(epoch == first_epoch, tf.constant(skip, tf.int64), 0)
            records = order.epoch(_key(self.seed, epoch)).skip(skipped * batch_size).take((steps - skipped) * batch_size)
            if cache is not None and cache.kind == "decoded":
                batches = records.batch(batch_size).map(cache.gather, num_parallel_calls=2, deterministic=True)
            else:
                if cache is not None:
                    records = records.batch(batch_size).map(lambda places: cache.gather(places)[0]).unbatch()
                batches = reader.decoded(records, self.dataset, batch_size)

            @tf.autograph.experimental.do_not_convert
            def finish(ids: tf.Tensor, images: tf.Tensor, votes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
                images = tf.ensure_shape(images, (batch_size, size, size, 3))
                drawn = draws(self.seed, epoch, ids) if self.augmented else tf.zeros((batch_size, DRAWS))
                return images, tf.ensure_shape(votes, (batch_size, self.dataset.votes_width)), drawn

            return batches.map(finish)

        return tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch).prefetch(PREFETCH_BATCHES)


def _key(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """The seed of an epoch's order, an int64 scalar."""
    return tf.random.stateless_uniform([], [tf.constant(seed, tf.int64), epoch], minval=None, maxval=None, dtype=tf.int64)


class _Order:
    """The records of an epoch, or with `places` their places in the split, in the same order."""

    def __init__(self, streams: _Streams, encoding: str, places: bool) -> None:
        self._streams = streams
        self._encoding = encoding
        self._places = places
        self._paths = tf.constant([piece.path for piece in streams.pieces])
        self._firsts = tf.constant(streams.firsts, tf.int64)
        self._skips = tf.constant([piece.skip for piece in streams.pieces], tf.int64)
        self._takes = tf.constant([piece.take for piece in streams.pieces], tf.int64)
        self._bounds = tf.constant(streams.bounds, tf.int64)

    def _read(self, piece: tf.Tensor) -> tf.data.Dataset:
        if self._places:
            return tf.data.Dataset.range(self._firsts[piece], self._firsts[piece] + self._takes[piece])
        return reader.records(self._paths[piece], self._skips[piece], self._takes[piece], self._encoding)

    def epoch(self, key: tf.Tensor) -> tf.data.Dataset:
        """One galaxy of each stream in turn; if some streams have one more than others, these galaxies come last."""
        count = len(self._streams.bounds) - 1
        most = max(np.diff(self._streams.bounds).tolist())

        @tf.autograph.experimental.do_not_convert
        def one_stream(stream: tf.Tensor) -> tf.data.Dataset:
            numbers = tf.data.Dataset.range(self._bounds[stream], self._bounds[stream + 1])
            own = key + self._streams.number + stream
            # Two different seeds: with equal ones, two of the four records in pieces of 1 and 3 would never come first.
            records = numbers.shuffle(most, tf.bitwise.invert(own), reshuffle_each_iteration=False).flat_map(self._read)
            return records.shuffle(self._streams.buffer, own, reshuffle_each_iteration=False).prefetch(_AHEAD_RECORDS)

        return tf.data.Dataset.range(count).interleave(
            one_stream, cycle_length=count, block_length=1, num_parallel_calls=min(count, _READERS), deterministic=True
        )
