"""The report of a search that is still running, drawn anew from time to time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Seconds from one drawing to the next: at least so many, and so many times what the last one took.
EVERY, TIMES = 20.0, 20.0


@contextmanager
def redrawing(run: Path, warn: Callable[[str], None], every: float = EVERY) -> Iterator[Callable[[], None]]:
    """Keep RUN/report.html up to date while this lasts.

    A process of its own draws, so that the search neither waits for it nor can be harmed by it. One that
    fails is a warning, the first time.

    Args:
        run: the folder of the run.
        warn: told what went wrong; may be called from another thread.
        every: seconds from one drawing to the next, at least.

    Yields:
        What to call whenever there may be something new. It draws if it is time, and never waits.
    """
    process: subprocess.Popen[str] | None = None
    drawing: threading.Thread | None = None
    due, failed, over = 0.0, False, False

    def draw() -> None:
        nonlocal process, due, failed
        started = time.monotonic()
        # A session of its own: what interrupts the search would make this one complain of it.
        process = subprocess.Popen(
            [sys.executable, "-m", "autotts", "report", str(run)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        _, told = process.communicate()
        due = time.monotonic() + max(every, TIMES * (time.monotonic() - started))
        if process.returncode and not (failed or over):
            failed = True
            warn(f"the report could not be drawn, the search goes on: {told.strip().rpartition(chr(10))[2]}")

    def redraw() -> None:
        nonlocal drawing
        if (drawing is None or not drawing.is_alive()) and time.monotonic() >= due:
            drawing = threading.Thread(target=draw, daemon=True)
            drawing.start()

    try:
        yield redraw
    finally:
        # Whoever draws the end must not meet another who writes the same file.
        over = True
        if process:
            process.kill()
        if drawing:
            drawing.join()
