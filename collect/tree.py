"""The tree of one problem: branches as they were sampled, and the segments that they are cut into."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from collect.prompts import Prompt, Prompter
from collect.segments import Cutter, group_confidence, segment_ends
from collect.tokens import Tokens
from env.forest import END_LENGTH, END_NONE, END_STOP
from env.nodes import Nodes


@dataclass(frozen=True, eq=False)
class Branch:
    """A branch from the root to its end, sampled now or stored before; T tokens.

    Attributes:
        path: its name: (number among the roots), and for every fork on the way (segments before it, number
            among the children there, from 1: 0 is the branch that was forked).
        ids: T token ids, those that it has from the branch it forked from included.
        logprobs: float32[T]; NaN = unknown.
        confidence: float32[T] of `collect.engine.Sample`; None = unknown.
        start: where its own tokens begin.
        parent: the node that they continue, -1 = none.
        finish: why it ended.
    """

    path: tuple[int, ...]
    ids: list[int]
    logprobs: NDArray[np.float32]
    confidence: NDArray[np.float32] | None
    start: int = 0
    parent: int = -1
    finish: Literal["stop", "length"] = "stop"


@dataclass
class Node:
    """A segment: the tokens ``first:last`` of a branch.

    Attributes:
        branch: number of the branch whose own tokens they are.
        parent: number of the node before, -1 = none.
        depth: how many nodes come before.
        end: as in `env.forest`.
        answer: of a probe at its end, or the branch's final one.
        probed: whether a probe was asked at its end.
        probe_tokens: what asking cost, -1 = unknown.
    """

    branch: int
    parent: int
    depth: int
    first: int
    last: int
    end: int = END_NONE
    answer: str | None = None
    probed: bool = False
    probe_tokens: int = -1


@dataclass
class Tree:
    """Branches of one problem and their nodes, parents before children."""

    prompt: Prompt
    branches: list[Branch] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)

    def add(self, branch: Branch, cutter: Cutter, close: int | None) -> None:
        """Cuts a branch into nodes; those that it shares with the one it forked from are there already.

        Args:
            branch: at least one token of its own.
            cutter: where to cut.
            close: where its thinking closes, None = nowhere.
        """
        number, parent = len(self.branches), branch.parent
        depth = self.nodes[parent].depth + 1 if parent >= 0 else 0
        first = branch.start
        for last in segment_ends(cutter, branch.ids, close):
            if last > branch.start:
                self.nodes.append(Node(number, parent, depth, first, last))
                first, parent, depth = last, len(self.nodes) - 1, depth + 1
        self.nodes[-1].end = END_STOP if branch.finish == "stop" else END_LENGTH
        self.branches.append(branch)

    def prefix(self, node: Node) -> list[int]:
        """All token ids from the branch's beginning to a node's end."""
        return self.branches[node.branch].ids[: node.last]

    def path(self, node: int) -> list[int]:
        """The nodes from the root to a node, itself included."""
        path = []
        while node >= 0:
            path.append(node)
            node = self.nodes[node].parent
        return path[::-1]

    def rows(self, tokens: Tokens, window: int) -> Nodes:
        """The nodes as a store has them; `window` as in `collect.segments.group_confidence`."""
        logprob: list[float] = []
        confidence: list[float] = []
        for node in self.nodes:
            branch = self.branches[node.branch]
            logprob.append(float(branch.logprobs[node.first : node.last].mean(dtype=np.float64)))
            if branch.confidence is not None:
                confidence.append(group_confidence(branch.confidence, node.last, window))
        spans = [(self.branches[node.branch].ids, node.first, node.last) for node in self.nodes]
        return Nodes(
            parent=[node.parent for node in self.nodes],
            tokens=[node.last - node.first for node in self.nodes],
            answer=[node.answer for node in self.nodes],
            probed=[node.probed for node in self.nodes],
            end=[node.end for node in self.nodes],
            probe_tokens=[node.probe_tokens for node in self.nodes],
            logprob=logprob,
            confidence=confidence or None,
            text=[tokens.decode(ids[:last], first) for ids, first, last in spans],
            token_ids=[ids[first:last] for ids, first, last in spans],
        )


def final_answer_text(tokens: Tokens, prompter: Prompter, prompt: Prompt, ids: Sequence[int]) -> str:
    """What a branch that has ended says after its thinking; nothing if it is still thinking."""
    if prompter.is_thinking(prompt, ids):
        return ""
    close = prompter.close_of(ids)
    return tokens.decode(ids if close is None else ids[close + 1 :])
