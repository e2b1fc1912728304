"""A model for live episodes that says what a store says: the store's own trees, asked by name."""

import asyncio
import math

from env.index import Index
from env.live.model import Abilities, ModelError, Name, Probe, Segment, Usage


class StoreModel:
    """See `env.live.model.Model`; a question is the number of a problem.

    Args:
        index: of the store; arms share the root.
        seconds: that a segment takes.
        fails: branches that fail for good, by name.
    """

    def __init__(self, index: Index, seconds: float = 0, fails: frozenset[Name] = frozenset()) -> None:
        self.index, self.seconds, self.fails = index, seconds, fails
        forest = index.forest
        self.abilities = Abilities(
            index.arms, index.has_probes, forest.prm is not None, forest.confidence is not None
        )
        self.closed = self.opened = 0

    def ask(self, question: str, seed: int) -> "StoreSession":
        return StoreSession(self, int(question))


class StoreSession:
    def __init__(self, model: StoreModel, problem: int) -> None:
        self.model, self.problem, self.usage = model, problem, Usage()

    def open(self, name: Name, arm: int) -> "StoreBranch":
        return StoreBranch(self, name, arm, -1)

    async def close(self) -> None:
        self.model.closed += 1


class StoreBranch:
    def __init__(self, session: StoreSession, name: Name, arm: int, node: int) -> None:
        self.session, self.name, self.arm, self.node = session, name, arm, node
        session.model.opened += 1

    async def advance(self, name: Name) -> Segment:
        model, index = self.session.model, self.session.model.index
        await asyncio.sleep(model.seconds)
        if name in model.fails:
            raise ModelError("the model is gone")
        if self.node < 0:
            first = int(index.first_root[self.session.problem * index.arms + self.arm])
            self.node = int(index.roots[first + name[0]])
        else:
            number = name[-1] if len(name) > len(self.name) or name != self.name else 0
            self.node = int(index.children[index.first_child[self.node] + number])
        self.name = name
        above = int(index.parent[self.node])
        tokens = int(index.cost[self.node]) - (int(index.cost[above]) if above >= 0 else 0)
        stored = int(index.order[self.node])
        known = index.forest.confidence
        confidence = math.nan if known is None else float(known[stored])
        end = int(index.end[self.node])
        return Segment(tokens, end, self._answer() if end else None, confidence)

    async def probe(self) -> Probe:
        return Probe(self._answer(), int(self.session.model.index.probe_cost[self.node]))

    async def score(self) -> list[float]:
        index, path, node = self.session.model.index, [], self.node
        while node >= 0:
            stored = int(index.order[node])
            first, last = index.forest.prm_first[stored : stored + 2].tolist()
            path = index.forest.prm[first:last].tolist() + path
            node = int(index.parent[node])
        return path

    def fork(self, name: Name) -> "StoreBranch":
        fork = StoreBranch(self.session, self.name, self.arm, self.node)
        return fork

    def text(self) -> str:
        return f"node {self.node}"

    def close(self) -> None:
        pass

    def _answer(self) -> str | None:
        answer = int(self.session.model.index.answer[self.node])
        return None if answer < 0 else f"a{answer}"


class OneOf:
    """A task: answers are equal if they are the same, and right if they are among some."""

    def __init__(self, right=frozenset()) -> None:
        self.right = {f"a{answer}" for answer in right}

    def extract(self, text: str) -> str:
        return text

    def equal(self, first: str, second: str) -> bool:
        return first == second

    def grade(self, gold: str, answer: str) -> bool:
        return answer in self.right
