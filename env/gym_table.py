"""What both Gymnasium environments share: the table of actions, the spaces, and how an episode is chosen.

Nothing here depends on what a store would reveal: two stores of the same capabilities, opened with the same
`max_branches`, have equal spaces, so that a policy which was trained on one can be tried on the other.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env.episode import BRANCH, EXTEND, FINISH, FORK, KINDS, PROBE, PRUNE, SCORE, UNASKED
from env.errors import UserError
from env.index import Index
from env.replay import Replay
from env.store import Store

# Kind, and number, of the action that ends an episode.
ANSWER = 0
ALL = -1
KILO = 1000
# Gymnasium wants finite bounds; none of these is ever reached.
MOST = 2**30
# Where branches can fork, more of them than may be opened at the root need a place in the observation.
FORK_SLOTS = 64
# An episode that is not chosen by the caller is served in one of these orders, which evaluation never uses.
FIRST_SEED, SEEDS = 1_000_000, 1024
NOT_OPENED, RUNNING = 0, 1
NOT_SCORED = -1.0
STATES = ("not opened", "running", "stop", "length", "exhausted", "pruned")


class Move(NamedTuple):
    """What an action does: `kind` as in `env.episode` (or ANSWER), to one branch or to ALL it can change.

    Of BRANCH, `target` is the arm and `width` how many branches to open.
    """

    kind: int
    target: int = ALL
    width: int = 1


@dataclass(frozen=True)
class Table:
    """A store under one accounting rule, and what one may do in it.

    Attributes:
        index: the store laid out for replay.
        ceilings: int64[P], how many root branches each problem's episodes may open.
        slots: places for branches in the observation.
        moves: what each of the A actions does.
        everywhere: the action about all branches, by kind.
        at: first action of each block of `slots` actions, by kind; action i of a block is about branch i.
        problems: which problems are drawn from.
        place: question hash -> problem.
    """

    index: Index
    max_branches: int | None
    ceilings: NDArray[np.int64]
    slots: int
    moves: tuple[Move, ...]
    everywhere: Mapping[int, int]
    at: Mapping[int, int]
    problems: list[int]
    place: Mapping[str, int]
    path: str

    @classmethod
    def build(
        cls,
        store: Store | str | Path,
        protocol: str,
        probe_tokens: int,
        max_branches: int | None,
        problems: Collection[str] | None,
    ) -> "Table":
        """The table of a store; arguments as of `env.gym.ReplayEnv`.

        Raises:
            UserError: an argument out of range, or a store that cannot be read.
        """
        if max_branches is not None and max_branches < 1:
            raise UserError(f"max_branches is {max_branches}: give at least 1, or None for half of the pool")
        if isinstance(store, str | Path):
            path, index = str(store), _index(str(store), _changed(store), protocol, probe_tokens)
        else:
            path, index = store.path, Index.build(store.forest(), protocol, probe_tokens)
        place = {name: at for at, name in enumerate(index.forest.question_hash)}
        chosen = [at for name, at in place.items() if problems is None or name in problems]
        if not chosen:
            raise UserError(f"none of the {len(problems or ())} problems asked for is in {path}")
        count = len(index.forest)
        # The engine's own rule.
        ceilings = Replay(index, range(count), [0] * count, max_branches=max_branches).max_branches
        roots = max_branches or int(ceilings.max())
        slots = max(roots, FORK_SLOTS) if index.has_forks else roots
        return cls(
            index=index,
            max_branches=max_branches,
            ceilings=ceilings,
            slots=slots,
            **_moves(index, roots, slots),
            problems=chosen,
            place=place,
            path=path,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """What each action does, in words: "answer", "open 4", "extend all", "prune 17"."""
        return tuple(_name(move, self.index.arms) for move in self.moves)

    def action_space(self) -> spaces.Discrete:
        """One number, an index of `moves`."""
        return spaces.Discrete(len(self.moves))

    def observation_space(self) -> spaces.Dict:
        """See `env.gym.ReplayEnv`."""
        blank = self.blank()
        bounds = {"state": (0, len(STATES) - 1), "answer": (UNASKED, MOST), "action_mask": (0, 1)}
        lows = {"confidence": -MOST, "score": -MOST}
        return spaces.Dict(
            {
                name: spaces.Box(
                    *bounds.get(name, (lows.get(name, 0), MOST)), values.shape, values.dtype.type
                )
                for name, values in blank.items()
            }
        )

    def blank(self, *batch: int) -> dict[str, NDArray[Any]]:
        """What is seen of an episode before its first action (the mask and `room` are still zero)."""
        index, each = self.index, (*batch, self.slots)
        seen: dict[str, NDArray[Any]] = {
            "answer": np.full(each, UNASKED, np.int32),
            "votes": np.zeros(each, np.int32),
            "state": np.full(each, NOT_OPENED, np.int8),
            "depth": np.zeros(each, np.int32),
            "tokens": np.zeros(each, np.float32),
            "spent": np.zeros((*batch, 4), np.float32),
            "lead": np.zeros((*batch, 2), np.int32),
            "room": np.zeros((*batch, 1), np.int32),
            "action_mask": np.zeros((*batch, len(self.moves)), np.int8),
        }
        if index.has_forks:
            seen["children"] = np.zeros(each, np.int32)
        if index.forest.confidence is not None:
            seen["confidence"] = np.zeros(each, np.float32)
        if index.forest.prm is not None:
            seen["score"] = np.full(each, NOT_SCORED, np.float32)
        return seen

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """A problem and a seed, by a single draw."""
        at, order = divmod(int(rng.random() * len(self.problems) * SEEDS), SEEDS)
        return self.problems[at], FIRST_SEED + order

    def choose(self, drawn: tuple[int, int], options: Mapping[str, Any] | None) -> tuple[int, int]:
        """What was drawn, as far as the caller's reset options do not say otherwise.

        Raises:
            UserError: an option that there is not, or a problem that the store does not have.
        """
        if not options:
            return drawn
        if unknown := sorted(set(options) - {"problem", "seed"}):
            raise UserError(f"no reset option {unknown[0]!r}: there are 'problem' and 'seed'")
        problem, seed = options.get("problem", drawn[0]), int(options.get("seed", drawn[1]))
        at = self.place.get(problem, -1) if isinstance(problem, str) else int(problem)
        if not 0 <= at < len(self.place):
            last = len(self.place) - 1
            raise UserError(f"{self.path} has no problem {problem!r}: give 0 to {last}, or its question hash")
        return at, seed


def _moves(index: Index, roots: int, slots: int) -> dict[str, Any]:
    """The fields of `Table` about moves."""
    moves = [Move(ANSWER)]
    widths = [1 << power for power in range(roots.bit_length())]
    moves += [Move(BRANCH, arm, width) for arm in range(index.arms) for width in widths]
    scores = index.forest.prm is not None
    kinds = [EXTEND, FINISH] + [PROBE] * index.has_probes + [SCORE] * scores
    everywhere = {kind: at for at, kind in enumerate(kinds, len(moves))}
    moves += [Move(kind) for kind in kinds]
    at = {}
    for kind in [EXTEND, FINISH, PRUNE] + [FORK] * index.has_forks:
        at[kind] = len(moves)
        moves += [Move(kind, branch) for branch in range(slots)]
    return {"moves": tuple(moves), "everywhere": everywhere, "at": at}


def _name(move: Move, arms: int) -> str:
    if move.kind == ANSWER:
        return "answer"
    if move.kind == BRANCH:
        return f"open {move.width}" + (f" of arm {move.target}" if arms > 1 else "")
    return f"{KINDS[move.kind]} {'all' if move.target == ALL else move.target}"


@lru_cache(maxsize=8)
def _index(path: str, changed: int, protocol: str, probe_tokens: int) -> Index:
    return Index.build(Store.open(path).forest(), protocol, probe_tokens)


def _changed(path: str | Path) -> int:
    meta = Path(path) / "store.json"
    return meta.stat().st_mtime_ns if meta.exists() else 0
