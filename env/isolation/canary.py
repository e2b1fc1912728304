"""What this kernel really enforces, found by attacking it from children that wear one layer each.

Feature flags lie: a container may list seccomp and emulate it, a kernel may have Landlock compiled in and
switched off. So each layer must be seen to stop what it is there for, by the very error it answers with.
"""

import errno
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable

from env.isolation import kernel, wire

_MEMORY, _SECONDS = 1 << 30, 5
_READ_OTHER_PROCESS, _TRACE = {"x86_64": (310, 101), "aarch64": (270, 117)}.get(os.uname().machine, (-1, -1))


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


_ATTEMPTS: dict[str, list[tuple[Callable[[], object], int | None]]] = {
    wire.SECCOMP: [
        (lambda: os.open(sys.executable, os.O_RDONLY), errno.EPERM),
        (lambda: socket.socket(socket.AF_INET), errno.EPERM),
        (lambda: socket.socket(socket.AF_UNIX), errno.EPERM),
        (_fork, errno.EPERM),
        (lambda: os.kill(os.getppid(), signal.SIGCONT), errno.EPERM),
        (lambda: kernel.call(_TRACE, 16, os.getppid(), 0, 0), errno.EPERM),
        (lambda: kernel.call(_READ_OTHER_PROCESS, os.getppid(), 0, 0, 0, 0, 0), errno.EPERM),
        (lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC), errno.EPERM),
    ],
    wire.LANDLOCK: [
        (lambda: os.open(sys.executable, os.O_RDONLY), errno.EACCES),
        (lambda: os.listdir("/"), errno.EACCES),
    ],
    wire.LIMITS: [
        (lambda: bytearray(2 * _MEMORY), None),
        (os.pipe, errno.EMFILE),
    ],
}


def holding() -> set[str]:
    """The layers of `kernel.confine` that stop every attempt made on them here and now."""
    return {layer for layer, attempts in _ATTEMPTS.items() if _holds(layer, attempts)}


def _holds(layer: str, attempts: list[tuple[Callable[[], object], int | None]]) -> bool:
    zygote, (inbox, outbox) = os.getpid(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            kernel.die_with(zygote)
            os.dup2(outbox, 1)
            kernel.confine({layer}, _MEMORY, _SECONDS)
            os.write(1, bytes(_refused(attempt, code) for attempt, code in attempts))
        finally:
            os._exit(0)
    os.close(outbox)
    verdict = os.read(inbox, len(attempts))
    os.close(inbox)
    os.waitpid(child, 0)
    return verdict == bytes([True] * len(attempts))


def _refused(attempt: Callable[[], object], code: int | None) -> bool:
    try:
        attempt()
    except MemoryError:
        return code is None
    except OSError as error:
        return error.errno == code
    return False
