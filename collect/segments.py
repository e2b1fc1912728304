"""Where a branch is cut into segments, and what is measured of each.

A cut depends on nothing after it, so a branch and its forks are cut alike as far as they are the same. There
are no cuts after the thinking: the answer's text belongs to the last segment.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from collect.tokens import Tokens


class Cutter(Protocol):
    """A rule for segments. After a cut it begins anew."""

    @property
    def words(self) -> str:
        """The rule in words, for the store."""

    def watch(self) -> Callable[[int], bool]:
        """Asked of each token, from the beginning or a cut on: whether there is a cut behind it."""
        ...


@dataclass(frozen=True)
class EveryTokens:
    """A segment every so many tokens."""

    tokens: int

    @property
    def words(self) -> str:
        """The rule."""
        return f"every {self.tokens} tokens; what follows the thinking belongs to the last segment"

    def watch(self) -> Callable[[int], bool]:
        """See `Cutter`."""
        return _every(self.tokens, lambda token: True)


class EverySteps:
    """A segment every `steps` reasoning steps; a step ends with the token that completes its separator.

    Args:
        tokenizer: of the model.
        steps: in a segment.
        separator: the text between two steps.
    """

    def __init__(self, tokenizer: Tokens, steps: int, separator: str) -> None:
        self._tokenizer, self._steps, self._separator = tokenizer, steps, separator
        each = "a step" if steps == 1 else f"{steps} steps"
        self.words = (
            f"{each}; a step ends with {separator!r}; what follows the thinking belongs to the last segment"
        )

    def watch(self) -> Callable[[int], bool]:
        """See `Cutter`."""
        step = ""

        def ends_step(token: int) -> bool:
            nonlocal step
            # White space alone is no step: three line breaks end one step, not two.
            step = (step + self._tokenizer.piece(token)).lstrip()
            if self._separator not in step:
                return False
            step = ""
            return True

        return _every(self._steps, ends_step)


def _every(count: int, is_one: Callable[[int], bool]) -> Callable[[int], bool]:
    """Whether a token is the last of so many."""
    seen = 0

    def watch(token: int) -> bool:
        nonlocal seen
        seen += is_one(token)
        if seen < count:
            return False
        seen = 0
        return True

    return watch


def cuts(cutter: Cutter, ids: Sequence[int]) -> list[int]:
    """How many tokens come before each cut, ascending; the branch's end may or may not be among them."""
    watch = cutter.watch()
    return [place for place, token in enumerate(ids, 1) if watch(token)]


def segment_ends(cutter: Cutter, ids: Sequence[int], close: int | None) -> list[int]:
    """Where the segments of a branch end, as tokens before it; the last is ``len(ids)``.

    Args:
        cutter: the rule.
        ids: the branch's tokens, at least one.
        close: where the thinking closes, None = nowhere.
    """
    thinking = len(ids) - 1 if close is None else min(close, len(ids) - 1)
    return [*(cut for cut in cuts(cutter, ids) if cut <= thinking), len(ids)]


def group_confidence(confidence: NDArray[np.float32], end: int, window: int) -> float:
    """DeepConf's group confidence (Fu et al. 2025, arXiv:2508.15260, eq. 3) at the last token of a segment.

    That is the mean token confidence of the `window` tokens that end there, or of all from the branch's
    beginning where there are fewer. (Token confidence: minus the mean log probability of the likeliest
    tokens, `collect.engine.Sample.confidence`.)

    Args:
        confidence: float32[T] of a branch's tokens.
        end: of the segment, as tokens before it.
        window: tokens in a group.
    """
    return float(confidence[max(0, end - window) : end].mean(dtype=np.float64))
