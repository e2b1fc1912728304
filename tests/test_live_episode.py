"""Live episodes of a model that says what a store says, held against replay of that store."""

import asyncio
import os
import signal
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.index import Index
from env.isolation.link import Limits
from env.isolation.pool import ENDED, Pool
from env.isolation.zygote import IsolationError
from env.live import player as player_module
from env.live.answers import Answers
from env.live.bench import Bench, Question
from env.live.episode import LiveEpisode
from env.live.folder import RunFolder
from env.live.names import FORKS, Fresh, Stored
from env.live.player import Player
from env.live.run import play_all
from env.replay import Replay
from env.tasks import TaskError
from tests.forests import Trees, numbers, trees
from tests.live_model import OneOf, StoreModel
from tests.playing import chain, grow, line, store, tree
from tests.programs import CAREFUL, isolated, shipped, written
from tests.test_replay import drawn

_program = st.lists(st.lists(numbers, min_size=1, max_size=4), min_size=1, max_size=6)


def asked_everywhere(drawn_store: Trees) -> Trees:
    """A live model has an answer wherever it is asked, unless it is never asked."""
    nodes = [node for problem in drawn_store.problems for node in problem.nodes]
    if any(not node.end and node.answer != -2 for node in nodes):
        for node in nodes:
            node.answer = max(node.answer, -1)
    return drawn_store


def live_episode(model: StoreModel, problem: int, seed: int, max_branches: int | None, right) -> LiveEpisode:
    names = Stored(model.index, problem, seed, max_branches or 0)
    return LiveEpisode(
        model.ask(str(problem), 0), model.abilities, names, Answers(OneOf(right), "", ()), seed
    )


@settings(max_examples=50, deadline=None)
@given(trees(), st.integers(0, 2), st.integers(0, 3), _program, st.sampled_from((None, 1, 3, 100)))
def test_any_actions_on_any_trees_are_answered_as_in_replay(
    drawn_store, problem, seed, program, max_branches
):
    drawn_store = asked_everywhere(drawn_store)
    problem %= len(drawn_store.problems)
    index = Index.build(drawn_store.forest())
    replay = Replay(index, [problem], [seed], max_branches=max_branches)
    right = drawn_store.problems[problem].right
    episode = live_episode(StoreModel(index), problem, seed, max_branches, right)
    assert episode.max_branches == replay.max_branches[0] and episode.seed_key == replay.seed_keys[0]

    async def play() -> None:
        for turn in program:
            known = len(episode.branches)
            rows, ids = [], []
            for action in [drawn(number, known) for number in turn]:
                row, named = action.encoded(0)
                rows.append(row)
                ids += named
            table = np.array(rows, np.int32).reshape(-1, 5)
            expected = replay.step(table, np.array(ids, np.int32))
            found = await episode.step(table.astype(np.int64), np.array(ids, np.int32).astype(np.int64))
            assert_same(found, expected)
            assert list(episode.ledger) == replay.ledger[0].tolist()
            for name in ("asked", "granted", "rounds"):
                assert getattr(episode, name) == getattr(replay, name)[0], name
        given = max((branch.told for branch in episode.branches), default=-1)
        assert replay.finish(np.array([0]), np.array([given])).all() == episode.answers.seen(given)
        assert await episode.answers.correct(given) == replay.correct[0]

    asyncio.run(play())


