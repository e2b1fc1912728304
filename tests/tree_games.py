"""Trees of one problem played by hand: an object a branch, no engine; what was done, and what it cost.

A moment is a label that sorts. What happens at the same moment is one round, in whatever order it is told: so
a rule may be written as a recursion, one subtree after the other, and still come to a program's rounds.
"""

import math
import random
from collections import defaultdict
from collections.abc import Iterable

from env.episode import BRANCH, FORK, OPENING, PRUNE, SAMPLE, SCORE
from env.replay import Replay
from tests.forests import Node, Problem
from tests.playing import grow
from tests.reference import Branch, mix, shuffled

WORDS = {BRANCH: "open", SAMPLE: "sample", FORK: "open", SCORE: "score"}
Moment = tuple
Rounds = list[list[tuple[str, int]]]


class Spot(Branch):
    """A branch, numbered in the order of opening; `known` is the answer that it has shown last."""

    def __init__(self, node: Node, seed: int, number: int) -> None:
        super().__init__(node, seed)
        self.number = number
        self.known = node.answer if node.end else -2

    @property
    def scores(self) -> list[float]:
        """Step scores of its path."""
        return [score for node in self.path() for score in node.scores]


class TreeGame:
    """One problem, served as a seed says; the ledger and the journal of what is done on it."""

    def __init__(self, problem: Problem, seed: int, assumed: int = 20) -> None:
        self.seed = seed
        self.assumed = assumed
        self.rng = random.Random(mix(seed))
        self.spots: list[Spot] = []
        self.decode = self.probe = self.prm = 0
        self.wanted = self.granted = 0
        arms = {root.arm for root in problem.roots}
        self._waiting = {a: shuffled([root for root in problem.roots if root.arm == a], seed) for a in arms}
        self._longest: dict[Moment, int] = defaultdict(int)
        self._told: list[tuple[Moment, tuple[str, int]]] = []

    @property
    def ledger(self) -> list[int]:
        """Decode, probe, PRM and sequential tokens."""
        return [self.decode, self.probe, self.prm, sum(self._longest.values())]

    @property
    def rounds(self) -> Rounds:
        """What was done, moment by moment."""
        moments = sorted({moment for moment, _ in self._told})
        return tidy([told for moment, told in self._told if moment == now] for now in moments)

    def open(self, when: Moment, count: int, ask: bool = False, arm: int = 0) -> list[Spot]:
        """Branches from the root, as many as there are of an arm."""
        return self._open(when, count, self._waiting.get(arm, []), 0, ask)

    def sample(self, when: Moment, count: int, arm: int = 0) -> list[Spot]:
        """Branches from the root, each run as far as it goes."""
        born = self._admit(count, self._waiting.get(arm, []), 0)
        for spot in born:
            tokens = spot.node.tokens
            more, stuck = spot.advance(math.inf, False)
            self.wanted += stuck
            self._pay(when, "sample", spot, tokens + more, False)
        return born

    def fork(self, when: Moment, spot: Spot, count: int) -> list[Spot]:
        """Branches from where a branch stands."""
        assert spot.state != 4, "a branch that was given up has no forks"
        return self._open(when, count, spot._waiting, spot.path_scored, False)

    def move(self, when: Moment, spot: Spot, steps: float = 1, ask: bool = False) -> None:
        """Run a branch on by some steps, or as far as it goes."""
        tokens, stuck = spot.advance(steps, False)
        self.wanted += stuck
        self._pay(when, "move", spot, tokens, ask)

    def score(self, when: Moment, spot: Spot) -> list[float]:
        """Have the process reward model read what it has not read of a path."""
        length = sum(node.tokens for node in spot.path())
        self.prm += length - spot.path_scored
        spot.path_scored = length
        self._told.append((when, ("score", spot.node.place)))
        return spot.scores

    def drop(self, when: Moment, spots: Iterable[Spot]) -> None:
        """Give branches up before that moment."""
        for spot in spots:
            if not spot.end:
                spot.state = 4
                self._told.append((when, ("drop", spot.node.place)))

    def _open(self, when: Moment, count: int, waiting: list[Node], read: int, ask: bool) -> list[Spot]:
        born = self._admit(count, waiting, read)
        for spot in born:
            self._pay(when, "open", spot, spot.node.tokens, ask)
        return born

    def _admit(self, count: int, waiting: list[Node], read: int) -> list[Spot]:
        born = [Spot(node, self.seed, len(self.spots) + k) for k, node in enumerate(waiting[:count])]
        del waiting[:count]
        self.spots += born
        self.wanted += count
        self.granted += len(born)
        for spot in born:
            spot.path_scored = read
        return born

    def _pay(self, when: Moment, word: str, spot: Spot, tokens: int, ask: bool) -> None:
        self._told.append((when, (word, spot.node.place)))
        self.decode += tokens
        probe = 0
        if spot.node.end:
            spot.known = spot.node.answer
        elif ask and not spot.asked:
            spot.asked = True
            probe = spot.probe_cost(self.assumed)
            self.probe += probe
            self.wanted += spot.node.answer == -2
            spot.known = spot.known if spot.node.answer == -2 else spot.node.answer
        self._longest[when] = max(self._longest[when], tokens + probe)


