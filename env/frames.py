"""The trusted side of the frames that `env.episode` defines: what a controller sent is read, replies written.

Nothing here believes a byte: every count is bounded before anything is read or allocated, and an episode that
a frame names must be one that the sender plays, is live, and speaks once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env.actions import id_counts
from env.episode import (
    CHILDREN,
    CONFIDENCE,
    HEADER,
    MAGIC,
    MAX_ACTIONS,
    MAX_ERROR,
    MAX_NOTE,
    MAX_NOTES,
    PRM,
    REPLY,
    SPENT,
    TOKENS,
    UNPARSED,
)
from env.index import Ints
from env.isolation.wire import printable
from env.order import begins
from env.replay import Revealed

MAX_IDS = 1 << 14
MAX_FRAME = 64 << 20


class FrameError(Exception):
    """A frame that no honest runner sends; ends the job that sent it."""


@dataclass(frozen=True)
class Round:
    """The frames of several jobs, read together; episodes are numbered as the engine does.

    Attributes:
        frames: each job's number of its round and its episodes.
        actions: int64[A, 5], and ids int64[I], for the engine.
        final_episode, final_answer: int64[F], episodes that have ended and their answer codes.
        errors: {episode: text} of those that ended with an error.
        notes: (episode, text) in the order they were left.
    """

    frames: list[tuple[int, range]]
    actions: Ints
    ids: Ints
    final_episode: Ints
    final_answer: Ints
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


def read(frames: Sequence[tuple[range, bytes | bytearray]], live: NDArray[np.bool_]) -> Round:
    """Read one whole frame of each of some jobs.

    Args:
        frames: the consecutive episodes that a job plays, and its frame; jobs in the order of their episodes.
        live: bool[E], of all episodes.

    Raises:
        FrameError: one of them has counts that do not add up, or an episode that is not the sender's, has
            ended, or acts and answers at once.
    """
    told: list[tuple[int, range]] = []
    counts: list[tuple[int, ...]] = []
    columns: tuple[list[memoryview], ...] = ([], [], [], [])
    texts: list[bytes] = []
    for span, frame in frames:
        if len(frame) < HEADER.size or len(frame) != HEADER.size + body_size(frame[: HEADER.size], len(span)):
            raise FrameError("malformed frame: its length is not what its header says")
        _, number, *count, length = HEADER.unpack_from(frame)
        view, at = memoryview(frame), HEADER.size
        for column, width in zip(columns, (5 * count[0], count[1], 3 * count[2], 2 * count[3]), strict=True):
            column.append(view[at : at + 4 * width])
            at += 4 * width
        told.append((number, span))
        counts.append((*count, length))
        texts.append(bytes(view[at:]))
    actions, ids, finals, notes = (
        np.frombuffer(b"".join(column), np.int32).astype(np.int64) for column in columns
    )
    size = np.array(counts, np.int64).reshape(-1, 5)
    actions, finals, notes = actions.reshape(-1, 5), finals.reshape(-1, 3), notes.reshape(-1, 2)
    first = np.array([span.start for _, span in told], np.int64)
    last = np.array([span.stop for _, span in told], np.int64)
    job = np.arange(len(told))
    acting, ending, noting = (np.repeat(job, size[:, column]) for column in (0, 2, 3))
    for table, sender in ((actions, acting), (finals, ending), (notes, noting)):
        if len(table):
            table[:, 0] += first[sender]
            if ((table[:, 0] < first[sender]) | (table[:, 0] >= last[sender])).any():
                raise FrameError("malformed frame: an episode that the sender does not play")
    _check_episodes(actions[:, 0], finals[:, 0], live)
    _check_counts(actions, acting, size[:, 1])
    errors: dict[int, str] = {}
    said: list[tuple[int, str]] = []
    if len(notes) or size[:, 4].any() or finals[:, 2].any():
        for k, text in enumerate(texts):
            _read_texts(finals[ending == k], notes[noting == k], text, errors, said)
    if ((finals[:, 2] != 0) & (finals[:, 1] != UNPARSED)).any():
        raise FrameError("malformed frame: an answer and an error at once")
    return Round(told, actions, ids, finals[:, 0], finals[:, 1], errors, said)


def write(told: Round, results: Revealed, wanted: int = TOKENS | SPENT) -> list[bytes]:
    """The reply to each job of a round: its own part of the results.

    Args:
        wanted: which of the columns TOKENS and SPENT to tell.
    """
    starts = [span.start for _, span in told.frames]
    edges = np.searchsorted(results.episode, np.array([*starts, np.iinfo(np.int64).max]))
    after = _running(np.maximum(results.rows, 0))
    stops, heard = after[edges], np.searchsorted(results.news, after)
    base = np.repeat(np.array(starts, np.int64), np.diff(edges))
    who = np.stack([results.episode - base, results.rows, np.diff(heard)], axis=1)
    actions = [_column(who, 12)]
    if wanted & SPENT:
        actions.append((results.ledger.tobytes(), 32))
    what = (results.branch, results.answer, results.end)
    news = [_column(values[results.news], 4) for values in what]
    rows = []
    if wanted & TOKENS:
        rows += [_column(results.tokens, 4), _column(results.depth, 4)]
    columns, scored = wanted, np.zeros(len(stops), np.int64)
    if results.children is not None:
        columns |= CHILDREN
        rows.append(_column(results.children, 4))
    if results.confidence is not None:
        columns |= CONFIDENCE
        rows.append((results.confidence.tobytes(), 4))
    values = b""
    if results.scores is not None:
        columns |= PRM
        rows.append(_column(results.scores[0], 4))
        scored, values = _running(results.scores[0])[stops], results.scores[1].tobytes()
    replies = []
    at = list(zip(*(bounds.tolist() for bounds in (edges, stops, heard[edges], scored)), strict=True))
    for (number, _), (a, row, new, score), (b, end, newer, last) in zip(
        told.frames, at[:-1], at[1:], strict=True
    ):
        header = REPLY.pack(MAGIC, number, b - a, end - row, newer - new, columns, last - score)
        parts = [data[a * width : b * width] for data, width in actions]
        parts += [data[new * width : newer * width] for data, width in news]
        parts += [data[row * width : end * width] for data, width in rows]
        replies.append(b"".join((header, *parts, values[4 * score : 4 * last])))
    return replies


def _running(values: NDArray[Any]) -> Ints:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])


def _column(values: NDArray[Any], width: int) -> tuple[bytes, int]:
    return values.astype(np.int32).tobytes(), width


def _check_episodes(acting: Ints, ending: Ints, live: NDArray[np.bool_]) -> None:
    if not (live[acting].all() and live[ending].all()):
        raise FrameError("malformed frame: an episode that has ended")
    if (acting[1:] < acting[:-1]).any():
        raise FrameError("malformed frame: actions out of order")
    if len(ending) and (np.bincount(np.concatenate([ending, acting[begins(acting)]])) > 1).any():
        raise FrameError("malformed frame: an episode answers twice, or acts and answers")


def _check_counts(actions: Ints, acting: Ints, ids: Ints) -> None:
    width = id_counts(actions[:, 1], actions[:, 3], actions[:, 4])
    if (np.bincount(acting, width, len(ids)) != ids).any():
        raise FrameError("malformed frame: the counts of its actions do not add up to its ids")


def _read_texts(
    finals: Ints, notes: Ints, text: bytes, errors: dict[int, str], said: list[tuple[int, str]]
) -> None:
    """The errors of one job's finals and then its notes, which lie in its text one behind the other."""
    lengths = np.concatenate([finals[:, 2], notes[:, 1]])
    if (len(lengths) and lengths.min() < 0) or int(lengths.sum()) != len(text):
        raise FrameError("malformed frame: text lengths")
    stops = np.cumsum(lengths)
    for row in np.flatnonzero(lengths).tolist():
        part = printable(text[stops[row] - lengths[row] : stops[row]])
        if row < len(finals):
            errors[int(finals[row, 0])] = part
        else:
            said.append((int(notes[row - len(finals), 0]), part))
