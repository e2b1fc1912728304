"""How much key-value cache live episodes take, and how many of them a model can hold at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# With no word of how much there is.
UNKNOWN = 16
MOST = 64


@dataclass(frozen=True)
class Room:
    """What branches take, and what there is.

    Attributes:
        branches: of an episode, all at the same time.
        tokens: expected of a branch.
        bytes_a_token: of the cache; None = unknown.
        capacity: tokens that all places together hold; None = unknown.
    """

    branches: int
    tokens: int
    bytes_a_token: int | None
    capacity: int | None

    @property
    def episodes(self) -> int:
        """How many can be under way without one waiting for another's memory."""
        if self.capacity is None:
            return UNKNOWN
        return min(MOST, max(1, self.capacity // (self.branches * self.tokens)))

    def lines(self) -> list[str]:
        """The same in words."""
        need = self.branches * self.tokens
        size = "" if self.bytes_a_token is None else f", {_size(need * self.bytes_a_token)}"
        found = [
            f"key-value cache: {self.branches} branches of {self.tokens:,} tokens take {need:,} tokens{size}"
        ]
        if self.capacity is None:
            found.append(f"the model does not say how much it has; {self.episodes} problems at a time")
        else:
            found.append(f"the model has {self.capacity:,} tokens; {self.episodes} problems at a time")
            if need > self.capacity:
                found.append(
                    "warning: not even one problem fits; the model will put branches back and recompute them"
                )
        return found


def bytes_a_token(model: str) -> int | None:
    """What a token takes in the cache of a model, by its config.json at 16 bits; None = it does not say."""
    from transformers import PretrainedConfig

    from env.costs.shapes import Shape

    try:
        config: dict[str, Any] = PretrainedConfig.get_config_dict(model)[0]
        heads = config["num_attention_heads"]
        width = config.get("head_dim") or config["hidden_size"] // heads
        return Shape(
            0, config["num_hidden_layers"], heads, config.get("num_key_value_heads") or heads, width
        ).cache
    except (OSError, ValueError, LookupError, TypeError):
        return None


def total(capacities: Sequence[int | None]) -> int | None:
    """Of all places, unless one of them does not say."""
    return None if None in capacities else sum(each or 0 for each in capacities)


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
