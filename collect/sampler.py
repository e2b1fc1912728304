"""All that a model is asked about one problem: branches, their forks, a probe at the end of every segment."""

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collect.engine import Request, Sample, Sampling, Spliced
from collect.probes import Prefix, Prober, extract
from collect.problems import Problem
from collect.prompts import Prompter
from collect.segments import Cutter
from collect.tokens import Tokens
from collect.tree import Branch, Node, Tree, final_answer_text
from env.errors import UserError
from env.forest import END_NONE
from env.tasks import Task

Asking = Generator[Sequence[Request], list[Sample], None]


@dataclass(frozen=True)
class Shape:
    """How wide and how deep a problem is sampled.

    Attributes:
        branches: at the root.
        fork_depths: forks are made of nodes that end after so many segments; ascending.
        fork_widths: for each depth how many children a node there has, the one of its own branch included.
        max_nodes: no forks are made that would, at the lengths seen so far, give a problem more nodes.
    """

    branches: int = 64
    fork_depths: tuple[int, ...] = ()
    fork_widths: tuple[int, ...] = ()
    max_nodes: int = 20_000

    def __post_init__(self) -> None:
        if len(self.fork_depths) != len(self.fork_widths):
            raise UserError(
                f"there are {len(self.fork_depths)} fork depths and {len(self.fork_widths)} widths; "
                "give one width for each depth, or one for all"
            )
        if list(self.fork_depths) != sorted(set(self.fork_depths)) or min(self.fork_depths, default=1) < 1:
            raise UserError(f"the fork depths {self.fork_depths} must be ascending numbers from 1")
        if min(self.fork_widths, default=2) < 2:
            raise UserError("a fork width counts the branch that is forked, so it must be at least 2")


@dataclass(frozen=True)
class Drawing:
    """How a branch is drawn.

    Attributes:
        sampling: of each token.
        max_tokens: a branch's length, at most.
        seed: of the run; each branch has its own, which follows from it, the problem and the branch's path.
        top_logprobs: how many log probabilities a token's confidence is made of; 0 = no confidence.
        window: tokens in a confidence group.
    """

    sampling: Sampling
    max_tokens: int
    seed: int = 0
    top_logprobs: int = 20
    window: int = 2048


@dataclass(frozen=True)
class Sampler:
    """Samples problems from one model.

    Attributes:
        arm: its number in the store, part of every seed.
        prober: None = nodes are not probed.
    """

    arm: int
    tokens: Tokens
    prompter: Prompter
    cutter: Cutter
    prober: Prober | None
    task: Task
    shape: Shape
    drawing: Drawing

    def work(self, problem: Problem) -> Generator[Sequence[Request], list[Sample], Tree]:
        """Samples and probes one problem; see `collect.work`."""
        tree = Tree(self.prompter.encode(problem.question))
        roots = [((number,), -1, 0) for number in range(self.shape.branches)]
        yield from self.branches(tree, problem, roots)
        for depth, width in zip(self.shape.fork_depths, self.shape.fork_widths, strict=True):
            yield from self.branches(tree, problem, self._forks(tree, depth, width))
        yield from self.finish(tree)
        return tree

    def branches(
        self, tree: Tree, problem: Problem, wanted: Sequence[tuple[tuple[int, ...], int, int]]
    ) -> Asking:
        """Samples branches into a tree, given as (path, the node that they continue or -1, tokens before)."""
        drawing = self.drawing
        prefixes = [tree.prefix(tree.nodes[node]) if node >= 0 else [] for _, node, _ in wanted]
        samples = yield [
            Request(
                tree.prompt.ids + prefix,
                drawing.max_tokens - len(prefix),
                seed_of(drawing.seed, self.arm, problem.name, path),
                drawing.sampling,
                self.tokens.ends,
                drawing.top_logprobs,
            )
            for (path, _, _), prefix in zip(wanted, prefixes, strict=True)
        ]
        for (path, node, start), prefix, sample in zip(wanted, prefixes, samples, strict=True):
            ids = prefix + sample.token_ids
            logprobs, confidence = sample.logprobs, sample.confidence
            if node >= 0:
                forked = tree.branches[tree.nodes[node].branch]
                logprobs = _joined(forked.logprobs[:start], logprobs)
                if confidence is not None and forked.confidence is not None:
                    confidence = _joined(forked.confidence[:start], confidence)
            branch = Branch(path, ids, logprobs, confidence, start, node, sample.finish)
            tree.add(branch, self.cutter, self.prompter.close_of(ids))

    def finish(self, tree: Tree) -> Asking:
        """Reads the final answers of a tree's branches, and probes its nodes that have not ended or been."""
        for node in tree.nodes:
            if node.end != END_NONE:
                text = final_answer_text(self.tokens, self.prompter, tree.prompt, tree.prefix(node))
                node.answer = extract(self.task, text)
        yield from ask(self.prober, self.prompter, tree, tree.nodes)

    def _forks(self, tree: Tree, depth: int, width: int) -> list[tuple[tuple[int, ...], int, int]]:
        """The forks of a depth, as `branches` takes them."""
        places = [
            (number, node)
            for number, node in enumerate(tree.nodes)
            if node.depth == depth - 1 and node.end == END_NONE
        ]
        most = places_within(self.shape.max_nodes, tree.nodes, depth, width)
        return [
            ((*tree.branches[node.branch].path, depth, child), number, node.last)
            for number, node in places[:most]
            for child in range(1, width)
        ]


def ask(prober: Prober | None, prompter: Prompter, tree: Tree, nodes: Sequence[Node]) -> Asking:
    """Probes those of a tree's nodes that have not ended or been."""
    if prober is None:
        return
    # In the order of a walk through the tree, so that prefixes which share most come together.
    nodes = [node for node in nodes if node.end == END_NONE and not node.probed]
    nodes.sort(key=lambda node: (tree.branches[node.branch].path, node.last))
    prefixes = []
    for node in nodes:
        ids = tree.branches[node.branch].ids
        prefix = Spliced((tree.prompt.ids, len(tree.prompt.ids)), (ids, node.last))
        # There are no cuts after the thinking: it can only be that it has not begun.
        prefixes.append(Prefix(prefix, prompter.is_thinking(tree.prompt, ids[: node.last])))
    probes = yield from prober.ask(prefixes)
    for node, probe in zip(nodes, probes, strict=True):
        node.answer, node.probed, node.probe_tokens = probe.answer, True, probe.tokens


def places_within(max_nodes: int, nodes: Sequence[Node], depth: int, width: int) -> int:
    """How many nodes may be forked after `depth` segments.

    It depends on the branches that are there, never on the forks to come: a rule that looked at those would
    favour short ones.
    """
    deeper = sum(node.depth >= depth for node in nodes)
    going_on = sum(node.depth == depth for node in nodes)
    if not going_on:
        return 0
    rest = deeper / going_on
    return max(0, int((max_nodes - len(nodes)) / (rest * (width - 1))))


def seed_of(run: int, arm: int, problem: str, path: Sequence[int]) -> int:
    """The seed of a branch: 63 bits that follow from the run's seed, the arm, the problem and the path."""
    name = f"{run} {arm} {problem} {' '.join(map(str, path))}"
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


def _joined(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([first, second])
