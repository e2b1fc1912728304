"""Losses and wastes: on episodes where they are known by construction; on random ones they add up."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.voting import majority
from env.evaluate import evaluate
from env.index import Index
from env.store import Store
from search_agent.feedback.hindsight import LOSSES, WASTES, look_back
from search_agent.feedback.sample import sample
from tests import made_up
from tests.forests import trees
from tests.playing import chain, grow, play_on, store
from tests.programs import shipped

RIGHT, WRONG = 1, 0
# Tokens, on the stores of `playing`.
PROBE = 2


def back(index, solve, **options):
    """The one row of an episode."""
    options.setdefault("max_branches", 100)
    playback = play_on(index, solve, **options)
    (row,) = look_back(playback.replay, playback.errors).to_dicts()
    assert row["tokens"] == row["cheapest"] + sum(row[name] for name in WASTES)
    return row


def kinds(row):
    """The tokens of each kind that is there at all."""
    return {name: row[name] for name in ("cheapest", *WASTES) if row[name]}


def late():
    """A branch that comes to the right answer in its second segment."""
    return store(*chain((10, WRONG), (20, RIGHT)))


async def opened(ep):
    """Gives the answer of its first branch as it is after one segment."""
    await ep.branch(1)
    return ep.answer[0]


async def given_up(ep):
    await ep.branch(1)
    ep.prune([0])
    # What is given up at the very end is never said; so one more round.
    await ep.probe([0])
    return ep.answer[0]


async def drifting(ep):
    await ep.branch(1)
    await ep.finish([0])
    return ep.answer[0]


async def voted(ep):
    await ep.branch(3, probe=False)
    await ep.finish(range(3))
    return majority(ep.answer)


async def silent(ep):
    await ep.branch(1)


async def failing(ep):
    await ep.branch(1)
    raise ValueError("no")


def two_to_one():
    return store(*chain((10, WRONG)), *chain((10, WRONG)), *chain((10, RIGHT)))


@pytest.mark.parametrize(
    ("index", "solve", "loss"),
    [
        (late(), opened, "early"),
        (late(), given_up, "pruned"),
        (late(), drifting, ""),
        (late(), silent, "unanswered"),
        (late(), failing, "unanswered"),
        (two_to_one(), voted, "outvoted"),
    ],
)
def test_each_way_to_lose_an_episode(index, solve, loss):
    row = back(index, solve)
    assert (row["loss"], row["possible"]) == (loss, True)
    assert row["correct"] == (loss == "")
    if loss == "unanswered":
        assert kinds(row) == {"unanswered": 10 + PROBE}


def test_branches_that_drift_from_the_right_answer_may_be_left_for_it_or_kept():
    index = store(*chain((10, RIGHT), (20, WRONG)), *chain((10, RIGHT), (20, RIGHT)))

    async def one_pruned(ep):
        """Both say the right answer; one is given up, the other goes on."""
        await ep.branch(2)
        ep.prune([1])
        await ep.finish([0])
        return ep.answer[0]

    found = set()
    for seed in range(8):
        for solve, loss in ((opened, ""), (drifting, "drifted"), (one_pruned, "pruned")):
            row = back(index, solve, seeds=[seed])
            assert row["possible"] and row["loss"] == ("" if row["correct"] else loss)
            found.add(row["loss"])
        # Where nothing in reach ends right, what a probe said counts only if it was given as the answer.
        row = back(index, drifting, seeds=[seed], max_branches=1)
        assert row["possible"] == row["correct"] and row["loss"] == ""
        assert back(index, opened, seeds=[seed], max_branches=1)["possible"]
    assert found == {"", "drifted", "pruned"}


def test_what_was_never_opened_is_unsampled_where_it_could_have_been():
    index, found = store(*chain((10, WRONG)), *chain((10, RIGHT))), set()
    for seed in range(8):
        for most in (1, 2):
            row = back(index, drifting, seeds=[seed], max_branches=most)
            assert row["possible"] == (most == 2 or row["correct"])
            assert row["loss"] == ("unsampled" if most == 2 and not row["correct"] else "")
            assert kinds(row) == ({"cheapest": 10} if row["possible"] else {"hopeless": 10})
            found.add((most, row["loss"], row["correct"]))
    assert len(found) == 4


def test_a_branch_would_go_on_where_its_forks_did_not():
    root = grow(None, 10, WRONG)
    index = store(root, grow(root, 10, WRONG, 1), grow(root, 10, RIGHT, 1))

    async def forked(ep, prune):
        await ep.branch(1, probe=False)
        (child,) = await ep.fork(0, 1)
        if prune:
            ep.prune([0])
            await ep.probe([child])
        return ep.answer[child]

    lost = set()
    for seed in range(8):
        for prune in (False, True):
            row = back(index, forked, settings={"prune": prune}, seeds=[seed])
            # The parent would take the other child, which is right where the forked one is not.
            assert row["loss"] == ("" if row["correct"] else "pruned" if prune else "early")
            # The fork's answer needs what its parent had decoded before.
            assert kinds(row) == {"cheapest": 20}
            lost.add(row["loss"])
    assert lost == {"", "early", "pruned"}


@pytest.mark.parametrize("at_once", [True, False])
def test_tokens_are_told_apart_by_what_led_to_the_answer(at_once):
    index = store(*(node for right in (1, 1, 1, 0, 0, 2) for node in chain((10, -1), (5, right))))

    async def sampled(ep):
        for _ in range(1 if at_once else 6):
            await ep.finish(await ep.branch(6 if at_once else 1, probe=False))
        said.append(list(ep.answer))
        return majority(ep.answer)

    seen = set()
    for seed in range(12):
        said: list[list[int]] = []
        row = back(index, sampled, seeds=[seed])
        (votes,) = said
        leads = [majority(votes[: k + 1]) == majority(votes) for k in range(6)]
        first = leads.index(True)
        settled = max((k + 1 for k in range(6) if not leads[k]), default=0)
        expected = {
            "cheapest": 15 * (first + 1),
            "confirming": 15 * (settled - first),
            "settled": 15 * (5 - settled),
        }
        assert kinds(row) == {name: tokens for name, tokens in expected.items() if tokens}
        if not at_once:
            assert (row["first_led"], row["settled_in"]) == (2 * first + 2, 2 * settled + 2)
            assert row["late"] == expected["settled"]
        seen.add((first, settled))
    assert len(seen) > 2


def test_what_showed_no_answer_is_unheard_and_pruned_votes_do_not_count():
    index = store(*(node for _ in range(4) for node in chain((10, RIGHT), (5, RIGHT), (7, RIGHT))))

    async def idle(ep):
        await ep.branch(4, probe=False)
        await ep.extend([0, 1])
        ep.prune([1])
        await ep.extend([0], probe=False)
        # It has ended and says so free of charge; 2 and 3 never said anything.
        return ep.answer[0]

    # Answers in round 2: branch 0 leads at once; its last segment and what branch 1 said came after that.
    heard = 10 + 5 + PROBE
    assert kinds(back(index, idle)) == {"cheapest": heard, "settled": heard + 7, "unheard": 20}

    mixed = store(*(node for says in (0, 0, RIGHT) for node in chain((10, says), (3, says))))

    async def overruled(ep):
        """The two that agree are given up, which makes the third one's answer lead."""
        await ep.branch(3)
        odd = next(b for b in range(3) if ep.answer.count(ep.answer[b]) == 1)
        ep.prune([b for b in range(3) if b != odd])
        await ep.extend([odd])
        return ep.answer[odd]

    found = set()
    for seed in range(8):
        row, voted = back(mixed, overruled, seeds=[seed]), 10 + PROBE
        assert row["correct"] and row["settled_in"] == 2
        found.add((row["first_led"], *kinds(row).items()))
    assert found == {
        (1, ("cheapest", voted), ("settled", 3), ("confirming", 2 * voted)),
        (2, ("cheapest", 3 * voted), ("settled", 3)),
    }


