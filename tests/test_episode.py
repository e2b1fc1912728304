"""What a controller sees of its episode: every method of `ep`, driven through frames and the engine."""

import random

import pytest

from env.episode import MAX_NOTES, ControllerError, Episode
from env.index import Index
from env.lockstep import resolve
from tests.forests import Problem, Trees
from tests.playing import chain, grow, line, run, store, tree


def test_the_life_of_a_branch():
    async def solve(ep):
        assert (ep.answer, ep.done, ep.tokens, ep.depth) == ([], [], [], [])
        assert ep.spent == (0, 0, 0, 0)
        ids = await ep.branch(1)
        assert ids == [0]
        assert (ep.answer, ep.done, ep.tokens, ep.depth) == ([0], [None], [10], [1])
        assert ep.spent == (10, 2, 0, 12)
        await ep.extend(ids)
        assert (ep.answer, ep.done, ep.tokens, ep.depth) == ([-1], [None], [30], [2])
        await ep.extend(ids)
        assert (ep.answer, ep.done, ep.tokens, ep.depth) == ([1], ["stop"], [60], [3])
        spent = ep.spent
        assert (spent.decode, spent.probe, spent.prm, spent.sequential, spent.total) == (60, 4, 0, 64, 64)
        await ep.extend(ids, 5)
        await ep.finish(ids)
        await ep.probe(ids)
        assert (ep.answer, ep.tokens, ep.depth, ep.spent) == ([1], [60], [3], spent)
        return ep.answer[0]

    replay = run(line(), solve).replay
    assert replay.correct.tolist() == [True]
    assert replay.rounds.tolist() == [6]


def test_an_answer_shows_only_when_it_is_asked_for():
    async def solve(ep):
        ids = await ep.branch(2, probe=False)
        assert ep.answer == [None, None]
        await ep.extend(ids[:1], probe=False)
        assert ep.answer == [None, None]
        assert ep.spent.probe == 0
        await ep.probe(ids)
        assert ep.answer == [-1, 0]
        assert ep.spent.probe == 4
        await ep.probe(ids)
        assert ep.spent.probe == 4
        await ep.finish(ids)
        assert ep.answer == [1, 1]
        assert ep.spent.probe == 4

    run(line(), solve)


def test_extend_takes_one_number_or_one_a_branch():
    async def solve(ep):
        ids = await ep.branch(2)
        await ep.extend(reversed(ids), [0, 2])
        assert ep.depth == [3, 1]
        await ep.extend((i for i in ids), 1)
        assert ep.depth == [3, 2]
        await ep.extend(ids, range(2))
        assert ep.depth == [3, 3]

    run(line(), solve)


def test_a_round_costs_its_longest_branch():
    async def solve(ep):
        ids = await ep.branch(2)
        assert ep.spent == (20, 4, 0, 12)
        await ep.extend(ids, [1, 2])
        assert ep.spent == (20 + 20 + 50, 4 + 2, 0, 12 + 50)

    run(line(), solve)


def test_several_actions_make_one_round():
    async def solve(ep):
        ids = await ep.branch(1)
        results = await ep.together(ep.extend(ids), ep.branch(5, probe=False))
        assert results == [[0], [1]]
        assert (ep.depth, ep.answer) == ([2, 1], [-1, None])
        assert ep.spent == (10 + 20 + 10, 4, 0, 12 + 22)
        assert await ep.together() == []
        assert await ep.together(ep.probe([1])) == [None]
        assert ep.answer == [-1, 0]

    replay = run(line(), solve).replay
    assert (replay.rounds[0], replay.asked[0], replay.granted[0]) == (3, 6, 2)


def test_an_action_that_is_refused_takes_nothing_from_the_others_of_its_round():
    async def solve(ep):
        ids = await ep.branch(1)
        with pytest.raises(ControllerError, match="unknown arm"):
            await ep.together(ep.branch(1, arm=7), ep.branch(2), ep.finish([0]))
        assert (ep.done, ep.answer) == (["stop", None, None], [1, 0, 0])
        assert ep.spent.decode == 10 + 2 * 10 + 50
        assert await ep.branch(1) == [3]
        await ep.finish([1])
        assert (ep.depth, ep.done[1:]) == ([3, 3, 1, 1], ["stop", None, None])
        return ep.answer[ids[0]]

    run(store(*(node for _ in range(4) for node in chain((10, 0), (20, -1), (30, 1)))), solve)


