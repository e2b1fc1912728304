"""Joins the frames of many jobs to one engine: each round, whoever is ready is answered by a single call."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from env import engine
from env import stand as at
from env.compiled import compiled, is_kept
from env.episode import SPENT, TOKENS
from env.frames import ROUND, FrameError, complain, joined, pack, parted, read, spoken, unpack, write
from env.replay import Replay
from env.stand import Ints, Stand, Trees


def prepare(say: Callable[[str], None] | None = None) -> None:
    """Compile what plays, unless that has been done on this machine: before clocks start and workers do."""
    if is_kept():
        return
    if say is not None:
        say("compiling the replay engine, once")
    none, numbers, flags = np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.bool_)
    trees = Trees(
        nodes=np.zeros((0, at.OF_NODE), np.int32),
        links=np.zeros((0, at.OF_LINKS), np.int32),
        children=numbers,
        roots=numbers,
        has_forks=False,
        has_probes=False,
        has_prm=False,
    )
    stand = Stand(
        episodes=np.zeros((0, at.OF_EPISODE), np.int64),
        seeds=np.zeros(0, np.uint64),
        roots=np.zeros((0, 0, at.ORDER_AT + 1), np.int64),
        orders=none,
        slots=np.zeros((0, len(at.FRESH)), np.int32),
        codes=np.zeros((0, at.MEANING + 1), np.int64),
    )
    jobs = np.zeros((0, 3), np.int64)
    turn(trees, stand, numbers, jobs, flags, 0)
    shown = engine.play(trees, stand, np.zeros((0, 5), np.int64), none, False)
    engine.room(trees, stand, np.zeros((0, 5), np.int64))
    engine.grade(stand.episodes, stand.codes, none, none, flags, none, none, flags, none, flags)
    unpack(numbers, jobs, flags)
    pack(
        np.zeros((0, 2), np.int64), 0, shown.episode, shown.rows, shown.ledger, shown.news,
        shown.tokens, numbers, none, numbers, none, numbers,
    )  # fmt: skip


class Playback:
    """Plays the episodes of `replay` for several jobs, job j playing the consecutive ones in `spans[j]`.

    Attributes:
        wanted: the columns that controllers read, see `env.frames.write`.
        errors: {episode: text} of the episodes that ended with an error.
        notes: (episode, round of the log, text), what controllers left for their traces.
    """

    def __init__(self, replay: Replay, spans: Sequence[range], wanted: int = TOKENS | SPENT) -> None:
        self.replay = replay
        self.spans = spans
        self.wanted = wanted
        index = replay.index
        self._is_plain = not (
            wanted & TOKENS
            or index.has_forks
            or index.trees.has_prm
            or index.forest.confidence is not None
            or replay.log is not None
        )
        self.errors: dict[int, str] = {}
        self.notes: list[tuple[int, int, str]] = []

    def answer(self, frames: Sequence[tuple[int, bytes | bytearray]]) -> list[bytes | FrameError]:
        """Answer one frame each of some jobs, all at once; a malformed frame gets its error instead."""
        places = sorted(range(len(frames)), key=lambda place: self.spans[frames[place][0]].start)
        sent = [(self.spans[frames[place][0]], frames[place][1]) for place in places]
        replies: list[bytes | FrameError] = [b""] * len(frames)
        try:
            answers = self._play(sent)
        except FrameError as error:
            if len(frames) == 1:
                return [error]
            # One of them lies, and the others must not suffer for it: each by itself.
            return [reply for frame in frames for reply in self.answer([frame])]
        for place, reply in zip(places, answers, strict=True):
            replies[place] = reply
        return replies

    def _play(self, sent: Sequence[tuple[range, bytes | bytearray]]) -> list[bytes]:
        replay = self.replay
        if self._is_plain:
            words, jobs, texts = joined(sent)
            fault, finals, notes, replies, stops = turn(
                replay.index.trees, replay.stand, words, jobs, replay.live, self.wanted
            )
            complain(fault)
            self._finish(finals, *spoken(finals, notes, texts))
            return parted(replies, stops)
        told = read(sent, replay.live)
        self._finish(told.finals, told.errors, told.notes)
        return write(told, replay.step(told.actions, told.ids), self.wanted)

    def _finish(self, finals: Ints, errors: dict[int, str], notes: list[tuple[int, str]]) -> None:
        now = len(self.replay.log or ())
        self.notes += [(episode, now, text) for episode, text in notes]
        if len(finals):
            ended = finals[:, 0]
            seen = self.replay.finish(ended, finals[:, 1])
            for episode in ended[~seen].tolist():
                self.errors[episode] = "ControllerError: the answer is no code that this episode has seen"
            self.errors |= errors


@compiled
def turn(
    trees: Trees, stand: Stand, words: NDArray[np.int32], jobs: Ints, live: NDArray[np.bool_], columns: int
) -> tuple[int, Ints, Ints, NDArray[np.int32], Ints]:
    """A round of which only news and ledgers are told, in one call: `unpack`, `play` and `pack`.

    Returns:
        What is wrong (a number of `env.frames.FAULTS`), upon which nothing was played; the finals, that are
        yet to be graded, and the notes; the replies, and where each ends.
    """
    fault, actions, ids, finals, notes = unpack(words, jobs, live)
    if fault:
        actions, ids = actions[:0], ids[:0]
    told = np.empty((len(jobs), 2), np.int64)
    for job in range(len(jobs)):
        told[job, 0], told[job, 1] = words[jobs[job, 0] + ROUND], jobs[job, 1]
    # Nothing else is known here, whatever is asked for. For a literal `brief` all would be compiled again.
    columns &= SPENT
    shown = engine.play(trees, stand, actions, ids, columns & TOKENS == 0)
    none, numbers = shown.tokens, np.zeros(0, np.int32)
    replies, stops = pack(
        told, columns, shown.episode, shown.rows, shown.ledger, shown.news,
        none, numbers, none, numbers, none, numbers,
    )  # fmt: skip
    return fault, finals, notes, replies, stops
