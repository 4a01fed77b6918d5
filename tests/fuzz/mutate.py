"""Change bytes at random, from a seed."""

import random
import struct
from collections.abc import Callable, Sequence

# Numbers at which parsers err: the ends of integers, and what is one beyond.
_NUMBERS = (0, 1, -1, 127, 128, 255, 256, 2**15 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
# Words at which readers of text err.
_WORDS = (
    b"", b"nan", b"inf", b"-1", b"1e400", b"1e-400", b"0x10", b"1_000", b"9" * 400, b"null", b"true", b"\x00", b"\xff\xfe",
    b"\xef\xbb\xbf", b'"', b"'", b"\\", b",", b";", b"\t", b"\r", b"\n", b"\r\n", b"[", b"]", b"{", b"}", b"=", b"#", b"..",
    b"/", b"../x", b"=1+1", "\u00e9".encode(), "\u202e".encode(), "\U0001f30c".encode(), b"7" * 20, b"1,5", b"%s%n",
)  # fmt: skip
Change = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def _place(draw: random.Random, data: bytearray) -> int:
    """A place in the data, often near its beginning or its end, where headers and tables lie."""
    if not data:
        return 0
    near = draw.random()
    if near < 0.3:
        return min(int(draw.expovariate(1 / 40)), len(data) - 1)
    if near < 0.5:
        return max(len(data) - 1 - int(draw.expovariate(1 / 40)), 0)
    return draw.randrange(len(data))


def _span(draw: random.Random, data: bytearray) -> slice:
    start = _place(draw, data)
    return slice(start, start + 1 + int(draw.expovariate(1 / 16)))


def _flip(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        data[_place(draw, data)] ^= 1 << draw.randrange(8)


def _set(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        data[_place(draw, data)] = draw.choice((0, 255, draw.randrange(256)))


def _number(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    size, order = draw.choice((1, 2, 4, 8)), draw.choice("<>")
    value = draw.choice(_NUMBERS) & ((1 << 8 * size) - 1)
    start = _place(draw, data)
    data[start : start + size] = struct.pack(f"{order}{ {1: 'B', 2: 'H', 4: 'I', 8: 'Q'}[size] }", value)


def _word(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    span = _span(draw, data)
    data[span if draw.random() < 0.5 else slice(span.start, span.start)] = draw.choice(_WORDS)


def _delete(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    del data[_span(draw, data)]


def _repeat(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    span = _span(draw, data)
    data[span.start : span.start] = data[span] * draw.choice((1, 1, 2, 30))


def _move(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    part, place = data[_span(draw, data)], _place(draw, data)
    data[place : place + len(part)] = part


def _cut(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    del data[_place(draw, data) :]


def _splice(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = draw.choice(others)
    data[_place(draw, data) :] = other[_place(draw, bytearray(other)) :]


_CHANGES: tuple[Change, ...] = (_flip, _flip, _set, _number, _number, _word, _word, _delete, _repeat, _move, _cut, _splice)


def mutated(seed: int, number: int, originals: Sequence[bytes]) -> bytes:
    """Input `number` of a seed: one of the originals, changed once or several times, at most doubled."""
    draw = random.Random(seed * 1_000_003 + number)
    original = draw.choice(originals)
    data = bytearray(original)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        draw.choice(_CHANGES)(draw, data, originals)
    return bytes(data[: 2 * len(original) + 4096])
