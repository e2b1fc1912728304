"""Locked-down children in an event loop: each waits for its own episode, as long as that takes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from env.frames import FrameError
from env.isolation.pool import Child, Job, Pool
from env.isolation.zygote import IsolationError

Answer = Callable[[bytes], Awaitable[bytes]]

_TICK = 0.1


@dataclass(eq=False)
class _Playing:
    child: Child
    answer: Answer
    error: "asyncio.Future[str]"
    task: "asyncio.Task[None] | None" = None

    def fail(self, error: Exception) -> None:
        """Have it end so, unless it has ended."""
        if not self.error.done():
            self.error.set_exception(error)


@dataclass
class Children:
    """Plays jobs in the children of a pool, all of one event loop; `close` it there.

    The limits of a child hold for its own turns only: the time that a model takes is not its own.

    Args:
        pool: nobody else may listen to it.
    """

    pool: Pool
    _playing: dict[int, _Playing] = field(default_factory=dict)
    _numbers: "count[int]" = field(default_factory=count)
    _timer: asyncio.TimerHandle | None = None

    async def play(self, job: Job, answer: Answer) -> tuple[dict[str, Any] | None, str]:
        """Play a job to its end; whatever `answer` raises ends it and is raised here.

        Returns:
            The settings and the error of its `env.isolation.pool.Outcome`.

        Raises:
            IsolationError: its process was lost, or could not be started; it may be played again.
        """
        loop = asyncio.get_running_loop()
        if self._timer is None:
            loop.add_reader(self.pool.fileno(), self._listen)
            self._timer = loop.call_later(_TICK, self._tick)
        number = next(self._numbers)
        playing = _Playing(self.pool.start(number, job), answer, loop.create_future())
        self._playing[number] = playing
        try:
            error = await playing.error
            return playing.child.link.settings, error
        finally:
            del self._playing[number]
            self.pool.end(playing.child)
            if playing.task is not None:
                playing.task.cancel()
            self.pool.prepare()

    def close(self) -> None:
        """End all children and their pool."""
        if self._timer is not None:
            self._timer.cancel()
            asyncio.get_running_loop().remove_reader(self.pool.fileno())
        self.pool.close()

    def _tick(self) -> None:
        self.pool.check_patience()
        self._timer = asyncio.get_running_loop().call_later(_TICK, self._tick)

    def _listen(self) -> None:
        try:
            outcomes, frames = self.pool.listen(0)
        except IsolationError as error:
            for each in self._playing.values():
                each.fail(error)
            return
        for child, frame in frames:
            if playing := self._playing.get(child.index):
                playing.task = asyncio.get_running_loop().create_task(self._reply(playing, frame))
        for outcome in outcomes:
            if (playing := self._playing.get(outcome.job)) and outcome.lost:
                playing.fail(IsolationError(outcome.error))
            elif playing and not playing.error.done():
                playing.error.set_result(outcome.error)

    async def _reply(self, playing: _Playing, frame: bytes) -> None:
        reply: bytes | Exception
        try:
            reply = await playing.answer(frame)
        except FrameError as error:
            reply = error
        except Exception as error:
            playing.fail(error)
            return
        self.pool.reply([(playing.child, frame)], lambda frames: [reply])
        # The end of the process is not waited for: nobody who has every answer needs it.
        if playing.child.answered and not playing.error.done():
            playing.error.set_result(playing.child.error)
