"""Progress is a bar in a terminal, and whole lines in a log file."""

import subprocess
import sys
import time

import pytest

from benchmarks.terminal import terminal
from tfrecords import progress
from tfrecords.progress import progress_bar


def test_a_log_file_gets_whole_lines_and_no_more_than_the_interval_allows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.2)
    began = time.monotonic()
    with progress_bar(100, "writing shards", "galaxies") as bar:
        for _ in range(100):
            time.sleep(0.01)
            bar.update()
    seconds = time.monotonic() - began
    text = capsys.readouterr().err
    lines = text.split("\n")
    assert "\r" not in text and lines[-1] == ""
    assert 2 <= len(lines) - 1 <= seconds / 0.2 + 1
    assert all(line.startswith("writing shards: ") and "/100 [" in line for line in lines[:-1])
    assert "100/100" in lines[-2]


@pytest.mark.parametrize("leave", [True, False])
def test_what_is_quicker_than_the_interval_leaves_nothing_in_a_log_file(
    leave: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar(50, "drawing", "galaxies", leave=leave) as bar:
        for _ in range(50):
            bar.update()
    assert list(progress_bar(3, "drawing", "galaxies", iterable=iter("abc"))) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_that_is_drawn_over_itself() -> None:
    script = (
        "import time\nfrom tfrecords.progress import progress_bar\n"
        "with progress_bar(5, 'drawing', 'galaxies', 2) as bar:\n"
        "    for _ in range(3):\n        time.sleep(0.15)\n        bar.update()\n"
    )
    with terminal() as screen:
        with subprocess.Popen([sys.executable, "-c", script], stderr=screen.theirs):
            screen.started()
        text = screen.read_all().decode()
    assert text.count("\r") >= 3 and "2/5" in text and "5/5" in text and text.count("\n") == 1
