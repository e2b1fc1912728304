"""What parent and child say to each other besides frames: plain values in a strict, typed, bounded encoding.

    value   n | t | f | i <bytes:u8> <signed integer> | d <float64> | s <bytes:u32> <UTF-8>
            | l <items:u32> <value>... | m <items:u32> (<s value> <value>)...

A notice is a header like a frame's with magic NOTICE, all counts zero but the last: the size of the value
behind it. A process that was given the source of its program sends the code first, likewise with magic CODE:
bytes that nobody reads but other processes of the same program, which need not compile it anew; none where
they are too many. Whatever the trusted side sends over a job's pipe is preceded by its size (LENGTH): first
the job, as Python's own `marshal` writes it, for nobody there has to mistrust it; then replies to frames.

Over the control socket it sends an ORDER (kind, job): a START with the child's ends of the job's pipes
attached, or a REAP, which kills the job's process if it still runs and is answered by a REPORT: job, status
as of `os.wait4`, seconds of processor time, bytes of memory.
"""

import struct
from typing import Any

# Layers of confinement, and what each level keeps of them.
LANDLOCK, LIMITS, SECCOMP = "landlock", "limits", "seccomp"
LEVELS = {"A": {LANDLOCK, LIMITS, SECCOMP}, "B": {LIMITS, SECCOMP}, "C": {LIMITS}}

NOTICE, CODE = 0x4E535454, 0x43535454
MAX_NOTICE = 1 << 16
LENGTH = struct.Struct("<I")
ORDER, START, REAP = struct.Struct("<II"), 1, 2
REPORT = struct.Struct("<IidQ")
MAX_DEPTH = 8
MAX_INTEGER = 16
MAX_TEXT = 2_000

_FLOAT = struct.Struct("<d")


class WireError(ValueError):
    """A value that this encoding does not have, or bytes that are not in it."""


def pack(value: object, depth: int = 0) -> bytes:
    """Encode None, booleans, integers, floats, strings, lists or tuples, and dictionaries with string keys.

    Raises:
        WireError: a value of any other type, an integer of more than 16 bytes, or more than 8 levels.
    """
    if depth > MAX_DEPTH:
        raise WireError(f"more than {MAX_DEPTH} levels of nesting")
    if value is None:
        return b"n"
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, int):
        size = value.bit_length() // 8 + 1
        if size > MAX_INTEGER:
            raise WireError(f"an integer of more than {MAX_INTEGER} bytes")
        return b"i" + bytes((size,)) + value.to_bytes(size, "little", signed=True)
    if isinstance(value, float):
        return b"d" + _FLOAT.pack(value)
    if isinstance(value, str):
        data = value.encode("utf-8", "replace")
        return b"s" + LENGTH.pack(len(data)) + data
    if isinstance(value, list | tuple):
        return b"l" + LENGTH.pack(len(value)) + b"".join(pack(item, depth + 1) for item in value)
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise WireError("a dictionary whose keys are not all strings")
        items = (pack(part, depth + 1) for pair in value.items() for part in pair)
        return b"m" + LENGTH.pack(len(value)) + b"".join(items)
    kind = type(value).__name__
    raise WireError(
        f"a value of type {kind}: only numbers, strings, booleans, None and lists of them may be sent"
    )


def unpack(data: bytes | bytearray) -> Any:
    """Decode exactly one value that fills `data`; takes memory in proportion to it, whatever it claims.

    Raises:
        WireError: anything that `pack` would not have written.
    """
    value, end = _value(bytes(data), 0, 0)
    if end != len(data):
        raise WireError("bytes behind the value")
    return value


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise WireError(f"more than {MAX_DEPTH} levels of nesting")
    tag, at = data[at : at + 1], at + 1
    if tag == b"n":
        return None, at
    if tag in (b"t", b"f"):
        return tag == b"t", at
    if tag == b"i":
        size = _take(data, at, 1)[0]
        if not 1 <= size <= MAX_INTEGER:
            raise WireError("an integer of a size that is not in use")
        return int.from_bytes(_take(data, at + 1, size), "little", signed=True), at + 1 + size
    if tag == b"d":
        return _FLOAT.unpack(_take(data, at, 8))[0], at + 8
    if tag not in (b"s", b"l", b"m"):
        raise WireError("an unknown tag" if tag else "cut short")
    (count,), at = LENGTH.unpack(_take(data, at, 4)), at + 4
    if tag == b"s":
        try:
            return _take(data, at, count).decode(), at + count
        except UnicodeDecodeError as error:
            raise WireError("a string that is not UTF-8") from error
    items: list[Any] = []
    for _ in range(count * (2 if tag == b"m" else 1)):
        item, at = _value(data, at, depth + 1)
        items.append(item)
    if tag == b"l":
        return items, at
    if not all(isinstance(key, str) for key in items[::2]):
        raise WireError("a dictionary whose keys are not all strings")
    return dict(zip(items[::2], items[1::2], strict=True)), at


def _take(data: bytes, at: int, size: int) -> bytes:
    part = data[at : at + size]
    if len(part) < size:
        raise WireError("cut short")
    return part


def printable(text: bytes | str, limit: int = MAX_TEXT) -> str:
    """Text from an untrusted process made fit for terminals, tables and prompts.

    At most `limit` characters; all but printable ones, line breaks and tabs are written as escapes, so no
    terminal sequence and no invisible or direction-changing character survives.
    """
    if isinstance(text, bytes):
        text = text[: 4 * limit].decode("utf-8", "replace")
    shown = (
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text[:limit]
    )
    return "".join(shown)[:limit]
