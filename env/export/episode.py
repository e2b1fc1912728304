"""A controller's view of one question: what it may do, what it has seen, and what that has cost."""

import asyncio
import random
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from env.export.branch import TO_THE_END, Branch, Question
from env.export.scoring import Scorer

MAX_ROUNDS = 20_000
OPENING = ("branch", "sample", "fork")
# A branch can be forked without end; this many are as good as that.
FORKS = 4096


class ControllerError(Exception):
    """A controller misused its episode."""


class Spent(NamedTuple):
    """Tokens of the segments that a controller asked for, as replay counts them.

    `sequential` counts a round as its longest branch; `prm` counts the tokens of branches that were scored.
    """

    decode: int = 0
    probe: int = 0
    prm: int = 0
    sequential: int = 0

    @property
    def total(self) -> int:
        """Decoded, probe and PRM tokens together."""
        return self.decode + self.probe + self.prm


class Action:
    """Something that a controller may await, by itself or in `together`."""

    def __init__(
        self,
        episode: "Episode",
        kind: str,
        ids: Iterable[int] = (),
        steps: int | Sequence[int] = 0,
        count: int = 0,
        probe: bool = False,
    ) -> None:
        self.episode, self.kind, self.probe = episode, kind, probe
        self.ids, self.count = list(ids), count
        self.steps = [steps] * len(self.ids) if isinstance(steps, int) else list(steps)

    def __await__(self) -> Generator[Any, Any, Any]:
        """A round of its own."""
        results = yield from self.episode.play([self]).__await__()
        return results[0]


class Said(NamedTuple):
    """An answer as it was first given: by which branch, after how many tokens of it, in which words."""

    answer: str
    branch: int
    position: int
    text: str


@dataclass
class Row:
    """A branch of an action, and what has come of it: tokens, what it answers, its scores."""

    id: int
    branch: Branch
    steps: int
    probe: bool
    score: bool
    tokens: int = 0
    probe_tokens: int = 0
    scores: list[float] | None = None


