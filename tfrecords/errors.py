"""The project's exceptions, and the one line that a command prints for them."""

import errno

from tfrecords.text import printable

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# What to do about a dataset that is damaged; messages end with it.
BUILD_AGAIN = "build the dataset again with --overwrite"


class GalaxyZooError(Exception):
    """Base of everything the project raises on purpose: the message says what, where, and what to do."""


class SourceError(GalaxyZooError):
    """The images or the table of votes cannot be used."""


class ImageError(GalaxyZooError):
    """One image cannot be decoded, cropped or encoded."""


class DatasetError(GalaxyZooError):
    """A folder is not a dataset, or does not hold what its manifest says."""


class RecordError(DatasetError):
    """The bytes of a shard are not intact records."""


class ConfigError(GalaxyZooError):
    """The settings do not go with what is already in the output folder, or with another input."""


class SettingError(GalaxyZooError):
    """A setting has an illegal value, or two contradict each other: bad usage."""


class RunError(GalaxyZooError):
    """A training run cannot start, go on, or be read."""


# How libraries report that an allocation failed, where they raise no MemoryError: libjpeg, Pillow, pandas, zlib, HDF5.
_NO_MEMORY = ("nsufficient memory", "ut of memory", "emory allocation", "annot allocate memory")


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory was short: a fault of the machine, which concludes nothing about a file."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def squeezed(error: BaseException, longest: int | None = 160) -> str:
    """The text of another program's error as part of our line: no line breaks, at most `longest` characters (None: all of
    them); its kind where it has no text."""
    return " ".join(str(error).split())[:longest] or type(error).__name__


def one_line(error: BaseException) -> str:
    """The line a command prints for `error`: no traceback, no line breaks, and for a full disk the way out.

    Control characters, which file names may hold, are escaped.
    """
    return printable(_line(error))


def _line(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        detail = squeezed(error, None) if str(error) else ""
        return (
            f"not enough memory{f' ({detail})' if detail else ''}: close other programs, use fewer --workers or a smaller "
            "--batch_size, or a machine with more memory, and run the same command again"
        )
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        where = f" while writing {error.filename}" if error.filename else ""
        return f"the disk is full{where}: free some space, or choose another --out, and run the same command again"
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename}: choose a path you may use, or change its permissions"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror or error}: check the path and try again"
    return squeezed(error, None)
