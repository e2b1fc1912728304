"""Models in processes of their own, one for each card: an engine of all engines, a scorer of all scorers."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Pipe
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from collect.engine import EngineError, Request
from collect.hosted import OpenModel, Scores
from collect.local import prepare
from collect.prm.scorer import Item
from collect.spread import Answers, SpreadEngine
from env.errors import UserError

ROOT = Path(__file__).parents[1]
AGAIN = "what is finished is kept, so run the same command again"


class Worker(Protocol):
    """Another process with a model; see `collect.hosted.Hosted` for what can be called there.

    Attributes:
        name: for errors.
    """

    name: str

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method there and waits for what it returns; one call at a time.

        Raises:
            UserError: what the method raised.
            EngineError: the process is gone.
        """
        ...

    def close(self) -> None:
        """Ends the process; a call that is under way raises EngineError."""
        ...


class ProcessWorker:
    """A process of this machine; see `Worker`.

    Args:
        name: for errors.
        environment: what it has in its environment besides our own, such as the card that it may see.
    """

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self._connection, theirs = Pipe()
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from collect.hosted import main; main()", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
                # Ctrl-C is for the process that the user started: it ends this one.
                start_new_session=True,
            )

    def call(self, method: str, *arguments: Any) -> Any:
        """See `Worker.call`."""
        try:
            self._connection.send((method, arguments))
            fine, answer = self._connection.recv()
        except (EOFError, OSError):
            status = self._process.wait()
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            raise EngineError(f"the process of {self.name} {how}; {AGAIN}") from None
        if not fine:
            raise answer
        return answer

    def close(self) -> None:
        """See `Worker.close`."""
        # With whatever processes vLLM has started there.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class WorkerPlace:
    """A worker with an engine; see `collect.spread.Place`.

    Args:
        worker: which it is.
        context: of its engine.
        slots: of its engine.
    """

    def __init__(self, worker: Worker, context: int, slots: int) -> None:
        self.context, self.slots = context, slots
        self._worker = worker
        # Requests and where their answers go; None = it is over.
        self._inbox: SimpleQueue[tuple[Sequence[tuple[int, Request]], Answers] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=worker.name, daemon=True)
        self._thread.start()

    def begin(self, requests: Sequence[tuple[int, Request]], answers: Answers) -> None:
        """Queue requests; see `collect.spread.Place`."""
        self._inbox.put((requests, answers))

    def close(self) -> None:
        """Ends the process."""
        self._inbox.put(None)
        self._worker.close()
        self._thread.join()

    def _work(self) -> None:
        under_way = 0
        while True:
            batch: list[tuple[int, Request]] = []
            for item in self._received(wait=not under_way):
                if item is None:
                    return
                requests, answers = item
                batch.extend(requests)
            try:
                samples = self._worker.call("exchange", batch)
            except EngineError as error:
                answers.put(error)
                return
            # Without an answer the collection would wait for ever.
            except Exception as error:
                answers.put(EngineError(f"{self._worker.name}: {error}"))
                return
            under_way += len(batch) - len(samples)
            for sample in samples:
                answers.put(sample)

    def _received(self, wait: bool) -> list[tuple[Sequence[tuple[int, Request]], Answers] | None]:
        """All that came meanwhile, at least one if `wait`."""
        received = [self._inbox.get()] if wait else []
        while True:
            try:
                received.append(self._inbox.get_nowait())
            except Empty:
                return received


