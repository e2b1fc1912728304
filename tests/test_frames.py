"""What untrusted code sends: whatever the bytes, an error or a sound round, never a crash."""

import struct
from array import array

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from env.episode import (
    BRANCH,
    EXTEND,
    FINISH,
    HEADER,
    MAGIC,
    MAX_ACTIONS,
    MAX_ERROR,
    MAX_NOTE,
    MAX_NOTES,
    OPENING,
    PROBE,
    PRUNE,
    SPENT,
    TOKENS,
    Reply,
)
from env.frames import MAX_FRAME, MAX_IDS, FrameError, Round, body_size, read, write
from env.index import Index
from env.playback import Playback
from env.replay import Replay
from tests.forests import Node, Problem, Trees, trees

EPISODES = 3


def frame(actions=(), ids=(), finals=(), notes=(), text=b"", number=7, magic=MAGIC) -> bytes:
    flat = [array("i", [n for row in rows for n in row]) for rows in (actions, finals, notes)]
    counts = len(actions), len(ids), len(finals), len(notes), len(text)
    header = HEADER.pack(magic, number, *counts)
    return (
        header + flat[0].tobytes() + array("i", ids).tobytes() + flat[1].tobytes() + flat[2].tobytes() + text
    )


def parse(sent: bytes, states: np.ndarray) -> Round:
    return read([(range(len(states)), sent)], states)


def live(*states: bool) -> np.ndarray:
    return np.array(states or [True] * EPISODES)


def test_an_honest_frame_is_read_as_it_was_written():
    told = parse(
        frame(
            [[0, BRANCH, 1, 2, 0], [1, EXTEND, 0, 2, -1]],
            [4, 5, 1, 3],
            [[2, -1, 4]],
            [[1, 2], [0, 3]],
            b"oops" + b"hm" + "né".encode(),
        ),
        live(),
    )
    assert (told.frames, told.actions.tolist(), told.ids.tolist()) == (
        [(7, range(EPISODES))],
        [[0, BRANCH, 1, 2, 0], [1, EXTEND, 0, 2, -1]],
        [4, 5, 1, 3],
    )
    assert told.finals.tolist() == [[2, -1, 4, 0]]
    assert (told.errors, told.notes) == ({2: "oops"}, [(1, "hm"), (0, "né")])


def test_what_a_controller_says_is_escaped():
    told = parse(
        frame(finals=[[0, -1, 8]], notes=[[1, 4]], text=b"a\x1b[2J\x00\xff!" + b"\xe2\x80\xae\x07"), live()
    )
    assert told.errors == {0: "a\\x1b[2J\\x00\ufffd!"}
    assert told.notes == [(1, "\\u202e\\x07")]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"", "length"),
        (frame()[:-1], "length"),
        (frame() + b"x", "length"),
        (frame(magic=MAGIC + 1), "bad magic"),
        (frame([[3, BRANCH, 0, 1, 0]]), "does not play"),
        (frame([[-1, BRANCH, 0, 1, 0]]), "does not play"),
        (frame(finals=[[3, 0, 0]]), "does not play"),
        (frame(notes=[[-1, 0]]), "does not play"),
        (frame([[1, BRANCH, 0, 1, 0], [0, BRANCH, 0, 1, 0]]), "out of order"),
        (frame(finals=[[1, 0, 0], [1, 0, 0]]), "twice"),
        (frame(finals=[[1, 0, 4]], text=b"oops"), "an answer and an error"),
        (frame([[1, BRANCH, 0, 1, 0]], finals=[[1, 0, 0]]), "acts and answers"),
        (frame([[0, FINISH, 0, 1, 0]]), "add up"),
        (frame([[0, FINISH, 0, 1, 0]], [0, 0]), "add up"),
        (frame([[0, EXTEND, 0, 1, -1]], [0]), "add up"),
        (frame([[0, FINISH, 0, 2**31 - 1, 0], [0, FINISH, 0, 2**31 - 1, 0]], [0, 0]), "add up"),
        (frame([[0, PRUNE, 0, -1, 0]], [0]), "add up"),
        (frame(finals=[[0, 0, 5]], text=b"four"), "text lengths"),
        (frame(finals=[[0, 0, -1]], text=b""), "text lengths"),
        (frame(notes=[[0, 2]] * (EPISODES * MAX_NOTES + 1), text=b"x" * 6), "too many notes"),
        (frame(finals=[[0, -1, 9999]], text=b"x" * (5 * MAX_ERROR + 1)), "too much text"),
        (frame(notes=[[0, MAX_NOTE + 1]], text=b"x" * (MAX_NOTE + 1)), "too much text"),
        (frame([[0, BRANCH, 0, 0, 0]] * (EPISODES * MAX_ACTIONS + 1)), "more actions"),
    ],
)
def test_what_no_honest_runner_sends_is_an_error_that_says_why(bad, why):
    with pytest.raises(FrameError, match=why):
        parse(bad, live())


