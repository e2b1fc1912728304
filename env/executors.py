"""Where units of work run: in this process, in worker processes, or on a Ray cluster."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import lru_cache
from multiprocessing.queues import SimpleQueue
from typing import Any, TypeVar

from env.errors import UserError

Unit = TypeVar("Unit")
Result = TypeVar("Result")

EXECUTORS = ("serial", "processes", "ray")


def run_all(
    function: Callable[[Unit], Result], units: Sequence[Unit], executor: str, workers: int
) -> Iterator[tuple[Unit, Result]]:
    """Apply `function` to every unit; yields each with its result as it is done.

    Args:
        executor: "serial" in this process, "processes" for worker processes of this machine (they are kept
            for the next call, and keep to a processor each where all of these have work), "ray" for the Ray
            cluster that this process is connected to, or a local one.
        workers: how many processes; with one, "processes" is "serial".

    Raises:
        UserError: an unknown executor, Ray is not installed, or a worker died.
    """
    if executor not in EXECUTORS:
        raise UserError(f"no executor {executor!r}: choose {', '.join(EXECUTORS)}")
    if executor == "ray":
        yield from _ray(function, units)
    elif executor == "serial" or workers <= 1 or len(units) <= 1:
        for unit in units:
            yield unit, function(unit)
    else:
        yield from _processes(function, units, workers)


def _processes(
    function: Callable[[Unit], Result], units: Sequence[Unit], workers: int
) -> Iterator[tuple[Unit, Result]]:
    pool = _pool(workers, len(units) >= workers == len(processors()))
    done = False
    try:
        futures = {pool.submit(function, unit): unit for unit in units}
        for future in as_completed(futures):
            yield futures[future], future.result()
        done = True
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, most likely for want of memory: use fewer --workers or fewer seeds; "
            "in a script of your own, call this under `if __name__ == '__main__':`"
        ) from None
    finally:
        if not done:
            # Workers in mid-unit would be waited for at exit; what they hold is of no more use.
            _pool.cache_clear()
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)


@lru_cache(maxsize=1)
def _pool(workers: int, settled: bool) -> ProcessPoolExecutor:
    # Spawned, never forked: a fork would copy whatever this process holds, its threads' locks included.
    context = multiprocessing.get_context("spawn")
    places: SimpleQueue[int] = context.SimpleQueue()
    if settled:
        for place in processors():
            places.put(place)
    return ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(places,))


def processors() -> list[int]:
    """The numbers of the processors that we may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _begin(places: SimpleQueue[int]) -> None:
    """What a worker does first; from `places` it takes the processor to keep to, if there are any."""
    if not places.empty() and hasattr(os, "sched_setaffinity"):
        # It takes turns with the children it plays, and finds what they have left in the caches. Where that
        # is not allowed, it is slower.
        with suppress(OSError):
            os.sched_setaffinity(0, {places.get()})
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that was killed tells its workers nothing, and they would wait for work for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _ray(function: Callable[[Unit], Result], units: Sequence[Unit]) -> Iterator[tuple[Unit, Result]]:
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs Ray: pip install 'autotts[ray]'") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    remote: Any = ray.remote(function)
    waiting = {remote.remote(unit): unit for unit in units}
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        try:
            result = ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise UserError(f"Ray lost a worker ({type(error).__name__}): use fewer seeds") from None
        yield waiting.pop(ready), result