class Episode:
    """The `ep` of a controller; lists are indexed by branch id, in opening order.

    Attributes:
        answer: latest known answer code; None = never asked, -1 = nothing could be parsed.
        done: why the branch ended: None (it has not), "stop", "length" or "pruned".
        tokens, depth: tokens decoded and segments run so far.
        confidence: group confidence of the latest segment, where the controller asks for it.
        children: forks left at the branch's current position.
        prm: step scores of each path, as far as `score` was asked and the reward model could read.
        spent: the ledger.
        max_branches: the ceiling on branches opened at the root.
        rng: seeded as in a replay.
        rounds: awaits so far.
        notes: what `note` was given.
        said: what each branch said when it was last asked: in a probe, or after its thinking when it ended.
        first: for each code its answer, as it was first given.
    """

    def __init__(
        self, question: Question, scorer: Scorer | None, read: Callable[[str], str | None], seed: int
    ) -> None:
        self.max_branches = question.settings.max_branches
        self.answer: list[int | None] = []
        self.done: list[str | None] = []
        self.tokens: list[int] = []
        self.depth: list[int] = []
        self.confidence: list[float | None] = []
        self.children: list[int] = []
        self.prm: list[list[float]] = []
        self.spent = Spent()
        self.rng = random.Random(mixed(seed))
        self.rounds = 0
        self.notes: list[str] = []
        self.branches: list[Branch] = []
        self.said: list[str] = []
        self.first: list[Said] = []
        self._codes: dict[str, int] = {}
        self._roots = 0
        self._question, self._scorer, self._read = question, scorer, read

    def branch(self, n: int, probe: bool = True, arm: int = 0) -> Action:
        """Open n branches through their first segment; returns their ids."""
        return Action(self, "branch", count=_of_arm(arm, n), probe=probe)

    def sample(self, n: int, arm: int = 0) -> Action:
        """Open n branches and run each to its end, in one round; returns their ids."""
        return Action(self, "sample", count=_of_arm(arm, n))

    def fork(self, id: int, n: int, probe: bool = True) -> Action:
        """Open n branches from this branch's current position, each one segment long; returns their ids."""
        return Action(self, "fork", [id], count=n, probe=probe)

    def extend(self, ids: Iterable[int], segments: int | Sequence[int] = 1, probe: bool = True) -> Action:
        """Advance each branch by `segments` (one number, or one a branch); returns those that can go on."""
        return Action(self, "extend", ids, segments, probe=probe)

    def finish(self, ids: Iterable[int]) -> Action:
        """Advance each branch to its end."""
        return Action(self, "finish", ids, TO_THE_END)

    def probe(self, ids: Iterable[int]) -> Action:
        """Ask each branch what it would answer now; paid once a position."""
        return Action(self, "probe", ids, probe=True)

    def score(self, ids: Iterable[int]) -> Action:
        """Have the reward model score each branch's path so far."""
        if self._scorer is None:
            raise ControllerError("there is no reward model to score with")
        return Action(self, "score", ids)

    async def together(self, *actions: Action) -> list[Any]:
        """Several actions in one round: their costs add up, the critical path takes their maximum."""
        return await self.play(actions) if actions else []

    def prune(self, ids: Iterable[int]) -> None:
        """Give branches up; their requests are closed at once."""
        for i in ids:
            self._known(i)
            if self.done[i] is None:
                self.done[i] = "pruned"
                self.children[i] = 0
                self.branches[i].stop()

    def note(self, *values: object) -> None:
        """Leave a line in `notes`."""
        self.notes.append(" ".join(map(str, values)))

    async def close(self) -> None:
        """Close what is under way."""
        for branch in self.branches:
            branch.stop()
        await asyncio.gather(*[branch.closed() for branch in self.branches])

    async def play(self, actions: Sequence[Action]) -> list[Any]:
        """One round: all openings, then all moves at once; then what they brought, in the actions' order."""
        self.rounds += 1
        if self.rounds > MAX_ROUNDS:
            raise ControllerError(f"no answer after {MAX_ROUNDS} rounds")
        self._check(actions)
        for action in actions:
            if action.kind in OPENING:
                action.ids = self._open(action)
                action.steps = [TO_THE_END if action.kind == "sample" else 1] * len(action.ids)
        rows = [
            Row(i, self.branches[i], steps, action.probe, action.kind == "score")
            for action in actions
            for i, steps in zip(action.ids, action.steps, strict=True)
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for row in rows:
                    group.create_task(self._move(row))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        for row in rows:
            self._show(row)
        decode, probe, prm, sequential = self.spent
        self.spent = Spent(
            decode + sum(row.tokens for row in rows),
            probe + sum(row.probe_tokens for row in rows),
            prm + sum(self._scored(row) for row in rows if row.score),
            sequential + max((row.tokens + row.probe_tokens for row in rows), default=0),
        )
        return [self._result(action) for action in actions]

    def _check(self, actions: Sequence[Action]) -> None:
        """Raises ControllerError before anything is asked of the server."""
        if not all(isinstance(action, Action) for action in actions):
            raise ControllerError(
                "together() takes branch, sample, extend, finish, probe, score and fork actions, unawaited"
            )
        moved = [i for action in actions if action.kind != "fork" for i in action.ids]
        for i in (i for action in actions for i in action.ids):
            self._known(i)
        if len(set(moved)) < len(moved):
            raise ControllerError("a branch may appear only once in a round")
        for action in actions:
            if len(action.steps) != len(action.ids):
                raise ControllerError(f"{len(action.steps)} segment counts for {len(action.ids)} branches")
            if any(number < 0 for number in (action.count, *action.steps)):
                raise ControllerError("a negative count: ask for zero or more")

    def _known(self, i: int) -> None:
        if type(i) is not int or not 0 <= i < len(self.branches):
            raise ControllerError(
                f"unknown branch id {i!r:.40}: ids are what branch(), sample() and fork() returned"
            )

    def _open(self, action: Action) -> list[int]:
        first = len(self.branches)
        if action.kind != "fork":
            wanted = min(action.count, self.max_branches - self._roots)
            self.branches += [Branch(self._question, (self._roots + k,)) for k in range(wanted)]
            self._roots += wanted
        else:
            parent, (i,) = self.branches[action.ids[0]], action.ids
            for _ in range(min(action.count, self.children[i])):
                parent.forked += 1
                path = (*parent.path, parent.depth, parent.forked)
                self.branches.append(Branch(self._question, path, parent))
                self.prm.append(list(self.prm[i]))
            self.children[i] -= len(self.branches) - first
        born = range(first, len(self.branches))
        for column, value in ((self.answer, None), (self.done, None), (self.confidence, None)):
            column.extend([value] * len(born))
        for numbers in (self.tokens, self.depth, self.children):
            numbers.extend([0] * len(born))
        self.said.extend([""] * len(born))
        self.prm.extend([] for _ in range(len(self.branches) - len(self.prm)))
        return list(born)

    async def _move(self, row: Row) -> None:
        """What takes time: reading on, asking, scoring."""
        branch, question, gone = row.branch, self._question, self.done[row.id] == "pruned"
        before = branch.position
        if not gone and row.steps:
            await branch.advance(row.steps)
        row.tokens = branch.position - before
        shown = branch.ids[: branch.position]
        thinking = question.thinking(shown)
        if branch.ended:
            if self.done[row.id] is None:
                text = await question.model.decode(branch.words[question.answer_from(shown) :])
                self.said[row.id] = "" if thinking else text
        elif row.probe and not gone and branch.asked_at != branch.position:
            branch.asked_at = branch.position
            self.said[row.id], row.probe_tokens = await question.model.probe(
                question.prompt.ids + shown, thinking, question.settings, question.usage
            )
        if row.score and self._scorer is not None:
            text = await question.model.decode(branch.words if branch.ended else shown)
            row.scores = await self._scorer.score(text, branch.ended)

    def _show(self, row: Row) -> None:
        """Tell the controller; codes are numbered in the order in which it is told of answers."""
        i, branch = row.id, row.branch
        self.tokens[i] += row.tokens
        self.depth[i] = branch.depth
        if branch.ended and self.done[i] is None:
            self.done[i] = branch.finish
        if self.done[i] != "pruned" and (branch.ended or row.probe):
            answer = self._read(self.said[i])
            if answer is not None and answer not in self._codes:
                self._codes[answer] = len(self.first)
                self.first.append(Said(answer, i, branch.position, self.said[i]))
            self.answer[i] = -1 if answer is None else self._codes[answer]
        if row.tokens:
            branch.forked = 0
        self.children[i] = 0 if self.done[i] else FORKS - branch.forked
        if row.scores is not None:
            self.prm[i] = row.scores
        if branch.confidence:
            window = branch.confidence[: branch.position][-self._question.settings.confidence_window :]
            self.confidence[i] = sum(window) / len(window)

    def _scored(self, row: Row) -> int:
        """Tokens of the branch that had not been scored."""
        new = row.branch.position - row.branch.scored
        row.branch.scored = row.branch.position
        return new

    def _result(self, action: Action) -> Any:
        if action.kind in OPENING:
            return action.ids
        return [i for i in action.ids if self.done[i] is None] if action.kind == "extend" else None


def _of_arm(arm: int, count: int) -> int:
    if arm:
        raise ControllerError("an exported controller has one model and one prompt: there is only arm 0")
    return count


def mixed(seed: int) -> int:
    """What replay seeds `rng` with: SplitMix64's finaliser (Steele et al. 2014)."""
    z = (seed + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)