def test_forks_leave_their_parent_where_it_is():
    async def solve(ep):
        ids = await ep.branch(1)
        assert ep.children == [3]
        kids = await ep.fork(0, 2)
        assert kids == [1, 2]
        assert ep.children[0] == 1
        assert (ep.depth, ep.tokens[0]) == ([1, 2, 2], 10)
        more, _ = await ep.together(ep.fork(0, 2), ep.finish(kids))
        assert more == [3]
        assert ep.children[0] == 0
        await ep.extend(ids)
        assert ep.done[0] == "exhausted"
        assert (ep.depth[0], ep.tokens[0]) == (1, 10)
        await ep.finish(more)
        assert sorted(ep.tokens[1:]) == [2, 4, 9]
        assert sorted(ep.done[1:]) == ["length", "stop", "stop"]
        return ep.answer[ep.tokens.index(9)]

    replay = run(tree(), solve).replay
    assert replay.correct[0]
    assert (replay.asked[0], replay.granted[0]) == (1 + 2 + 2 + 1, 1 + 2 + 1)


@pytest.mark.parametrize("forking_first", [True, False])
def test_a_fork_leaves_from_where_its_parent_stood_before_the_round(forking_first):
    async def solve(ep):
        await ep.branch(1)
        actions = [ep.fork(0, 1), ep.extend([0])]
        results = await ep.together(*(actions if forking_first else actions[::-1]))
        assert [1] in results
        assert ep.depth == [2, 2]
        assert ep.tokens[0] != 10 + ep.tokens[1]
        assert ep.children == [int(ep.tokens[0] == 11), int(ep.tokens[1] == 1)]

    run(tree(), solve, seeds=range(12), problems=[0] * 12)


def test_scores_are_paid_for_the_part_of_the_path_not_yet_scored():
    async def solve(ep):
        await ep.branch(1)
        assert ep.prm == [[]]
        await ep.score([0])
        assert (ep.prm, ep.spent.prm) == ([[0.5]], 10)
        await ep.score([0])
        assert ep.spent.prm == 10
        (kid,) = await ep.fork(0, 1)
        assert ep.prm[kid] == [0.5]
        await ep.score([0, kid])
        assert ep.spent.prm == 10 + ep.tokens[kid]
        assert len(ep.prm[kid]) == 3
        assert ep.prm[kid][0] == 0.5
        assert ep.prm[0] == [0.5]

    run(tree(), solve)


def test_scores_before_anything_else():
    async def solve(ep):
        assert await ep.branch(0) == []
        await ep.score([])
        return None

    run(tree(), solve)


def test_confidence_and_children_are_lists_only_where_the_store_has_them():
    async def some(ep):
        await ep.branch(1)
        assert (ep.confidence, ep.children) == ([1.5], [3])
        await ep.extend([0])
        assert ep.confidence == [2.0]

    async def none(ep):
        await ep.branch(1)
        assert (ep.confidence, ep.children) == ([], [])

    run(tree(), some)
    run(line(), none)


def test_a_branch_that_was_given_up_stays_as_it_is():
    async def solve(ep):
        ids = await ep.branch(2)
        ep.prune(ids[:1])
        assert ep.done == ["pruned", None]
        spent = ep.spent
        await ep.finish(ids)
        assert ep.done == ["pruned", "stop"]
        assert (ep.answer, ep.depth) == ([0, 1], [1, 3])
        assert ep.spent.decode == spent.decode + 50
        ep.prune(ids)
        await ep.probe(ids)
        assert ep.done == ["pruned", "stop"]
        assert ep.spent.probe == spent.probe

    run(line(), solve)


def test_nothing_forks_from_a_branch_that_was_given_up():
    async def solve(ep):
        ids = await ep.branch(1)
        ep.prune(ids)
        assert await ep.fork(0, 2) == []

    replay = run(tree(), solve).replay
    assert (replay.asked[0], replay.granted[0]) == (3, 1)


