"""Zips for tests."""

import io
import zipfile

Files = dict[str, bytes]


def packed(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of files by their names, as bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()
