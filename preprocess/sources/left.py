"""What a source holds besides images and tables: counted, and named where the user can do something about it."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# Archives that are not read, and how each is unpacked.
ARCHIVES = {".tar": "tar xf", ".tar.gz": "tar xf", ".tgz": "tar xf", ".tar.bz2": "tar xf", ".tar.xz": "tar xf",
             ".tar.zst": "tar xf", ".7z": "7z x", ".rar": "unrar x"}  # fmt: skip
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".fz")
_LONGEST_SUFFIX = 8
_SUFFIXES_SHOWN = 5


def archive_advice(path: str) -> str:
    """What to do with an archive that is not read; empty for other files."""
    unpack = next((command for suffix, command in ARCHIVES.items() if path.lower().endswith(suffix)), "")
    return f"this archive is not read: unpack it with `{unpack}`, and give the folder" if unpack else ""


def suffix_of(path: str) -> str:
    """The suffix of a file in lower case, both if it is packed; empty if it has none."""
    stem, suffix = os.path.splitext(path.rpartition("/")[2].lower())
    if suffix in _PACKED:
        suffix = os.path.splitext(stem)[1] + suffix
    return suffix if 1 < len(suffix) <= _LONGEST_SUFFIX else ""


@dataclass(frozen=True)
class LeftAlone:
    """What was not read: the number of files by suffix, archives by their paths, and links that lead nowhere."""

    files: Mapping[str, int]
    archives: tuple[str, ...]
    links: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """A sentence for each kind."""
        if total := sum(self.files.values()):
            most = sorted(self.files.items(), key=lambda one: (-one[1], one[0]))
            shown = [f"{count:,} {suffix}" for suffix, count in most[:_SUFFIXES_SHOWN]]
            if len(most) > _SUFFIXES_SHOWN:
                shown.append(f"{sum(count for _, count in most[_SUFFIXES_SHOWN:]):,} others")
            yield f"{total:,} {'file' if total == 1 else 'files'} left alone: {', '.join(shown)}"
        for path in self.archives:
            yield f"{path}: {archive_advice(path)}"
        if self.links:
            number = len(self.links)
            links = "1 link leads nowhere and was" if number == 1 else f"{number:,} links lead nowhere and were"
            yield f"{links} skipped, first {self.links[0]}"


NOTHING_LEFT = LeftAlone({}, (), ())
