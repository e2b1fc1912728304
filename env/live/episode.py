"""The live engine of one episode: what `env.replay` answers from a store, asked of a model as it decodes.

Meanings, refusals and charges are those of replay, action by action. The branches of a round go on side by
side, and the round is answered when the last of them is done; what is told does not depend on which is first.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from env.actions import id_counts
from env.engine import (
    NEGATIVE,
    NO_ACTION,
    NO_ARM,
    NO_FORKS,
    NO_PRM,
    NO_PROBES,
    TOO_MANY,
    TWICE,
    UNKNOWN_BRANCH,
)
from env.episode import (
    BRANCH,
    EXTEND,
    FINISH,
    FORK,
    MAX_ACTIONS,
    OPENING,
    PRUNE,
    SAMPLE,
    SCORE,
    SPENT,
    TOKENS,
    UNASKED,
    UNPARSED,
    Spent,
)
from env.frames import read, write
from env.live.answers import Answers
from env.live.model import Abilities, Branch, Session
from env.live.names import Names, Place
from env.replay import Revealed
from env.siblings import mixed
from env.stand import EXHAUSTED, LIVE, PRUNED, TO_THE_END, Ints

T = TypeVar("T")

ONE = range(1)


@dataclass(eq=False)
class LiveResults(Revealed):
    """What a model revealed of one episode."""

    depths: NDArray[np.int32]

    @property
    def depth(self) -> NDArray[np.int32]:
        """int32[R], segments from the root."""
        return self.depths


@dataclass(eq=False)
class LiveBranch:
    """A branch as its episode knows it.

    Attributes:
        path: at the model.
        place: where it stands.
        tokens: from the root on.
        end: why it has ended, as in `env.episode.ENDS`.
        answer: its final answer, or what it said when it was asked last.
        told: the code that the controller knows.
        scored: tokens of the path that were charged for scores.
        asked: whether it was probed where it stands.
    """

    path: Branch
    place: Place
    tokens: int = 0
    end: int = LIVE
    answer: str | None = None
    told: int = UNASKED
    scored: int = 0
    confidence: float = float("nan")
    asked: bool = False


@dataclass
class _Asked:
    """An action: its row of the frame, the ids and own segment counts that it names, why it is refused."""

    kind: int
    probe: bool
    count: int
    argument: int
    ids: list[int]
    steps: list[int] | None
    refused: int = 0


class _Row(NamedTuple):
    """What came of one branch of an action."""

    branch: int
    tokens: int
    probe: int
    prm: int
    answer: str | int | None
    scores: list[float]


class LiveEpisode:
    """One episode: frames in, replies out.

    Args:
        session: the question, put to the model.
        abilities: of the model.
        names: which branches it gets.
        answers: what they say.
        seed: of the episode, for the controller's own generator.
        wanted: the columns that its controller reads, see `env.frames.write`.

    Attributes:
        branches: all that were opened, by id.
        ledger: decode, probe, PRM and sequential tokens so far, as in replay.
        asked, granted, rounds: as in `env.replay.Replay`.
        log: actions, ids and what was revealed, a round each, as replay keeps them.
        notes: (round, text) that the controller left.
        final: the answer code that it ended with, -1 for none; None = it has not.
        error: why it ended, if not with an answer.
    """

    def __init__(
        self,
        session: Session,
        abilities: Abilities,
        names: Names,
        answers: Answers,
        seed: int = 0,
        wanted: int = TOKENS | SPENT,
    ) -> None:
        self.session, self.names, self.answers = session, names, answers
        self.max_branches = names.max_branches
        self.seed_key = int(mixed(np.array([seed], np.int64).astype(np.uint64))[0])
        self.branches: list[LiveBranch] = []
        self.ledger = Spent(0, 0, 0, 0)
        self.asked = self.granted = self.rounds = 0
        self.log: list[tuple[NDArray[Any], NDArray[Any], Revealed]] = []
        self.notes: list[tuple[int, str]] = []
        self.final: int | None = None
        self.error = ""
        self._abilities, self._wanted = abilities, wanted
        # Which branch gave each code first.
        self._first: dict[int, int] = {}

    async def answer(self, frame: bytes) -> bytes:
        """Answer a frame.

        Raises:
            FrameError: it is malformed.
            ModelError: the model failed for good.
            TaskError: the task failed.
        """
        told = read([(ONE, frame)], np.array([self.final is None]))
        self.notes += [(len(self.log), text) for _, text in told.notes]
        if len(told.finals):
            self.final = int(told.finals[0, 1])
            self.error = told.errors.get(0, "")
            if not self.answers.seen(self.final):
                self.final = UNPARSED
                self.error = "ControllerError: the answer is no code that this episode has seen"
        (reply,) = write(told, await self.step(told.actions, told.ids), self._wanted)
        return reply

    @property
    def winner(self) -> int | None:
        """The branch whose text stands for the answer.

        The first that ended with it, else that says it, else the one that said it first and has changed.
        """
        if self.final in (None, UNPARSED):
            return None
        said = [b for b, each in enumerate(self.branches) if each.told == self.final]
        ended = [b for b in said if LIVE < self.branches[b].end < EXHAUSTED]
        return next(iter(ended + said), self._first[self.final])

    async def step(self, actions: NDArray[Any], ids: NDArray[Any]) -> Revealed:
        """Answer one round; see `env.replay.Replay.step`. Raises ModelError and TaskError."""
        revealed = await self._step(list(_actions(actions, ids)))
        if len(actions):
            self.log.append((actions, ids, revealed))
        return revealed

    async def _step(self, actions: list[_Asked]) -> Revealed:
        for each in actions:
            if each.kind == PRUNE:
                self._prune(each.ids)
        for place, each in enumerate(actions):
            self._check(each, place)
        actions = [each for each in actions if each.kind != PRUNE]
        self.rounds += bool(actions)
        self._check_ids(actions)
        work, counts = [], []
        for each in actions:
            # Openings before moves: a fork leaves from where its parent stood.
            if each.kind in OPENING and not each.refused:
                each.ids = self._open(each)
            counts.append(-each.refused if each.refused else len(each.ids))
        for each in actions:
            if not each.refused:
                work += [self._row(each, place, branch) for place, branch in enumerate(each.ids)]
        rows = await together(work)
        self._charge(rows)
        return await self._reveal(actions, np.array(counts, np.int64), rows)

    def _prune(self, ids: list[int]) -> None:
        for branch in ids:
            if 0 <= branch < len(self.branches) and self.branches[branch].end != EXHAUSTED:
                self.branches[branch].end = PRUNED
                self.branches[branch].path.close()

    def _check(self, each: _Asked, place: int) -> None:
        """Refuse an action for what it asks, by the rules of `env.replay` in their order."""
        kind, argument = each.kind, each.argument
        if not BRANCH <= kind <= SAMPLE:
            each.refused = NO_ACTION
        elif kind == SCORE and not self._abilities.prm:
            each.refused = NO_PRM
        elif kind == FORK and not self.names.has_forks:
            each.refused = NO_FORKS
        if each.count < 0 or (kind == EXTEND and argument < -1):
            each.refused = NEGATIVE
        if each.probe and not self._abilities.probes:
            each.refused = NO_PROBES
        if kind in (BRANCH, SAMPLE) and not 0 <= argument < self._abilities.arms:
            each.refused = NO_ARM
        if kind == FORK and not each.refused and not 0 <= argument < len(self.branches):
            each.refused = UNKNOWN_BRANCH
        if place >= MAX_ACTIONS:
            each.refused = TOO_MANY

    def _check_ids(self, actions: list[_Asked]) -> None:
        """Refuse actions that name unknown branches, then those that name one which is named again later."""
        naming = [each for each in actions if each.kind not in OPENING and not each.refused]
        known = range(len(self.branches))
        for each in naming:
            if any(branch not in known for branch in each.ids):
                each.refused = UNKNOWN_BRANCH
        later: set[int] = set()
        for each in reversed([each for each in naming if not each.refused]):
            if len(set(each.ids)) < len(each.ids) or not later.isdisjoint(each.ids):
                each.refused = TWICE
            later.update(each.ids)

    def _open(self, each: _Asked) -> list[int]:
        first = len(self.branches)
        if each.kind != FORK:
            for place in self.names.roots(each.argument, each.count):
                self.branches.append(LiveBranch(self.session.open(place.name, each.argument), place))
        elif (parent := self.branches[each.argument]).end in (LIVE, EXHAUSTED):
            for place in self.names.forks(parent.place, each.count):
                path = parent.path.fork(place.name)
                self.branches.append(LiveBranch(path, place, parent.tokens, scored=parent.scored))
        born = list(range(first, len(self.branches)))
        self.asked += each.count
        self.granted += len(born)
        return born

    async def _row(self, each: _Asked, place: int, number: int) -> _Row:
        """Do what an action asks of one branch."""
        branch = self.branches[number]
        before = branch.tokens
        if each.kind in OPENING:
            await self._advance(branch, branch.place)
        if each.kind == EXTEND:
            await self._move(branch, each.steps[place] if each.steps else each.argument)
        elif each.kind in (FINISH, SAMPLE):
            await self._move(branch, TO_THE_END)
        probe, scores, prm = 0, list[float](), 0
        probing = each.probe and branch.end in (LIVE, EXHAUSTED)
        if probing and not branch.asked:
            branch.answer, probe = await branch.path.probe()
            branch.asked = True
        if each.kind == SCORE:
            scores = await branch.path.score()
            prm, branch.scored = branch.tokens - branch.scored, branch.tokens
        shown = probing or LIVE < branch.end < EXHAUSTED
        answer = branch.answer if shown else UNASKED
        return _Row(number, branch.tokens - before, probe, prm, answer, scores)

    async def _move(self, branch: LiveBranch, steps: int) -> None:
        while steps and branch.end == LIVE:
            place = self.names.onward(branch.place)
            if place is None:
                branch.end = EXHAUSTED
                self.asked += 1
                return
            await self._advance(branch, place)
            steps -= 1

    async def _advance(self, branch: LiveBranch, place: Place) -> None:
        segment = await branch.path.advance(place.name)
        branch.place, branch.asked = place, False
        branch.tokens += segment.tokens
        branch.confidence, branch.end = segment.confidence, segment.end
        if segment.end != LIVE:
            branch.answer = segment.answer

    def _charge(self, rows: list[_Row]) -> None:
        decode, probe, prm, sequential = self.ledger
        self.ledger = Spent(
            decode + sum(row.tokens for row in rows),
            probe + sum(row.probe for row in rows),
            prm + sum(row.prm for row in rows),
            sequential + max((row.tokens + row.probe for row in rows), default=0),
        )

    async def _reveal(self, actions: list[_Asked], counts: Ints, rows: list[_Row]) -> Revealed:
        codes = await self.answers.codes([row.answer for row in rows])
        news = []
        branches = [self.branches[row.branch] for row in rows]
        for number, (branch, code) in enumerate(zip(branches, codes, strict=True)):
            if code not in (UNASKED, branch.told) or branch.end != LIVE:
                news.append([number, rows[number].branch, code, branch.end])
            branch.told = branch.told if code == UNASKED else code
            self._first.setdefault(code, rows[number].branch)
        left = [self._left(branch) for branch in branches]
        scores = None
        if any(each.kind == SCORE and count > 0 for each, count in zip(actions, counts, strict=True)):
            values = [score for row in rows for score in row.scores]
            scores = _ints([len(row.scores) for row in rows]), np.array(values, np.float32)
        confidence = np.array([branch.confidence for branch in branches], np.float32)
        return LiveResults(
            episode=np.zeros(len(actions), np.int64),
            rows=counts,
            ledger=np.tile(np.array(self.ledger, np.int64), (len(actions), 1)),
            branch=_ints([row.branch for row in rows]),
            answer=_ints(codes),
            tokens=_ints([row.tokens for row in rows]),
            probe_tokens=_ints([row.probe for row in rows]),
            end=np.array([branch.end for branch in branches], np.uint8),
            children=_ints(left) if self.names.has_forks else None,
            confidence=confidence if self._abilities.confidence else None,
            news=np.array(news, np.int64).reshape(-1, 4),
            scores=scores,
            depths=np.array([branch.place.depth for branch in branches], np.int32),
        )

    def _left(self, branch: LiveBranch) -> int:
        ended = LIVE < branch.end < EXHAUSTED
        return 0 if ended else self.names.left(branch.place)


def _actions(actions: Ints, ids: Ints) -> Iterator[_Asked]:
    """The actions of a frame, each with what it names."""
    _, kinds, _, counts, arguments = actions.T
    at = 0
    for (_, kind, probe, count, argument), width in zip(
        actions.tolist(), id_counts(kinds, counts, arguments).tolist(), strict=True
    ):
        named = ids[at : at + width].tolist()
        at += width
        steps = None
        if kind == EXTEND and argument == -1 and count > 0:
            named, steps = named[:count], [each & 0xFFFFFFFF for each in named[count:]]
        yield _Asked(kind, probe != 0, count, argument, named, steps)


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What comes of all of it, in its order; the first failure is everybody's, and ends the others."""
    if len(work) == 1:
        return [await work[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _ints(values: list[int]) -> Ints:
    return np.array(values, np.int64)
