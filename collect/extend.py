"""More branches and forks for a store, sampled as if they had been asked for at once.

A branch's seed follows from the run's seed, the problem and the branch's path, so a store of 8 branches that
is extended to 16 is the store of 16 (in float32, where a seed decides a sample). What was there stays as it
is.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from collect.collection import Collection, Scoring
from collect.engine import Request, Sample
from collect.existing import Existing, of_arm
from collect.folder import as_stored
from collect.from_samples import check_text
from collect.lacking import ROOT, Lacking, digest_of
from collect.plan import FREE_ARGUMENTS, Plan
from collect.problems import Problem
from collect.reading import ReadTree, fill, grow, reading_of
from collect.recorded import plan_of_recipe
from collect.recovering import Recovered, recover
from collect.rescore import is_made, made_from
from collect.sampler import Asking, Sampler, places_within
from collect.tokens import Tokens
from collect.tree import Branch
from env.errors import UserError
from env.forest import END_NONE
from env.nodes import Nodes
from env.tasks import Task

# A branch to sample: its path, the node that it continues or -1, and the tokens before it.
Wanted = tuple[tuple[int, ...], int, int]


@dataclass
class ExtendedTree(ReadTree):
    """A stored tree that grows: its first nodes are the stored ones, in their order."""

    def rows(self, tokens: Tokens, window: int) -> Nodes:
        """The nodes in the order in which sampling all at once makes them; the stored ones as they are."""
        more = self.branches[len(self.recovered) :]
        self.recovered += [Recovered(branch.ids, exact=True) for branch in more]
        new = self.nodes[len(self.sources) :]
        self.sources += [-1] * len(new)
        self.lengths += [node.last - node.first for node in new]
        made = super().rows(tokens, window)
        rank = {number: place for place, number in enumerate(in_order(self.branches))}
        order = sorted(range(len(self.nodes)), key=lambda number: (rank[self.nodes[number].branch], number))
        place = {number: at for at, number in enumerate(order)} | {-1: -1}
        columns: dict[str, Any] = {
            name: None if values is None else [values[number] for number in order]
            for name, values in vars(made).items()
        }
        columns["parent"] = [place[parent] for parent in columns["parent"] or ()]
        return Nodes(**columns)


def in_order(branches: Sequence[Branch]) -> list[int]:
    """The numbers of branches in the order in which they are sampled: by the fork's depth, place, child."""

    def key(path: tuple[int, ...]) -> tuple[Any, ...]:
        return (0, (), path[0]) if len(path) == 1 else (path[-2], key(path[:-2]), path[-1])

    return sorted(range(len(branches)), key=lambda number: key(branches[number].path))


