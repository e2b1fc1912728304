"""A controller's view of one problem, and the frames over which it acts.

This file also runs inside the locked-down child process, where the standard library is all there is; that is
why frames are packed here with `array` and `struct`, and unpacked on the trusted side by `env.frames`.

A frame goes out with the actions of every episode that is ready, and a reply comes back for some or all of
the episodes that wait. Replay answers all of them at once; a live model answers them out of step. Integers
are little-endian and 32 bits wide unless stated.

    frame  HEADER: magic, round, actions A, ids I, finals F, notes N, text bytes T
           action[A]: episode, kind, probe (0 or 1), count, argument
           id[I]: of the actions in order; behind an `extend` with argument -1, as many segment counts
           final[F]: episode, answer code (-1 none), bytes of its error text (0: it returned)
           note[N]: episode, bytes of its text
           text[T]: the finals' error texts, then the notes', UTF-8
    reply  REPLY: magic, round, actions A, rows R, news N, columns (a sum of those below), PRM scores S
           action[A]: episode, rows (negative: refused, see REFUSALS), news; prunes are not answered
           SPENT       ledger[A] of 64 bits: decode, probe, prm, sequential tokens of the episode so far
           branch[N], answer code[N], end[N] of the branches that have ended or whose answer has changed
           TOKENS      tokens decoded in this round[R], depth[R]
           CHILDREN    forks left[R]
           CONFIDENCE  float32[R]
           PRM         counts[R] and scores float32[S]
"""

import random
import struct
from array import array
from collections.abc import Generator, Iterable, Sequence
from types import coroutine
from typing import Any, NamedTuple

MAGIC = 0x31535454
HEADER = struct.Struct("<7I")
REPLY = struct.Struct("<7I")
BRANCH, EXTEND, FINISH, PROBE, SCORE, FORK, PRUNE, SAMPLE = range(1, 9)
KINDS = ("", "branch", "extend", "finish", "probe", "score", "fork", "prune", "sample")
OPENING = (BRANCH, SAMPLE, FORK)
CHILDREN, CONFIDENCE, PRM, TOKENS, SPENT = 1, 2, 4, 8, 16
UNNAMED = "`tokens`, `depth` and `spent` are told to a controller that names them in its source"
UNASKED, UNPARSED = -2, -1
ENDS = (None, "stop", "length", "exhausted", "pruned")
REFUSALS = (
    "",
    "unknown branch id: ids are those that branch(), sample() and fork() returned in this episode",
    "a branch may appear only once in a round",
    "a negative count: ask for zero or more",
    "this store has no forks: `fork` needs a store collected with trees",
    "this store has no process-reward-model scores: `score` needs a store collected with --prm",
    "unknown arm: see the arms this store was collected with",
    "unknown action",
    "too many actions in one round",
    "this store has no probes: pass probe=False, or import or collect it with probes",
)
MAX_ACTIONS = 256
MAX_ERROR = 1_000
MAX_NOTE = 500
MAX_NOTES = 64

NO_IDS = array("I")

Action = Generator[Any, Any, Any]
# To one action: reply, place of the action in it, first and last row, first and last of the news.
Answer = tuple["Reply", int, int, int, int, int]


class ControllerError(Exception):
    """A controller misused its episode; recorded as the outcome of that episode."""


def _whole(value: Any) -> int:
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise ControllerError(f"{value!r:.40} is not a whole number of 32 bits")
    return value


def _count(value: Any) -> int:
    if _whole(value) < 0:
        raise ControllerError(REFUSALS[3])
    return int(value)


def _numbers(values: Iterable[int], negative: str) -> "array[int]":
    """An array of unsigned numbers, which is twice as fast to make as one of signed ones."""
    try:
        return array("I", values)
    except OverflowError:
        raise ControllerError(negative) from None


class Spent(NamedTuple):
    """Tokens an episode has used so far; `sequential` counts a round as its longest branch."""

    decode: int
    probe: int
    prm: int
    sequential: int

    @property
    def total(self) -> int:
        """Decoded, probe and PRM tokens together."""
        return self.decode + self.probe + self.prm


class Reply:
    """One reply frame, decoded into plain lists (faster to index from Python than any array type)."""

    __slots__ = (
        "actions",
        "children",
        "confidence",
        "depth",
        "ledger",
        "news",
        "prm",
        "tokens",
    )

    def __init__(self, frame: bytes | bytearray) -> None:
        magic, _, actions, rows, news, columns, scores = REPLY.unpack_from(frame)
        if magic != MAGIC:
            raise EOFError("not a reply frame")
        words, at = memoryview(frame).cast("i"), REPLY.size // 4

        def take(count: int) -> "memoryview[int]":
            nonlocal at
            at += count
            return words[at - count : at]

        self.actions = take(3 * actions).tolist()
        self.ledger = take(8 * actions).cast("B").cast("q") if columns & SPENT else None
        self.news = list(zip(take(news).tolist(), take(news).tolist(), take(news).tolist(), strict=True))
        self.tokens: Any = take(rows) if columns & TOKENS else None
        self.depth: Any = take(rows) if columns & TOKENS else None
        self.children = take(rows).tolist() if columns & CHILDREN else None
        self.confidence: list[float | None] | None = None
        if columns & CONFIDENCE:
            known = take(rows).cast("B").cast("f").tolist()
            self.confidence = [value if value == value else None for value in known]
        self.prm: list[list[float]] | None = None
        if columns & PRM:
            counts, values = take(rows).tolist(), iter(take(scores).cast("B").cast("f").tolist())
            self.prm = [[next(values) for _ in range(count)] for count in counts]

    def forget(self) -> None:
        """Let go of what every episode has read by now; tokens, depths and ledgers are read on demand."""
        self.actions, self.news = [], []
        self.children = self.confidence = self.prm = None


