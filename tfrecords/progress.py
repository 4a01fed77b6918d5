"""Progress on stderr: a bar in a terminal; one line a minute in a log file, and none for quicker work."""

import sys
from typing import Any

from tqdm import tqdm

LINE_SECONDS = 60.0


class _Lines:
    """A log file for tqdm: each state of a bar becomes a line, without the carriage returns that redraw it."""

    def write(self, text: str) -> None:
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress_bar(total: int, description: str, unit: str, initial: int = 0, **options: Any) -> Any:
    """A tqdm bar from `initial` to `total`; call its `update(n)` to advance. `options` are passed to tqdm.

    `unit` is a plural noun, such as "galaxies".
    """
    if sys.stderr.isatty():
        options["dynamic_ncols"] = True
    else:
        # miniters: otherwise tqdm's monitor thread prints between two lines.
        options |= {"file": _Lines(), "mininterval": LINE_SECONDS, "delay": LINE_SECONDS, "miniters": 1, "ncols": 0}
    return tqdm(
        total=total, initial=initial, desc=description, unit=unit if options.get("unit_scale") else f" {unit}", **options
    )