def test_a_branch_without_continuation_can_still_be_asked():
    nodes = [*chain((10, 0), (20, 1), end=0), *chain((10, 0), (20, 1), end=0)]

    async def solve(ep):
        ids = await ep.branch(2, probe=False)
        await ep.finish(ids[:1])
        assert (ep.done, ep.answer) == (["exhausted", None], [None, None])
        await ep.probe(ids[:1])
        assert (ep.answer[0], ep.spent.probe) == (0, 2)
        await ep.extend(ids[1:], 5)
        assert (ep.done[1], ep.answer[1]) == ("exhausted", 0)
        return ep.answer[0]

    replay = run(store(*nodes), solve).replay
    assert replay.correct[0]
    assert (replay.asked[0], replay.granted[0]) == (4, 2)


def test_arms_are_pools_of_their_own():
    nodes = [grow(None, tokens, 1, end=1, arm=arm) for tokens, arm in ((1, 0), (2, 1), (4, 1))]

    async def solve(ep):
        assert await ep.branch(5, arm=1) == [0, 1]
        assert sorted(ep.tokens) == [2, 4]
        assert await ep.branch(1) == [2]
        assert ep.tokens[2] == 1
        assert await ep.branch(1) == []

    replay = run(store(*nodes), solve).replay
    assert (replay.asked[0], replay.granted[0]) == (7, 3)


def test_the_ceiling_is_known_and_kept():
    async def solve(ep):
        assert ep.max_branches == 1
        assert await ep.branch(2) == [0]

    run(line(), solve, max_branches=None)


def test_codes_count_answers_as_the_episode_meets_them():
    nodes = [grow(None, 1 + k, answer, end=1) for k, answer in enumerate((2, 0, 2, 1, -1))]

    async def solve(ep):
        ids = await ep.branch(5)
        answers = [dict(zip((1, 2, 3, 4, 5), (2, 0, 2, 1, -1), strict=True))[ep.tokens[i]] for i in ids]
        met = list(dict.fromkeys(a for a in answers if a >= 0))
        assert ep.answer == [met.index(a) if a >= 0 else -1 for a in answers]
        return met.index(1)

    playback = run(store(*nodes), solve, problems=[0] * 10, seeds=range(10))
    assert playback.replay.correct.all()


def test_the_generator_is_seeded_by_the_seed_alone():
    drawn = []

    async def solve(ep):
        assert ep.rng is ep.rng
        assert isinstance(ep.rng, random.Random)
        drawn.append(ep.rng.random())

    problems = Trees([Problem(chain((1, 0)), frozenset(), 1) for _ in range(2)])
    run(Index.build(problems.forest()), solve, problems=[0, 1, 0, 1], seeds=[3, 3, 4, 4])
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]


def test_notes_go_to_the_trace_of_their_round():
    async def solve(ep):
        ep.note("before", 1)
        await ep.branch(1)
        for k in range(MAX_NOTES + 10):
            ep.note(k)
        await ep.extend([0])
        ep.note("é" * 2000)

    playback = run(line(), solve)
    rounds = [turn for _, turn, _ in playback.notes]
    assert playback.notes[0] == (0, 0, "before 1")
    assert rounds == [0] + [1] * MAX_NOTES + [2]
    assert playback.notes[-1][2] == "é" * 250


def test_without_tracing_notes_are_not_kept():
    ep = Episode(1, 2)
    ep.note("x")
    assert ep._notes is None


def test_overrides_replace_settings_that_there_are():
    program = {"schedule": lambda beta: {"n": round(10 * beta), "window": 8}}
    assert resolve(program, 0.5, {"window": 3}) == {"n": 5, "window": 3}
    with pytest.raises(Exception, match="no setting 'm': the schedule has n, window"):
        resolve(program, 0.5, {"m": 1})


def test_what_the_store_does_not_know_is_left_out_or_none():
    """A path longer than the reward model's window has scores up to there; a missing confidence is None."""

    async def solve(ep):
        ids = await ep.branch(1)
        assert ep.confidence == [None]
        await ep.extend(ids)
        await ep.score(ids)
        assert (ep.confidence, ep.prm) == ([2.5], [[0.5]])
        return ep.answer[0]

    root = grow(None, 10, 0, scores=(0.5, float("nan")), confidence=float("nan"))
    leaf = grow(root, 8, 1, end=1, scores=(float("nan"),), confidence=2.5)
    run(store(root, leaf, has_scores=True, has_confidence=True), solve)
