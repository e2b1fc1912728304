"""The system-call filter for both machines, run by a small model of the kernel's filter machine."""

import struct
import sys

import pytest

if sys.platform == "win32":
    pytest.skip("no such kernel", allow_module_level=True)

from env.isolation.kernel import _ARCHITECTURES, _filter


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    if architecture is None:
        architecture = _ARCHITECTURES[machine]
    data = struct.pack("<iIQ6Q", number, architecture, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    steps, at, word = list(struct.iter_unpack("<HBBI", _filter(machine))), 0, 0
    while True:
        code, if_true, if_false, value = steps[at]
        at += 1
        match code:
            case 0x20:
                (word,) = struct.unpack_from("<I", data, value)
            case 0x15:
                at += if_true if word == value else if_false
            case 0x35:
                at += if_true if word >= value else if_false
            case 0x45:
                at += if_true if word & value else if_false
            case 0x06:
                return value


ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050001, 0x80000000
NO_FILE = 2**64 - 1


@pytest.mark.parametrize(
    ("machine", "read", "write", "mmap", "mprotect", "exit"),
    [("x86_64", 0, 1, 9, 10, 231), ("aarch64", 63, 64, 222, 226, 94)],
)
def test_filter(machine, read, write, mmap, mprotect, exit):
    assert verdict(machine, read, 0) == ALLOW and verdict(machine, read, 1) == REFUSE
    assert verdict(machine, write, 1) == ALLOW and verdict(machine, write, 0) == REFUSE
    assert verdict(machine, write, 2) == REFUSE
    assert verdict(machine, mmap, 0, 4096, 3, 0x22, NO_FILE) == ALLOW
    assert verdict(machine, mmap, 0, 4096, 7, 0x22, NO_FILE) == REFUSE
    assert verdict(machine, mmap, 0, 4096, 3, 0x02, 0) == REFUSE
    assert (
        verdict(machine, mprotect, 0, 4096, 3) == ALLOW and verdict(machine, mprotect, 0, 4096, 4) == REFUSE
    )
    assert verdict(machine, exit) == ALLOW
    assert verdict(machine, read, 0, architecture=0x40000003) == KILL
    allowed = [number for number in range(600) if verdict(machine, number, 0, 0, 0, 0, NO_FILE) == ALLOW]
    assert len(allowed) == 16 - 1  # `write` may not be to descriptor 0
    assert machine != "x86_64" or verdict(machine, 0x40000000) == KILL


def test_no_filter_for_an_unknown_machine():
    assert _filter("riscv64") == b""