def assert_same(found, expected) -> None:
    for name in ("episode", "rows", "ledger", "branch", "answer", "tokens", "probe_tokens", "end", "depth"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    for name in ("children", "confidence", "news"):
        one, two = getattr(found, name), getattr(expected, name)
        assert (one is None) == (two is None), name
        if one is not None:
            np.testing.assert_array_equal(one, two, name)
    assert (found.scores is None) == (expected.scores is None)
    if found.scores is not None:
        np.testing.assert_array_equal(found.scores[0], expected.scores[0])
        np.testing.assert_array_equal(found.scores[1], expected.scores[1])


def play(program, model: StoreModel, seeds=(0,), names=None, task=None, **options):
    """Episodes of the first problem, all at once."""

    async def run():
        player = Player(program, 0.5, **options)
        try:
            episodes = [
                LiveEpisode(
                    model.ask("0", 0),
                    model.abilities,
                    names() if names else Stored(model.index, 0, seed, 100),
                    Answers(task or OneOf({1}), ""),
                    seed,
                    player.columns,
                )
                for seed in seeds
            ]
            return await asyncio.gather(*(player.play(episode) for episode in episodes)), episodes, player
        finally:
            player.close()

    return asyncio.run(run())


@isolated
def test_untrusted_code_plays_in_children_as_it_does_here():
    trusted = CAREFUL.__class__(CAREFUL.name, CAREFUL.source, trusted=True)
    apart, _, player = play(CAREFUL, StoreModel(tree()), range(6), tracing=True)
    here, episodes, _ = play(trusted, StoreModel(tree()), range(6), tracing=True)
    assert player.level and player.settings == {}
    assert [(p.answer, p.ledger, p.rounds, p.error) for p in apart] == [
        (p.answer, p.ledger, p.rounds, p.error) for p in here
    ]
    assert {p.error for p in here} == {""} and len({p.ledger for p in here}) > 1
    assert episodes[0].notes == [(0, "opened 1")] or episodes[0].notes[0][1].startswith("opened")


@isolated
def test_the_time_of_the_model_is_not_the_childs(monkeypatch):
    helpers = {}
    monkeypatch.setattr(
        player_module, "open_pool", lambda trust: Pool(Limits(wall=0.8), helpers, i_trust_this_code=trust)
    )
    waits = written("waits", "for b in await ep.branch(2):\n    await ep.finish([b])\nreturn ep.answer[0]")
    begin = time.monotonic()
    (played,), _, _ = play(waits, StoreModel(line(), seconds=0.25))
    assert played.error == "" and played.correct and time.monotonic() - begin > 1.2
    hangs = written("hangs", "await ep.branch(1)\nwhile True:\n    pass")
    (played,), _, _ = play(hangs, StoreModel(line()))
    assert played.error == "kept us waiting for more than 0.8 seconds" and not played.model_failed


@isolated
@pytest.mark.parametrize("trusted", [True, False])
def test_a_failure_is_the_outcome_of_its_episode_alone(trusted):
    source = written(
        "opens", "await ep.finish(await ep.branch(ep.rng.randrange(1, 3)))\nreturn ep.answer[0]"
    ).source
    program = CAREFUL.__class__("opens", source, trusted)
    model = StoreModel(line(), fails=frozenset({(1,)}))
    # Seeds open one branch or two; the store has two, in an order of theirs.
    played, _, _ = play(program, model, range(8))
    failed = [each for each in played if each.model_failed]
    assert 0 < len(failed) < 8 and {each.error for each in failed} == {"ModelError: the model is gone"}
    assert all(each.correct and not each.error for each in played if each not in failed)
    assert model.closed == 8
    raises = CAREFUL.__class__(
        "raises", written("raises", "await ep.branch(1)\nreturn 1 // 0").source, trusted
    )
    (played,), _, _ = play(raises, StoreModel(line()))
    assert (
        played.error.startswith("ZeroDivisionError")
        and not played.model_failed
        and played.ledger.decode == 10
    )


@isolated
def test_an_episode_whose_process_was_lost_is_played_again_the_next_time(tmp_path, monkeypatch):
    waits = written("waits", "await ep.finish(await ep.branch(1))\nreturn ep.answer[0]")

    async def run(lose=None):
        player = Player(waits, 0.5)
        bench = Bench(StoreModel(line(), seconds=0.1), player, OneOf({1}))
        if lose:
            # Amid the first two episodes, which take twice as long.
            asyncio.get_running_loop().call_later(0.15, lose, player)
        try:
            return await play_all(bench, [Question("0", "")], range(5), 2, RunFolder(tmp_path, {}))
        finally:
            player.close()

    def kill(player):
        os.kill(player._children.pool._zygote._process.pid, signal.SIGKILL)

    def kill_for_good(player):
        monkeypatch.setattr("env.isolation.pool.Zygote", no_memory)
        kill(player)

    def no_memory(*_):
        raise IsolationError("no memory")

    for lose, reason, lost in ((kill_for_good, "no memory", 5), (kill, ENDED, 2)):
        rows = asyncio.run(run(lose))
        monkeypatch.undo()
        told = [(row["error"], row["model_failed"], row["correct"]) for row in rows]
        assert told == [(f"IsolationError: {reason}", True, False)] * lost + [("", False, True)] * (5 - lost)
    assert all(row["correct"] for row in asyncio.run(run()))


class Fails(OneOf):
    """Compares or grades one answer only by raising an error."""

    def __init__(self, at: str, error: Exception) -> None:
        super().__init__({0})
        self.at, self.error = at, error

    def equal(self, first: str, second: str) -> bool:
        return self._or_fail("equal", second, super().equal(first, second))

    def grade(self, gold: str, answer: str) -> bool:
        return self._or_fail("grade", answer, super().grade(gold, answer))

    def _or_fail(self, at: str, answer: str, result: bool) -> bool:
        if at == self.at and answer == "a1":
            raise self.error
        return result


@pytest.mark.parametrize("at", ["equal", "grade"])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("odd"), "TaskError: Fails failed: ValueError: odd"),
        (TaskError("odd"), "TaskError: odd"),
        (StopIteration(), "TaskError: Fails failed: "),
    ],
)
def test_a_task_that_fails_on_one_answer_is_the_outcome_of_that_episode(at, error, told):
    opens = written("opens", "ids = await ep.branch(ep.rng.randrange(1, 3))\nreturn ep.answer[ids[0]]")
    program = CAREFUL.__class__("opens", opens.source, True)
    model = StoreModel(store(*chain((10, 0)), *chain((10, 1))))
    played, _, _ = play(program, model, range(12), task=Fails(at, error))
    failed = [each for each in played if each.error]
    assert 0 < len(failed) < len(played) == model.closed
    for each in failed:
        assert each.error.startswith(told) and each.model_failed
        assert (each.answer, each.correct, each.granted > 0) == (-1, False, True)
    assert all(each.answer == 0 and each.ledger.decode for each in played if not each.error)
    assert any(each.correct for each in played)