@dataclass
class Extender:
    """Samples what the trees of one arm lack; takes the place of a `collect.sampler.Sampler`.

    Args:
        existing: where the trees are.
        sampler: samples as they were sampled; its shape is the one that they are to have.
        lacking: what they should have besides.
    """

    existing: Existing
    sampler: Sampler
    lacking: Lacking
    is_checked: bool = False

    def __post_init__(self) -> None:
        self.tokens, self.prompter = self.sampler.tokens, self.sampler.prompter
        self.prober = self.sampler.prober

    def work(self, problem: Problem) -> Generator[Sequence[Request], list[Sample], ExtendedTree]:
        """Samples and probes what a problem lacks; see `collect.work`. Raises UserError for another model."""
        sampler, shape = self.sampler, self.sampler.shape
        tree = self.tree(problem)
        answers = [node.answer for node in tree.nodes]
        missed = self.missed(tree, problem)
        # The log probabilities before a fork are needed one by one, and stored are means.
        wanted = {tree.nodes[node].branch for _, node, _ in missed}
        if not self.is_checked and tree.branches:
            self.is_checked = True
            wanted.add(0)
        numbers = sorted(wanted)
        samples = yield [
            reading_of(tree, number, self.tokens, sampler.drawing.top_logprobs) for number in numbers
        ]
        for number, sample in zip(numbers, samples, strict=True):
            fill(tree, number, sample, self.tokens.model)
        yield from self._sample(tree, problem, self.roots(tree, problem))
        for depth, width in zip(shape.fork_depths, shape.fork_widths, strict=True):
            yield from self._sample(tree, problem, self._forks(tree, depth, width))
        yield from self._sample(tree, problem, missed)
        yield from sampler.finish(tree)
        for node, answer in zip(tree.nodes, answers, strict=False):
            if node.end != END_NONE:
                node.answer = answer
        return tree

    def tree(self, problem: Problem) -> ExtendedTree:
        """A problem's tree as it is stored. Raises UserError if the token ids of a branch are not."""
        stored = of_arm(self.existing.nodes(self.existing.numbers[problem.name]), self.sampler.arm)
        recovered = recover(self.tokens, stored)
        if not all(branch.exact for branch in recovered):
            raise UserError(
                f"{self.existing.store.path} does not have the token ids of all branches, which forks begin "
                "with; collect the problems again"
            )
        tree = ExtendedTree(self.prompter.encode(problem.question), stored=stored)
        grow(tree, recovered, None, self.prompter)
        return tree

    def roots(self, tree: ExtendedTree, problem: Problem) -> list[Wanted]:
        """The root branches that are not there."""
        lacking = self.lacking.get((problem.name, self.sampler.arm), {})
        have = sum(len(branch.path) == 1 for branch in tree.branches)
        return [((n,), -1, 0) for n in range(have, max(self.sampler.shape.branches, lacking.get(ROOT, 0)))]

    def missed(self, tree: ExtendedTree, problem: Problem) -> list[Wanted]:
        """The forks of stored nodes that were asked for and not there."""
        lacking = self.lacking.get((problem.name, self.sampler.arm), {})
        arms = np.asarray(self.existing.nodes(self.existing.numbers[problem.name]).arm)
        # Misses count the nodes of all arms.
        place = {int(node): at for at, node in enumerate(np.flatnonzero(arms == self.sampler.arm))}
        found = []
        for number, more in lacking.items():
            if number == ROOT or tree.nodes[place[number]].end != END_NONE:
                continue
            node = tree.nodes[place[number]]
            children = sum(child.parent == place[number] for child in tree.nodes)
            path = (*tree.branches[node.branch].path, node.depth + 1)
            found += [
                ((*path, child), place[number], node.last) for child in range(children, children + more)
            ]
        return found

    def _forks(self, tree: ExtendedTree, depth: int, width: int) -> list[Wanted]:
        """The uniform forks of a depth, as `Sampler` chooses them when all branches are sampled at once."""
        # What there is when it chooses: root branches and the forks of smaller depths.
        before = [len(branch.path) == 1 or branch.path[-2] < depth for branch in tree.branches]
        there = [node for node in tree.nodes if before[node.branch]]
        rank = {number: place for place, number in enumerate(in_order(tree.branches))}
        places = sorted(
            (rank[node.branch], number)
            for number, node in enumerate(tree.nodes)
            if before[node.branch] and node.depth == depth - 1 and node.end == END_NONE
        )
        most = places_within(self.sampler.shape.max_nodes, there, depth, width)
        return [
            ((*tree.branches[tree.nodes[number].branch].path, depth, child), number, tree.nodes[number].last)
            for _, number in places[:most]
            for child in range(1, width)
        ]

    def _sample(self, tree: ExtendedTree, problem: Problem, wanted: Sequence[Wanted]) -> Asking:
        have = {branch.path for branch in tree.branches}
        yield from self.sampler.branches(tree, problem, [each for each in wanted if each[0] not in have])


