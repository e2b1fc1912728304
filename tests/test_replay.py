"""The engine against a plain one, on random stores and random actions, misuse included."""

import random
import struct
from dataclasses import dataclass

import numpy as np
import pytest
from checkout import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from env import engine, frames, playback
from env.compiled import SOURCES, compiled
from env.engine import TOO_MANY
from env.episode import BRANCH, EXTEND, FINISH, FORK, HEADER, MAGIC, MAX_ACTIONS, PROBE, PRUNE, SAMPLE, SCORE
from env.index import Index
from env.playback import Playback
from env.replay import Replay
from tests.forests import (
    INTERVAL,
    Digits,
    Node,
    Problem,
    Recording,
    Trees,
    numbers,
    recordings,
    stored,
    trees,
)
from tests.playing import line, run, tree
from tests.reference import Action, ReferenceEpisode, Rules, Seen

OFTEN = (BRANCH, BRANCH, FORK, EXTEND, EXTEND)
KINDS = (*OFTEN, BRANCH, SAMPLE, FORK, EXTEND, FINISH, PROBE, SCORE, PRUNE, 0, 9)
_program = st.lists(st.lists(numbers, min_size=1, max_size=4), min_size=1, max_size=6)
_episode = st.tuples(st.integers(0, 2), st.integers(0, 3), _program, st.integers(-2, 4))


def drawn(number: int, known: int) -> Action:
    """An action out of a number; its ids are mostly ones that the episode knows."""
    pick = Digits(number)
    kind, probe, odd, amount = KINDS[pick(len(KINDS))], pick(2) == 1, pick(12), pick(5) - 1
    if kind in (BRANCH, SAMPLE):
        return Action(kind, probe, count=amount, argument=(1, 2)[odd] if odd < 2 else 0)
    if kind == FORK:
        return Action(kind, probe, count=amount, argument=odd % known if known and odd > 1 else odd)
    ids = [pick(10) for _ in range(pick(5))]
    if odd > 0:
        ids = list(dict.fromkeys(i % known for i in ids)) if known else []
    steps = [pick(4) for _ in ids] if kind == EXTEND and pick(2) else None
    if kind in (FINISH, SCORE, PRUNE):
        probe = False
    return Action(kind, probe or kind == PROBE, ids, argument=-2 if odd == 1 else max(0, amount), steps=steps)


@dataclass
class Game:
    """The same episodes in the engine and in the reference, round by round."""

    replay: Replay
    references: list[ReferenceEpisode]

    def round(self, actions: dict[int, list[Action]]) -> None:
        table, ids = [], []
        for episode in sorted(actions):
            for action in actions[episode]:
                row, named = action.encoded(episode)
                table.append(row)
                ids += named
        results = self.replay.step(np.array(table, np.int32).reshape(-1, 5), np.array(ids, np.int32))
        at, row = 0, 0
        for episode in sorted(actions):
            reference = self.references[episode]
            for expected in reference.play(actions[episode]):
                count = int(results.rows[at])
                assert results.episode[at] == episode
                assert results.ledger[at].tolist() == reference.ledger
                at += 1
                if isinstance(expected, set):
                    assert -count in expected
                    continue
                assert [self.seen(results, r, seen) for r, seen in enumerate(expected, row)] == expected
                assert count == len(expected)
                row += count
            assert self.replay.rounds[episode] == reference.rounds
            assert self.replay.asked[episode] == reference.asked
            assert self.replay.granted[episode] == reference.granted
        assert (at, row) == (len(results.rows), len(results.branch))

    @staticmethod
    def seen(results, row: int, like: Seen) -> Seen:
        scores = None
        if like.scores is not None:
            counts, values = results.scores
            stop = int(counts[: row + 1].sum())
            scores = tuple(values[stop - counts[row] : stop].tolist())
        return Seen(
            branch=results.branch[row],
            answer=results.answer[row],
            tokens=results.tokens[row],
            probe_tokens=results.probe_tokens[row],
            depth=results.depth[row],
            end=results.end[row],
            children=None if results.children is None else results.children[row],
            confidence=None if results.confidence is None else results.confidence[row],
            scores=scores,
        )

    def play(self, programs: list) -> None:
        for turn in range(max(map(len, programs))):
            actions = {}
            for episode, program in enumerate(programs):
                if turn < len(program):
                    known = len(self.references[episode].branches)
                    actions[episode] = [drawn(raw, known) for raw in program[turn]]
            self.round(actions)

    def finish(self, answers: list[int]) -> None:
        seen = self.replay.finish(np.arange(len(answers)), np.array(answers))
        expected = [r.answered(code) for r, code in zip(self.references, answers, strict=True)]
        assert list(zip(seen.tolist(), self.replay.correct.tolist(), strict=True)) == expected
        assert not self.replay.live.any()


