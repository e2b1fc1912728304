"""A controller at one beta, ready for live episodes: in this process where it is trusted, else apart."""

import asyncio
import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

from env.episode import UNPARSED, Episode, Spent
from env.errors import UserError
from env.isolation.pool import Job
from env.isolation.wire import pack, unpack
from env.isolation.zygote import IsolationError
from env.live.children import Children
from env.live.episode import LiveEpisode
from env.live.model import ModelError, Usage
from env.lockstep import describe, resolve, rounds
from env.playback import prepare
from env.program import Program
from env.tasks import TaskError
from env.unit import open_pool, wanted


@dataclass(frozen=True)
class Played:
    """What became of an episode.

    Attributes:
        answer: the code that it ended with, -1 = none.
        correct: whether it is right; False where nobody knows.
        ledger: as in replay.
        rounds, asked, granted: as in `env.replay.Replay`.
        usage: what replay cannot know.
        seconds: from the question to the answer.
        error: why there is no answer, "" if all is well.
        model_failed: whether that was for the model, the task or what isolates the controller, not for the
            controller itself, so that the same episode may be played again.
    """

    answer: int
    correct: bool
    ledger: Spent
    rounds: int
    asked: int
    granted: int
    usage: Usage
    seconds: float
    error: str = ""
    model_failed: bool = False


class Player:
    """Plays one controller at one beta; many episodes at a time, all in one event loop.

    Args:
        program: the controller.
        beta: what its schedule is asked for.
        overrides: settings that replace those of the schedule.
        i_trust_this_code: run untrusted code even where nothing can isolate it.
        tracing: whether its notes are kept.

    Attributes:
        columns: what it reads, for `LiveEpisode`.
        settings: what its schedule resolved to; None until an untrusted one has said so.
        level: what holds its code, "" = this process.

    Raises:
        UserError: it does not keep the contract, a trusted one's schedule fails, or nothing can isolate it.
    """

    def __init__(
        self,
        program: Program,
        beta: float,
        overrides: Mapping[str, Any] | None = None,
        *,
        i_trust_this_code: bool = False,
        tracing: bool = False,
    ) -> None:
        program.check()
        # Now, and not while the first request waits.
        prepare()
        self.program, self.beta = program, float(beta)
        self.columns = wanted(program.source)
        self.settings: Mapping[str, Any] | None = None
        self._overrides, self._tracing = dict(overrides or {}), tracing
        self._children: Children | None = None
        if program.trusted:
            self._names, self.level = self._told(program.load), ""
            self.settings = self._schedule()
        else:
            pool = open_pool(i_trust_this_code)
            self._children, self.level = Children(pool), pool.level

    def at(self, beta: float) -> "Player":
        """The same controller and processes at another beta; close this one only. Raises UserError."""
        other = copy(self)
        other.beta = float(beta)
        other.settings = other._schedule() if self.program.trusted else None
        return other

    async def play(self, episode: LiveEpisode) -> Played:
        """Play an episode to its end and close its session; a failure is the episode's outcome."""
        begin = time.monotonic()
        failure, model_failed, correct = "", False, False
        try:
            try:
                failure = await (self._play_here if self._children is None else self._play_apart)(episode)
            finally:
                seconds = time.monotonic() - begin
                await asyncio.shield(episode.session.close())
            if not failure and episode.final is not None:
                correct = await episode.answers.correct(episode.final)
        except (ModelError, TaskError, IsolationError) as error:
            failure, model_failed = f"{type(error).__name__}: {error}", True
        answer = UNPARSED if failure or episode.final is None else episode.final
        return Played(
            answer=answer,
            correct=correct,
            ledger=episode.ledger,
            rounds=episode.rounds,
            asked=episode.asked,
            granted=episode.granted,
            usage=episode.session.usage,
            seconds=seconds,
            error=failure or episode.error,
            model_failed=model_failed,
        )

    def close(self) -> None:
        """End the processes of untrusted code."""
        if self._children is not None:
            self._children.close()

    def _schedule(self) -> dict[str, Any]:
        """The settings of a trusted program, as a child would tell them."""
        return self._told(lambda: unpack(pack(resolve(self._names, self.beta, self._overrides))))

    def _told(self, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a trusted program says of itself. Raises UserError."""
        try:
            return find()
        except Exception as error:
            raise UserError(
                f"the controller {self.program.name} cannot be played: {describe(error)}"
            ) from error

    async def _play_here(self, episode: LiveEpisode) -> str:
        seen = Episode(episode.seed_key, episode.max_branches, self._tracing)
        turns = rounds(self._names["solve"], self.settings or {}, [seen])
        try:
            frame = next(turns)
            while True:
                frame = turns.send(await episode.answer(frame))
        except StopIteration:
            return ""
        finally:
            turns.close()

    async def _play_apart(self, episode: LiveEpisode) -> str:
        assert self._children is not None
        job = Job(
            source=self.program.source,
            beta=self.beta,
            seed_keys=[episode.seed_key],
            max_branches=[episode.max_branches],
            overrides=self._overrides,
            tracing=self._tracing,
        )
        settings, error = await self._children.play(job, episode.answer)
        if settings is not None:
            self.settings = settings
        return error
