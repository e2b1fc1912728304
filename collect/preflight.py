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
# Compressed, once in the working folder and once in the store: a token's id and text, a node's other columns.
# Reckoned for prose; what a model repeats takes less.
_BYTES_A_TOKEN, _BYTES_A_NODE = 8, 40
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
    if measured := _measured(collection):
        (length, segments), source = measured, "the mean so far"
    elif branch_tokens:
        length, segments, source = branch_tokens, None, "as --expect-tokens says"
    else:
        length, segments = _GUESS * most, None
        source = "a guess, half of --max-tokens; --expect-tokens says better"
    arms = [sum(len(collection.groups[g]) for g in collection.missing(n)) for n in range(len(plan.arms))]
    branches, tokens, nodes = expected(plan, length, segments)
    _, most_tokens, _ = expected(plan, most)
    done = sum(file.stat().st_size for file in collection.folder.path.glob("samples-*/*.parquet"))
    return Forecast(
        problems=max(arms),
        branches=sum(arms) * branches,
        branch_tokens=length,
        tokens=sum(arms) * tokens,
        most_tokens=int(sum(arms) * most_tokens),
        size=sum(arms) * (tokens * _BYTES_A_TOKEN + nodes * _BYTES_A_NODE) + done,
        free=shutil.disk_usage(_existing(collection.out)).free,
        source=source,
    )


def expected(plan: Plan, length: float, segments: float | None = None) -> tuple[int, float, float]:
    """Branches, decoded tokens and nodes of a problem whose branches are all this long.

    Args:
        plan: what is collected.
        length: of a branch, in tokens.
        segments: of a branch; None = unknown.
    """
    rule, shape = plan.segments, plan.shape
    segment = length / segments if segments else rule.tokens or _guessed_segment(plan, length)
    per_branch = max(1.0, length / segment)
    branches = places = shape.branches
    tokens, nodes = branches * length, branches * per_branch
    for depth, width in zip(shape.fork_depths, shape.fork_widths, strict=True):
        rest = per_branch - depth
        if rest <= 0:
            break
        forked = min(places, max(0, int((shape.max_nodes - nodes) / (rest * (width - 1)))))
        new = forked * (width - 1)
        branches, nodes, tokens = branches + new, nodes + new * rest, tokens + new * rest * segment
        places += new
    if plan.probing:
        tokens += nodes * plan.probing.max_tokens / 2
    return branches, tokens, nodes


def _guessed_segment(plan: Plan, length: float) -> float:
    """Tokens of a segment of steps. Who asks for forks after the sixth expects branches to get that far."""
    deepest = max(plan.shape.fork_depths, default=0)
    return min((plan.segments.steps or 1) * _TOKENS_A_STEP, length / (deepest + 1))


def _measured(collection: Collection) -> tuple[float, float] | None:
    """Mean tokens and segments of a branch in the first finished group, None if there is none."""
    for group in range(len(collection.groups)):
        file = collection.folder.samples(0, group)
        if file.exists():
            lengths = [
                each
                for row in pq.read_table(file, columns=["parent", "tokens", "end"]).to_pylist()
                for each in branch_lengths(row["parent"], row["tokens"], row["end"])
            ]
            tokens, segments = (sum(each) / len(lengths) for each in zip(*lengths, strict=True))
            return tokens, segments
    return None


def branch_lengths(parent: Sequence[int], tokens: Sequence[int], end: Sequence[int]) -> list[tuple[int, int]]:
    """Tokens and segments of each of a problem's branches, from the root to where it ended."""
    length: list[tuple[int, int]] = []
    for above, count in zip(parent, tokens, strict=True):
        before, segments = length[above] if above >= 0 else (0, 0)
        length.append((before + count, segments + 1))
    return [each for each, why in zip(length, end, strict=True) if why != END_NONE]


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
