"""math-verify, asked in a process that may hang or die without harm."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

from env.errors import UserError

# What one question may cost before it counts as beyond math-verify.
CPU_SECONDS = 2
# Only where the kernel cannot limit CPU time, or the process sleeps, does the clock on the wall decide.
WALL_SECONDS = 60
# Answers that are normalised as one question, which takes a twentieth of those seconds.
AT_ONCE = 1_000


class TaskError(UserError):
    """A task cannot be loaded or cannot do its work on what it was given."""


class MathChecker:
    """Asks one worker process, started at the first question and again whenever a question was its end.

    Safe to use from several threads, and after a fork. What exceeds the limits of `env.math_worker` counts as
    not understood, not equal.

    Args:
        seconds: CPU time that a question may take.

    Raises:
        TaskError: math-verify cannot be loaded.
    """

    def __init__(self, seconds: int = CPU_SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def normalise(self, answers: Sequence[str]) -> list[str]:
        """Each answer in math-verify's normal form: without units, and other spellings of the same."""
        normal: list[str] = []
        for first in range(0, len(answers), AT_ONCE):
            some = list(answers[first : first + AT_ONCE])
            result = self._ask("normalise", some)
            if isinstance(result, list):
                normal += result
            elif len(some) == 1:
                normal += some
            else:
                # One of them was too much: the others must not suffer for it.
                normal += [form for answer in some for form in self.normalise([answer])]
        return normal

    def understood(self, answer: str) -> bool:
        """Whether math-verify reads an expression in it."""
        return self._ask("understood", answer) is True

    def equal(self, first: str, second: str) -> bool:
        """Whether math-verify finds the second answer to say what the first does."""
        return self._ask("equal", first, second) is True

    def extract(self, text: str) -> str | None:
        """The answer that math-verify finds in a text."""
        result = self._ask("extract", text)
        return result if isinstance(result, str) else None

    def start(self) -> None:
        """Starts the worker, which takes half a second, without waiting for it."""
        with self._lock:
            self._running()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._owner != os.getpid():
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("math_worker.py")), str(self._seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
            self._owner = os.getpid()
            self._stop = weakref.finalize(self, _stop, self._process, self._owner)
            self._ready = False
        return self._process

    def _ask(self, *question: str | list[str]) -> object:
        with self._lock:
            process = self._running()
            assert process.stdin and process.stdout and process.stderr
            if not self._ready:
                if process.stdout.readline() != "ready\n":
                    reason = process.stderr.read().strip().rsplit("\n", 1)[-1]
                    self._drop()
                    raise TaskError(
                        f"the task `math` needs math-verify: {reason}; run `pip install math-verify`"
                    )
                self._ready = True
            timer = threading.Timer(WALL_SECONDS, process.kill)
            timer.daemon = True
            timer.start()
            try:
                process.stdin.write(json.dumps(question) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = ""
            finally:
                timer.cancel()
            if not line:
                self._drop()
                return None
            answer: object = json.loads(line)
            return answer

    def _drop(self) -> None:
        self._stop()
        self._process = None


@functools.cache
def checker() -> MathChecker:
    """The one checker of this process."""
    return MathChecker()


def _stop(process: subprocess.Popen[str], owner: int) -> None:
    """Ends a worker; in a forked child, where it is the parent's, only lets go of it."""
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        try:
            stream.close()
        except OSError:
            continue
    if owner == os.getpid():
        process.kill()
        process.wait()
    else:
        process.returncode = 0
