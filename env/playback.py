"""Joins the frames of many jobs to one engine: each round, whoever is ready is answered by a single call."""

from collections.abc import Callable, Sequence

import numpy as np

from env import engine
from env import stand as at
from env.compiled import is_kept
from env.episode import SPENT, TOKENS
from env.frames import FrameError, Round, pack, read, unpack, write
from env.replay import Replay
from env.stand import Stand, Trees


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
    shown = engine.play(trees, stand, np.zeros((0, 5), np.int64), none, False)
    engine.room(trees, stand, np.zeros((0, 5), np.int64))
    engine.grade(stand.episodes, stand.codes, none, none, flags, none, none, flags, none, flags)
    unpack(numbers, np.zeros((0, 3), np.int64), flags)
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
        self.errors: dict[int, str] = {}
        self.notes: list[tuple[int, int, str]] = []

    def answer(self, frames: Sequence[tuple[int, bytes | bytearray]]) -> list[bytes | FrameError]:
        """Answer one frame each of some jobs, all at once; a malformed frame gets its error instead."""
        places = sorted(range(len(frames)), key=lambda place: self.spans[frames[place][0]].start)
        sent = [(self.spans[frames[place][0]], frames[place][1]) for place in places]
        replies: list[bytes | FrameError] = [b""] * len(frames)
        try:
            told = read(sent, self.replay.live)
        except FrameError as error:
            if len(frames) == 1:
                return [error]
            # One of them lies, and the others must not suffer for it: each by itself.
            return [reply for frame in frames for reply in self.answer([frame])]
        for place, reply in zip(places, self._play(told), strict=True):
            replies[place] = reply
        return replies

    def _play(self, told: Round) -> list[bytes]:
        turn = len(self.replay.log or ())
        self.notes += [(episode, turn, text) for episode, text in told.notes]
        if len(told.finals):
            ended = told.finals[:, 0]
            seen = self.replay.finish(ended, told.finals[:, 1])
            for episode in ended[~seen].tolist():
                self.errors[episode] = "ControllerError: the answer is no code that this episode has seen"
            self.errors |= told.errors
        return write(told, self.replay.step(told.actions, told.ids, not self.wanted & TOKENS), self.wanted)
