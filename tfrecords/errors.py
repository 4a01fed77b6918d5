"""The project's exceptions, and the one line that a command prints for them."""

import errno
import resource

from tfrecords.text import printable

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# The next step for a damaged dataset; messages end with it.
BUILD_AGAIN = "build the dataset again with --overwrite"


def require_setting(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise SettingError unless a setting has a legal value. expected: the legal values, in words."""
    if not holds:
        raise SettingError(f"--{name} {value}: must be {expected}")


def install_extra(extra: str) -> str:
    """The command that installs an extra of this package, wherever the package itself was installed from."""
    return f"pip install 'galaxy-zoo-vgg16[{extra}]'"


class GalaxyZooError(Exception):
    """Base of every error that the project raises on purpose. The message names the thing, the reason and the next step."""


class SourceError(GalaxyZooError):
    """The images or the table of votes cannot be used."""


class ChangedError(SourceError):
    """A file has changed or disappeared since the source was listed. The message ends with ": run the same command again"."""


class ImageError(GalaxyZooError):
    """One image cannot be decoded, cropped or encoded."""


class DatasetError(GalaxyZooError):
    """A folder is not a dataset, or does not match its manifest."""


class RecordError(DatasetError):
    """A record of a shard is damaged."""


class TreeError(GalaxyZooError):
    """A file is not a decision tree, or there is no tree of that name."""


class ConfigError(GalaxyZooError):
    """The settings conflict with the contents of the output folder, or with another input."""


class SettingError(GalaxyZooError):
    """A setting has an invalid value, or two settings contradict each other: bad usage."""


class RunError(GalaxyZooError):
    """A training run cannot be started, resumed or read."""


# How libraries report a failed allocation without a MemoryError: libjpeg, Pillow, pandas, zlib, HDF5.
_NO_MEMORY = ("nsufficient memory", "ut of memory", "emory allocation", "annot allocate memory")


def lacks_memory(error: BaseException) -> bool:
    """Whether an error reports a lack of memory, which is the fault of the machine and not of a file."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def squeezed(error: BaseException, longest: int | None = 160) -> str:
    """The text of a library's error for use in our messages: no line breaks, at most `longest` characters (None: no limit).

    An error without text gives the name of its class.
    """
    return " ".join(str(error).split())[:longest] or type(error).__name__


def one_line(error: BaseException) -> str:
    """The line that a command prints for `error`: no traceback, no line breaks; system errors get a next step.

    Control characters, which file names may contain, are escaped.
    """
    return printable(_line(error))


def _limit(error: OSError) -> str:
    """The line for a limit of the system on the size of files, or on how many are open."""
    where = f"{error.filename}: " if error.filename else ""
    again = "and run the same command again"
    if error.errno == errno.ENFILE:
        return f"{where}this machine has too many open files: close other programs {again}"
    kind, flag, unit, what = resource.RLIMIT_NOFILE, "-n", "", "too many open files"
    if error.errno == errno.EFBIG:
        kind, flag, unit, what = resource.RLIMIT_FSIZE, "-f", " bytes", "too large a file"
    allowed = resource.getrlimit(kind)[0]
    limit = "the file system allows no more" if allowed == resource.RLIM_INFINITY else f"the limit is {allowed:,}{unit}"
    cure = "choose an --out elsewhere" if allowed == resource.RLIM_INFINITY else f"raise it (ulimit {flag})"
    return f"{where}{what} ({limit}): {cure} {again}"


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
    if isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.EMFILE, errno.ENFILE):
        return _limit(error)
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename}: choose another path, or change its permissions"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror or error}: check the path and try again"
    return squeezed(error, None)
