"""A collection in parts, each made by a machine of its own."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from env.errors import UserError


@dataclass(frozen=True)
class Shard:
    """Every `of`-th group of a plan's problems, counted from the one with the number `index`, from 1."""

    index: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.of:
            raise UserError(f"there is no shard {self}: the shards of {self.of} are 1/{self.of} and so on")

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads "3/8". Raises UserError if it is none."""
        index, slash, of = text.partition("/")
        if not (slash and index.isdecimal() and of.isdecimal()):
            raise UserError(f"{text!r} is no shard; give its number and how many there are, such as 3/8")
        return cls(int(index), int(of))

    def groups(self, count: int) -> range:
        """Which of so many groups are in it. Raises UserError if none are."""
        if self.index > count:
            raise UserError(
                f"the shard {self} is empty, since there are only {count} groups of problems; take fewer "
                "shards, or smaller groups with --group"
            )
        return range(self.index - 1, count, self.of)


def sharded(recipe: Mapping[str, Any], shard: Shard | None) -> dict[str, Any]:
    """A collection's recipe as that of one of its shards."""
    return dict(recipe) | ({"shard": asdict(shard)} if shard else {})