class Extension(Collection):
    """A store that `autotts collect` made, and the larger one that it becomes.

    Args:
        existing: the store.
        plan: how it was collected (`plan_to_extend`), with the shape that its trees are to have.
        out: the store to make.
        lacking: what its trees should have besides.
        scoring: the PRM whose scores it has, if any; all steps are scored again.
        force: as for sampling.

    Raises:
        UserError: the store has PRM scores and there is no PRM, or the model's tokenizer is another one.
        StoreError: there is something at `out` that may not be replaced.
    """

    def __init__(
        self,
        existing: Existing,
        plan: Plan,
        out: Path,
        lacking: Lacking | None = None,
        scoring: Scoring | None = None,
        force: bool = False,
    ) -> None:
        self.existing, self._lacking = existing, lacking or {}
        if "prm" in existing.store.capabilities and scoring is None:
            raise UserError(
                f"{existing.store.path} has scores of {existing.store.meta['prm']}, and new steps would have "
                "none; give it with --prm"
            )
        self._made_from = made_from(existing, "extend") | {
            "branches": plan.shape.branches,
            "misses": digest_of(self._lacking) if lacking else None,
            # Of what sampled the branches that it had.
            "versions": existing.store.meta["provenance"]["recipe"]["versions"],
        }
        super().__init__(plan, existing.problems, out, scoring, force)

    def make_recipe(self) -> dict[str, Any]:
        """What decides the new samples."""
        return self.plan.recipe(self.problems) | {"made_from": self._made_from}

    def make_sampler(self, arm: int, tokens: Tokens, task: Task) -> Any:
        """What extends an arm."""
        check_text(tokens, of_arm(self.existing.nodes(0), arm))
        return Extender(self.existing, self.plan.sampler(arm, tokens, task), self._lacking)

    def describe(self) -> dict[str, Any]:
        """What the store says of itself: as if it had been collected at once, and what it was made of."""
        described = super().describe()
        recipe = {name: value for name, value in self.folder.recipe.items() if name != "made_from"}
        described["provenance"] |= {"recipe": recipe, "made_from": self._made_from}
        return described

    def lines(self) -> list[str]:
        """What there is to do, in words."""
        roots = forks = tokens = branches = 0
        for extender in self.samplers:
            assert isinstance(extender, Extender)
            for problem in self.problems:
                tree = extender.tree(problem)
                roots += len(extender.roots(tree, problem))
                forks += len(extender.missed(tree, problem))
                tokens += sum(len(branch.ids) for branch in tree.branches)
                branches += len(tree.branches)
        mean = tokens / max(1, branches)
        uniform = " with the forks of every branch" if self.plan.shape.fork_depths else ""
        return [
            f"to sample: {roots:,} root branches{uniform}, and {forks:,} forks that were asked for; a branch "
            f"has {mean:,.0f} tokens so far, which makes {(roots + forks) * mean:,.0f} for these"
        ]

    def _is_complete(self) -> bool:
        prm = as_stored(self._scoring.recipe) if self._scoring else None
        return not self._force and is_made(self.out, as_stored(self._made_from), prm)


def plan_to_extend(
    existing: Existing,
    branches: int | None,
    model: str | None,
    engine_arguments: Mapping[str, Any],
    instead: str = "extend collected stores only",
) -> Plan:
    """How a store was collected, as a plan for more of it.

    Args:
        existing: the store.
        branches: that a problem is to have at the root; None = as many as it has.
        model: where its model is now; None = where it was.
        engine_arguments: for vLLM, over the recorded ones.
        instead: what to do about a store that does not say how it was collected.

    Raises:
        UserError: it was not collected by this program, or has more branches; or an engine argument would
            change what samples are.
    """
    provenance: Mapping[str, Any] = existing.store.meta.get("provenance", {})
    if provenance.get("format") != "collect" or "recipe" not in provenance:
        raise UserError(
            f"{existing.store.path} was not made by `autotts collect`, so it does not say how its branches "
            f"were asked for; {instead}"
        )
    recipe = provenance["recipe"]
    if "shard" in recipe:
        raise UserError(f"{existing.store.path} is a shard: take what `autotts merge` makes of all shards")
    plan = plan_of_recipe(recipe)
    have = plan.shape.branches
    if branches is not None and branches < have:
        raise UserError(
            f"{existing.store.path} has {have} branches a problem, and --branches is {branches}: give more"
        )
    if model is not None and len({arm.model for arm in plan.arms}) > 1:
        raise UserError(f"{existing.store.path} is of several models: leave out --model")
    for name, value in engine_arguments.items():
        if name not in FREE_ARGUMENTS and plan.engine_arguments.get(name) != value:
            raise UserError(
                f"{existing.store.path} was sampled without {name}={value}: leave out --engine-arg {name}"
            )
    arms = plan.arms if model is None else tuple(replace(arm, model=model) for arm in plan.arms)
    return replace(
        plan,
        arms=arms,
        shape=replace(plan.shape, branches=branches or have),
        engine_arguments={**plan.engine_arguments, **engine_arguments},
    )
