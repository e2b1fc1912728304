"""A branch of reasoning: one streamed request, cut into segments as its tokens come."""

import asyncio
import hashlib
from contextlib import aclosing

from env.export.server import Chunk, Dropped, Model, Prompt, ServerError, Usage
from env.export.settings import Settings

# A branch whose connection breaks goes on from where it was; so often in a row without a token, then not.
ATTEMPTS = 6
PAUSE = 0.5
# How long an ended branch may wait for what its server says it took.
GRACE = 1.0
TO_THE_END = 1 << 40


class Question:
    """What all branches of a question share.

    Args:
        model: of the branches.
        text: the question.
        settings: how it is asked.
        seed: of its branches.
        confidence: whether the confidence of tokens is wanted.
        usage: what is added to.
    """

    def __init__(
        self, model: Model, text: str, settings: Settings, seed: int, confidence: bool, usage: Usage
    ) -> None:
        self.model, self.text, self.settings = model, text, settings
        self.seed, self.confidence, self.usage = seed, confidence, usage
        self.prompt = Prompt([], False)
        self.max_tokens = settings.max_tokens
        self.tags: tuple[int, int] | None = None

    async def put(self) -> None:
        """Find out how the model reads the question, and how far a branch may go.

        Raises:
            ServerError: the question is too long for the model.
        """
        model, settings = self.model, self.settings
        self.prompt, self.tags = await model.ask(self.text, settings), await model.tags(settings)
        suffix = await model.known(settings.think_tags[1] + settings.probe_text)
        room = model.context - len(self.prompt.ids) - len(suffix) - settings.probe_tokens
        if room < 1:
            raise ServerError(
                f"the question has {len(self.prompt.ids)} tokens, too many for a context of {model.context}"
            )
        self.max_tokens = min(settings.max_tokens, room)

    def thinking(self, ids: list[int]) -> bool:
        """Whether a branch of these tokens is still thinking."""
        if self.tags is None:
            return False
        opening, closing = self.tags
        return (self.prompt.thinking or opening in ids) and closing not in ids

    def answer_from(self, ids: list[int]) -> int:
        """How many tokens of a branch come before what it says after its thinking."""
        return ids.index(self.tags[1]) + 1 if self.tags and self.tags[1] in ids else 0

    def seed_of(self, path: tuple[int, ...]) -> int:
        """The seed of a branch, as a collection has it: 63 bits that follow from seed, question and path."""
        name = hashlib.sha256(" ".join(self.text.split()).encode()).hexdigest()[:32]
        words = f"{self.seed} 0 {name} {' '.join(map(str, path))}"
        return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big") >> 1


