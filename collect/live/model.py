"""A model for live episodes: asked, cut, probed and read as a collection's plan says."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from collect.live.branch import StreamedBranch
from collect.live.calls import Calls, Log
from collect.live.scoring import StepScores
from collect.live.streams import Streams
from collect.prm.paths import steps_of
from collect.prompts import Prompt
from collect.sampler import Sampler
from env.errors import UserError
from env.forest import hash_question
from env.live.model import Abilities, ModelError, Name, Usage

# Tokens that a branch may decode beyond what its program has asked for, before it is cancelled.
RUN_AHEAD = 256


class NoLog:
    """Writes nothing down."""

    def write(self, **fields: Any) -> None:
        """See `collect.live.calls.Log`."""


@dataclass(frozen=True)
class LiveArm:
    """A model and the way it is asked: what asks and reads, and the places that have it."""

    sampler: Sampler
    places: Sequence[Streams]


@dataclass
class LiveModel:
    """See `env.live.model.Model`. All of its sessions belong to one event loop.

    Args:
        arms: at least one, all asked with the same task.
        scores: the reward model, if there is one.
        run_ahead: tokens that a branch may decode beyond what was asked for.
        confidence: whether segments are to have theirs; log probabilities make replies many times as long.
        log: where calls are written down.
    """

    arms: Sequence[LiveArm]
    scores: StepScores | None = None
    run_ahead: int = RUN_AHEAD
    confidence: bool = True
    log: Log = field(default_factory=NoLog)

    @property
    def abilities(self) -> Abilities:
        """What it can be asked."""
        drawing = self.arms[0].sampler.drawing
        return Abilities(
            arms=len(self.arms),
            probes=all(arm.sampler.prober is not None for arm in self.arms),
            prm=self.scores is not None,
            confidence=self.confidence and drawing.top_logprobs > 0,
        )

    def ask(self, question: str, seed: int) -> "LiveSession":
        """See `Model`; `seed` stands for a collection's `--seed`."""
        return LiveSession(self, question, seed)

    def top_logprobs(self, arm: int) -> int:
        """How many log probabilities a position is asked for."""
        return self.arms[arm].sampler.drawing.top_logprobs if self.confidence else 0

    async def close(self) -> None:
        """Let go of all models."""
        places = {id(place): place for arm in self.arms for place in arm.places}
        await asyncio.gather(*(place.close() for place in places.values()))
        if self.scores is not None:
            self.scores.close()


class LiveSession:
    """See `env.live.model.Session`. Stays at one place of each model: its branches share prefixes.

    Args:
        model: what is asked.
        question: what it is asked.
        seed: decides, with the branches' names, what is drawn.
        prompts: for each arm, how the question is put; None = as the arm puts questions.
    """

    def __init__(
        self, model: LiveModel, question: str, seed: int, prompts: Sequence[Prompt] | None = None
    ) -> None:
        self.model, self.question, self.seed = model, question, seed
        self.name = hash_question(question)
        self.usage = Usage()
        streams = [min(arm.places, key=lambda place: place.sessions) for arm in model.arms]
        self.calls = Calls(streams, self.usage, model.log, {"problem": self.name, "seed": seed})
        self._prompts: dict[int, Prompt] = dict(enumerate(prompts or ()))
        self._branches: list[StreamedBranch] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self._stays = True
        for place in streams:
            place.sessions += 1

    def open(self, name: Name, arm: int) -> StreamedBranch:
        """See `Session`."""
        return self.adopt(StreamedBranch(self, arm, name))

    async def close(self) -> None:
        """See `Session`."""
        self.make_room()
        for branch in self._branches:
            branch.close()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def make_room(self) -> None:
        """Count no longer where it stays."""
        if self._stays:
            self._stays = False
            for place in self.calls.streams:
                place.sessions -= 1

    def prompt(self, arm: int) -> Prompt:
        """How the question is put."""
        if arm not in self._prompts:
            try:
                self._prompts[arm] = self.model.arms[arm].sampler.prompter.encode(self.question)
            except UserError as error:
                raise ModelError(str(error)) from None
        return self._prompts[arm]

    def room(self, arm: int) -> int:
        """How many tokens a branch can have at most, such that it can still be probed."""
        prober = self.model.arms[arm].sampler.prober
        probe = prober.most_tokens if prober else 0
        return self.calls.streams[arm].context - len(self.prompt(arm).ids) - probe

    def adopt(self, branch: StreamedBranch) -> StreamedBranch:
        """Take over a branch, to be closed with the rest."""
        self._branches.append(branch)
        return branch

    def leave(self, task: "asyncio.Task[None]") -> None:
        """Wait for a cancelled request at the end, not now."""
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def score(self, text: str, ended: bool, name: Name) -> list[float]:
        """Step scores of a path with this text."""
        scores = self.model.scores
        assert scores is not None
        steps = steps_of(text, scores.separator, ended)
        begin = time.monotonic()
        outcome = "error"
        try:
            found = await scores.of(self.question, steps)
            outcome = "scored"
        finally:
            self.model.log.write(
                **self.calls.about,
                call="score",
                branch=list(name),
                steps=len(steps),
                seconds=time.monotonic() - begin,
                outcome=outcome,
            )
        return [score for score in found if score is not None]