def game_on_trees(store: Trees, episodes: list, max_branches: int | None, probe_tokens: int = 20) -> Game:
    chosen = [problem % len(store.problems) for problem, *_ in episodes]
    index = Index.build(store.forest(), probe_tokens=probe_tokens)
    replay = Replay(index, chosen, [seed for _, seed, *_ in episodes], max_branches=max_branches)
    rules = Rules.of(store, probe_tokens)
    references = []
    for at, (_, seed, *_) in zip(chosen, episodes, strict=True):
        problem = store.problems[at]
        pools = [[root for root in problem.roots if root.arm == arm] for arm in range(rules.arms)]
        ceiling = max(1, len(problem.roots) // 2) if max_branches is None else max_branches
        references.append(ReferenceEpisode(pools, seed, rules, problem.right, ceiling))
    return Game(replay, references)


@settings(max_examples=300, deadline=None)
@given(trees(), st.lists(_episode, min_size=1, max_size=4), st.sampled_from((None, 1, 3, 100)))
def test_any_actions_on_any_trees_are_answered_as_the_documents_say(store, episodes, max_branches):
    game = game_on_trees(store, episodes, max_branches)
    game.play([program for *_, program, _ in episodes])
    game.finish([answer for *_, answer in episodes])


@settings(max_examples=150, deadline=None)
@given(recordings(), st.lists(_episode, min_size=1, max_size=4), st.sampled_from((None, 1, 3)))
def test_the_published_protocol_counts_as_the_released_evaluator(recorded, episodes, max_branches):
    store = stored(recorded)
    chosen = [problem % len(recorded) for problem, *_ in episodes]
    index = Index.build(store.forest(), "published")
    seeds = [seed for _, seed, *_ in episodes]
    references = [
        ReferenceEpisode(
            [recorded[at]],
            seed,
            Rules(0, forks=False, scores=False, probes=index.has_probes, confidence=False, arms=1),
            frozenset({0}),
            len(recorded[at]) if max_branches is None else max_branches,
        )
        for at, seed in zip(chosen, seeds, strict=True)
    ]
    game = Game(Replay(index, chosen, seeds, max_branches=max_branches), references)
    game.play([program for *_, program, _ in episodes])
    game.finish([answer for *_, answer in episodes])


def chain_store(lengths: list[int]) -> Trees:
    nodes = [Node(length, 0, end=1, place=k) for k, length in enumerate(lengths)]
    return Trees([Problem(nodes, frozenset({0}), 1)])


@pytest.mark.parametrize("seed", [0, 1, 99, 12345678901])
def test_branches_come_in_the_published_order_of_their_seed(seed):
    lengths = list(range(100, 108))
    replay = Replay(Index.build(chain_store(lengths).forest()), [0], [seed], max_branches=8)
    results = replay.step(np.array([[0, BRANCH, 0, 8, 0]]), np.zeros(0, np.int64))
    random.Random(seed).shuffle(lengths)
    assert results.tokens.tolist() == lengths


def test_half_the_pool_is_the_ceiling_unless_said_otherwise():
    forest = chain_store([1] * 9).forest()
    standard = Replay(Index.build(forest), [0], [0])
    assert standard.max_branches.tolist() == [4]
    results = standard.step(np.array([[0, BRANCH, 0, 9, 0]]), np.zeros(0, np.int64))
    assert (results.rows.tolist(), standard.asked[0], standard.granted[0]) == ([4], 9, 4)
    assert Replay(Index.build(forest), [0], [0], max_branches=100).max_branches.tolist() == [9]
    published = stored([[Recording([0], 10, 0)] * 9]).forest()
    assert Replay(Index.build(published, "published"), [0], [0]).max_branches.tolist() == [9]


def test_what_seeds_a_controllers_generator_depends_on_the_seed_alone():
    store = Trees([*chain_store([1, 2]).problems, *chain_store([3, 4, 5]).problems])
    replay = Replay(Index.build(store.forest()), [0, 1, 0], [5, 5, 6])
    assert replay.seed_keys[0] == replay.seed_keys[1] != replay.seed_keys[2]


def test_a_round_has_a_limit_of_actions():
    replay = Replay(Index.build(chain_store([1]).forest()), [0, 0], [0, 1])
    flood = [[0, BRANCH, 0, 0, 0]] * (MAX_ACTIONS + 1) + [[1, BRANCH, 0, 1, 0]]
    results = replay.step(np.array(flood), np.zeros(0, np.int64))
    assert results.rows.tolist() == [0] * MAX_ACTIONS + [-TOO_MANY, 1]


def test_a_round_in_which_nobody_acts_changes_nothing():
    replay = Replay(Index.build(chain_store([1]).forest()), [0], [0], log=True)
    results = replay.step(np.zeros((0, 5), np.int64), np.zeros(0, np.int64))
    assert (len(results.rows), replay.rounds.tolist()) == (0, [0])


def test_a_probe_where_the_last_segment_was_short_is_still_whole():
    """DESIGN's published rows: n of the interval, then what the length has over."""
    index = Index.build(stored([[Recording([1, 2], 2 * INTERVAL - 3, 2)]]).forest(), "published")
    replay = Replay(index, [0], [0])
    costs = []
    for action in ([0, BRANCH, 1, 1, 0], [0, EXTEND, 1, 1, 1], [0, EXTEND, 1, 1, 1]):
        ids = np.zeros(0 if action[1] == BRANCH else 1, np.int64)
        results = replay.step(np.array([action]), ids)
        costs.append((int(results.tokens[0]), int(results.end[0])))
    assert costs == [(INTERVAL, 0), (INTERVAL, 0), (0, 1)]


@pytest.mark.parametrize(
    ("action", "ids"),
    [
        ([2, BRANCH, 0, 1, 0], []),
        ([-1, BRANCH, 0, 1, 0], []),
        ([0, EXTEND, 0, 2, 1], [0]),
        ([0, EXTEND, 0, 1, -1], [0]),
        ([0, EXTEND, 0, 1, 1], [0, 0]),
    ],
)
@pytest.mark.parametrize("index", [line(), tree()], ids=["chains", "forks"])
def test_what_does_not_fit_together_is_an_error_and_changes_nothing(index, action, ids):
    replay = Replay(index, [0, 0], [0, 1])
    with pytest.raises(IndexError):
        replay.step(np.array([action]), np.array(ids, np.int64))
    assert not replay.rounds.any() and not replay.asked.any()


def test_a_sample_is_a_branch_finished_in_one_round():
    index = line()
    nobody = np.zeros(0, np.int64)
    at_once, in_two = Replay(index, [0], [0], max_branches=2), Replay(index, [0], [0], max_branches=2)
    sampled = at_once.step(np.array([[0, SAMPLE, 0, 2, 0]]), nobody)
    in_two.step(np.array([[0, BRANCH, 0, 2, 0]]), nobody)
    finished = in_two.step(np.array([[0, FINISH, 0, 2, 0]]), np.arange(2))
    assert sampled.answer.tolist() == finished.answer.tolist() and sampled.end.tolist() == [1, 1]
    assert at_once.ledger.tolist() == in_two.ledger.tolist()
    assert (at_once.rounds.tolist(), in_two.rounds.tolist()) == ([1], [2])


def test_compiles_where_nothing_can_be_kept():
    names = {}
    exec("def double(value):\n    return 2 * value", names)
    assert compiled(names["double"])(21) == 42


def test_how_much_room_is_taken_is_for_the_store_to_say():
    replay = Replay(tree(), [0] * 50, range(50), max_branches=1)
    greedy = [[0, BRANCH, 0, 2**30, 0]] + [[0, FORK, 0, 2**30, 0]] * 3 + [[0, SAMPLE, 0, 2**30, 0]] * 250
    for _ in range(3):
        replay.step(np.array(greedy), np.zeros(0, np.int64))
    assert replay.granted.tolist() == [4] + [0] * 49
    assert len(replay._stand.slots) <= 2 * 4 * 50


def test_what_is_compiled_in_is_what_decides_whether_it_is_compiled_anew():
    for name in SOURCES:
        for text in (ROOT / "env" / f"{name}.py").read_text(encoding="utf-8").splitlines():
            module, _, names = text.removeprefix("from env.").partition(" import ")
            if text.startswith("from env.") and names and names.strip("( ").split(",")[0].isupper():
                assert module in SOURCES, f"{name}: {text}"
    compiling = [f.stem for f in (ROOT / "env").rglob("*.py") if "@compiled" in f.read_text(encoding="utf-8")]
    assert set(compiling) <= set(SOURCES) and len(compiling) > 3


def test_what_is_prepared_is_what_is_played(monkeypatch):
    async def solve(ep):
        (branch,) = await ep.branch(1)
        await ep.extend([branch])
        return ep.answer[branch]

    monkeypatch.setattr(playback, "is_kept", lambda: False)
    said = []
    playback.prepare(said.append)
    for index in (line(), tree()):
        run(index, solve)
    opening = HEADER.pack(MAGIC, 1, 1, 0, 0, 0, 0) + struct.pack("5i", 0, BRANCH, 1, 1, 0)
    assert Playback(Replay(line(), [0], [0]), [range(1)], wanted=0).answer([(0, opening)])
    assert said == ["compiling the replay engine, once"]
    for function in (engine.play, engine.room, engine.grade, frames.unpack, frames.pack, playback.turn):
        assert len(function.signatures) == 1, function
    monkeypatch.undo()
    playback.prepare(said.append)
    assert len(said) == 1
