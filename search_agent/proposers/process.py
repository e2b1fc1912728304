"""Run a command line to its end or its time limit, with its output captured and bounded."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple, cast

HEAD, TAIL = 16_384, 49_152  # bytes of output that are kept


class Ended(NamedTuple):
    """How a command ended: its exit status (None: stopped at the time limit) and what it printed, capped."""

    status: int | None
    output: str


def run(argv: Sequence[str], folder: Path, environment: Mapping[str, str], seconds: float) -> Ended:
    """Run a command in a process group of its own, which is killed when the command ends or time is up.

    Raises:
        OSError: it cannot be started.
    """
    process = subprocess.Popen(
        argv,
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    # A thread that waits here is not woken when the program ends, so nobody else would end its command.
    end = atexit.register(partial(_kill, process.pid))
    output = _Output(cast(BufferedReader, process.stdout))
    try:
        status: int | None = process.wait(seconds)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        atexit.unregister(end)
        end()
        process.wait()
    return Ended(status, output.text())


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


class _Output:
    """The first and last of what a pipe carries; the rest is read too, so that the writer never blocks."""

    def __init__(self, pipe: BufferedReader) -> None:
        self._pipe, self._head, self._tail, self._size = pipe, b"", b"", 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while chunk := self._pipe.read1(HEAD):
            self._size += len(chunk)
            room = HEAD - len(self._head)
            self._head += chunk[:room]
            self._tail = (self._tail + chunk[room:])[-TAIL:]
        self._pipe.close()

    def text(self) -> str:
        # A process that left the group may hold the pipe open for ever; what it says then is not waited for.
        self._thread.join(timeout=2)
        dropped = self._size - len(self._head) - len(self._tail)
        gap = f"\n[{dropped} bytes left out]\n".encode() if dropped > 0 else b""
        return (self._head + gap + self._tail).decode("utf-8", "replace")