async def careful(ep):
    """Opens, forks, probes, prunes and finishes at random; answers what it saw last."""
    first = await ep.branch(1 + ep.rng.randrange(3), probe=False)
    for _ in range(3):
        live = [b for b, done in enumerate(ep.done) if not done]
        if not live:
            break
        b = ep.rng.choice(live)
        match ep.rng.randrange(5):
            case 0 if ep.children:
                await ep.fork(b, 1, probe=False)
            case 1:
                await ep.extend([b], 1, probe=False)
            case 2:
                ep.prune([b])
            case 3:
                await ep.finish([b])
            case _:
                await ep.extend(live, 1, probe=False)
    # A prune is told with the next action, and would not be known without one.
    await ep.finish([])
    return max((code for code in ep.answer if code is not None), default=None) if first else None


async def careful_to_the_end(ep):
    """The same, and then on with whatever is still open."""
    answer = await careful(ep)
    await ep.finish([b for b, done in enumerate(ep.done) if not done])
    return answer


@settings(max_examples=25, deadline=None)
@given(trees(), st.integers(0, 1000))
def test_losses_and_wastes_add_up_on_random_trees(made, seed):
    index = Index.build(made.forest())
    problems = [p for p in range(len(made.problems)) for _ in range(4)]
    seeds = [seed + k for k in range(4)] * len(made.problems)
    played = play_on(index, careful, problems=problems, seeds=seeds, max_branches=4)
    rows = look_back(played.replay, played.errors)
    whole = rows.select(pl.sum_horizontal("cheapest", *WASTES)).to_series()
    assert whole.to_list() == rows["tokens"].to_list() == played.replay.ledger[:, :3].sum(axis=1).tolist()
    assert (rows["late"] <= rows["sequential"]).all()
    lost = rows["loss"] != ""
    assert lost.to_list() == (rows["possible"] & ~rows["correct"]).to_list()
    assert set(rows["loss"]) <= {"", *LOSSES}
    assert rows["possible"].mean() - rows["correct"].mean() == pytest.approx(
        sum((rows["loss"] == loss).mean() for loss in LOSSES)
    )
    # What would have come of the open branches is what comes of them when they are let go on.
    on = play_on(index, careful_to_the_end, problems=problems, seeds=seeds, max_branches=4).replay
    last = {}
    for _, _, results in on.log:
        owner = np.repeat(results.episode, np.maximum(results.rows, 0))
        for episode, branch, node in zip(owner, results.branch, results.node, strict=True):
            last[episode, branch] = node
    came = {
        e
        for (e, b), n in last.items()
        if index.end[n] and (e, b) not in _pruned(on) and _right(index, made, n)
    }
    for episode, row in enumerate(rows.to_dicts()):
        if row["loss"] == "early":
            assert episode in came
        if row["loss"] in ("pruned", "drifted", "unsampled"):
            assert row["loss"] == "pruned" or episode not in came


