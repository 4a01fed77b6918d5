"""Whether any image of a source has changed since a dataset was built, by the times of change of its files.

The time of the manifest stands for them: its seconds are those of the newest file, its nanoseconds a checksum of all. So the
manifest's bytes do not depend on them, and a dataset that is copied, or whose source has moved, is compared in full.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from preprocess.sources import PLAIN, Listing

_SECOND = 1_000_000_000


def stamp(times: Iterable[np.ndarray]) -> int | None:
    """One time, in ns since 1970, that stands for the times of all files, int64 (n,) each.

    None without files, or if one is a whole number of seconds: a second change may fall within the same second.
    """
    digest, newest = hashlib.sha256(), 0
    for some in times:
        if (some % _SECOND == 0).any():
            return None
        newest = max(newest, int(some.max(initial=0)))
        digest.update(some.astype(">i8").tobytes())
    return newest // _SECOND * _SECOND + int.from_bytes(digest.digest()[:8], "big") % _SECOND if newest else None


def times_of(images: Listing) -> np.ndarray:
    """The time of change of each image, int64 (n,); 0 for those in zips or in several files."""
    return np.where(images.method == PLAIN, images.position, 0)


def set_time(path: Path, time: int | None) -> None:
    """Set a file's time of modification, if the file system can."""
    if time is not None:
        with contextlib.suppress(OSError):
            os.utime(path, ns=(time, time))


def has_time(path: Path, time: int | None) -> bool:
    """Whether a file has this time of modification."""
    return time is not None and path.stat().st_mtime_ns == time
