"""The trusted side's handle on the clean process (`child`) that forks the locked-down ones."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from env.errors import UserError
from env.isolation.link import Gone, Limits
from env.isolation.wire import LENGTH, LEVELS, ORDER, REAP, REPORT, START, pack, unpack

ROOT = Path(__file__).resolve().parents[2]
BOOT = "import sys; sys.path.append(sys.argv[1]); from env.isolation.child import main; main()"
# Like -I, but it heeds PYTHONHASHSEED, without which sets of strings would differ from one run to the next.
FLAGS = ("-P", "-s", "-S", "-B")
ENVIRONMENT = {"PYTHONHASHSEED": "0"}
PATIENCE = 30.0
_NOT_STARTED = "the process that isolates controllers did not start"


class IsolationError(UserError):
    """Untrusted code cannot be run here, or not safely."""


class Report(NamedTuple):
    """How the process of a job ended: `os.wait4`'s status (-1: there was none), seconds and bytes."""

    job: int
    status: int
    cpu_seconds: float
    rss: int


class Zygote:
    """A running clean process.

    Args:
        helpers: modules that controllers may import, name -> source.
        level: of the layers of this level, it keeps those that hold.
        limits: what every child may use.

    Attributes:
        layers: the layers of `env.isolation.kernel` that every child wears.

    Raises:
        IsolationError: it cannot be started on this platform, or fails to.
    """

    def __init__(self, helpers: Mapping[str, str], level: str, limits: Limits) -> None:
        if not hasattr(os, "fork"):
            raise IsolationError("untrusted controllers need fork(); run on Linux, or in WSL on Windows")
        self._control, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, *FLAGS, "-c", BOOT, str(ROOT)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as error:
            self._control.close()
            raise IsolationError(f"{_NOT_STARTED}: {error}") from error
        try:
            self._control.settimeout(PATIENCE)
            setup = pack(
                {
                    "helpers": dict(helpers),
                    "level": level,
                    "memory": limits.memory,
                    "cpu": limits.cpu,
                }
            )
            self._control.sendall(LENGTH.pack(len(setup)) + setup)
            (size,) = LENGTH.unpack(self._receive(LENGTH.size))
            self.layers = frozenset(unpack(self._receive(size)))
        except (OSError, Gone) as error:
            self._control.close()
            self._process.kill()
            complaint = self._process.communicate()[1].decode("utf-8", "replace").strip().splitlines()
            reason = complaint[-1] if complaint else error or "it ended"
            raise IsolationError(f"{_NOT_STARTED}: {reason}") from error
        self._control.settimeout(None)

    @property
    def level(self) -> str:
        """The best level of which every layer holds; "C" promises none."""
        return next((level for level in ("A", "B") if LEVELS[level] <= self.layers), "C")

    def fileno(self) -> int:
        """The socket that becomes readable when there are reports."""
        return self._control.fileno()

    def start(self, job: int) -> tuple[int, int]:
        """Have a process forked for a job; returns the descriptors to hear it by and to speak to it by."""
        theirs_in, outbox = os.pipe()
        inbox, theirs_out = os.pipe()
        try:
            self._order(START, job, [theirs_in, theirs_out])
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        return inbox, outbox

    def reap(self, job: int) -> None:
        """End the process of a job if it still runs; a report follows."""
        self._order(REAP, job, [])

    def report(self) -> Report:
        """The next report; waits for it.

        Raises:
            Gone: the process has ended, and with it all that it forked.
        """
        return Report(*REPORT.unpack(self._receive(REPORT.size)))

    def close(self) -> None:
        """End the process and all that it forked."""
        self._control.close()
        self._process.kill()
        self._process.communicate()

    def _order(self, kind: int, job: int, files: list[int]) -> None:
        try:
            socket.send_fds(self._control, [ORDER.pack(kind, job)], files)
        except (BrokenPipeError, ConnectionResetError):
            # `report` will tell.
            pass

    def _receive(self, size: int) -> bytes:
        try:
            data = self._control.recv(size, socket.MSG_WAITALL)
        except ConnectionResetError:
            data = b""
        if len(data) < size:
            raise Gone
        return data
