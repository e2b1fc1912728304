"""What commands show on a terminal while they work."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# A bar that is gone before it can be read only flickers.
BAR_AFTER = 2.0


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the error stream for what takes longer than two seconds; nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console, transient=True)
    task, began = bar.add_task(label), time.monotonic()

    def advance(done: int, total: int) -> None:
        if console.is_terminal and time.monotonic() - began > BAR_AFTER and not bar.live.is_started:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()
