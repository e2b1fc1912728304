"""A live branch: one streamed request, buffered to the ends of segments.

While its program asks for no more, a branch decodes ahead for a while and is then cancelled. What has come is
kept, and it goes on from its exact prefix when it is asked again, as it does after a connection that broke.
A branch that is never interrupted is the one that a collection samples.
"""

import asyncio
from collections import deque
from contextlib import aclosing
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from collect.engine import Request, Spliced
from collect.live.calls import Patience
from collect.live.streams import Dropped, Piece
from collect.probes import Prefix, extract
from collect.sampler import seed_of
from collect.segments import group_confidence
from collect.tree import final_answer_text
from env.forest import END_LENGTH, END_NONE, END_STOP
from env.live.model import ModelError, Name, Probe, Segment

if TYPE_CHECKING:
    from collect.live.model import LiveSession

NAN = float("nan")


class StreamedBranch:
    """See `env.live.model.Branch`.

    Args:
        session: whose branch it is.
        arm: which model and prompt.
        name: of the branch.
        parent: whose path it continues from the end of its last segment, if any.
    """

    def __init__(
        self, session: "LiveSession", arm: int, name: Name, parent: "StreamedBranch | None" = None
    ) -> None:
        self._session, self._arm, self._name = session, arm, name
        self._sampler = session.model.arms[arm].sampler
        self._prompt = session.prompt(arm)
        # What has come; of that, how much the program has been shown, and how much came before it asked.
        self._ids: list[int] = parent._ids[: parent._shown] if parent else []
        self._confidence: list[float] = parent._confidence[: parent._shown] if parent else []
        self._shown: int = len(self._ids)
        self._early = self._shown
        # Where the segments end that were shown, and the texts of the first of them.
        self._cuts: list[int] = list(parent._cuts) if parent else []
        self._texts: list[str] = list(parent._texts) if parent else []
        self._begin()

    def _begin(self) -> None:
        """Nothing has come yet beyond what was shown."""
        self._start = self._shown
        self._ends: deque[int] = deque()
        self._watch = self._sampler.cutter.watch()
        self._cut = -1
        self._has_thought = False
        self._finish: str | None = None
        self._failure: Exception | None = None
        self._is_asked = False
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def advance(self, name: Name) -> Segment:
        """See `Branch`."""
        if name != self._name:
            self.close()
            self._name = name
            self._begin()
        self._note_early()
        self._is_asked = True
        try:
            while not self._ends and self._finish is None:
                if self._failure is not None:
                    raise self._failure
                if self._task is None:
                    self._task = asyncio.get_running_loop().create_task(self._run())
                self._news.clear()
                await self._news.wait()
        finally:
            self._is_asked = False
        return await self._show(self._ends.popleft() if self._ends else len(self._ids))

    async def probe(self) -> Probe:
        """See `Branch`."""
        prober = self._sampler.prober
        assert prober is not None
        ids, prompt = self._ids[: self._shown], self._prompt.ids
        prefix = Spliced((prompt, len(prompt)), (ids, len(ids)))
        asking = prober.ask([Prefix(prefix, self._sampler.prompter.is_thinking(self._prompt, ids))])
        requests = next(asking)
        while True:
            (request,) = requests
            sample = await self._session.calls.whole(self._arm, request, "probe", self._name, len(prefix))
            try:
                requests = asking.send([sample])
            except StopIteration as end:
                (probe,) = end.value
                return Probe(probe.answer, probe.tokens)

    async def score(self) -> list[float]:
        """See `Branch`."""
        ended = self._finish is not None and self._shown == len(self._ids)
        return await self._session.score(self.text(), ended, self._name)

    def fork(self, name: Name) -> "StreamedBranch":
        """See `Branch`."""
        return self._session.adopt(StreamedBranch(self._session, self._arm, name, self))

    def text(self) -> str:
        """See `Branch`."""
        for first, last in pairwise([0, *self._cuts][len(self._texts) :]):
            self._texts.append(self._sampler.tokens.decode(self._ids[:last], first))
        return "".join(self._texts)

    def close(self) -> None:
        """See `Branch`."""
        self._note_early()
        if self._task is not None:
            self._task.cancel()
            self._session.leave(self._task)
            self._task = None
        self._session.usage.cancelled += len(self._ids) - self._shown
        del self._ids[self._shown :], self._confidence[self._shown :]

    def _note_early(self) -> None:
        """Count what came before it was asked for."""
        usage, came = self._session.usage, len(self._ids)
        usage.run_ahead += max(0, came - max(self._early, self._shown))
        self._early = came

    async def _show(self, end: int) -> Segment:
        first, self._shown = self._shown, end
        self._cuts.append(end)
        confidence = NAN
        if self._confidence:
            window = self._confidence[max(0, end - self._sampler.drawing.window) : end]
            confidence = group_confidence(np.array(window, np.float32), len(window), len(window))
        if self._finish is None or end < len(self._ids):
            return Segment(end - first, END_NONE, None, confidence)
        why = END_STOP if self._finish == "stop" else END_LENGTH
        return Segment(end - first, why, await asyncio.to_thread(self._answer), confidence)

    def _answer(self) -> str | None:
        sampler = self._sampler
        text = final_answer_text(sampler.tokens, sampler.prompter, self._prompt, self._ids)
        return extract(sampler.task, text)

    async def _run(self) -> None:
        """Decode until the branch ends or is far enough ahead of its program."""
        try:
            await self._decode()
        # Whatever it is, whoever waits for the next segment must hear of it.
        except Exception as error:
            self._failure = error
        self._task = None
        self._news.set()

    async def _decode(self) -> None:
        patience = Patience(self._session.usage)
        while self._finish is None:
            request = self._request()
            known = len(request.prompt) if self._ids or self._session.usage.requests else 0
            calls = self._session.calls.stream(self._arm, request, "branch", self._name, known)
            try:
                async with aclosing(calls) as pieces:
                    async for piece in pieces:
                        if piece.ids:
                            patience.renew()
                        self._take(piece)
                        if self._is_far_ahead():
                            return
            except Dropped as dropped:
                await patience.wait(dropped)

    def _request(self) -> Request:
        drawing, came = self._sampler.drawing, len(self._ids)
        prompt = self._prompt.ids
        room = self._session.room(self._arm) - came
        if room < 1:
            raise ModelError(
                f"a prompt of {len(prompt):,} tokens leaves no room in the model's context for a branch and "
                "its probe; give the model a longer one"
            )
        # A continuation must not be drawn with the random numbers that the branch began with.
        path = self._name if came == self._start else (*self._name, came)
        return Request(
            Spliced((prompt, len(prompt)), (self._ids, came)),
            min(drawing.max_tokens - came, room),
            seed_of(self._session.seed, self._arm, self._session.name, path),
            drawing.sampling,
            self._sampler.tokens.ends,
            self._session.model.top_logprobs(self._arm),
        )

    def _take(self, piece: Piece) -> None:
        prompter = self._sampler.prompter
        for token in piece.ids:
            # There is a cut only where something follows, and none after the thinking.
            if self._cut == len(self._ids):
                self._ends.append(self._cut)
            self._ids.append(token)
            self._has_thought |= prompter.close_of((token,)) is not None
            if not self._has_thought and self._watch(token):
                self._cut = len(self._ids)
        if piece.confidence is not None:
            self._confidence += piece.confidence.tolist()
        self._finish = piece.finish
        if self._ends or self._finish:
            self._news.set()

    def _is_far_ahead(self) -> bool:
        return not self._is_asked and len(self._ids) - self._shown > self._session.model.run_ahead
