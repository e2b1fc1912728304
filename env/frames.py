"""The trusted side of the frames that `env.episode` defines: what a controller sent is read, replies written.

Nothing here believes a byte: every count is bounded before anything is read or allocated, and an episode that
a frame names must be one that the sender plays, is live, and speaks once.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from env.compiled import compiled
from env.engine import id_count
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
    SPENT,
    TOKENS,
    UNPARSED,
)
from env.isolation.wire import printable
from env.replay import Revealed
from env.stand import Ints

FAULTS = (
    "",
    "an episode that the sender does not play",
    "an episode that has ended",
    "actions out of order",
    "an episode answers twice, or acts and answers",
    "the counts of its actions do not add up to its ids",
    "text lengths",
    "an answer and an error at once",
)
FOREIGN, ENDED, DISORDER, TWICE, MISCOUNT, TEXTS, BOTH = range(1, 8)
NOTHING, NO_DEPTH = np.zeros(0, np.int64), np.zeros(0, np.int32)
# What a header holds, in words.
ROUND, ACTIONS, IDS, FINALS, NOTES, TEXT = range(1, 7)
HEADER_WORDS = HEADER.size // 4
MAX_IDS = 1 << 14
MAX_FRAME = 64 << 20


class FrameError(Exception):
    """A frame that no honest runner sends; ends the job that sent it."""


class Round(NamedTuple):
    """The frames of several jobs, read together; episodes are numbered as the engine does.

    Attributes:
        frames: each job's number of its round and its episodes.
        actions: int64[A, 5], and ids int64[I], for the engine.
        finals: int64[F, 4], episodes that have ended, their answer codes, bytes of their errors and the job.
        errors: {episode: text} of those that ended with an error.
        notes: (episode, text) in the order they were left.
    """

    frames: list[tuple[int, range]]
    actions: Ints
    ids: Ints
    finals: Ints
    errors: dict[int, str]
    notes: list[tuple[int, str]]


def body_size(frame: bytes | bytearray, episodes: int) -> int:
    """How many bytes follow the header of a frame, or this header alone.

    Raises:
        FrameError: the header promises more than `episodes` episodes can have to say.
    """
    magic, _, actions, ids, finals, notes, text = HEADER.unpack_from(frame)
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


def joined(
    frames: Sequence[tuple[range, bytes | bytearray]],
) -> tuple[NDArray[np.int32], Ints, list[bytes | bytearray]]:
    """Some frames as `unpack` takes them, and their texts apart.

    Raises:
        FrameError: one of them is not as long as its header says, or that says more than can be.
    """
    jobs: list[tuple[int, int, int]] = []
    parts: list[bytes | bytearray] = []
    texts: list[bytes | bytearray] = []
    place = 0
    for span, frame in frames:
        if len(frame) < HEADER.size or len(frame) != HEADER.size + body_size(frame, len(span)):
            raise FrameError("malformed frame: its length is not what its header says")
        stop = len(frame) - HEADER.unpack_from(frame)[TEXT]
        jobs.append((place, span.start, span.stop))
        parts.append(frame[:stop])
        texts.append(frame[stop:])
        place += stop // 4
    words = np.frombuffer(bytearray().join(parts), np.int32)
    return words, np.array(jobs, np.int64).reshape(-1, 3), texts


def complain(fault: int) -> None:
    """Raise FrameError if `unpack` has found a fault."""
    if fault:
        raise FrameError(f"malformed frame: {FAULTS[fault]}")


def read(frames: Sequence[tuple[range, bytes | bytearray]], live: NDArray[np.bool_]) -> Round:
    """Read one whole frame of each of some jobs.

    Args:
        frames: the consecutive episodes that a job plays, and its frame; jobs in the order of their episodes.
        live: bool[E], of all episodes.

    Raises:
        FrameError: one of them has counts that do not add up, or an episode that is not the sender's, has
            ended, or acts and answers at once.
    """
    words, jobs, texts = joined(frames)
    fault, actions, ids, finals, notes = unpack(words, jobs, live)
    complain(fault)
    told = [(int(words[place + ROUND]), span) for place, (span, _) in zip(jobs[:, 0], frames, strict=True)]
    return Round(told, actions, ids, finals, *spoken(finals, notes, texts))


@compiled
def unpack(
    words: NDArray[np.int32], jobs: Ints, live: NDArray[np.bool_]
) -> tuple[int, Ints, Ints, Ints, Ints]:
    """Some frames without their texts, one behind the other, taken apart.

    Args:
        words: whole frames, of the lengths that their headers say.
        jobs: int64[J, 3], where the frame of each begins, its first episode, and one past its last.

    Returns:
        What is wrong (a number of FAULTS); actions int64[A, 5], ids int64[I], finals int64[F, 4] and notes
        int64[N, 3], these two with the job that they are from, and all with the engine's episodes.
    """
    acting = naming = ending = noting = 0
    for job in range(len(jobs)):
        head = jobs[job, 0]
        acting, naming = acting + words[head + ACTIONS], naming + words[head + IDS]
        ending, noting = ending + words[head + FINALS], noting + words[head + NOTES]
    actions, ids = np.empty((acting, 5), np.int64), np.empty(naming, np.int64)
    finals, notes = np.empty((ending, 4), np.int64), np.empty((noting, 3), np.int64)
    fault = a = i = f = n = 0
    for job in range(len(jobs)):
        head, first, last = jobs[job, 0], jobs[job, 1], jobs[job, 2]
        at = head + HEADER_WORDS
        heard = np.zeros(last - first, np.bool_)
        named, text, before, both = 0, 0, -1, False
        for _ in range(words[head + ACTIONS]):
            for column in range(5):
                actions[a, column] = words[at + column]
            actions[a, 0] += first
            episode, kind, count, argument = actions[a, 0], actions[a, 1], actions[a, 3], actions[a, 4]
            if not first <= episode < last:
                return FOREIGN, actions, ids, finals, notes
            if episode < before:
                fault = fault or DISORDER
            if not live[episode]:
                fault = ENDED
            heard[episode - first] = True
            named += id_count(kind, count, argument)
            before = episode
            at, a = at + 5, a + 1
        for _ in range(words[head + IDS]):
            ids[i] = words[at]
            at, i = at + 1, i + 1
        for _ in range(words[head + FINALS]):
            episode, code, length = first + words[at], words[at + 1], words[at + 2]
            finals[f, 0], finals[f, 1], finals[f, 2], finals[f, 3] = episode, code, length, job
            if not first <= episode < last:
                return FOREIGN, actions, ids, finals, notes
            if not live[episode]:
                fault = ENDED
            if heard[episode - first]:
                fault = fault or TWICE
            if length < 0:
                fault = fault or TEXTS
            both = both or (length != 0 and code != UNPARSED)
            heard[episode - first] = True
            text += length
            at, f = at + 3, f + 1
        for _ in range(words[head + NOTES]):
            notes[n, 0], notes[n, 1], notes[n, 2] = first + words[at], words[at + 1], job
            if not first <= notes[n, 0] < last:
                return FOREIGN, actions, ids, finals, notes
            if notes[n, 1] < 0:
                fault = fault or TEXTS
            text += notes[n, 1]
            at, n = at + 2, n + 1
        if named != words[head + IDS]:
            fault = fault or MISCOUNT
        if text != words[head + TEXT]:
            fault = fault or TEXTS
        if both:
            fault = fault or BOTH
    return fault, actions, ids, finals, notes


def write(told: Round, results: Revealed, wanted: int = TOKENS | SPENT) -> list[bytes]:
    """The reply to each job of a round: its own part of the results.

    Args:
        wanted: which of the columns TOKENS and SPENT to tell.
    """
    prm, columns = results.scores, wanted
    columns |= CHILDREN if results.children is not None else 0
    columns |= CONFIDENCE if results.confidence is not None else 0
    columns |= PRM if prm is not None else 0
    words, stops = pack(
        np.array([(number, span.start) for number, span in told.frames], np.int64).reshape(-1, 2),
        columns,
        results.episode,
        results.rows,
        results.ledger,
        results.news,
        results.tokens,
        results.depth if columns & TOKENS else NO_DEPTH,
        NOTHING if results.children is None else results.children,
        NO_DEPTH if results.confidence is None else results.confidence.view(np.int32),
        NOTHING if prm is None else prm[0],
        NO_DEPTH if prm is None else prm[1].view(np.int32),
    )
    return parted(words, stops)


def parted(words: NDArray[np.int32], stops: Ints) -> list[bytes]:
    """The replies that `pack` has put one behind the other."""
    data = words.tobytes()
    return [data[4 * first : 4 * last] for first, last in pairwise([0, *stops.tolist()])]


@compiled
def pack(
    jobs: Ints,
    columns: int,
    episode: Ints,
    rows: Ints,
    ledger: Ints,
    news: Ints,
    tokens: Ints,
    depth: NDArray[np.int32],
    children: Ints,
    confidence: NDArray[np.int32],
    counts: Ints,
    scores: NDArray[np.int32],
) -> tuple[NDArray[np.int32], Ints]:
    """The replies to some jobs, one behind the other, and where each ends (words).

    Args:
        jobs: int64[J, 2], the number of each one's frame and its first episode.
        columns: which of the following to tell; those that are not may be empty.
    """
    many = 0
    for k in range(len(rows)):
        many += max(rows[k], 0)
    each = 2 * (columns & TOKENS > 0) + (columns & CHILDREN > 0) + (columns & CONFIDENCE > 0)
    size = 7 * len(jobs) + len(episode) * (11 if columns & SPENT else 3) + 3 * len(news) + each * many
    size += many + len(scores) if columns & PRM else 0
    words, stops = np.empty(size, np.int32), np.empty(len(jobs), np.int64)
    at = a = row = new = score = 0
    for job in range(len(jobs)):
        last_a, last_row, last_new, last_score = a, row, new, score
        head = at
        at += 7
        while last_a < len(episode) and (job + 1 == len(jobs) or episode[last_a] < jobs[job + 1, 1]):
            last_row += max(rows[last_a], 0)
            heard = last_new
            while last_new < len(news) and news[last_new, 0] < last_row:
                last_new += 1
            words[at], words[at + 1] = episode[last_a] - jobs[job, 1], rows[last_a]
            words[at + 2] = last_new - heard
            at, last_a = at + 3, last_a + 1
        if columns & SPENT:
            for k in range(a, last_a):
                for what in range(4):
                    words[at], words[at + 1] = ledger[k, what] & 0xFFFFFFFF, ledger[k, what] >> 32
                    at += 2
        for k in range(new, last_new):
            there = at + k - new
            words[there] = news[k, 1]
            words[there + last_new - new] = news[k, 2]
            words[there + 2 * (last_new - new)] = news[k, 3]
        at += 3 * (last_new - new)
        if columns & TOKENS:
            at = put(words, at, tokens, row, last_row)
            at = put(words, at, depth, row, last_row)
        if columns & CHILDREN:
            at = put(words, at, children, row, last_row)
        if columns & CONFIDENCE:
            at = put(words, at, confidence, row, last_row)
        if columns & PRM:
            at = put(words, at, counts, row, last_row)
            last_score += counts[row:last_row].sum()
            at = put(words, at, scores, score, last_score)
        words[head], words[head + 1], words[head + 2] = MAGIC, jobs[job, 0], last_a - a
        words[head + 3], words[head + 4] = last_row - row, last_new - new
        words[head + 5], words[head + 6] = columns, last_score - score
        stops[job] = at
        a, row, new, score = last_a, last_row, last_new, last_score
    return words, stops


@compiled
def put(words: NDArray[np.int32], at: int, values: NDArray[Any], first: int, last: int) -> int:
    """Write some values one behind the other; where the next may go."""
    for k in range(first, last):
        words[at] = values[k]
        at += 1
    return at


def spoken(
    finals: Ints, notes: Ints, texts: Sequence[bytes | bytearray]
) -> tuple[dict[int, str], list[tuple[int, str]]]:
    """`errors` and `notes` of a `Round`: a job's text is its finals' errors and then its notes."""
    errors: dict[int, str] = {}
    said: list[tuple[int, str]] = []
    for job, text in enumerate(texts):
        if not text:
            continue
        ending, noting = finals[finals[:, 3] == job], notes[notes[:, 2] == job]
        lengths = np.concatenate([ending[:, 2], noting[:, 1]])
        stops = np.cumsum(lengths)
        for row in np.flatnonzero(lengths).tolist():
            part = printable(bytes(text[stops[row] - lengths[row] : stops[row]]))
            if row < len(ending):
                errors[int(ending[row, 0])] = part
            else:
                said.append((int(noting[row - len(ending), 0]), part))
    return errors, said
