"""Branches that were sampled before, read by the model again: log probabilities, and probes on the way."""

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from collect.engine import GREEDY, EngineError, Request, Sample, Spliced
from collect.existing import Existing, branches_of, of_arm
from collect.probes import Prober
from collect.problems import Problem
from collect.prompts import Prompter
from collect.recovering import Recovered, recover
from collect.sampler import ask
from collect.segments import Cutter, group_confidence, segment_ends
from collect.tokens import Tokens
from collect.tree import Branch, Node, Tree
from env.errors import UserError
from env.forest import END_NONE
from env.nodes import Nodes

NAN = float("nan")
# Mean difference of a token's log probabilities, in nats: beyond what rounding to bfloat16 explains.
FAR_APART = 0.25


@dataclass
class ReadTree(Tree):
    """A stored tree, perhaps cut anew.

    Attributes:
        stored: what it was made of.
        recovered: the ids of each branch.
        sources: for each node the stored node that ends where it ends, -1 = none.
        lengths: for each node its tokens as they were decoded; what is known of the ids may be one less.
    """

    stored: Nodes = field(default_factory=lambda: Nodes([], [], [], []))
    recovered: list[Recovered] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def rows(self, tokens: Tokens, window: int) -> Nodes:
        """The nodes as a store has them: what was known of each, and what has been found out."""
        logprob, confidence = Known(self.stored.logprob), Known(self.stored.confidence)
        lumped = self._lumped()
        texts: list[str | None] = []
        ids: list[list[int] | None] = []
        for number, node in enumerate(self.nodes):
            branch, recovered = self.branches[node.branch], self.recovered[node.branch]
            same, source = self.same(number), self.sources[number]
            own = branch.ids[node.first : node.last]
            logprob.take(same, branch.logprobs[node.first : node.last])
            confidence.take(
                source,
                None
                if branch.confidence is None or not own
                else [group_confidence(branch.confidence, node.last, window)],
            )
            ids.append(own if recovered.exact else None)
            if recovered.ids is None or (same >= 0 and node.branch not in lumped):
                texts.append(None if self.stored.text is None else self.stored.text[source])
            else:
                texts.append(tokens.decode(branch.ids[: node.last], node.first))
        return Nodes(
            parent=[node.parent for node in self.nodes],
            tokens=self.lengths,
            answer=[node.answer for node in self.nodes],
            probed=[node.probed for node in self.nodes],
            end=[node.end for node in self.nodes],
            probe_tokens=[node.probe_tokens for node in self.nodes],
            logprob=logprob.found,
            confidence=None if np.isnan(confidence.found).all() else confidence.found,
            text=texts,
            token_ids=ids,
        )

    def same(self, node: int) -> int:
        """The stored node that has just the tokens of a node, -1 = none."""
        source = self.sources[node]
        whole = source >= 0 and int(np.asarray(self.stored.tokens)[source]) == self.lengths[node]
        return source if whole else -1

    def _lumped(self) -> set[int]:
        """The branches whose text stands with some of their nodes only, as that of imported ones may."""
        if self.stored.text is None:
            return {node.branch for node in self.nodes}
        pairs = zip(self.nodes, self.sources, strict=True)
        return {node.branch for node, source in pairs if source >= 0 and self.stored.text[source] is None}


class Known:
    """One figure of the nodes of a tree: as it was stored where it is known, else as it was found out.

    Attributes:
        found: a value a node, NaN = unknown.
    """

    def __init__(self, stored: ArrayLike | None) -> None:
        self._stored = None if stored is None else np.asarray(stored, np.float64)
        self.found: list[float] = []

    def value(self, node: int) -> float:
        """What is stored of a node, NaN = unknown."""
        return NAN if self._stored is None or node < 0 else float(self._stored[node])

    def has(self, node: int) -> bool:
        """Whether a stored node has it."""
        return not np.isnan(self.value(node))

    def take(self, node: int, values: ArrayLike | None) -> None:
        """The value of the next node: that of a stored `node` (-1 = none), else the mean of `values`."""
        if self.has(node):
            self.found.append(self.value(node))
        else:
            given = np.asarray([] if values is None else values, np.float64)
            self.found.append(float(given.mean()) if len(given) else NAN)


@dataclass
class Reader:
    """Reads the branches of one arm; takes the place of a `collect.sampler.Sampler`.

    Attributes:
        existing: where the branches are.
        arm: of the store.
        cutter: cuts branches anew; None = segments stay as they are.
        prober: None = no probes are added.
        top_logprobs: as in `collect.sampler.Drawing`.
        is_checked: whether the model has been held, or is being held, against what the store has of it.
    """

    existing: Existing
    arm: int
    tokens: Tokens
    prompter: Prompter
    cutter: Cutter | None
    prober: Prober | None
    top_logprobs: int
    is_checked: bool = False

    def work(self, problem: Problem) -> Generator[Sequence[Request], list[Sample], ReadTree]:
        """Reads and probes one problem; see `collect.work`. Raises UserError if the model is another one."""
        tree = self.tree(problem)
        wanted = self.unread(tree)
        if not wanted and not self.is_checked:
            wanted = [number for number, branch in enumerate(tree.branches) if branch.ids][:1]
        self.is_checked = self.is_checked or bool(wanted)
        samples = yield [reading_of(tree, number, self.tokens, self.top_logprobs) for number in wanted]
        for number, sample in zip(wanted, samples, strict=True):
            fill(tree, number, sample, self.tokens.model)
        yield from ask(self.prober, self.prompter, tree, unasked(tree))
        return tree

    def tree(self, problem: Problem) -> ReadTree:
        """A problem's tree, with what the store knows of it."""
        stored = of_arm(self.existing.nodes(self.existing.numbers[problem.name]), self.arm)
        return grow(
            ReadTree(self.prompter.encode(problem.question), stored=stored),
            recover(self.tokens, stored),
            self.cutter,
            self.prompter,
        )

    def unread(self, tree: ReadTree) -> list[int]:
        """The branches with a log probability or confidence that is not known."""
        logprob, confidence = Known(tree.stored.logprob), Known(tree.stored.confidence)
        wanted = set()
        for number, node in enumerate(tree.nodes):
            is_known = logprob.has(tree.same(number)) and (
                confidence.has(tree.sources[number]) or not self.top_logprobs
            )
            if node.last > node.first and not is_known:
                wanted.add(node.branch)
        return sorted(wanted)


