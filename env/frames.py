"""The trusted side of the frames that `env.episode` defines: what a controller sent is read, replies written.

Nothing here believes a byte: every count is bounded before anything is read or allocated, and an episode that
a frame names must be one that the sender plays, is live, and speaks once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from env.episode import (
    BRANCH,
    CHILDREN,
    CONFIDENCE,
    EXTEND,
    FORK,
    HEADER,
    MAGIC,
    MAX_ACTIONS,
    MAX_ERROR,
    MAX_NOTE,
    MAX_NOTES,
    PRM,
    REPLY,
    TOLD,
    UNASKED,
    UNPARSED,
)
from env.index import Ints
from env.isolation.wire import printable
from env.replay import Results

MAX_IDS = 1 << 14
MAX_FRAME = 64 << 20


class FrameError(Exception):
    """A frame that no honest runner sends; ends the job that sent it."""


@dataclass(frozen=True)
class Round:
    """One frame, read: actions int32[A, 5] and ids int32[I] for the engine, and what the episodes said.

    Attributes:
        final_episode, final_answer: int32[F], episodes that have ended and their answer codes.
        errors: {episode: text} of those that ended with an error.
        notes: (episode, text) in the order they were left.
    """

    number: int
    actions: NDArray[np.int32]
    ids: NDArray[np.int32]
    final_episode: NDArray[np.int32]
    final_answer: NDArray[np.int32]
    errors: dict[int, str]
    notes: list[tuple[int, str]]


def body_size(header: bytes | bytearray, episodes: int) -> int:
    """How many bytes follow this header.

    Raises:
        FrameError: the header promises more than `episodes` episodes can have to say.
    """
    magic, _, actions, ids, finals, notes, text = HEADER.unpack(header)
    if magic != MAGIC:
        raise FrameError("malformed frame: bad magic")
    if actions > episodes * MAX_ACTIONS or ids > episodes * MAX_IDS or finals > episodes:
        raise FrameError("malformed frame: more actions, ids or answers than episodes can have")
    if notes > episodes * MAX_NOTES or text > finals * 5 * MAX_ERROR + notes * MAX_NOTE:
        raise FrameError("malformed frame: too many notes or too much text")
    size: int = 4 * (5 * actions + ids + 3 * finals + 2 * notes) + text
    if size > MAX_FRAME:
        raise FrameError(f"frame of {size} bytes: at most {MAX_FRAME}")
    return size


def parse(frame: bytes | bytearray, live: NDArray[np.bool_]) -> Round:
    """Read a whole frame of a job whose episodes are `live` (bool[E]).

    Raises:
        FrameError: counts that do not add up, or an episode that is not the sender's, has ended, or acts and
            answers at once.
    """
    if len(frame) < HEADER.size or len(frame) != HEADER.size + body_size(frame[: HEADER.size], len(live)):
        raise FrameError("malformed frame: its length is not what its header says")
    _, number, actions, ids, finals, notes, _ = HEADER.unpack_from(frame)
    values = np.frombuffer(frame, np.int32, 5 * actions + ids + 3 * finals + 2 * notes, HEADER.size)
    table, values = values[: 5 * actions].reshape(-1, 5), values[5 * actions :]
    branches, values = values[:ids], values[ids:]
    final, note = values[: 3 * finals].reshape(-1, 3), values[3 * finals :].reshape(-1, 2)
    _check_episodes(table[:, 0], final[:, 0], note[:, 0], live)
    _check_counts(table, ids)
    text = bytes(frame[HEADER.size + 4 * (5 * actions + ids + 3 * finals + 2 * notes) :])
    lengths = np.concatenate([final[:, 2], note[:, 1]])
    if len(lengths) and (lengths.min() < 0 or int(lengths.sum(dtype=np.int64)) != len(text)):
        raise FrameError("malformed frame: text lengths")
    if ((final[:, 2] != 0) & (final[:, 1] != UNPARSED)).any():
        raise FrameError("malformed frame: an answer and an error at once")
    errors: dict[int, str] = {}
    said: list[tuple[int, str]] = []
    if text:
        stops = np.cumsum(lengths)
        for row in np.flatnonzero(lengths).tolist():
            part = printable(text[stops[row] - lengths[row] : stops[row]])
            if row < finals:
                errors[int(final[row, 0])] = part
            else:
                said.append((int(note[row - finals, 0]), part))
    return Round(number, table, branches, final[:, 0], final[:, 1], errors, said)


def encode(number: int, results: Results, episode: Ints, actions: slice, rows: slice) -> bytes:
    """The reply to one job: its slice of a round's results.

    Args:
        episode: int[A], the acting episodes as the job numbers them.
    """
    columns = 0 if (results.answer[rows] == UNASKED).any() else TOLD
    parts = [
        b"",
        np.stack([episode, results.rows[actions]], axis=1).astype(np.int32).tobytes(),
        results.ledger[actions].tobytes(),
        results.answer[rows].astype(np.int32).tobytes(),
        results.tokens[rows].astype(np.int32).tobytes(),
        results.depth[rows].astype(np.int32).tobytes(),
        results.end[rows].tobytes(),
    ]
    scores = 0
    if results.children is not None:
        columns |= CHILDREN
        parts.append(results.children[rows].astype(np.int32).tobytes())
    if results.confidence is not None:
        columns |= CONFIDENCE
        parts.append(results.confidence[rows].tobytes())
    if results.scores is not None:
        columns |= PRM
        counts, values = results.scores
        before, scores = int(counts[: rows.start].sum()), int(counts[rows].sum())
        parts += [counts[rows].astype(np.int32).tobytes(), values[before : before + scores].tobytes()]
    parts[0] = REPLY.pack(MAGIC, number, len(episode), rows.stop - rows.start, columns, scores)
    return b"".join(parts)


def _check_episodes(
    acting: NDArray[np.int32], ending: NDArray[np.int32], noting: NDArray[np.int32], live: NDArray[np.bool_]
) -> None:
    for named in (acting, ending, noting):
        if len(named) and (named.min() < 0 or named.max() >= len(live)):
            raise FrameError("malformed frame: an episode that the sender does not play")
    if not (live[acting].all() and live[ending].all()):
        raise FrameError("malformed frame: an episode that has ended")
    if (acting[1:] < acting[:-1]).any():
        raise FrameError("malformed frame: actions out of order")
    if len(ending) and (np.bincount(np.r_[ending, np.unique(acting)]) > 1).any():
        raise FrameError("malformed frame: an episode answers twice, or acts and answers")


def _check_counts(table: NDArray[np.int32], ids: int) -> None:
    kind, count = table[:, 1], np.maximum(table[:, 3], 0).astype(np.int64)
    width = np.where((kind == BRANCH) | (kind == FORK), 0, count)
    width = np.where((kind == EXTEND) & (table[:, 4] == -1), 2 * width, width)
    if int(width.sum()) != ids:
        raise FrameError("malformed frame: the counts of its actions do not add up to its ids")
