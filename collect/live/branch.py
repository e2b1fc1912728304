"""A live branch: what its program has been shown of a line, and what the model says of that."""

import asyncio
from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from collect.engine import Request, Sample, Spliced
from collect.live.line import Line
from collect.probes import Prefix, extract
from collect.segments import group_confidence
from collect.tree import final_answer_text
from env.forest import END_LENGTH, END_NONE, END_STOP
from env.live.model import Name, Probe, Segment
from env.serve.model import Said

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
        self.session, self._arm = session, arm
        self._sampler = session.model.arms[arm].sampler
        self._prompt = session.prompt(arm)
        # Where the segments end that were shown, and the texts of the first of them.
        self._cuts: list[int] = list(parent._cuts) if parent else []
        self._texts: list[str] = list(parent._texts) if parent else []
        self._shown = parent._shown if parent else 0
        self._has_ended = False
        if parent is None:
            self._line, self._owns = Line(session, arm, name, [], []), True
        else:
            # What goes on under the parent's own name has begun already.
            self._line, self._owns = parent._line, parent._owns and parent._line.name == name
            parent._owns &= not self._owns

    async def advance(self, name: Name) -> Segment:
        """See `Branch`."""
        line = self._line
        if not self._owns or line.name != name:
            path = self.ids, line.confidence[: self._shown]
            self.close()
            self._line, self._owns = Line(self.session, self._arm, name, *path), True
            line = self._line
        first, end = self._shown, await line.next()
        self._shown = end
        self._cuts.append(end)
        confidence = NAN
        if line.confidence:
            window = line.confidence[max(0, end - self._sampler.drawing.window) : end]
            confidence = group_confidence(np.array(window, np.float32), len(window), len(window))
        self._has_ended = line.finish is not None and end == len(line.ids)
        if not self._has_ended:
            return Segment(end - first, END_NONE, None, confidence)
        why = END_STOP if line.finish == "stop" else END_LENGTH
        # Reading mathematics may take seconds, and other branches are waiting.
        return Segment(end - first, why, await asyncio.to_thread(self._answer), confidence)

    async def probe(self) -> Probe:
        """See `Branch`."""
        prober = self._sampler.prober
        assert prober is not None
        ids, prompt = self.ids, self._prompt.ids
        prefix = Spliced((prompt, len(prompt)), (ids, len(ids)))
        asking = prober.ask([Prefix(prefix, self._sampler.prompter.is_thinking(self._prompt, ids))])
        requests = next(asking)
        while True:
            (request,) = requests
            sample = await self.session.calls.whole(self._arm, request, "probe", self._line.name, len(prefix))
            # With the last sample the answer is read, which may take seconds here, too.
            told = await asyncio.to_thread(_go_on, asking, sample)
            if isinstance(told, Probe):
                return told
            requests = told

    async def score(self) -> list[float]:
        """See `Branch`."""
        return await self.session.score(self.text(), self._has_ended, self._line.name)

    def fork(self, name: Name) -> "StreamedBranch":
        """See `Branch`."""
        return self.session.adopt(StreamedBranch(self.session, self._arm, name, self))

    @property
    def ids(self) -> list[int]:
        """The tokens up to the end of the last segment."""
        return self._line.ids[: self._shown]

    def text(self) -> str:
        """See `Branch`."""
        for first, last in pairwise([0, *self._cuts][len(self._texts) :]):
            self._texts.append(self._sampler.tokens.decode(self._line.ids[:last], first))
        return "".join(self._texts)

    def said(self, answer: str | None) -> Said:
        """See `env.serve.model.ChatBranch`."""
        sampler, ids = self._sampler, self._line.ids[: self._shown]
        prompter, tokens = sampler.prompter, sampler.tokens
        content = final_answer_text(tokens, prompter, self._prompt, ids)
        reasoning = ""
        if prompter.is_thinking(self._prompt, ids):
            reasoning = tokens.decode(ids)
        elif (close := prompter.close_of(ids)) is not None:
            reasoning = tokens.decode(ids[:close])
        if answer is not None and sampler.prober is not None:
            content += sampler.prober.text(answer)
        reasoning = reasoning.strip().removeprefix(prompter.open_text).lstrip()
        return Said(reasoning, content.lstrip("\n"))

    def close(self) -> None:
        """See `Branch`."""
        if self._owns:
            self._line.close()
            self._owns = False

    def _answer(self) -> str | None:
        sampler = self._sampler
        text = final_answer_text(sampler.tokens, sampler.prompter, self._prompt, self.ids)
        return extract(sampler.task, text)


def _go_on(
    asking: Generator[Sequence[Request], list[Sample], Any], sample: Sample
) -> Sequence[Request] | Probe:
    """What a probe asks for next, or what came of it."""
    try:
        return asking.send([sample])
    # No thread can hand this one back.
    except StopIteration as end:
        (probe,) = end.value
        return Probe(probe.answer, probe.tokens)