def reading_of(tree: ReadTree, number: int, tokens: Tokens, top_logprobs: int) -> Request:
    """What makes a model read a branch; see `fill`."""
    ids, prompt = tree.branches[number].ids, tree.prompt.ids
    return Request(
        Spliced((prompt, len(prompt)), (ids, len(ids))),
        # Something must be drawn for what comes before to be read.
        max_tokens=1,
        seed=0,
        sampling=GREEDY,
        stop_token_ids=tokens.ends,
        top_logprobs=top_logprobs,
        read_prompt=True,
    )


def fill(tree: ReadTree, number: int, sample: Sample, model: str) -> None:
    """Gives a branch what a model says of its tokens, and holds it against what was stored of them.

    Raises:
        EngineError: the engine cannot read.
        UserError: the model is another one than the branch is of.
    """
    if sample.prompt_logprobs is None:
        raise EngineError("only a model in this process can read what was sampled before: leave out --server")
    first = len(tree.prompt.ids)
    found = sample.prompt_logprobs[first:]
    confidence = None if sample.prompt_confidence is None else sample.prompt_confidence[first:]
    tree.branches[number] = replace(tree.branches[number], logprobs=found, confidence=confidence)
    stored = Known(tree.stored.logprob)
    apart, tokens = 0.0, 0
    for place, (node, source) in enumerate(zip(tree.nodes, tree.sources, strict=True)):
        if node.branch == number and node.last > node.first and stored.has(tree.same(place)):
            mean = float(found[node.first : node.last].mean(dtype=np.float64))
            apart += abs(mean - stored.value(source)) * (node.last - node.first)
            tokens += node.last - node.first
    if tokens and apart / tokens > FAR_APART:
        raise UserError(
            f"{model!r} did not write what the store has: its log probabilities of the same tokens are "
            f"{apart / tokens:.2f} apart from the stored ones; give the store's own model and prompt"
        )


def unasked(tree: ReadTree) -> list[Node]:
    """The nodes whose tokens are known, so that they can be probed, and that have not ended or been."""
    known = [node for node in tree.nodes if tree.recovered[node.branch].ids is not None]
    return [node for node in known if node.end == END_NONE and not node.probed]


def grow(
    tree: ReadTree, recovered: Sequence[Recovered], cutter: Cutter | None, prompter: Prompter
) -> ReadTree:
    """Fills a tree with the branches of what it was stored as.

    Segments are cut anew where there is a `cutter` and the ids are known, and always end where forks begin.
    """
    stored = tree.stored
    parent, counts = np.asarray(stored.parent).tolist(), np.asarray(stored.tokens).tolist()
    tree.recovered = list(recovered)
    children = Counter(parent)
    reach = [0] * len(parent)
    place = [-1] * len(parent)
    for number, branch in enumerate(branches_of(parent)):
        ids = recovered[number].ids
        start = last = reach[branch.parent] if branch.parent >= 0 else 0
        for node in branch.nodes:
            reach[node] = last = last + counts[node]
        above = place[branch.parent] if branch.parent >= 0 else -1
        ends = [(reach[node], node) for node in branch.nodes]
        if cutter is not None and ids:
            sources = dict(ends)
            cuts = segment_ends(cutter, ids, prompter.close_of(ids))
            kept = {reach[node] for node in branch.nodes if children[node] > 1}
            cuts = sorted(kept.union(cut for cut in cuts if start < cut < last) | {last})
            ends = [(cut, sources.get(cut, -1)) for cut in cuts]
        unknown = np.full(len(ids or ()), NAN, np.float32)
        tree.branches.append(Branch(branch.path, ids or [], unknown, None, start, above))
        numbers: dict[int, int] = {}
        for last, source in ends:
            numbers[last] = len(tree.nodes)
            _add(tree, number, above, start, last, source)
            above, start = numbers[last], last
        for node in branch.nodes:
            place[node] = numbers.get(reach[node], -1)
    return tree


def _add(tree: ReadTree, branch: int, above: int, first: int, last: int, source: int) -> None:
    """Adds the node of the tokens ``first:last``, which ends where the stored node `source` does."""
    stored, known = tree.stored, len(tree.branches[branch].ids)
    depth = tree.nodes[above].depth + 1 if above >= 0 else 0
    # The token that ended a branch may not be among the ids.
    node = Node(branch, above, depth, min(first, known), min(last, known))
    if source >= 0:
        node.end = int(np.asarray(stored.end)[source])
        node.answer = stored.answer[source]
        node.probed = bool(np.asarray(stored.probed)[source])
        node.probe_tokens = (
            -1 if stored.probe_tokens is None else int(np.asarray(stored.probe_tokens)[source])
        )
    tree.nodes.append(node)
    tree.sources.append(source)
    tree.lengths.append(last - first)
