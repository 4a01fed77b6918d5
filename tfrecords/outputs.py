"""An output folder and its marker: the list of the files that we wrote there. No other file is overwritten or removed.

    .galaxy-zoo/marker.json     {"kind": "run", "files": {"report/index.html": SHA-256, "checkpoint/...": ""}}
    .galaxy-zoo/lock            held while one of our programs writes here: see `locks`

A file is listed before it is written: with its future hash and that of the file it replaces, with "" if the hash is not
known yet, or with "-" if the file is never hashed. So a process that is killed at any moment leaves no file of ours unlisted
(except an event file whose name TensorFlow has just chosen). A file that somebody has changed is recognised, and left
unchanged. The marker of a dataset is its manifest.json (see `dataset`); during the build, it is the list in its work folder.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from tfrecords import locks
from tfrecords.dataset import to_json
from tfrecords.errors import ConfigError, RunError
from tfrecords.files import atomic_file, files_of_users, local_path, real_folder, sha256_file, write_text

PRIVATE = ".galaxy-zoo"
_MARKER = "marker.json"
# Our files in the private folder: the marker, unfinished files, and the private files of a run.
_KNOWN = re.compile(r"marker\.json|shards\.json|features-.*|\..*\.partial")
_UNKNOWN, NEVER = "", "-"
_KINDS = {
    "run": "a training run",
    "page": "a page of explore",
    "similar": "a page of similar galaxies",
    "comparison": "a page that compares runs",
    "export": "an exported model",
}


def listed_files(folder: Path) -> set[str]:
    """The files that the marker of a folder lists, whatever its kind; none if the marker is missing or damaged."""
    try:
        return {*json.loads((folder / PRIVATE / _MARKER).read_text("utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def refuse_unwritable(path: Path, flag: str = "--out") -> None:
    """Raise ConfigError if nothing can be written at `path`, the value of a flag, before an hour of work is lost."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        what = "is not writable" if above.is_dir() else "is a file"
        raise ConfigError(f"{above}: {what}: choose another folder for {flag}")


