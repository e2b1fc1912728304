"""What a collection will cost, before it is paid for."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from collect.collection import Collection
from collect.plan import Plan
from env.forest import END_NONE

# Where nothing is known of how long branches get: this part of --max-tokens.
_GUESS = 0.5
# Measured on stores of this program: ids, text and log probabilities of a token, then a node's own columns,
# each once in the working folder and once in the store.
_BYTES_A_TOKEN, _BYTES_A_NODE = 10, 60
# For steps, whose length only the model decides.
_TOKENS_A_STEP = 100


@dataclass(frozen=True)
class Forecast:
    """What is left to be done.

    Attributes:
        problems: that some arm has not sampled.
        branches: of them, forks included.
        branch_tokens: expected of a branch from its root on.
        tokens: to be decoded, probes included.
        most_tokens: the same if every branch runs to --max-tokens.
        size: of working folder and store together, in bytes.
        free: bytes on their disk.
        source: where `branch_tokens` is from.
    """

    problems: int
    branches: int
    branch_tokens: float
    tokens: float
    most_tokens: int
    size: float
    free: int
    source: str

    def lines(self) -> list[str]:
        """The same in words."""
        found = [
            f"to collect: {self.problems:,} problems, {self.branches:,} branches of about "
            f"{self.branch_tokens:,.0f} tokens ({self.source})",
            f"to decode: about {_short(self.tokens)} tokens, probes included; at most "
            f"{_short(self.most_tokens)}",
            f"on disk: about {_short(self.size)}B, of {_short(self.free)}B free",
        ]
        if self.size > self.free:
            found.append("warning: that is more than the disk has; what is finished when it is full is kept")
        return found


def forecast(collection: Collection, branch_tokens: int | None) -> Forecast:
    """Expects what finished groups show, else `branch_tokens` a branch, else half of what is allowed."""
    plan, most = collection.plan, collection.plan.drawing.max_tokens
    source = "as --expect-tokens says"
    mean: float | None = branch_tokens
    if mean is None:
        mean, source = _measured(collection), "the mean so far"
    if mean is None:
        mean, source = _GUESS * most, "a guess, half of --max-tokens; --expect-tokens says better"
    arms = [sum(len(collection.groups[g]) for g in collection.missing(n)) for n in range(len(plan.arms))]
    branches, tokens, nodes = expected(plan, mean)
    _, most_tokens, _ = expected(plan, most)
    done = sum(file.stat().st_size for file in collection.folder.path.glob("samples-*/*.parquet"))
    size = sum(arms) * (tokens * _BYTES_A_TOKEN + nodes * _BYTES_A_NODE) + done
    return Forecast(
        problems=max(arms),
        branches=sum(arms) * branches,
        branch_tokens=mean,
        tokens=sum(arms) * tokens,
        most_tokens=int(sum(arms) * most_tokens),
        size=size,
        free=shutil.disk_usage(_existing(collection.out)).free,
        source=source,
    )


def expected(plan: Plan, length: float) -> tuple[int, float, float]:
    """Branches, decoded tokens and nodes of a problem whose branches are all this long."""
    rule = plan.segments
    segment = rule.tokens or (rule.steps or 1) * _TOKENS_A_STEP
    per_branch = max(1.0, length / segment)
    branches = places = plan.shape.branches
    tokens, nodes = branches * length, branches * per_branch
    for depth, width in zip(plan.shape.fork_depths, plan.shape.fork_widths, strict=True):
        rest = per_branch - depth
        if rest <= 0:
            break
        forked = min(places, max(0, int((plan.shape.max_nodes - nodes) / (rest * (width - 1)))))
        new = forked * (width - 1)
        branches, nodes, tokens = branches + new, nodes + new * rest, tokens + new * rest * segment
        places += new
    if plan.probing:
        tokens += nodes * plan.probing.max_tokens / 2
    return branches, tokens, nodes


def _measured(collection: Collection) -> float | None:
    """Mean tokens of a branch in the first finished group, None if there is none."""
    for group in range(len(collection.groups)):
        file = collection.folder.samples(0, group)
        if file.exists():
            lengths = [
                length
                for row in pq.read_table(file, columns=["parent", "tokens", "end"]).to_pylist()
                for length in branch_lengths(row["parent"], row["tokens"], row["end"])
            ]
            return sum(lengths) / len(lengths)
    return None


def branch_lengths(parent: Sequence[int], tokens: Sequence[int], end: Sequence[int]) -> list[int]:
    """How many tokens each of a problem's branches has, from the root to where it ended."""
    length: list[int] = []
    for above, count in zip(parent, tokens, strict=True):
        length.append(count + (length[above] if above >= 0 else 0))
    return [total for total, why in zip(length, end, strict=True) if why != END_NONE]


def _existing(path: Path) -> Path:
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path


def _short(number: float) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if number < 1000 or unit == "T":
            break
        number /= 1000
    return f"{number:.3g}{unit and ' ' + unit}" if unit else f"{number:,.0f} "