def test_an_episode_that_has_ended_is_silent():
    for bad in (frame([[1, BRANCH, 0, 1, 0]]), frame(finals=[[1, 0, 0]])):
        with pytest.raises(FrameError, match="has ended"):
            parse(bad, live(True, False, True))


def test_a_header_promises_no_more_than_its_episodes_can_say():
    """The trusted side asks this before it reads or allocates anything."""
    assert body_size(HEADER.pack(MAGIC, 1, 1, 2, 1, 0, 3), 1) == 4 * (5 + 2 + 3) + 3
    with pytest.raises(FrameError):
        body_size(HEADER.pack(MAGIC, 1, 0, MAX_IDS + 1, 0, 0, 0), 1)
    with pytest.raises(FrameError, match=f"at most {MAX_FRAME}"):
        body_size(HEADER.pack(MAGIC, 1, 0, MAX_FRAME // 4 + 1, 0, 0, 0), 10_000)


def small_playback(plain: bool = False) -> Playback:
    """Of one small problem; `plain`: a round is one compiled call."""
    nodes = [Node(5, 0, place=0), Node(3, 1, end=1, place=1)]
    nodes[1].parent = nodes[0]
    nodes[0].children = [nodes[1]]
    nodes += [Node(k, k % 3, end=1, place=k) for k in range(2, 6)]
    index = Index.build(Trees([Problem(nodes, frozenset({1}), 3)]).forest())
    replay = Replay(index, [0] * EPISODES, range(EPISODES), log=not plain)
    return Playback(replay, [range(EPISODES)], SPENT if plain else TOKENS | SPENT)


def answers_soundly(playback: Playback, sent: bytes) -> None:
    """One frame through the whole trusted side: an error, or a reply that an honest runner can read."""
    was_live = playback.replay.live.copy()
    (reply,) = playback.answer([(0, sent)])
    if isinstance(reply, FrameError):
        assert (playback.replay.live == was_live).all()
        return
    told = Reply(reply)
    assert all(0 <= episode < EPISODES for episode in told.actions[::3])
    if told.tokens is not None:
        assert sum(rows for rows in told.actions[1::3] if rows > 0) == len(told.tokens) == len(told.depth)
    assert sum(told.actions[2::3]) == len(told.news)


@settings(max_examples=150, deadline=None)
@given(st.booleans(), st.lists(st.binary(max_size=120), min_size=1, max_size=3))
def test_random_bytes_are_answered_or_refused(plain, frames):
    playback = small_playback(plain)
    for sent in frames:
        answers_soundly(playback, sent)
        answers_soundly(playback, HEADER.pack(MAGIC, 1, 0, 0, 0, 0, len(sent)) + sent)


small = st.one_of(st.integers(-2, 9), st.sampled_from((2**31 - 1, -(2**31), 300)))
rows = st.lists(st.tuples(st.integers(-1, EPISODES), small, small, small, small), max_size=6)


@settings(max_examples=250, deadline=None)
@given(
    st.booleans(),
    st.lists(st.tuples(rows, st.lists(small, max_size=8), st.booleans(), rows), min_size=1, max_size=4),
)
def test_well_formed_lies_are_answered_or_refused(plain, turns):
    playback = small_playback(plain)
    open_all = [[e, BRANCH, 1, 3, 0] for e in range(EPISODES)]
    answers_soundly(playback, frame(open_all))
    for actions, ids, fits, finals in turns:
        if fits:
            actions = sorted((abs(e) % EPISODES, *rest) for e, *rest in actions)
            width = [0 if kind in OPENING else max(n, 0) for _, kind, _, n, _ in actions]
            width = [
                2 * w if a[1] == EXTEND and a[4] == -1 else w for w, a in zip(width, actions, strict=True)
            ]
            if sum(width) < 100:
                ids = [*ids, *range(100)][: sum(width)]
        answers_soundly(playback, frame(actions, ids, [row[:3] for row in finals]))


honest = [
    frame([[e, BRANCH, 1, 3, 0] for e in range(EPISODES)]),
    frame(
        [[0, PRUNE, 0, 1, 0], [0, EXTEND, 1, 2, -1], [1, PROBE, 1, 2, 0]],
        [2, 0, 1, 1, 2, 0, 2],
        [[2, 0, 0]],
        [[0, 2]],
        b"hi",
    ),
    frame([[0, FINISH, 0, 2, 0]], [0, 1], [[1, -1, 4]], [], b"boom"),
]


@settings(max_examples=250, deadline=None)
@given(
    st.booleans(),
    st.integers(0, 2),
    st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4),
    st.integers(-6, 6),
)
@example(False, 0, [(4 * 6, struct.pack("<I", 2**32 - 1))], 0)
def test_damaged_honest_frames_are_answered_or_refused(plain, at, damage, cut):
    playback = small_playback(plain)
    for k, sent in enumerate(honest):
        if k == at:
            damaged = bytearray(sent)
            for place, value in damage:
                damaged[place % len(sent) : place % len(sent) + len(value)] = value
            sent = bytes(damaged[:cut] if cut < 0 else damaged + b"\0" * cut)
        answers_soundly(playback, sent)


@pytest.mark.parametrize("plain", [False, True])
def test_the_frames_above_are_honest(plain):
    playback = small_playback(plain)
    for sent in honest:
        assert isinstance(parse(sent, playback.replay.live), Round)
        answers_soundly(playback, sent)
    assert playback.errors == {1: "boom"}
    assert [text for *_, text in playback.notes] == ["hi"]


@settings(max_examples=60, deadline=None)
@given(trees(), st.integers(1, 3), st.integers(0, 3))
def test_a_reply_reads_as_the_engine_meant_it(store, episodes, opened):
    replay = Replay(Index.build(store.forest()), [0] * episodes, range(episodes), max_branches=100)
    probes = int(replay.index.has_probes)
    replay.step(np.array([[e, BRANCH, probes, opened, 0] for e in range(episodes)]), np.zeros(0, np.int64))
    scores = store.has_scores
    granted = replay.granted.tolist()
    table = [[e, 5 if scores and e % 2 else EXTEND, 0, granted[e], 1] for e in range(episodes)]
    ids = np.array([i for e in range(episodes) for i in range(granted[e])], np.int64)
    results = replay.step(np.array(table), ids)
    stops = np.cumsum(results.rows)
    nothing = np.zeros(0, np.int64)
    alone = [(3, range(e, e + 1)) for e in range(episodes)]
    replies = write(Round(alone, nothing, nothing, nothing, {}, []), results)
    for e in range(episodes):
        here = slice(int(stops[e] - results.rows[e]), int(stops[e]))
        news = [row for row, *_ in results.news.tolist() if here.start <= row < here.stop]
        reply = Reply(replies[e])
        assert reply.actions == [0, granted[e], len(news)]
        assert list(reply.ledger) == replay.ledger[e].tolist()
        columns = (results.branch, results.answer, results.end)
        assert reply.news == list(zip(*(values[news].tolist() for values in columns), strict=True))
        assert list(reply.tokens) == results.tokens[here].tolist()
        assert list(reply.depth) == results.depth[here].tolist()
        assert reply.children == (None if results.children is None else results.children[here].tolist())
        assert reply.confidence == (None if results.confidence is None else results.confidence[here].tolist())
        if results.scores is None:
            assert reply.prm is None
        else:
            counts, values = results.scores
            ends = np.cumsum(counts)
            assert reply.prm == [
                values[ends[r] - counts[r] : ends[r]].tolist() for r in range(here.start, here.stop)
            ]


moves = st.sampled_from((EXTEND, FINISH, PROBE))


@settings(max_examples=100, deadline=None)
@given(trees(), st.integers(0, 2), st.lists(st.tuples(moves, st.integers(0, 3)), max_size=4))
def test_a_brief_round_is_told_like_a_whole_one(store, opened, turns):
    """Replays that nobody logs leave out what is not told; what is told must not differ."""
    index = Index.build(store.forest())
    probes = int(index.has_probes)
    pair = [Playback(Replay(index, [0, 0], [1, 2], log=log), [range(2)], wanted=0) for log in (False, True)]
    sent = frame([[e, BRANCH, probes, opened, 0] for e in range(2)])
    for number, (kind, steps) in enumerate(turns):
        replies = [playback.answer([(0, sent)])[0] for playback in pair]
        assert replies[0] == replies[1]
        many = pair[1].replay.granted.tolist()
        sent = frame(
            [[e, kind, probes * (kind != FINISH), many[e], steps * (kind == EXTEND)] for e in range(2)],
            [i for e in range(2) for i in range(many[e])],
            number=number,
        )
    assert pair[0].replay.ledger.tolist() == pair[1].replay.ledger.tolist()
