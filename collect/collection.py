"""The run: samples, then scores, then the store. Killed anywhere, it goes on where it was.

Problems are done in groups, and a finished group is a file (`collect.folder`). A group that was not finished
is done again from its first token: to keep the branches that had ended would be to prefer short ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from collect.engine import Engine
from collect.folder import COLUMNS, WorkFolder, as_stored
from collect.plan import Plan
from collect.prm.scorer import Scorer, check_context
from collect.prm.trees import score_trees
from collect.problems import Problem
from collect.sampler import Sampler
from collect.shards import Shard, sharded
from collect.tokens import Tokens
from collect.work import Tally, work_through
from env.errors import UserError
from env.nodes import Nodes
from env.schema import META_FILE, StoreError
from env.store import Store
from env.store_writer import StoreWriter, refuse_occupied
from env.tasks import Task, load_task

OpenEngine = Callable[[int], Engine]
# Told what is done, how many of it are, and how many there are to do.
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class Scoring:
    """A process reward model for a collection.

    Attributes:
        open: loads it and checks it.
        recipe: what decides its scores.
        separator: what ends a step.
        name: of the model.
        window: how much of a path it is to score, in tokens; None = all.
        at_once: groups that it is given at a time, enough to keep all of its processes at work.
    """

    open: Callable[[], Scorer]
    recipe: Mapping[str, Any]
    separator: str
    name: str
    window: int | None = None
    at_once: int = 1

    def score(
        self,
        folder: WorkFolder,
        groups: Iterable[int],
        trees_of: Callable[[int], list[tuple[int, str, Nodes]]],
        progress: Progress,
    ) -> None:
        """Scores the groups of a folder that are not scored yet.

        Args:
            folder: is open for scores.
            groups: their numbers.
            trees_of: the problems of a group: number, question, nodes.
            progress: told how many groups are done.
        """
        missing = [group for group in groups if not folder.scores(group).exists()]
        if not missing:
            return
        scorer = self.open()
        try:
            for first in range(0, len(missing), self.at_once):
                progress("groups scored", first, len(missing))
                chunk = {group: trees_of(group) for group in missing[first : first + self.at_once]}
                trees = [(question, nodes) for own in chunk.values() for _, question, nodes in own]
                found = iter(score_trees(scorer, trees, self.separator))
                for group, own in chunk.items():
                    folder.write_scores(group, [(number, next(found)) for number, _, _ in own])
            progress("groups scored", len(missing), len(missing))
        finally:
            scorer.close()


class Collection:
    """One plan, its problems, and the store that they become.

    Args:
        plan: what to collect.
        problems: checked ones.
        out: the store to make.
        scoring: the PRM, if steps are to be scored.
        force: replace a store that is at `out`.
        shard: collect only this part of it.

    Raises:
        StoreError: there is something at `out` that may not be replaced.
        FolderError: there is an unfinished collection for `out` with other settings.
        UserError: a model cannot be asked as the plan says.
    """

    def __init__(
        self,
        plan: Plan,
        problems: Sequence[Problem],
        out: Path,
        scoring: Scoring | None = None,
        force: bool = False,
        shard: Shard | None = None,
    ) -> None:
        self.plan, self.problems, self.out = plan, problems, out
        self.recipe = sharded(self.make_recipe(), shard)
        self.folder = WorkFolder(out, self.recipe)
        self.groups = plan.groups(len(problems))
        self.own_groups = range(len(self.groups)) if shard is None else shard.groups(len(self.groups))
        self.tally = Tally()
        self._scoring, self._force = scoring, force
        self.complete = self._is_complete()
        if self.complete:
            return
        refuse_occupied(out, force)
        task = load_task(plan.task)
        tokens = {arm.model: Tokens(arm.model, plan.engine_arguments) for arm in plan.arms}
        self.samplers = [
            self.make_sampler(number, tokens[arm.model], task) for number, arm in enumerate(plan.arms)
        ]
        self.folder.open()

    def make_recipe(self) -> dict[str, Any]:
        """What decides the samples."""
        return self.plan.recipe(self.problems)

    def make_sampler(self, arm: int, tokens: Tokens, task: Task) -> Sampler:
        """What samples an arm. Raises UserError if the model cannot be asked as the plan says."""
        return self.plan.sampler(arm, tokens, task)

    def missing(self, arm: int) -> list[int]:
        """The groups that an arm has not sampled."""
        return [group for group in self.own_groups if not self.folder.samples(arm, group).exists()]

    def run(self, open_engine: OpenEngine, progress: Progress = silent) -> None:
        """Does whatever is left to do; `open_engine` loads the model of an arm.

        Raises:
            EngineError: a model cannot be loaded or stopped.
            FolderError: a finished group cannot be written, or another process is at work.
        """
        if not self.complete:
            with self.folder.locked():
                self.sample(open_engine, progress)
                if self._scoring is not None:
                    self.score(self._scoring, progress)
                self.store(progress)
        self.folder.remove()

    def check_scoring(self, expected_tokens: int) -> None:
        """Loads the PRM before the long work and not only after it, unless the samples are there already.

        Args:
            expected_tokens: of a path.

        Raises:
            UserError: it is no PRM, or reads fewer tokens and the user did not say what to do then.
        """
        if self._scoring is None or not any(self.missing(arm) for arm in range(len(self.plan.arms))):
            return
        scorer = self._scoring.open()
        try:
            check_context(scorer.context, expected_tokens, self._scoring.window)
        finally:
            scorer.close()

    def sample(self, open_engine: OpenEngine, progress: Progress = silent) -> None:
        """Samples every group that is not there yet, arm after arm; arms of one model share it."""
        left = [arm for arm in range(len(self.plan.arms)) if self.missing(arm)]
        for _, arms in groupby(left, key=lambda arm: self.plan.arms[arm].model):
            first, *others = arms
            engine = open_engine(first)
            try:
                for arm in (first, *others):
                    self.sample_groups(arm, engine, self.missing(arm), progress)
            finally:
                engine.close()

    def sample_groups(
        self, arm: int, engine: Engine, groups: Sequence[int], progress: Progress = silent
    ) -> None:
        """Samples these groups of an arm and keeps each when it is done.

        Raises:
            UserError: prompt and branch would not fit the model's context.
        """
        sampler = self.samplers[arm]
        self.check_room(sampler, engine)
        numbers = [number for group in groups for number in self.groups[group]]
        group_of = {number: group for group in groups for number in self.groups[group]}
        finished: dict[int, dict[int, Nodes]] = {group: {} for group in groups}
        works = ((number, sampler.work(self.problems[number])) for number in numbers)
        progress("problems sampled", 0, len(numbers))
        for done, (number, tree) in enumerate(work_through(engine, works, self.tally), 1):
            group = group_of[number]
            finished[group][number] = tree.rows(sampler.tokens, self.plan.drawing.window)
            if len(finished[group]) == len(self.groups[group]):
                self.folder.write_samples(arm, group, sorted(finished.pop(group).items(), key=_first))
            progress("problems sampled", done, len(numbers))

    def score(self, scoring: Scoring, progress: Progress = silent) -> None:
        """Scores every group that is not scored yet, all arms together."""
        self.folder.open_scores(scoring.recipe)

        def trees_of(group: int) -> list[tuple[int, str, Nodes]]:
            return [(n, self.problems[n].question, nodes) for n, nodes in self._samples(group)]

        scoring.score(self.folder, self.own_groups, trees_of, progress)

    def store(self, progress: Progress = silent) -> None:
        """Makes the store of all groups."""
        scoring = self._scoring
        with StoreWriter(self.out, **self.describe(), force=self._force) as writer:
            for done, group in enumerate(self.own_groups, 1):
                problems = self._samples(group)
                writer.expect(
                    answer for _, nodes in problems for answer in nodes.answer if answer is not None
                )
                scores = self.folder.read_scores(group) if scoring else [None] * len(problems)
                for (number, nodes), prm in zip(problems, scores, strict=True):
                    self.add(writer, number, replace(nodes, prm=prm))
                progress("groups stored", done, len(self.own_groups))

    def describe(self) -> dict[str, Any]:
        """What the store says of itself, as `StoreWriter` takes it."""
        plan, scoring, drawing = self.plan, self._scoring, self.plan.drawing
        provenance = {"format": "collect", "recipe": self.folder.recipe}
        if scoring is not None:
            provenance["prm"] = as_stored(scoring.recipe)
        return {
            "model": plan.arms[0].model,
            "dataset": plan.dataset,
            "task": plan.task,
            "segment_tokens": plan.segments.tokens,
            "segment_rule": plan.segment_rule(self.samplers[0].tokens),
            "sampling": {
                **self.folder.recipe["drawing"]["sampling"],
                "max_tokens": drawing.max_tokens,
                "seed": drawing.seed,
            },
            "provenance": provenance,
            "arms": [self._about(number) for number in range(len(plan.arms))],
            "prm": scoring.name if scoring else None,
        }

    def add(self, writer: StoreWriter, number: int, nodes: Nodes) -> None:
        """Puts a problem into the store."""
        problem = self.problems[number]
        writer.add_problem(problem.question, problem.gold, nodes, prompt_tokens=self.prompt_tokens(problem))

    def prompt_tokens(self, problem: Problem) -> list[int]:
        """How long a problem's prompt is for each arm."""
        return [len(sampler.prompter.encode(problem.question).ids) for sampler in self.samplers]

    def _samples(self, group: int) -> list[tuple[int, Nodes]]:
        """The problems of a group with the nodes of all arms."""
        arms = [self.folder.read_samples(arm, group) for arm in range(len(self.plan.arms))]
        return [
            (together[0][0], join([nodes for _, nodes in together])) for together in zip(*arms, strict=True)
        ]

    def _about(self, arm: int) -> dict[str, Any]:
        """What a store says of an arm."""
        asked, sampler = self.folder.recipe["arms"][arm], self.samplers[arm]
        about = {
            "model": asked["model"],
            "prompt": asked["prompting"],
            "stop_token_ids": list(sampler.tokens.ends),
        }
        if sampler.prober is not None:
            about["probe_suffixes"] = {
                "thinking" if thinking else "not thinking": ids
                for thinking, ids in sampler.prober.suffixes.items()
            }
        return about

    def check_room(self, sampler: Sampler, engine: Engine) -> None:
        """Raises UserError if prompt, branch and probe could be more than a model can read."""
        longest = max(len(sampler.prompter.encode(problem.question).ids) for problem in self.problems)
        probe = sampler.prober.most_tokens if sampler.prober else 0
        most = self.plan.drawing.max_tokens
        if longest + most + probe > engine.context:
            room = engine.context - longest - probe
            raise UserError(
                f"{engine.model!r} has a context of {engine.context:,} tokens, too few for prompts of up to "
                f"{longest:,}, --max-tokens {most} and probes of {probe}; "
                + (f"give --max-tokens {room} or less" if room > 0 else "choose another model")
            )

    def _is_complete(self) -> bool:
        """Whether the store is there, made by just this plan: then nothing is left but to tidy up."""
        if self._force or not (self.out / META_FILE).is_file():
            return False
        try:
            provenance = Store.open(self.out).meta["provenance"]
        except StoreError:
            return False
        scores = as_stored(self._scoring.recipe) if self._scoring else None
        return bool(provenance.get("recipe") == self.folder.recipe and provenance.get("prm") == scores)


def join(arms: Sequence[Nodes]) -> Nodes:
    """The nodes of several arms as those of one tree, each with the number of its arm."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    numbers: list[int] = []
    for arm, nodes in enumerate(arms):
        before = len(numbers)
        numbers += [arm] * len(nodes.answer)
        for name in COLUMNS:
            values: Iterable[Any] | None = getattr(nodes, name)
            columns[name] += [None] * len(nodes.answer) if values is None else values
        columns["parent"][before:] = [row if row < 0 else row + before for row in columns["parent"][before:]]
    confidence = columns.pop("confidence")
    given = [float("nan") if value is None else value for value in confidence]
    return Nodes(**columns, arm=numbers, confidence=given if any(c is not None for c in confidence) else None)


def _first(item: tuple[int, Any]) -> int:
    return item[0]
