"""What a model's tokens cost, from a small table that the user can override."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from env.errors import UserError

TABLE = Path(__file__).parent / "prices.json"
SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")


class Price(NamedTuple):
    """USD per million tokens."""

    input: float
    cached: float
    output: float

    def cost(self, prompt: int, completion: int, cached: int = 0) -> float:
        """USD of a call; `cached` of its `prompt` tokens are billed at the cached rate."""
        return ((prompt - cached) * self.input + cached * self.cached + completion * self.output) / 1e6


def price_of(model: str, override: Path | None = None) -> Price | None:
    """The price of a model, or None where neither the user's table nor ours has it.

    A dated snapshot ("gpt-4.1-2025-04-14") has the price of its model unless it is listed itself.

    Args:
        model: as sent to the endpoint.
        override: JSON file `{"model": {"input": 1.25, "output": 10, "cached": 0.1 (optional)}}`, in USD
            per million tokens.

    Raises:
        UserError: the file cannot be read or has another form.
    """
    table = json.loads(TABLE.read_text(encoding="utf-8"))["models"]
    if override is not None:
        try:
            own = json.loads(override.read_text(encoding="utf-8"))
            table |= {name: _entry(entry) for name, entry in own.items()}
        except OSError as error:
            raise UserError(f"cannot read the price table {override}: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(
                f'{override} is not a price table: expected {{"{model}": {{"input": 1.25, "output": 10}}}}, '
                "in USD per million tokens, none negative"
            ) from None
    entry = table.get(model) or table.get(SNAPSHOT.sub("", model))
    return Price(entry["input"], entry.get("cached", entry["input"]), entry["output"]) if entry else None


def _entry(entry: dict[str, float]) -> dict[str, float]:
    prices = {
        key: float(entry[key]) for key in ("input", "output", *(["cached"] if "cached" in entry else []))
    }
    if not all(0 <= price < float("inf") for price in prices.values()):
        raise ValueError("a price is negative or not a number")
    return prices