def tidy(rounds: Iterable[list[tuple[str, int]]]) -> Rounds:
    """What was given up between two rounds comes first in the next one; after the last it concerns nobody."""
    tidied: Rounds = []
    dropped: list[tuple[str, int]] = []
    for told in rounds:
        dropped += [choice for choice in told if choice[0] == "drop"]
        rest = [choice for choice in told if choice[0] != "drop"]
        if rest:
            tidied.append(sorted(dropped) + rest)
            dropped = []
    return tidied


def logged(replay: Replay) -> Rounds:
    """What the log of an engine with a single episode says, in the words of a `TreeGame`."""
    local = replay.index.local
    at: dict[int, int] = {}
    rounds: Rounds = []
    for actions, ids, results in replay.log or ():
        told, named = [], ids.tolist()
        for _, kind, _, count, _ in actions.tolist():
            taken = 0 if kind in OPENING else count
            if kind == PRUNE:
                told += [("drop", at[b]) for b in named[:taken]]
            named = named[taken:]
        kinds = [kind for _, kind, *_ in actions.tolist() if kind != PRUNE]
        answered = iter(zip(results.branch.tolist(), local[results.node].tolist(), strict=True))
        for kind, rows in zip(kinds, results.rows.tolist(), strict=True):
            for branch, place in [next(answered) for _ in range(rows)]:
                at[branch] = place
                told.append((WORDS.get(kind, "move"), place))
        rounds.append(told)
    return tidy(rounds)


def grove(seed: int) -> Problem:
    """Up to nine random trees, of up to four more levels below the root, up to five children a node."""
    rng = random.Random(seed)
    roots, width, depth = rng.randrange(1, 10), rng.randrange(1, 6), rng.randrange(5)
    nodes: list[Node] = []
    probed = False

    def plant(parent: Node | None, levels: int) -> None:
        nonlocal probed
        inner = levels > 0 and rng.random() < 0.8
        # A store has probes if it has one: the first node that goes on.
        least, probed = (-2 if probed and inner else -1), probed or inner
        node = grow(parent, rng.randrange(30), rng.randrange(least, 4), place=len(nodes))
        node.probe_tokens = rng.randrange(-1, 4)
        node.scores = tuple(rng.randrange(9) / 8 for _ in range(rng.choice((0, 1, 1, 1, 2))))
        node.confidence = rng.randrange(1, 17) / 8 if rng.random() < 0.85 else float("nan")
        node.end = 0 if inner else rng.choice((0, 1, 1, 1, 2))
        nodes.append(node)
        for _ in range(rng.randrange(1, width + 1) if inner else 0):
            plant(node, levels - 1)

    for _ in range(roots):
        plant(None, depth)
    return Problem(nodes, frozenset(), 4)
