"""Joins the frames of many jobs to one engine: each round, whoever is ready is answered by a single call."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from env.frames import FrameError, Round, encode, parse
from env.replay import Replay


class Playback:
    """Plays the episodes of `replay` for several jobs, job j playing the consecutive ones in `spans[j]`.

    Attributes:
        errors: {episode: text} of the episodes that ended with an error.
        notes: (episode, round of the log, text), what controllers left for their traces.
    """

    def __init__(self, replay: Replay, spans: Sequence[range]) -> None:
        self.replay = replay
        self.spans = spans
        self.errors: dict[int, str] = {}
        self.notes: list[tuple[int, int, str]] = []

    def answer(self, frames: Sequence[tuple[int, bytes | bytearray]]) -> list[bytes | FrameError]:
        """Answer one frame each of some jobs, all at once; a malformed frame gets its error instead."""
        rounds: list[Round | FrameError] = []
        for job, frame in frames:
            span = self.spans[job]
            try:
                rounds.append(parse(frame, self.replay.live[span.start : span.stop]))
            except FrameError as error:
                rounds.append(error)
        good = [
            (self.spans[job].start, r)
            for (job, _), r in zip(frames, rounds, strict=True)
            if isinstance(r, Round)
        ]
        good.sort(key=lambda pair: pair[0])
        replies = self._play(good)
        return [r if isinstance(r, FrameError) else replies[id(r)] for r in rounds]

    def _play(self, rounds: list[tuple[int, Round]]) -> dict[int, bytes | FrameError]:
        for base, told in rounds:
            self._finish(base, told)
            turn = len(self.replay.log or ())
            self.notes += [(base + episode, turn, text) for episode, text in told.notes]
        if not rounds:
            return {}
        tables: list[NDArray[np.int64]] = []
        for base, told in rounds:
            table = told.actions.astype(np.int64)
            table[:, 0] += base
            tables.append(table)
        actions = np.concatenate(tables)
        results = self.replay.step(actions, np.concatenate([told.ids for _, told in rounds]))
        replies: dict[int, bytes | FrameError] = {}
        episode = results.episode
        rows = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.maximum(results.rows, 0))])
        edges = np.searchsorted(episode, [base for base, _ in rounds] + [np.iinfo(np.int64).max])
        for (base, told), first, last in zip(rounds, edges[:-1], edges[1:], strict=True):
            here = slice(int(first), int(last))
            replies[id(told)] = encode(
                told.number, results, episode[here] - base, here, slice(int(rows[first]), int(rows[last]))
            )
        return replies

    def _finish(self, base: int, told: Round) -> None:
        if not len(told.final_episode):
            return
        seen = self.replay.finish(
            told.final_episode.astype(np.int64) + base, told.final_answer.astype(np.int64)
        )
        for episode in told.final_episode[~seen].tolist():
            self.errors[base + episode] = "ControllerError: the answer is no code that this episode has seen"
        self.errors |= {base + episode: text for episode, text in told.errors.items()}