def _pruned(replay):
    from env.actions import turns
    from env.episode import PRUNE

    return {
        (turn.episode, branch)
        for actions, ids, results in replay.log
        for turn in turns(actions, ids, results.rows)
        if turn.kind == PRUNE
        for branch in turn.ids
    }


def _right(index, made, node):
    stored = index.order[node]
    problem = int(np.searchsorted(index.forest.first_node, stored, "right")) - 1
    return index.answer[node] in made.problems[problem].right


def test_a_sample_is_of_the_episodes_of_the_evaluation(tmp_path, monkeypatch):
    monkeypatch.setattr("search_agent.feedback.sample.EPISODES", 40)
    stores = [Store.open(made_up.store(tmp_path / f"s{k}", problems=5, branches=8, seed=k)) for k in range(2)]
    program, seeds = shipped("parallel_probe"), range(1_000_000, 1_000_005)
    names = stores[0].problems["question_hash"].to_pylist()[1:]
    options = {"protocol": "standard", "probe_tokens": 20, "i_trust_this_code": False}
    taken = sample(stores, program, names, seeds, betas=(0.5, 1.0), **options)
    # A quarter of them each for a store and a beta: the four problems with two seeds.
    assert len(taken) == 32 and set(taken["problem"]) == set(names) and set(taken["seed"]) == set(seeds[:2])
    # With more problems than episodes, one seed of some of them.
    few = sample(stores, program, names, seeds, betas=(0, 0.2, 0.4, 0.6, 0.8, 0.9, 1), **options)
    assert set(few["problem"]) == set(names[:2]) and set(few["seed"]) == {1_000_000} and len(few) == 2 * 7 * 2
    frame = evaluate(stores, [program], betas=(0.5, 1.0), seeds=seeds[:2], problems=names, workers=1).frame
    keys = ["store", "problem", "beta", "seed"]
    both = taken.join(frame, on=keys, suffix="_evaluated")
    assert len(both) == len(taken)
    for figure in ("correct", "tokens", "sequential", "rounds"):
        assert (both[figure] == both[f"{figure}_evaluated"]).all()
    assert taken.select(WASTES).sum_horizontal().sum() > 0
