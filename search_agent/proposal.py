"""What a proposer is: something that looks at a workbench and hands back one controller file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from search_agent.feedback.hypothesis import Hypothesis

if TYPE_CHECKING:
    from search_agent.workbench import Workbench

# Whether a program, given with its proposal's memo, is one that we assembled ourselves.
Vouches = Callable[[str, Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Usage:
    """What one proposal cost in model calls; `cost_usd` is None where a price is not known."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = 0.0

    def __add__(self, other: Usage) -> Usage:
        """Sum of both; an unknown price makes the sum unknown."""
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            None if self.cost_usd is None or other.cost_usd is None else self.cost_usd + other.cost_usd,
        )


@dataclass(frozen=True)
class Proposal:
    """One controller file and where it came from.

    Attributes:
        source: the text of the controller module.
        summary: one or two sentences: what it does differently, and why.
        parent: the round it was derived from; None for a fresh start.
        usage: what it cost to get.
        memo: whatever the proposer wants back with its history in later rounds, JSON-able.
        partner: the other round, where two were crossed.
        hypothesis: what it expects of the change, against its parent; None where it states nothing.
    """

    source: str
    summary: str
    parent: int | None = None
    usage: Usage = Usage()
    memo: dict[str, Any] = field(default_factory=dict)
    partner: int | None = None
    hypothesis: Hypothesis | None = None


class ProposerError(Exception):
    """No proposal this round. The search records it as the round's outcome and goes on.

    Args:
        message: one sentence, shown to the user and to later rounds.
        usage: what the attempt cost all the same.
        fatal: the same would happen every round (no such model, budget spent): the search stops
            proposing at once and keeps what it has; the round is not archived, so a resumed run
            tries it again.
    """

    def __init__(self, message: str, usage: Usage | None = None, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.usage = usage or Usage()
        self.fatal = fatal


class BudgetSpent(ProposerError):
    """The money or the tokens of the whole run allow no more proposals; the search goes on to its end."""

    def __init__(self, message: str, usage: Usage | None = None) -> None:
        super().__init__(message, usage, fatal=True)


class NothingToPropose(Exception):
    """There is nothing for this proposer to work on yet; somebody else's turn, and no round."""


class Proposer(Protocol):
    """Writes controllers. One call a round; it may keep nothing between rounds.

    Whatever a proposal depends on comes from the workbench (the archive as of some round, a generator
    seeded by its number), so a killed run that is resumed goes on as if nothing had happened.

    Attributes:
        name: as in `--proposer`.
        stamps: caveats that every round of this proposer carries ("proposer not isolated").
        settings: the options that determine what it proposes, JSON-able, never a key; they go into
            `run.json` and a resumed run must have the same.
    """

    name: str
    stamps: tuple[str, ...]
    settings: dict[str, object]

    def propose(self, bench: Workbench) -> Proposal:
        """Return the next controller, or raise `ProposerError` or `NothingToPropose`."""
        ...

    def vouches(self, source: str, memo: Mapping[str, Any]) -> bool:
        """Whether this is, to the letter, what we ourselves assemble from the memo; then it runs in-process.

        Both may come from a run's folder, where anybody may have written.
        """
        ...