class Branch:
    """A branch, of which its controller has seen the first `depth` segments and the server written some more.

    A segment ends after so many tokens, or with the token that completes the separator of so many steps; it
    is known to have ended when another token comes. What follows the thinking belongs to the last segment.

    Args:
        question: what it answers.
        path: its number among the roots, and for every fork on the way the segments before it and its number
            among the forks there, from 1.
        parent: the branch that it continues where that stands now, None = the question.

    Attributes:
        ids: token ids so far.
        confidence: of each, where it is wanted.
        ends: for each known segment how many tokens come before its end.
        finish: why the branch has ended ("stop", "length"); empty while it has not.
        depth: segments shown to the controller.
        scored: how many tokens were, when it was last scored.
        forked: forks made of its position.
        asked_at: the position at which it was last probed.
    """

    def __init__(self, question: Question, path: tuple[int, ...], parent: "Branch | None" = None) -> None:
        self._question, self.path = question, path
        at = parent.position if parent else 0
        self.depth: int = parent.depth if parent else 0
        self.ids: list[int] = parent.ids[:at] if parent else []
        self.confidence: list[float] = parent.confidence[:at] if parent else []
        self.ends: list[int] = parent.ends[: self.depth] if parent else []
        self.scored: int = parent.scored if parent else 0
        self.finish, self.forked = "", 0
        self.asked_at = -1
        self._began = at
        self._wanted = 0
        self._step, self._steps, self._cut, self._closed = "", 0, 0, False
        self._changed = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    @property
    def position(self) -> int:
        """How many tokens the controller has seen."""
        return self.ends[self.depth - 1] if self.depth else 0

    @property
    def ended(self) -> bool:
        """Whether the controller has seen the last segment."""
        return bool(self.finish) and self.depth == len(self.ends)

    @property
    def words(self) -> list[int]:
        """The tokens of a branch that has ended, without the one that only ends it."""
        return self.ids[:-1] if self.finish == "stop" else self.ids

    async def advance(self, segments: int) -> None:
        """Show so many segments more, or what there is to the end; waits for the server where it must.

        Raises:
            ServerError: the server cannot be used.
        """
        self._wanted = self.depth + segments
        while len(self.ends) < self._wanted and not self.finish:
            if self._writer is None or self._writer.done():
                self._writer = asyncio.create_task(self._write())
                # What goes wrong while nobody waits goes wrong again when somebody does.
                self._writer.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._changed.clear()
            await self._changed.wait()
            if self._writer.done():
                self._writer.result()
        self.depth = min(self._wanted, len(self.ends))

    def stop(self) -> None:
        """Close the request at once, unless only the server's account of it is to come; what came stays."""
        if self._writer is not None and not self.finish:
            self._writer.cancel()

    async def closed(self) -> None:
        """Wait until the request is closed."""
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=GRACE if self.finish else None)
            self._writer.cancel()

    async def _write(self) -> None:
        """Take in tokens until the branch has ended or is far enough ahead of its controller."""
        failures = 0
        try:
            while not self.finish and not self._far_ahead():
                before = len(self.ids)
                try:
                    await self._stream()
                except Dropped as error:
                    failures = failures + 1 if len(self.ids) == before else 0
                    if failures == ATTEMPTS:
                        raise self._question.model.broken(str(error)) from None
                    if not self.finish:
                        await asyncio.sleep(PAUSE * 2**failures)
        finally:
            self._changed.set()

    async def _stream(self) -> None:
        """One request, from where the branch is; read on to what the server says of it at the end."""
        question, at = self._question, len(self.ids)
        # A continued branch must not draw the numbers with which it began.
        seed = question.seed_of(self.path if at == self._began else (*self.path, -at))
        prompt, left = question.prompt.ids + self.ids, question.max_tokens - at
        stream = question.model.stream(
            prompt, left, seed, question.settings, question.confidence, question.usage
        )
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                await self._take(chunk)
                # A server's own bound on replies is none of ours: the branch is continued.
                if not self.finish and (chunk.finish == "stop" or len(self.ids) >= question.max_tokens):
                    self._end(chunk.finish or "length")
                if not self.finish and self._far_ahead():
                    return
        if not self.finish:
            raise Dropped("the reply was cut short")

    async def _take(self, chunk: Chunk) -> None:
        ids, settings, tags = chunk.ids, self._question.settings, self._question.tags
        texts = [chunk.text, *[""] * (len(ids) - 1)]
        if settings.segment_steps:
            # Which of several tokens ends a step? And is it white space, or the first half of a character?
            unclear = len(ids) > 1 and settings.separator in self._step + chunk.text
            if unclear or not chunk.text.strip():
                texts = await self._question.model.pieces(ids)
        self.confidence += chunk.confidence
        for token, text in zip(ids, texts, strict=False):
            if self._cut:
                self.ends.append(self._cut)
                self._cut = 0
                self._changed.set()
            self.ids.append(token)
            if tags is not None and token == tags[1]:
                self._closed = True
            if self._is_cut(text) and not self._closed:
                self._cut = len(self.ids)

    def _is_cut(self, text: str) -> bool:
        settings = self._question.settings
        if settings.segment_steps is None:
            return len(self.ids) % settings.segment_tokens == 0
        # White space alone is no step: three line breaks end one step, not two.
        self._step = (self._step + text).lstrip()
        if settings.separator in self._step:
            self._step, self._steps = "", self._steps + 1
            return self._steps % settings.segment_steps == 0
        return False

    def _end(self, finish: str) -> None:
        self.finish = finish
        self.ends.append(len(self.ids))
        self._changed.set()

    def _far_ahead(self) -> bool:
        known = len(self.ends) >= self._wanted > 0
        return known and len(self.ids) - self.ends[self._wanted - 1] >= self._question.settings.run_ahead
