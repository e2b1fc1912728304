"""What is decoded under one branch's name: one streamed request, buffered to the ends of segments.

While nobody asks for more, a line decodes ahead for a while and is then cancelled. What has come is kept, and
it goes on from its exact prefix when it is asked again, as it does after a connection that broke. A line that
is never interrupted is the branch that a collection samples.
"""

import asyncio
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING

from collect.engine import Request, Spliced
from collect.live.calls import Patience
from collect.live.streams import Dropped, Piece
from collect.sampler import seed_of
from env.live.model import ModelError, Name

if TYPE_CHECKING:
    from collect.live.model import LiveSession


class Line:
    """A name's tokens as they come.

    Args:
        session: whose line it is.
        arm: which model and prompt.
        name: of the branch; decides the seed.
        ids: of the path that it continues.
        confidence: of those, where there is any.

    Attributes:
        ids: all that has come, the path before it included.
        confidence: likewise.
        shown: how many of them the program has been shown.
        finish: why there will be no more; None = there may be.
    """

    def __init__(
        self, session: "LiveSession", arm: int, name: Name, ids: list[int], confidence: list[float]
    ) -> None:
        self.name, self.ids, self.confidence = name, ids, confidence
        self.shown = self._start = self._early = len(ids)
        self.finish: str | None = None
        self._session, self._arm = session, arm
        self._sampler = session.model.arms[arm].sampler
        self._prompt = session.prompt(arm).ids
        # Where segments end that nobody was shown, and the last cut, behind which nothing has come.
        self._ends: deque[int] = deque()
        self._cut = -1
        self._watch = self._sampler.cutter.watch()
        self._has_thought = False
        self._is_asked = False
        self._failure: Exception | None = None
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def next(self) -> int:
        """Where the next segment ends, as tokens before it; it counts as shown. Raises ModelError."""
        self._note_early()
        self._is_asked = True
        try:
            while not self._ends and self.finish is None:
                if self._failure is not None:
                    raise self._failure
                if self._task is None:
                    self._task = asyncio.get_running_loop().create_task(self._run())
                self._news.clear()
                await self._news.wait()
        finally:
            self._is_asked = False
        self.shown = self._ends.popleft() if self._ends else len(self.ids)
        return self.shown

    def close(self) -> None:
        """Cancel what is under way, at once."""
        self._note_early()
        if self._task is not None:
            self._task.cancel()
            self._session.leave(self._task)
            self._task = None
        self._session.usage.cancelled += len(self.ids) - self.shown
        del self.ids[self.shown :], self.confidence[self.shown :]
        self._early = self.shown

    def _note_early(self) -> None:
        """Count what came before it was asked for."""
        came = len(self.ids)
        self._session.usage.run_ahead += max(0, came - max(self._early, self.shown))
        self._early = came

    async def _run(self) -> None:
        try:
            await self._decode()
        # Whatever it is, whoever waits for the next segment must hear of it.
        except Exception as error:
            self._failure = error
        self._task = None
        self._news.set()

    async def _decode(self) -> None:
        """Take tokens until there are no more, or enough ahead of what was asked for."""
        session = self._session
        patience = Patience(session.usage)
        while self.finish is None:
            request = self._request()
            known = len(request.prompt) if self.ids or session.usage.requests else 0
            calls = session.calls.stream(self._arm, request, "branch", self.name, known)
            try:
                async with aclosing(calls) as pieces:
                    async for piece in pieces:
                        if piece.ids:
                            patience.renew()
                        self._take(piece)
                        if not self._is_asked and len(self.ids) - self.shown > session.model.run_ahead:
                            return
            except Dropped as dropped:
                await patience.wait(dropped)

    def _request(self) -> Request:
        drawing, came = self._sampler.drawing, len(self.ids)
        room = self._session.room(self._arm) - came
        if room < 1:
            raise ModelError(
                f"a prompt of {len(self._prompt):,} tokens leaves no room in the model's context for a "
                "branch and its probe; give the model a longer one"
            )
        # A continuation must not be drawn with the random numbers that the line began with.
        path = self.name if came == self._start else (*self.name, came)
        return Request(
            Spliced((self._prompt, len(self._prompt)), (self.ids, came)),
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
            if self._cut == len(self.ids):
                self._ends.append(self._cut)
            self.ids.append(token)
            self._has_thought |= prompter.close_of((token,)) is not None
            if not self._has_thought and self._watch(token):
                self._cut = len(self.ids)
        if piece.confidence is not None:
            self.confidence += piece.confidence.tolist()
        self.finish = piece.finish
        if self._ends or self.finish:
            self._news.set()