class Output:
    """The files of one kind of output, a key of `_KINDS`, in a folder, by their path relative to it.

    Write only within `locked`.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        """Read the marker, if there is one. Raises ConfigError if it is of another kind or damaged."""
        self.folder = local_path(folder)
        self.kind = kind
        self._read()

    def _read(self) -> None:
        self.files: dict[str, str] = {}
        path = self.private / _MARKER
        self.exists = path.is_file()
        if not self.exists:
            return
        try:
            content = json.loads(path.read_text("utf-8"))
            there, self.files = content["kind"], dict(content["files"])
            for name, digest in self.files.items():
                if not isinstance(digest, str) or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                    raise ValueError(f"it lists {name!r}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}: damaged ({error}): choose another folder, or move this one elsewhere") from error
        if there != self.kind:
            raise ConfigError(f"{self.folder}: holds {_KINDS.get(there, 'another kind of output')}: choose another folder")

    @property
    def private(self) -> Path:
        """The folder of the marker, the lock and unfinished files."""
        return self.folder / PRIVATE

    def _path(self, name: str) -> Path:
        return self.folder / name

    def refuse_others(self, names: Iterable[str] | None = None) -> None:
        """Raise ConfigError, naming the file, if one already exists that is not ours, or has changed since we wrote it.

        names: the files to be written. None: a folder without a marker must be empty.
        """
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            what = "a file" if self.folder.exists() else "a broken link"
            raise ConfigError(f"{self.folder}: is {what}: choose another --out")
        if names is None:
            if not self.exists and self.folder.is_dir():
                ours = {PRIVATE, *(path.name for path in locks.leftovers(self.private))}
                others = sorted(files_of_users(self.folder) - ours)
                if others:
                    raise ConfigError(
                        f"{self.folder}: holds other files ({others[0]}) and is not {_KINDS[self.kind]}: "
                        "choose an --out that is empty or new"
                    )
            return
        for name in names:
            self._refuse_links(name)
            path = self._path(name)
            if not os.path.lexists(path):
                continue
            if name not in self.files:
                raise ConfigError(f"{path}: was not written by this program: move it elsewhere, or choose another folder")
            if not self.is_intact(name):
                raise ConfigError(f"{path}: has changed since it was written: move it elsewhere, or choose another folder")

    def _refuse_links(self, name: str) -> None:
        for parent in PurePosixPath(name).parents:
            if parent != PurePosixPath() and self._path(str(parent)).is_symlink():
                raise ConfigError(
                    f"{self._path(str(parent))}: is a link to another folder: remove the link, or choose another folder"
                )

    def is_intact(self, name: str) -> bool:
        """Whether a file is listed and, if its hash is listed, still has that hash."""
        digests = self.files.get(name)
        if digests is None:
            return False
        path = self._path(name)
        return digests in (_UNKNOWN, NEVER) or (path.is_file() and sha256_file(path) in digests.split())

    def check(self, name: str, advice: str) -> None:
        """Raise RunError, with `advice`, if a file no longer has its listed hash."""
        if name in self.files and not self.is_intact(name):
            raise RunError(f"{self._path(name)}: has changed since it was written: {advice}")

    def _save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        real_folder(self.private)
        text = to_json({"kind": self.kind, "files": self.files})
        write_text(self.private / _MARKER, text)
        self.exists = True

    def claim(self, *names: str, digest: str = _UNKNOWN) -> None:
        """List files that are about to be written. Raises ConfigError as `refuse_others` does.

        digest: NEVER for files that are not to be hashed, because they grow or their hash is kept elsewhere.
        """
        self.refuse_others(names)
        self.files.update(dict.fromkeys(names, digest))
        self._save()

    def adopt(self, *names: str) -> None:
        """List files that a library has already written, under names of its choice; they are not hashed."""
        self.files.update(dict.fromkeys(names, NEVER))
        self._save()

    def make_folders(self, name: str) -> None:
        """Create the parent folders of a file."""
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            real_folder(self._path(str(parent)))

    def settle(self, *names: str) -> None:
        """Record the hashes of files that are complete, and unlist those that were never written."""
        for name in names:
            if self._path(name).is_file():
                self.files[name] = sha256_file(self._path(name))
            else:
                self.files.pop(name, None)
        self._save()

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Write small files in this order, each atomically."""
        self.refuse_others(contents)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        # Until all are written, each file may be the old or the new one.
        there = {name: sha256_file(self._path(name)) for name in contents if self._path(name).is_file()}
        self.files |= {name: " ".join({there.get(name, digest), digest}) for name, digest in digests.items()}
        self._save()
        for name, content in contents.items():
            self.put(name, content)
        self.files |= digests
        self._save()

    def put(self, name: str, content: bytes) -> None:
        """Write a claimed file atomically."""
        assert name in self.files
        self.make_folders(name)
        with atomic_file(self._path(name), beside=self.private) as file:
            file.write(content)

    def remove(self, names: Iterable[str]) -> None:
        """Remove listed files, and folders that become empty. Raises ConfigError if a file has changed since we wrote it."""
        names = list(names)
        self.refuse_others(names)
        for name in names:
            self._path(name).unlink(missing_ok=True)
            for parent in PurePosixPath(name).parents[:-1]:
                try:
                    self._path(str(parent)).rmdir()
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                        raise
                    break
            del self.files[name]
        if names:
            self._save()

    @contextlib.contextmanager
    def locked(self, busy: str, beside_others: bool = False) -> Iterator[None]:
        """Lock the folder while the block runs; if the block writes nothing, no trace is left.

        busy: the message if another process holds the lock. beside_others: a folder without a marker may contain other
        files. Raises ConfigError if the folder is locked or must not be used.
        """
        if not beside_others:
            self.refuse_others()
        if self.exists and not os.path.lexists(self.private / "lock"):  # the folder was copied without its lock
            locks.make_lock(self.private)
        with locks.locked(self.private, busy, _KNOWN, keep=(_MARKER,)):
            self._read()
            self._settle_interrupted()
            yield

    def _settle_interrupted(self) -> None:
        """Update the list after a kill: a claimed file may be missing, the old one or the new one."""
        unsure = [name for name, digest in self.files.items() if digest == _UNKNOWN or " " in digest]
        if unsure:
            self.settle(*(name for name in unsure if self.is_intact(name) or not os.path.lexists(self._path(name))))
