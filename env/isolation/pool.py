"""The trusted side: a pool of locked-down children that play jobs, many at once, against one engine."""

import marshal
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from env.isolation.link import Failure, Gone, Limits, Link
from env.isolation.wire import pack, printable
from env.isolation.zygote import IsolationError, Report, Zygote

Answer = Callable[[list[tuple[int, bytes]]], Sequence[bytes | Exception]]

_TICK = 0.1
_LINGER = 0.004
# Programs of which the code is kept, as the first process to compile one has sent it.
MAX_CODES = 16

ENDED = "the process that isolates controllers ended; run this again"
# The status of a process of whose end nobody is left to tell.
_UNTOLD = -2


@dataclass(frozen=True)
class Job:
    """One process's worth of episodes.

    Attributes:
        source: the controller, as text.
        beta: what its schedule is asked for.
        seed_keys: for each episode, what its random generator is seeded with.
        max_branches: for each episode, the ceiling on branches opened at the root.
        overrides: settings that replace those of the schedule.
        name: the controller's `__name__`.
        tracing: whether notes are kept; where they are not, a frame with notes is a violation.
    """

    source: str
    beta: float
    seed_keys: Sequence[int]
    max_branches: Sequence[int]
    overrides: Mapping[str, object] = field(default_factory=dict)
    name: str = "controller"
    tracing: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        job: its place in the iterable of jobs.
        settings: what the schedule resolved to (None if it never did): plain values, but the child's word.
        error: why the job ended before every episode had its final; "" if all is well. Printable, bounded.
        rss: bytes of memory its process held at most.
        cpu_seconds: processor time it used.
        lost: whether the error is not the job's own: its process went with the one that isolates controllers,
            or could not be started.
    """

    job: int
    settings: dict[str, Any] | None
    error: str
    rss: int
    cpu_seconds: float
    lost: bool = False


@dataclass(eq=False)
class Child:
    """A job's process, while it runs; `index` is what its outcome will be told by."""

    index: int
    serial: int
    link: Link
    source: str
    answered: bool
    ended: bool = False
    error: str = ""


