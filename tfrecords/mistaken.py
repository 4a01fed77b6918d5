"""What a file is in truth that has the name of an image or a table: downloads often leave something else."""

import codecs

_LFS = b"version https://git-lfs"
# How other files begin, in lower case after blanks and a byte order mark, and what they are.
_TEXTS = (
    (_LFS, "a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"),
    (b"<", "a web page (HTML) or XML: download it again, perhaps after signing in"),
    (b"{", "JSON: download it again, or see whether it holds an error message"),
    (b"[", "JSON: download it again, or see whether it holds an error message"),
)
_BINARY = (
    (b"BZh", "packed with bzip2: unpack it first"),
    (b"\xfd7zXZ", "packed with xz: unpack it first"),
    (b"(\xb5/\xfd", "packed with zstd: unpack it first"),
    (b"\x1f\x8b", "packed with gzip: unpack it first"),
    (b"PK\x03\x04", "a zip: unpack it, or give the zip itself"),
    (b"%PDF", "a PDF: convert it first"),
    (b"\x89HDF", "an HDF5 file: convert it first"),
    (b"SIMPLE  =", "a FITS file: let its name end in .fits"),
)
START = 512  # bytes of a file that are enough to tell
_SHOWN = 60


def mistaken(start: bytes) -> str:
    """What a file is, with what to do, from its first bytes; empty if it is none of the kinds that downloads leave."""
    for beginning, kind in _BINARY:
        if start.startswith(beginning):
            return kind
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for beginning, kind in _TEXTS if text.startswith(beginning)), "")


def text_of(start: bytes) -> str:
    """The first words of a text, quoted; empty if the bytes are no text."""
    try:
        # Incremental: the last letter may be cut in two.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start[:_SHOWN])
    except UnicodeDecodeError:
        return ""
    words = " ".join(text.split())
    return repr(words) if words and words.isprintable() else ""
