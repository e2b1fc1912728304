"""Random small stores for tests of replay: trees of plain objects, and the same as arrays."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from env.forest import Forest


@dataclass(eq=False)
class Node:
    """A segment. `answer` and `raw`: -2 not asked, -1 nothing parsed; `end` as in the store."""

    tokens: int
    answer: int
    probe_tokens: int = -1
    end: int = 0
    arm: int = 0
    scores: tuple[float, ...] = ()
    confidence: float = 0.0
    parent: "Node | None" = None
    children: list["Node"] = field(default_factory=list)
    place: int = -1


@dataclass
class Problem:
    """Trees of one problem; `nodes` in stored order (parents before children), `right` its right answers."""

    nodes: list[Node]
    right: frozenset[int]
    answers: int

    @property
    def roots(self) -> list[Node]:
        return [node for node in self.nodes if node.parent is None]


@dataclass
class Trees:
    """A store: what `Forest` says in arrays."""

    problems: list[Problem]
    has_scores: bool = False
    has_confidence: bool = False
    segment_tokens: int | None = None
    raw_texts: list[list[str]] | None = None

    def forest(self) -> Forest:
        nodes = [node for problem in self.problems for node in problem.nodes]
        at = {id(node): k for k, node in enumerate(nodes)}

        def bounds(counts: list[int]) -> np.ndarray:
            return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

        def column(values: list, kind: type) -> np.ndarray:
            return np.array(values, kind)

        answers = column([n.answer for n in nodes], np.int32)
        answer_first = bounds([p.answers for p in self.problems])
        right = column([a in p.right for p in self.problems for a in range(p.answers)], np.bool_)
        texts = self.raw_texts or [[f"a{k}" for k in range(p.answers)] for p in self.problems]
        scores = [s for n in nodes for s in n.scores]
        return Forest(
            first_node=bounds([len(p.nodes) for p in self.problems]),
            parent=column([-1 if n.parent is None else at[id(n.parent)] for n in nodes], np.int32),
            tokens=column([n.tokens for n in nodes], np.int32),
            answer=answers,
            raw=answers.copy(),
            probed=column([n.probe_tokens != -2 and n.answer != -2 for n in nodes], np.bool_),
            probe_tokens=column([max(n.probe_tokens, -1) for n in nodes], np.int32),
            end=column([n.end for n in nodes], np.uint8),
            arm=column([n.arm for n in nodes], np.int16),
            prm=column(scores, np.float32) if self.has_scores else None,
            prm_first=bounds([len(n.scores) for n in nodes]) if self.has_scores else None,
            confidence=column([n.confidence for n in nodes], np.float32) if self.has_confidence else None,
            logprob=None,
            class_correct=right,
            class_first=answer_first,
            raw_correct=right.copy(),
            raw_first=answer_first.copy(),
            raw_strings=pa.array([t for texts_of in texts for t in texts_of], pa.string()),
            question_hash=[f"{p:032x}" for p in range(len(self.problems))],
            segment_tokens=self.segment_tokens,
        )


@dataclass
class InMemory:
    """Stands in for a store where only its trees matter."""

    trees: Forest
    path: str = "memory"

    def forest(self) -> Forest:
        return self.trees


class Digits:
    """Takes small choices out of one drawn number: far quicker to draw than one number a choice."""

    LIMIT = 2**48

    def __init__(self, number: int) -> None:
        self.rest = number

    def __call__(self, choices: int) -> int:
        self.rest, choice = divmod(self.rest, choices)
        return choice


ANSWERS = 4
numbers = st.integers(0, Digits.LIMIT)


@st.composite
def problems(draw, chains: bool, arms: int, probed: bool) -> Problem:
    """A problem of up to a dozen nodes, stored in no particular order but parents before children."""
    nodes: list[Node] = []
    for number in draw(st.lists(numbers, min_size=1, max_size=12)):
        pick = Digits(number)
        back = pick(6)  # which earlier node it continues, if any
        parent = nodes[-back] if 0 < back <= len(nodes) else None
        if parent is not None and chains and parent.children:
            parent = None
        node = Node(
            tokens=pick(31),
            answer=pick(ANSWERS + 2) - 2,
            probe_tokens=pick(5) - 1,
            end=(0, 0, 1, 2)[pick(4)],
            arm=pick(2) % arms,
            scores=tuple((len(nodes) * 3 + s) / 64 for s in range(pick(3))),
            confidence=len(nodes) / 8,
            parent=parent,
            place=len(nodes),
        )
        if parent is not None:
            parent.children.append(node)
            node.arm = parent.arm
        nodes.append(node)
    for node in nodes:
        if node.children:
            node.end = 0
        if node.end:
            node.answer = max(node.answer, -1)
        elif not probed:
            node.answer = -2
    right = Digits(draw(numbers))
    return Problem(nodes, frozenset(a for a in range(ANSWERS) if right(3) == 0), ANSWERS)


@st.composite
def trees(draw, chains: bool | None = None) -> Trees:
    """A store of one to three problems, with or without forks, probes, PRM scores, arms and confidence."""
    pick = Digits(draw(numbers))
    shape = [pick(2) == 1 for _ in range(4)]
    chains = shape[0] if chains is None else chains
    each = problems(chains, arms=1 + shape[1], probed=pick(4) > 0)
    return Trees(draw(st.lists(each, min_size=1, max_size=3)), shape[2], shape[3])


@dataclass
class Recording:
    """A published branch: what it answered every `INTERVAL` tokens, its length, its final answer."""

    probes: list[int]
    length: int
    final: int


INTERVAL = 10
RAW = ("7", "ERR", "07", "12", "x")


def stored(recordings: list[list[Recording]], right: int = 0) -> Trees:
    """Published recordings as a store has them, by the importing rule; answers are places in `RAW`."""
    made = []
    for branches in recordings:
        nodes: list[Node] = []
        for branch in branches:
            rows = [(INTERVAL, answer, -1, 0) for answer in branch.probes]
            tail = branch.length - INTERVAL * len(rows)
            if rows and tail <= 0 and branch.probes[-1] == branch.final:
                rows[-1] = (INTERVAL + tail, branch.final, -1, 1)
            elif rows and tail <= 0:
                rows[-1] = (INTERVAL + tail, rows[-1][1], -1, 0)
                rows.append((0, branch.final, -2, 1))
            else:
                rows.append((tail, branch.final, -2, 1))
            parent = None
            for tokens, answer, probe_tokens, end in rows:
                node = Node(tokens, answer, probe_tokens, end, parent=parent, place=len(nodes))
                if parent is not None:
                    parent.children.append(node)
                nodes.append(node)
                parent = node
        made.append(Problem(nodes, frozenset({right}), len(RAW)))
    return Trees(made, segment_tokens=INTERVAL, raw_texts=[list(RAW)] * len(recordings))


@st.composite
def recordings(draw, most_branches: int = 6, most_probes: int = 5) -> list[list[Recording]]:
    """One to three problems of published recordings."""

    def branch(number: int) -> Recording:
        pick = Digits(number)
        probes = [pick(len(RAW)) for _ in range(pick(most_probes + 1))]
        tail = pick(3 * INTERVAL - 1) + 1 - INTERVAL
        final = probes[-1] if probes and pick(4) else pick(len(RAW))
        return Recording(probes, INTERVAL * len(probes) + (tail if probes else abs(tail)), final)

    branches = st.lists(numbers.map(branch), min_size=1, max_size=most_branches)
    return draw(st.lists(branches, min_size=1, max_size=3))