class SpreadScorer:
    """A scorer of several, each in a process of its own; see `collect.prm.scorer.Scorer`.

    Paths of one question share beginnings, so one worker gets all of them.
    """

    def __init__(self, workers: Sequence[Worker], facts: Mapping[str, Any]) -> None:
        self.name: str = facts["name"]
        self.kind: str = facts["kind"]
        self.context: int | None = facts["context"]
        self.steps = self.unscored = self.tokens = 0
        self._workers = list(workers)
        self._pool = ThreadPoolExecutor(len(workers))
        self._done: list[Scores | None] = [None] * len(workers)

    def score(self, items: Sequence[Item]) -> list[list[float | None]]:
        """See `collect.prm.scorer.Scorer.score`."""
        shares = _shares(items, len(self._workers))
        asked = [[items[place] for place in share] for share in shares]
        calls = zip(self._workers, asked, strict=True)
        found = list(self._pool.map(lambda call: call[0].call("score", call[1]) if call[1] else None, calls))
        scores: list[list[float | None]] = [[] for _ in items]
        for number, (share, result) in enumerate(zip(shares, found, strict=True)):
            if result is not None:
                self._done[number] = result
                for place, each in zip(share, result.scores, strict=True):
                    scores[place] = each
        done = [each for each in self._done if each is not None]
        self.steps = sum(each.steps for each in done)
        self.unscored = sum(each.unscored for each in done)
        self.tokens = sum(each.tokens for each in done)
        return scores

    def close(self) -> None:
        """Ends the processes."""
        for worker in self._workers:
            worker.close()
        self._pool.shutdown()


def _shares(items: Sequence[Item], count: int) -> list[list[int]]:
    """Which items each worker gets: those of a question together, and about as many steps each."""
    places: dict[str, list[int]] = {}
    for place, (question, _) in enumerate(items):
        places.setdefault(question, []).append(place)
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    weights = {question: sum(len(items[place][1]) for place in own) for question, own in places.items()}
    for question in sorted(places, key=lambda each: -weights[each]):
        least = loads.index(min(loads))
        shares[least] += places[question]
        loads[least] += weights[question]
    return shares


def process_workers(gpus: int, cards: int) -> list[Callable[[], Worker]]:
    """What starts processes that share the cards of this machine; with the CPU build, as many processes.

    Args:
        gpus: how many cards, of those in CUDA_VISIBLE_DEVICES if that is set.
        cards: that an engine needs.

    Raises:
        UserError: the cards cannot be shared out like this.
    """
    if prepare():
        return [partial(ProcessWorker, f"engine {number}", {}) for number in range(gpus)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(number) for number in range(gpus)]
    if gpus > len(devices):
        raise UserError(
            f"--gpus {gpus} is more than CUDA_VISIBLE_DEVICES={visible} lets this process see; give at most "
            f"{len(devices)}"
        )
    return [
        partial(ProcessWorker, f"GPU {','.join(own)}", {"CUDA_VISIBLE_DEVICES": ",".join(own)})
        for own in (devices[first : first + cards] for first in range(0, divided(gpus, cards) * cards, cards))
    ]


def divided(gpus: int, cards: int) -> int:
    """How many engines there are. Raises UserError if some cards would be left."""
    if gpus % cards:
        raise UserError(
            f"{gpus} GPUs cannot be shared out to engines of {cards} each (tensor_parallel_size); give "
            f"--gpus a multiple of {cards}"
        )
    return gpus // cards


def open_engines(model: str, start: Sequence[Callable[[], Worker]], open_engine: OpenModel) -> SpreadEngine:
    """An engine of one in each worker. Raises EngineError if a model cannot be loaded in one of them."""
    workers, facts = _open(start, open_engine, ("context", "slots"))
    return SpreadEngine(
        model, [WorkerPlace(worker, **fact) for worker, fact in zip(workers, facts, strict=True)]
    )


def open_scorers(start: Sequence[Callable[[], Worker]], open_scorer: OpenModel) -> SpreadScorer:
    """A scorer of one in each worker. Raises UserError if a model cannot be used in one of them."""
    workers, facts = _open(start, open_scorer, ("name", "kind", "context"))
    return SpreadScorer(workers, facts[0])


def _open(
    start: Sequence[Callable[[], Worker]], open_model: OpenModel, facts: Sequence[str]
) -> tuple[list[Worker], list[dict[str, Any]]]:
    """Starts all workers at once and waits until the model is loaded in each."""
    workers: list[Worker] = []
    pool = ThreadPoolExecutor(len(start))
    try:
        workers.extend(each() for each in start)
        return workers, list(pool.map(lambda worker: worker.call("open", open_model, facts), workers))
    except BaseException:
        # First, or the others would be waited for until they have loaded theirs.
        for worker in workers:
            worker.close()
        raise
    finally:
        pool.shutdown()
