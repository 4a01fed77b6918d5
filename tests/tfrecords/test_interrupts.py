"""Ctrl-C and SIGTERM are deferred once, and only within the block."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tfrecords.interrupts import Interruption, Terminated, deferred_interrupts

NOTICE = "stops after this step; press again to stop at once"

# Within the block it prints "step" and waits: for a signal, or for ever if it is patient. Then it prints what was raised.
CHILD = f"""
import signal, sys, time
from tfrecords.interrupts import Terminated, deferred_interrupts

def terminated(signum, frame):
    raise Terminated

signal.signal(signal.SIGTERM, terminated)
patient = sys.argv[1] == "patient"
try:
    with deferred_interrupts({NOTICE!r}) as interruption:
        assert interruption.signal is None
        print("step", flush=True)
        while interruption.signal is None:  # not signal.pause(), which would miss a signal that arrived before it
            time.sleep(0.01)
        print("woken", flush=True)
        while patient:
            time.sleep(0.01)
        print("saved", flush=True)
        interruption.raise_now()
except KeyboardInterrupt:
    print("KeyboardInterrupt", flush=True)
except Terminated:
    print("Terminated", flush=True)
print("restored", signal.getsignal(signal.SIGTERM) is terminated, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


@contextmanager
def _child(kind: str) -> Iterator[subprocess.Popen[str]]:
    """A process inside the block."""
    command = [sys.executable, "-c", CHILD, kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "step\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "Terminated")], ids=["ctrl_c", "sigterm"]
)
def test_the_first_signal_waits_and_then_raises_what_it_would_have_raised(number: signal.Signals, raised: str) -> None:
    with _child("once") as process:
        process.send_signal(number)
        said, complained = process.communicate(timeout=60)
    assert said.splitlines() == ["woken", "saved", raised, "restored True True"]
    assert complained == f"\n{NOTICE}\n"


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("second", "raised"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "Terminated")], ids=["ctrl_c", "sigterm"]
)
def test_the_second_signal_ends_the_block_at_once(first: signal.Signals, second: signal.Signals, raised: str) -> None:
    with _child("patient") as process:
        assert process.stdout is not None
        process.send_signal(first)
        assert process.stdout.readline() == "woken\n"
        process.send_signal(second)
        said, complained = process.communicate(timeout=60)
    assert said.splitlines() == [raised, "restored True True"]
    assert complained == f"\n{NOTICE}\n"


def test_without_a_signal_the_block_changes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with deferred_interrupts(NOTICE) as interruption:
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) != before
    assert interruption.signal is None
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert capfd.readouterr() == ("", "")


def test_an_error_in_the_block_passes_and_the_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), deferred_interrupts(NOTICE):
        raise ZeroDivisionError
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_outside_the_main_thread_no_handler_changes() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with deferred_interrupts(NOTICE) as interruption:
            seen.extend((interruption.signal, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, *before]


def test_a_stop_that_another_process_asked_for_ends_as_sigterm_does() -> None:
    """In a run of several processes, another one may receive the signal; `signal` is None here."""
    with pytest.raises(Terminated):
        Interruption().raise_now()
