"""What the Gymnasium environments show, against what the engine's own results say of the same actions."""

from collections import Counter

import numpy as np
from gymnasium.utils.env_checker import data_equivalence
from hypothesis import example, given, settings
from hypothesis import strategies as st

from env.episode import BRANCH, EXTEND, FORK, PROBE, PRUNE, SCORE
from env.gym import ReplayEnv
from env.gym_table import ALL, Move, Table
from env.replay import Replay
from tests.forests import InMemory, Node, Problem, Trees, trees

LIVE, EXHAUSTED, PRUNED = 0, 3, 4
UNASKED, UNPARSED = -2, -1


class Reader:
    """An episode that is played on the engine, and a note of every branch."""

    def __init__(self, table: Table, problem: int, seed: int) -> None:
        self.table = table
        self.replay = Replay(table.index, [problem], [seed], max_branches=table.max_branches)
        self.pools = table.index.pool[problem]
        self.taken = [0] * table.index.arms
        self.branches: list[dict] = []

    def changes(self, kind: int) -> list[int]:
        """The branches that an action would change."""
        moved = {PROBE: "asked", SCORE: "scored"}.get(kind)
        ends = {PROBE: (LIVE, EXHAUSTED), SCORE: (LIVE, 1, 2, EXHAUSTED)}.get(kind, (LIVE,))
        every = enumerate(self.branches)
        return [b for b, note in every if note["end"] in ends and (not moved or note[moved] != note["depth"])]

    def can(self, move: Move) -> bool:
        """Whether an action does anything."""
        if move.kind == BRANCH:
            return move.width <= min(self.room, self.pools[move.target] - self.taken[move.target])
        if move.kind == FORK:
            note = self.branches[move.target] if move.target < len(self.branches) else None
            room = len(self.branches) < self.table.slots
            return bool(room and note and note["end"] != PRUNED and note["children"])
        who = self.changes(move.kind)
        return bool(who) if move.target == ALL else move.target in who

    @property
    def room(self) -> int:
        """Root branches that may still be opened."""
        return min(self.replay.max_branches[0] - sum(self.taken), self.table.slots - len(self.branches))

    def act(self, move: Move) -> None:
        """Play it, and note what came of it."""
        kind, target, width = move
        opening = kind in (BRANCH, FORK)
        ids = [] if opening else self.changes(kind) if target == ALL else [target]
        row = [0, kind, kind == PROBE, width if opening else len(ids), target if opening else kind == EXTEND]
        results = self.replay.step(np.array([row]), np.array(ids, np.int64))
        if kind == PRUNE:
            self.branches[target]["end"] = PRUNED
        parent = self.branches[target] if kind == FORK else {"score": -1.0, "children": 0}
        if kind == BRANCH:
            self.taken[target] += width
        values = iter(results.scores[1].tolist() if results.scores else ())
        for at, b in enumerate(results.branch.tolist()):
            if b == len(self.branches):
                fresh = {"answer": UNASKED, "tokens": 0, "asked": 0, "scored": 0, "score": parent["score"]}
                self.branches.append(fresh)
                parent["children"] -= 1
            note = self.branches[b]
            note["tokens"] += int(results.tokens[at])
            note["depth"], note["end"] = int(results.depth[at]), int(results.end[at])
            note["children"] = 0 if results.children is None else int(results.children[at])
            note["confidence"] = 0.0 if results.confidence is None else float(results.confidence[at])
            note["answer"] = note["answer"] if results.answer[at] == UNASKED else int(results.answer[at])
            note |= {PROBE: {"asked": note["depth"]}, SCORE: {"scored": note["depth"]}}.get(kind, {})
            for _ in range(int(results.scores[0][at]) if results.scores else 0):
                note["score"] = next(values)

    def votes(self) -> tuple[list[int], Counter[int]]:
        """What each branch says that is not pruned, and how often each answer is given."""
        said = [UNASKED if note["end"] == PRUNED else note["answer"] for note in self.branches]
        return said, Counter(code for code in said if code != UNASKED)

    def grade(self) -> bool:
        """Whether most are right; `most_common` keeps the order in which answers were first met."""
        votes = self.votes()[1].most_common()
        self.replay.finish(np.zeros(1, int), np.array([votes[0][0] if votes else UNPARSED]))
        return bool(self.replay.correct[0])

    def seen(self) -> dict[str, np.ndarray]:
        """The observation."""
        seen = self.table.blank()
        said, votes = self.votes()
        ranked = [count for _, count in votes.most_common()]
        for b, note in enumerate(self.branches):
            row = note | {"tokens": note["tokens"] / 1000, "state": 1 + note["end"], "votes": votes[said[b]]}
            for name in row.keys() & seen.keys():
                seen[name][b] = row[name]
        seen["spent"][:] = self.replay.ledger[0] / 1000
        seen["lead"][:] = [*ranked, 0, 0][:2]
        seen["room"][:] = self.room
        seen["action_mask"][:] = [1, *map(self.can, self.table.moves[1:])]
        return seen


def bush() -> Trees:
    """Branches that fork three wide, twice, with a score at every node."""
    nodes: list[Node] = []
    for place in range(4 * 13):
        parent = nodes[place - place % 13 + (place % 13 - 1) // 3] if place % 13 else None
        scores = (place / 64,)
        nodes.append(
            Node(place, place % 3, end=int(place % 13 > 3), scores=scores, parent=parent, place=place)
        )
        if parent:
            parent.children.append(nodes[-1])
    return Trees([Problem(nodes, frozenset({1}), 3)], True, True)


@settings(max_examples=150, deadline=None)
@example(bush(), 10, 5)
@example(bush(), 11, 5)
@given(trees(), st.integers(0, 2**20), st.sampled_from((None, 1, 3)))
def test_shows_what_the_engine_says(made: Trees, seed: int, max_branches: int | None) -> None:
    env = ReplayEnv(InMemory(made.forest()), max_branches=max_branches)
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(options={"problem": 0, "seed": seed})
    reader = Reader(env.table, 0, seed)
    for _ in range(25):
        assert data_equivalence(observation, reader.seen(), exact=True)
        allowed = np.flatnonzero(observation["action_mask"])[1:]
        if not len(allowed):
            break
        # Each kind of action as likely as any other, however many branches it can be about.
        kinds = np.array([env.table.moves[action].kind for action in allowed])
        action = int(rng.choice(allowed[kinds == rng.choice(np.unique(kinds))]))
        reader.act(env.table.moves[action])
        observation, *_ = env.step(action)
    assert env.step(0)[4]["correct"] == reader.grade()


def test_no_more_branches_than_there_are_places_for():
    nodes = [Node(1, 0)]
    nodes += [Node(1, 0, end=1, parent=nodes[0], place=place) for place in range(1, 81)]
    nodes[0].children = nodes[1:]
    env = ReplayEnv(InMemory(Trees([Problem(nodes, frozenset({0}), 1)]).forest()))
    env.reset(options={"problem": 0, "seed": 0})
    env.step(env.actions.index("open 1"))
    fork = env.actions.index("fork 0")
    for _ in range(90):
        observation, *_ = env.step(fork)
    assert (observation["state"] != 0).all() and observation["children"][0] == 80 - (env.table.slots - 1)
    assert not observation["action_mask"][fork]
