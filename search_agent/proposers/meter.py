"""What a round may still use: replies, tokens and money."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from search_agent.proposal import BudgetSpent, ProposerError, Usage
from search_agent.proposers.prices import Price

LEAST_REPLY = 512  # tokens; with room for fewer than this a call cannot bring a program


@dataclass(frozen=True)
class Limits:
    """The bounds of a proposer that calls a model.

    Attributes:
        turns: replies of the model, a round.
        tokens: prompt and completion tokens, a round (a conversation's prompt counts again at every call).
        reply_tokens: completion tokens, a reply.
        cost_usd: money, the whole run; None = no bound.
        total_tokens: prompt and completion tokens, the whole run; None = no bound.
    """

    turns: int = 16
    tokens: int = 400_000
    reply_tokens: int = 16_384
    cost_usd: float | None = None
    total_tokens: int | None = None


class Meter:
    """Adds up the calls of one round and says how long the next reply may be.

    Args:
        limits: the bounds.
        price: of the model; None = unknown, then `limits.cost_usd` must be None.
        spent: what the run has used so far, this round and other proposers included.
        record: writes a call down, at once; `spent` then knows of it.
    """

    def __init__(
        self,
        limits: Limits,
        price: Price | None,
        spent: Callable[[], Usage],
        record: Callable[[Mapping[str, object]], None],
    ) -> None:
        self.limits, self.price, self.usage = limits, price, Usage()
        self._spent, self._record = spent, record

    def room(self, prompt_tokens: int) -> int:
        """Completion tokens that the next call may use; `prompt_tokens` estimates its prompt.

        Raises:
            BudgetSpent: the money or the tokens of the run allow no more calls.
            ProposerError: the tokens of the round do not.
        """
        limits, used, run = self.limits, _tokens(self.usage), self._spent()
        room = min(limits.reply_tokens, limits.tokens - used - prompt_tokens)
        if room < LEAST_REPLY:
            raise ProposerError(
                f"the round's {limits.tokens} tokens are used up ({used} so far): raise --max-tokens",
                self.usage,
            )
        if limits.total_tokens is not None:
            left = limits.total_tokens - _tokens(run) - prompt_tokens
            if left < LEAST_REPLY:
                raise BudgetSpent(
                    f"the run's {limits.total_tokens} tokens are used up ({_tokens(run)} so far): "
                    "resume with a larger --max-total-tokens to go on",
                    self.usage,
                )
            room = min(room, left)
        if limits.cost_usd is not None and self.price is not None:
            spent = run.cost_usd if run.cost_usd is not None else self._cost(run) or 0.0
            money = limits.cost_usd - spent - self.price.cost(prompt_tokens, 0)
            if money * 1e6 < LEAST_REPLY * self.price.output or money <= 0:
                raise BudgetSpent(
                    f"the budget of ${limits.cost_usd:g} is used up (${spent:.4f} so far): "
                    "resume with a larger --max-cost to go on",
                    self.usage,
                )
            if self.price.output > 0:
                room = min(room, int(money * 1e6 / self.price.output))
        return room

    def add(self, call: Mapping[str, object], prompt: int, completion: int, cached: int) -> None:
        """Count a call and write it down; `call` is what else is known of it."""
        one = Usage(1, prompt, completion, cached, None)
        one = Usage(1, prompt, completion, cached, self._cost(one))
        self.usage += one
        tokens = {"prompt_tokens": prompt, "completion_tokens": completion, "cached_tokens": cached}
        self._record({**call, **tokens, "cost_usd": one.cost_usd})

    def _cost(self, usage: Usage) -> float | None:
        if self.price is None:
            return None
        return self.price.cost(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)


def _tokens(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens
