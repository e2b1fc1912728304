"""What a collection shows while it works: how far it is, how fast, and for how long still."""

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from collect.work import Tally

# Between two lines where there is no terminal, as in the log of a batch job.
_SECONDS = 60.0


class Display:
    """A bar on a terminal, a line a minute elsewhere; on the error stream.

    Args:
        tally: of the engine, read for tokens a second.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        console = Console(stderr=True)
        self._is_terminal = console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, transient=True, disable=not self._is_terminal)
        self._task = self._bar.add_task("", total=None, speed="")
        self._what, self._decoded = "", 0
        self._begin = self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is KeyboardInterrupt:
            print("finished groups are kept: the same command goes on from there", file=sys.stderr)

    def report(self, what: str, done: int, total: int) -> None:
        """So many of so many are done."""
        now = time.monotonic()
        if what != self._what or done == 0:
            self._what, self._begin, self._decoded = what, now, self._tally.decoded_tokens
            self._bar.reset(self._task, description=what, total=total)
        spent, decoded = now - self._begin, self._tally.decoded_tokens - self._decoded
        speed = f"{decoded / spent:,.0f} tokens/s" if decoded and spent > 1 else ""
        self._bar.update(self._task, completed=done, total=total, speed=speed)
        if not self._is_terminal and done and (now - self._said > _SECONDS or done == total):
            self._said = now
            left = timedelta(seconds=round(spent / done * (total - done)))
            facts = [f"{done} of {total} {what}", *filter(None, [speed]), f"{left} left"]
            print(", ".join(facts), file=sys.stderr, flush=True)