class Pool:
    """Runs untrusted controllers, each job in a process of its own; use it as a context manager.

    Args:
        limits: what one job may use.
        helpers: modules that controllers may import beside the standard library's, name -> source text.
        level: keep to this level at most, instead of to all that the kernel enforces.
        i_trust_this_code: run even at level C, where nothing can be relied upon.

    Attributes:
        level: "A" seccomp, Landlock and resource limits hold; "B" all but Landlock; "C" less than that. Found
            out by attacking ourselves (`env.isolation.canary`); results should be stamped with it.

    Raises:
        IsolationError: level C without `i_trust_this_code`, or no process could be started at all.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        helpers: Mapping[str, str] | None = None,
        level: str = "A",
        i_trust_this_code: bool = False,
    ) -> None:
        self.limits = limits or Limits()
        self._helpers = dict(helpers or {})
        self._zygote = Zygote(self._helpers, level, self.limits)
        self.level = self._zygote.level
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._zygote, selectors.EVENT_READ)
        self._children: dict[int, Child] = {}
        self._by_pipe: dict[int, Child] = {}
        self._codes: dict[str, bytes] = {}
        self._serial = 0
        self._spare: tuple[int, int, int] | None = None
        if self.level == "C" and not i_trust_this_code:
            self.close()
            raise IsolationError(
                "this machine cannot isolate untrusted code: seccomp and resource limits did not stop "
                "our own attacks. Use Linux on x86_64 or aarch64, or vouch for it with --i-trust-this-code"
            )

    def run(self, jobs: Iterable[Job], answer: Answer, concurrency: int = 16) -> Iterator[Outcome]:
        """Play jobs, up to `concurrency` at once, and yield each one's outcome as it ends.

        `answer` is handed (job, frame) for every job that waits for a reply now; the frames are whole and
        within the bounds of `Link`, but otherwise unchecked. It returns the replies in the same order. An
        exception in place of a reply ends that job with its text as the reason; one it raises ends the run.

        One run at a time; a job is drawn from the iterable when there is a place for it.
        """
        queue = enumerate(jobs)
        checked = time.monotonic()
        waiting: list[tuple[Child, bytes]] = []
        try:
            while True:
                while len(self._children) < concurrency and (drawn := next(queue, None)):
                    self.start(*drawn)
                if not self._children:
                    return
                outcomes, frames = self.listen(_LINGER if waiting else _TICK)
                waiting += frames
                # One answer to many costs hardly more than to one, so what comes soon is waited for.
                if waiting and (not frames or len(waiting) >= len(self._by_pipe) // 2):
                    self.reply(waiting, answer)
                    waiting = []
                if time.monotonic() > checked + _TICK:
                    checked = time.monotonic()
                    self.check_patience()
                yield from outcomes
        finally:
            for child in self._children.values():
                self.end(child)
            self._children.clear()

    def close(self) -> None:
        """End all processes."""
        self._drop_spare()
        self._zygote.close()
        self._selector.close()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Readable when there is something to `listen` to, for an event loop."""
        return self._selector.fileno()

    def start(self, index: int, job: Job) -> Child:
        """Begin a job; for those who listen to the pool themselves instead of calling `run`."""
        self.prepare()
        assert self._spare is not None
        (serial, inbox, outbox), self._spare = self._spare, None
        link = Link(inbox, outbox, len(job.seed_keys), job.tracing, self.limits)
        child = Child(index, serial, link, job.source, answered=not job.seed_keys)
        link.code = self._codes.get(job.source)
        self._children[child.serial] = self._by_pipe[inbox] = self._by_pipe[outbox] = child
        self._selector.register(inbox, selectors.EVENT_READ)
        setup = {
            "program": link.code or job.source,
            "beta": float(job.beta),
            "seed_keys": list(job.seed_keys),
            "max_branches": list(job.max_branches),
            "overrides": pack(dict(job.overrides)),
            "name": job.name,
            "tracing": job.tracing,
        }
        self._send(child, marshal.dumps(setup))
        return child

    def prepare(self) -> None:
        """Have the next job's process forked, unless it is: that takes longer than a short job itself."""
        if self._spare is None:
            self._serial += 1
            self._spare = self._serial, *self._zygote.start(self._serial)

    def listen(self, seconds: float) -> tuple[list[Outcome], list[tuple[Child, bytes]]]:
        """The jobs that have ended, and the frames that wait for a reply, of the next so many seconds.

        Raises:
            IsolationError: the process that isolates controllers has ended and no other could be started; the
                next call tries again.
        """
        outcomes: list[Outcome] = []
        frames: list[tuple[Child, bytes]] = []
        for key, _ in self._selector.select(seconds):
            handle = key.fd
            if handle == self._zygote.fileno():
                outcomes += self._hear_report()
            elif child := self._by_pipe.get(handle):
                try:
                    if handle == child.link.outbox:
                        self._flush(child)
                    elif frame := child.link.receive():
                        frames.append((child, frame))
                except Gone:
                    # In our turn its frame still waits for us, and may well have been its last.
                    if child.link.theirs:
                        self.end(child)
                except Failure as failure:
                    self.end(child, str(failure))
        return outcomes, frames

    def reply(self, frames: list[tuple[Child, bytes]], answer: Answer) -> None:
        """Answer frames, those of children that have ended meanwhile apart; see `run`."""
        frames = [(child, frame) for child, frame in frames if not child.ended]
        replies = answer([(child.index, frame) for child, frame in frames]) if frames else []
        for (child, _), reply in zip(frames, replies, strict=True):
            if isinstance(reply, Exception):
                self.end(child, printable(str(reply)))
            elif child.link.unanswered:
                self._send(child, reply)
            else:
                child.answered = True
                self.end(child)

    def _send(self, child: Child, message: bytes) -> None:
        child.link.send(message)
        if child.link.unsent:
            self._selector.register(child.link.outbox, selectors.EVENT_WRITE)

    def _flush(self, child: Child) -> None:
        child.link.flush()
        if not child.link.unsent:
            self._selector.unregister(child.link.outbox)

    def check_patience(self) -> None:
        """End the children that have kept us waiting for too long; whoever listens should ask this often."""
        now = time.monotonic()
        for child in self._children.values():
            try:
                if not child.ended:
                    child.link.check_patience(now)
            except Failure as failure:
                self.end(child, str(failure))

    def end(self, child: Child, error: str = "") -> None:
        """Have the child's process ended; the child stays in `_children` until that is reported."""
        if child.ended:
            return
        link, child.ended, child.error = child.link, True, error
        self._selector.unregister(link.inbox)
        if link.unsent:
            self._selector.unregister(link.outbox)
        del self._by_pipe[link.inbox], self._by_pipe[link.outbox]
        link.close()
        self._zygote.reap(child.serial)

    def _hear_report(self) -> list[Outcome]:
        try:
            report = self._zygote.report()
        except Gone:
            return self._replace_zygote()
        child = self._children.pop(report.job, None)
        # None: of a run that was broken off.
        return [] if child is None else [self._outcome(child, report)]

    def _outcome(self, child: Child, report: Report) -> Outcome:
        error, lost = child.error, False
        if child.link.code and child.source not in self._codes:
            if len(self._codes) >= MAX_CODES:
                del self._codes[next(iter(self._codes))]
            self._codes[child.source] = child.link.code
        if not error and not child.answered:
            error, lost = _cause(report, self.limits), report.status < 0
        return Outcome(child.index, child.link.settings, error, report.rss, report.cpu_seconds, lost)

    def _drop_spare(self) -> None:
        """Close the pipes of a process that ends with the zygote."""
        if self._spare is not None:
            for end in self._spare[1:]:
                os.close(end)
            self._spare = None

    def _replace_zygote(self) -> list[Outcome]:
        # Before anything is changed, so that where this fails it can be tried again.
        zygote = Zygote(self._helpers, self.level, self.limits)
        orphans = list(self._children.values())
        for child in orphans:
            self.end(child)
        self._children.clear()
        self._drop_spare()
        self._selector.unregister(self._zygote)
        self._zygote.close()
        self._zygote = zygote
        self._selector.register(self._zygote, selectors.EVENT_READ)
        return [self._outcome(child, Report(child.serial, _UNTOLD, 0.0, 0)) for child in orphans]


def _cause(report: Report, limits: Limits) -> str:
    """Why a process ended that should not have, yet."""
    if report.status == _UNTOLD:
        return ENDED
    if report.status < 0:
        return "no process could be started for it"
    if os.WIFSIGNALED(report.status):
        number = os.WTERMSIG(report.status)
        if number == signal.SIGXCPU or (number == signal.SIGKILL and report.cpu_seconds >= limits.cpu):
            return f"used more than {limits.cpu} seconds of processor time"
        if number != signal.SIGKILL:
            return f"crashed: {signal.strsignal(number)}"
    return "ended before every episode had its answer"