def test_an_answer_that_was_never_seen_is_none():
    invents = written("invents", "await ep.branch(1)\nreturn 7")
    (played,), _, _ = play(CAREFUL.__class__("invents", invents.source, True), StoreModel(line()))
    assert played.error == "ControllerError: the answer is no code that this episode has seen"
    assert played.answer == -1 and not played.correct


def test_the_winner_is_a_branch_that_ended_with_the_answer():
    body = "a, b = await ep.branch(2)\nawait ep.finish([b])\nreturn ep.answer[b]"
    program = CAREFUL.__class__("two", written("two", body).source, True)
    _, (episode,), _ = play(program, StoreModel(line()))
    assert episode.winner == 1 and episode.branches[1].end and not episode.branches[0].end
    changed = "a, b = await ep.branch(2)\nsaid = ep.answer[b]\nawait ep.finish([b])\nreturn said"
    program = CAREFUL.__class__("changed", written("changed", changed).source, True)
    (played,), (episode,), _ = play(
        program, StoreModel(store(*chain((1, 0), (2, 2)), *chain((1, 1), (2, 2))))
    )
    assert played.error == "" and [each.told for each in episode.branches] == [0, 2]
    # No branch says it any more: it is the one that said it first.
    assert episode.final == 1 and episode.winner == 1
    nothing = CAREFUL.__class__("nothing", written("nothing", "await ep.branch(1)\nreturn None").source, True)
    _, (episode,), _ = play(nothing, StoreModel(line()))
    assert episode.winner is None and episode.final == -1


def test_new_branches_and_forks_have_names_of_their_own():
    names = Fresh(3)
    first, second = names.roots(0, 2)
    (other,) = names.roots(1, 5)
    assert [p.name for p in (first, second, other)] == [(0,), (1,), (0,)] and names.roots(0, 1) == []
    one, two = names.forks(first, 2)
    assert (one.name, two.name, one.depth) == ((0, 1, 1), (0, 1, 2), 2) and names.left(first) == FORKS - 2
    onward = names.onward(first)
    assert (onward.name, onward.depth, names.left(onward)) == ((0,), 2, FORKS)
    assert names.forks(one, 1)[0].name == (0, 1, 1, 2, 1) and len(names.forks(two, 2 * FORKS)) == FORKS


def test_a_model_that_says_more_than_the_store_goes_on_under_new_names():
    root = grow(None, 10, 0)
    grow(root, 5, 1, end=1)
    grow(root, 6, 1, end=1)
    index = store(root, *root.children)
    names = Stored(index, 0, 0, 10)
    (place,) = names.roots(0, 1)
    last = names.onward(place)
    beyond = names.onward(last)
    assert (beyond.name, beyond.depth, beyond.node) == (last.name, 3, -1)
    assert names.forks(beyond, 1)[0].name == (*last.name, 3, 1) and names.left(beyond) == FORKS - 1
    assert names.onward(beyond).name == last.name


def test_a_bench_follows_a_store_or_draws_anew(tmp_path):
    from tests.trees import write

    stored = write(tmp_path / "store")
    player = Player(shipped("self_consistency"), 0.0)

    class Recorder:
        abilities = StoreModel(line()).abilities

        def ask(self, question, seed):
            self.asked = question, seed

    model = Recorder()
    followed = Bench(model, player, OneOf(), 5, follow=stored)
    assert followed.episode(Question("q", "2"), 3).max_branches == 1 and model.asked == ("q", 5)
    assert Bench(model, player, OneOf(), 5).episode(Question("q"), 3).max_branches == 64
    assert model.asked == ("q", 8)
    with pytest.raises(Exception, match="does not have the problem"):
        followed.episode(Question("another"), 0)