class Episode:
    """The `ep` of a controller: its actions, and what they have revealed so far (lists indexed by branch id).

    Attributes:
        answer: latest known answer code; None = never asked, -1 = nothing could be parsed.
        done: why the branch ended: None (it has not), "stop", "length", "exhausted" (the store holds no
            continuation) or "pruned".
        confidence: group confidence of the latest segment, where the store has it; None = unknown.
        children: how many forks are left at the branch's current node, where the store has forks.
        max_branches: the ceiling on branches opened at the root.
    """

    def __init__(self, seed_key: int, max_branches: int, tracing: bool = False) -> None:
        self.max_branches = max_branches
        self.answer: list[int | None] = []
        self.done: list[str | None] = []
        self.confidence: list[float | None] = []
        self.children: list[int] = []
        self._seed_key = seed_key
        self._rng: random.Random | None = None
        self._prm: list[list[float]] = []
        self._tokens: list[int] = []
        self._depth: list[int] = []
        self._unread: list[tuple[Sequence[int], Reply, int, int]] = []
        self._named_last: tuple[list[int], array[int]] = [], NO_IDS
        self._ledger: tuple[Reply, int] | None = None
        self._pruned: list[int] = []
        self._notes: list[bytes] | None = [] if tracing else None

    @property
    def rng(self) -> random.Random:
        """The episode's random generator, seeded by its seed alone."""
        if self._rng is None:
            self._rng = random.Random(self._seed_key)
        return self._rng

    @property
    def prm(self) -> list[list[float]]:
        """Step scores of each branch's path, as far as `score` was asked and the reward model could read."""
        self._prm += [[] for _ in range(len(self.done) - len(self._prm))]
        return self._prm

    @property
    def tokens(self) -> list[int]:
        """Tokens decoded by each branch so far."""
        self._catch_up()
        return self._tokens

    @property
    def depth(self) -> list[int]:
        """Segments each branch has run through, from the root."""
        self._catch_up()
        return self._depth

    @property
    def spent(self) -> Spent:
        """The ledger of this episode."""
        if self._ledger is None:
            return Spent(0, 0, 0, 0)
        reply, action = self._ledger
        if reply.ledger is None:
            raise ControllerError(UNNAMED)
        return Spent(*reply.ledger[4 * action : 4 * action + 4])

    @coroutine
    def branch(self, n: int, probe: bool = True, arm: int = 0) -> Action:
        """Open n branches through their first segment; returns their ids (fewer where the store runs out)."""
        answer = yield BRANCH, bool(probe), NO_IDS, _whole(n), _whole(arm)
        return self._open(answer)

    @coroutine
    def sample(self, n: int, arm: int = 0) -> Action:
        """Open n branches and run each to its end, in one round; returns their ids."""
        answer = yield SAMPLE, False, NO_IDS, _whole(n), _whole(arm)
        return self._open(answer)

    @coroutine
    def fork(self, id: int, n: int, probe: bool = True) -> Action:
        """Open n branches from this branch's current node, each one segment long; returns their ids."""
        answer = yield FORK, bool(probe), NO_IDS, _whole(n), _whole(id)
        born = self._open(answer)
        self.children[id] -= len(born)
        scores = self.prm
        for child in born:
            scores[child] = list(scores[id])
        return born

    @coroutine
    def extend(self, ids: Iterable[int], segments: int | Sequence[int] = 1, probe: bool = True) -> Action:
        """Advance each branch by `segments` (one number, or one a branch); an ended one stays as it is.

        Returns the ids, in their order, of those that have not ended.
        """
        ids = self._named(ids)
        if isinstance(segments, int):
            if type(segments) is not int or not 0 <= segments < 2**31:
                segments = _count(segments)
            answer = yield EXTEND, bool(probe), ids, len(ids), segments
        else:
            many = _numbers(segments, REFUSALS[3])
            if len(many) != len(ids):
                raise ControllerError(f"{len(many)} segment counts for {len(ids)} branches: give one each")
            answer = yield EXTEND, bool(probe), ids + many, len(ids), -1
        if self._read(ids, answer):
            done = self.done
            return [i for i in ids if done[i] is None]
        return ids.tolist()

    @coroutine
    def finish(self, ids: Iterable[int]) -> Action:
        """Advance each branch to its end."""
        ids = self._named(ids)
        self._read(ids, (yield FINISH, False, ids, len(ids), 0))

    @coroutine
    def probe(self, ids: Iterable[int]) -> Action:
        """Ask each branch what it would answer now; paid once a node."""
        ids = self._named(ids)
        self._read(ids, (yield PROBE, True, ids, len(ids), 0))

    @coroutine
    def score(self, ids: Iterable[int]) -> Action:
        """Have the process reward model score each branch's path so far; paid for the part not yet scored."""
        ids = self._named(ids)
        answer = yield SCORE, False, ids, len(ids), 0
        self._read(ids, answer)
        reply, _, start, stop, *_ = answer
        if reply.prm is not None:
            known = self.prm
            for i, scores in zip(ids, reply.prm[start:stop], strict=True):
                known[i] = scores

    @coroutine
    def together(self, *actions: Action) -> Action:
        """Several actions in one round: their costs add up, the critical path takes their maximum."""
        requests = [action.send(None) for action in actions if isinstance(action, Generator)]
        if len(requests) < len(actions) or any(type(request) is not tuple for request in requests):
            raise ControllerError(
                "together() takes branch, sample, extend, finish, probe, score and fork actions"
            )
        if not requests:
            return []
        # More than an episode can mean is a malformed frame, which ends the job. Prunes may come on top.
        if len(requests) >= MAX_ACTIONS:
            raise ControllerError(REFUSALS[8])
        if sum(len(ids) for _, _, ids, _, _ in requests) > 2 * len(self.done):
            raise ControllerError(REFUSALS[2])
        answers = yield requests
        results: list[Any] = [None] * len(requests)
        refused: list[ControllerError] = []
        # Openings before moves, as in the engine: a fork leaves from where its parent stood.
        for k in sorted(range(len(requests)), key=lambda k: requests[k][0] not in OPENING):
            try:
                actions[k].send(answers[k])
            except StopIteration as stop:
                results[k] = stop.value
            except ControllerError as error:
                # The others took place, and branches that nobody numbered would shift all later ids.
                refused.append(error)
        if refused:
            raise refused[0]
        return results

    def prune(self, ids: Iterable[int]) -> None:
        """Give branches up; free of charge."""
        for i in _numbers(ids, REFUSALS[1]):
            if i >= len(self.done):
                raise ControllerError(REFUSALS[1])
            if self.done[i] is None:
                self.done[i] = "pruned"
                self._pruned.append(i)

    def note(self, *values: object) -> None:
        """Leave a line in the episode's trace, if one is being kept."""
        if self._notes is not None and len(self._notes) < MAX_NOTES:
            self._notes.append(" ".join(map(str, values)).encode("utf-8", "replace")[:MAX_NOTE])

    def _named(self, ids: Iterable[int]) -> "array[int]":
        # Mostly those that were named last, and comparing lists is a tenth of converting one.
        if ids == self._named_last[0]:
            return self._named_last[1]
        numbers = _numbers(ids, REFUSALS[1])
        if len(numbers) > len(self.done):
            raise ControllerError(REFUSALS[2 if all(0 <= i < len(self.done) for i in numbers) else 1])
        if type(ids) is list:
            self._named_last = ids[:], numbers
        return numbers

    def _open(self, answer: Answer) -> list[int]:
        first, count = len(self.done), max(0, answer[3] - answer[2])
        born = list(range(first, first + count))
        self.answer += [None] * count
        self.done += [None] * count
        if answer[0].confidence is not None:
            self.confidence += [None] * count
        if answer[0].children is not None:
            self.children += [0] * count
        self._read(born, answer)
        return born

    def _read(self, ids: Sequence[int], answer: Answer) -> bool:
        """Take in what an action on these branches has brought; whether any of them cannot go on."""
        reply, action, start, stop, first, last = answer
        if stop < start:
            raise ControllerError(REFUSALS[start - stop])
        ended = False
        if first < last:
            answers, done = self.answer, self.done
            for i, code, end in reply.news[first:last]:
                if code != UNASKED:
                    answers[i] = code
                if end:
                    done[i] = ENDS[end]
                    ended = True
        self._ledger = reply, action
        if reply.tokens is not None:
            self._unread.append((ids, reply, start, stop))
        if reply.children is not None:
            for i, left in zip(ids, reply.children[start:stop], strict=True):
                self.children[i] = left
        if reply.confidence is not None:
            for i, value in zip(ids, reply.confidence[start:stop], strict=True):
                self.confidence[i] = value
        return ended

    def _catch_up(self) -> None:
        if self._ledger is not None and self._ledger[0].tokens is None:
            raise ControllerError(UNNAMED)
        tokens, depth = self._tokens, self._depth
        missing = [0] * (len(self.done) - len(tokens))
        tokens += missing
        depth += missing
        for ids, reply, start, stop in self._unread:
            for i, more, reached in zip(ids, reply.tokens[start:stop], reply.depth[start:stop], strict=True):
                tokens[i] += more
                depth[i] = reached
        self._unread.clear()
