r"""What a model answers when it is told to stop thinking now.

The prefix of a branch is continued with a text that closes the thinking and opens an answer, then by the
model, greedily. The branch itself never sees it.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from collect.engine import GREEDY, Request, Sample, Spliced
from collect.tokens import Tokens
from env.tasks import Task, guarded

OPENING = "\n\nThe final answer is \\boxed{"


@dataclass(frozen=True)
class Probing:
    r"""How a model is asked.

    Attributes:
        opening: the text after which it answers. Where it leaves a brace open, the answer ends with the brace
            that closes it, else with the line.
        max_tokens: an answer that is longer counts as none.
    """

    opening: str = OPENING
    max_tokens: int = 32


@dataclass(frozen=True)
class Prefix:
    """Where a probe is asked: prompt and branch as token ids, and whether the model still thinks there."""

    ids: Spliced
    thinking: bool


@dataclass(frozen=True)
class Probe:
    """What a model said.

    Attributes:
        answer: None = nothing could be parsed.
        tokens: how many it decoded for it. What the text before the answer has is prefilled, not decoded, and
            not in it (`Prober.suffixes`).
    """

    answer: str | None
    tokens: int


class Prober:
    """Asks one model.

    Args:
        tokens: of the model.
        close: the text that closes its thinking, empty if it does not think.
        probing: how it is asked.
        task: reads its answers.
    """

    def __init__(self, tokens: Tokens, close: str, probing: Probing, task: Task) -> None:
        self._tokens, self._probing, self._task = tokens, probing, task
        self._depth = _depth(probing.opening)
        # Any token with a closing brace may be the last; where it is not, the answer goes on.
        self._closers = frozenset(tokens.with_text("}" if self._depth else "\n"))
        self._stops = tuple(sorted(self._closers.union(tokens.ends)))
        self.suffixes = {
            False: tokens.encode(probing.opening),
            True: tokens.encode(close + probing.opening),
        }

    @property
    def most_tokens(self) -> int:
        """How far a probe may reach beyond its prefix."""
        return max(map(len, self.suffixes.values())) + self._probing.max_tokens

    def ask(self, prefixes: Sequence[Prefix]) -> Generator[Sequence[Request], list[Sample], list[Probe]]:
        """Asks at all places; the requests come in the order of `prefixes`, for the prefix cache's sake."""
        said: list[list[int]] = [[] for _ in prefixes]
        left = list(range(len(prefixes)))
        while left:
            samples = yield [self._request(prefixes[place], said[place]) for place in left]
            for place, sample in zip(left, samples, strict=True):
                said[place] += sample.token_ids
            left = [place for place in left if self._goes_on(said[place])]
        return [Probe(self._answer(ids), len(ids)) for ids in said]

    def text(self, answer: str) -> str:
        """How a branch would read on with this answer, its thinking closed."""
        return self._probing.opening + answer + "}" * self._depth

    def _request(self, prefix: Prefix, said: list[int]) -> Request:
        more = self.suffixes[prefix.thinking] + said
        prompt = Spliced((prefix.ids, len(prefix.ids)), (more, len(more)))
        return Request(prompt, self._probing.max_tokens - len(said), 0, GREEDY, self._stops)

    def _goes_on(self, said: list[int]) -> bool:
        """Whether what ended a sample was a brace inside the answer."""
        unfinished = len(said) < self._probing.max_tokens and said[-1] in self._closers
        return unfinished and said[-1] not in self._tokens.ends and self._end(self._text(said)) is None

    def _text(self, said: list[int]) -> str:
        return self._tokens.decode(said)

    def _end(self, text: str) -> int | None:
        """Where in `text` the answer has ended."""
        if not self._depth:
            line = text.lstrip()
            end = line.find("\n")
            return len(text) - len(line) + end if end >= 0 and line[:end].strip() else None
        depth = self._depth
        for place, letter in enumerate(text):
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if depth == 0:
                return place + 1
        return None

    def _answer(self, said: list[int]) -> str | None:
        text = self._text(said)
        end = self._end(text)
        if end is None and not self._depth and said[-1] in self._tokens.ends:
            end = len(text)
        if end is None or not text[: end - bool(self._depth)].strip():
            return None
        opening = self._probing.opening if self._depth else ""
        return extract(self._task, opening + text[:end])


def extract(task: Task, text: str) -> str | None:
    """The answer that a text gives. Raises TaskError if the task fails, which only a user's own does."""
    with guarded(task):
        return task.extract(text)


def _depth(text: str) -> int:
    """How many braces a text leaves open."""
    return max(0, text.count("{") - text.count("}"))
