"""Compute-optimal policies: what is chosen, and that the file that is written plays just that."""

import random
import re
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import autotts
from controllers.voting import top_two
from env.errors import UserError
from env.index import Index
from env.nodes import Nodes
from env.program import Program, ProgramError, check
from env.store import Store
from env.store_writer import StoreWriter
from search_agent.policy import fitting
from search_agent.policy.assemble import assemble
from search_agent.policy.learning import KNOWN, Experiment, Policy, binned_by, held_out, learn
from search_agent.policy.scouting import agreement
from tests.playing import play_on
from tests.programs import isolated, shipped

NAMES = ("self_consistency", "adaptive_consistency")
BETAS = (0.0, 0.25, 0.5, 0.7)


def made(path: Path, first: int, problems: int = 36) -> Store:
    """A third of the problems is easy, a third is often right, a third is nearly hopeless."""
    rng = random.Random(first)
    with StoreWriter(path, model="m", dataset=path.name, task="exact") as writer:
        for number in range(first, first + problems):
            chance = (0.97, 0.55, 0.08)[number % 3]
            parent, tokens, answers, end = [], [], [], []
            for _ in range(48):
                final = "1" if rng.random() < chance else rng.choice("2345678")
                for last in (False, True):
                    parent.append(len(parent) - 1 if last else -1)
                    tokens.append(rng.randrange(20, 40))
                    answers.append(None if last and rng.random() < 0.05 else final)
                    end.append(int(last))
            nodes = Nodes(parent, tokens, answers, [not last for last in end], end=end)
            writer.add_problem(f"q{number}", "1", nodes)
    return Store.open(path)


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> tuple[Store, Store]:
    folder = tmp_path_factory.mktemp("policy")
    return made(folder / "fitted", 0), made(folder / "other", 1000)


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    programs = [shipped(name) for name in NAMES]
    return Experiment(programs, BETAS, range(6), scouts=3, workers=1)


def test_who_asks_for_too_much_is_left_out_and_named(stores) -> None:
    """Half of 48 branches may be opened; at beta 1 they ask for 64."""
    found = learn(Experiment([shipped(NAMES[0])], (0.0, 1.0), range(2), 3, 1), [stores[0]])
    assert found.left_out == ((NAMES[0], 1.0),)
    assert found.lines()[-1] == f"Not replayable there, and so not among them: {NAMES[0]} at 1."
    assert {level.players for level in found.levels} == {((NAMES[0], 0.0),)}


def test_who_never_ran_is_left_out_and_the_failures_of_the_others_are_told(stores) -> None:
    """At beta 0 `half` fails always, else on some seeds: it would be chosen for costing nothing."""
    whole = shipped(NAMES[0])
    begin = "async def solve(ep, max_branches):\n"
    assert begin in whole.source
    half, none = (
        Program(name, whole.source.replace(begin, f"{begin}    assert {what}\n"), trusted=True)
        for name, what in (("half", "max_branches > 1 and ep.rng.random() > 0.5"), ("none", "False"))
    )
    found = learn(Experiment([whole, half, none], (0.0, 0.5), range(3), 3, 1), [stores[0]])
    assert found.experiment.programs == [whole, half]
    assert not {("half", 0.0), ("none", 0.0)} & {player for level in found.levels for player in level.players}
    assert found.lines()[-1] == "Failed there, and so not among them: half at 0, none at 0, none at 0.5."
    (some,) = (each for each in found.failed if not each.never_ran)
    assert (some.controller, some.beta) == ("half", 0.5) and 0 < some.failed < some.episodes == 36 * 3
    with pytest.raises(
        UserError, match="left to choose from: none at beta 0: 108 of 108 episodes failed: Ass"
    ):
        learn(Experiment([none], (0.0, 0.5), range(3), 3, 1), [stores[0]])


@pytest.fixture(scope="module")
def policy(stores, experiment) -> Policy:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "MIN_PROBLEMS", 8)
        return learn(experiment, [stores[0]])


def episodes(frame: pl.DataFrame) -> list[tuple]:
    columns = ("beta", "problem", "seed", "correct", "answer", "tokens", "sequential", "asked", "error")
    return sorted(frame.select(columns).iter_rows())


def test_the_file_plays_what_was_fitted(stores, experiment, policy) -> None:
    """Episode by episode, on problems that it was not fitted to."""
    assert len(policy.easier) >= 1 and any(len(level.players) > 1 for level in policy.levels)
    other = [stores[1]]
    plain = experiment.play("", other, experiment.programs)
    scouted = experiment.play("", other, [experiment.after_scouts(p) for p in experiment.programs])
    bins = binned_by(experiment.agreeing(other), "agreeing", policy.easier)
    expected = fitting.play(policy.levels, plain, scouted, bins)
    done = experiment.play("", other, [policy.program("mine")])
    assert episodes(done) == episodes(expected)
    assert done["error"].unique().to_list() == [""]


def test_levels_cost_and_do_what_they_say_and_never_fall(stores, experiment, policy) -> None:
    done = experiment.play("", [stores[0]], [policy.program("mine")])
    found = done.group_by("beta").agg(pl.col("tokens", "correct").mean()).sort("beta")
    assert found["tokens"].to_list() == pytest.approx([level.tokens for level in policy.levels])
    assert found["correct"].to_list() == pytest.approx([level.accuracy for level in policy.levels])
    for less, more in pairwise(policy.levels):
        assert less.tokens <= more.tokens and less.accuracy <= more.accuracy
    assert policy.levels[0].tokens < policy.levels[-1].tokens


def test_hopeless_and_easy_problems_are_not_paid_for(stores, experiment, policy) -> None:
    """What anybody would do who knew: votes where votes help; and it is worth something elsewhere as well."""
    tried = held_out(policy, [stores[1]], "mine")
    for frame in tried.values():
        assert frame["problem"].n_unique() == 36
    known = policy.oracle[1:-1]
    assert any(len(level.players) > 1 for level in known)
    for level in known:
        if len(level.players) > 1:
            assert level.gain.value > 0
            easiest = level.players[-1][1]
            assert easiest <= max(beta for _, beta in level.players)
    means = {
        name: frame.group_by("beta").agg(pl.col("tokens", "correct").mean()).sort("beta")
        for name, frame in tried.items()
    }
    for figures in means.values():
        assert figures["tokens"].to_list() == sorted(figures["tokens"])
    from env.comparison import compare

    assert compare(tried[KNOWN], tried[policy.single]).accuracy.value > 0
    assert list(tried) == ["mine", KNOWN, *NAMES]


@isolated
def test_isolated_it_does_the_same(stores, experiment, policy) -> None:
    from env.evaluate import evaluate

    program = policy.program("mine")
    here, apart = (
        evaluate([stores[1]], [program], betas=[0.0, 0.5], seeds=range(2), isolation=how).frame
        for how in ("none", "strict")
    )
    assert episodes(here) == episodes(apart)


def test_going_on_from_scouts_wastes_none_of_them(stores, experiment) -> None:
    """Self-consistency of as many branches or more costs and answers the same; fewer pay for the scouts."""
    plain = experiment.play("", [stores[0]], [shipped("self_consistency")])
    after = experiment.play("", [stores[0]], [experiment.after_scouts(shipped("self_consistency"))])
    for beta, branches in zip(BETAS, (1, 3, 8, 18), strict=True):
        one, two = (frame.filter(pl.col("beta") == beta) for frame in (plain, after))
        more = (two["tokens"] - one["tokens"]).to_list()
        assert one["correct"].to_list() == two["correct"].to_list()
        assert min(more) > 0 if branches < 3 else not any(more)
        assert two["granted"].to_list() == [max(branches, 3)] * len(two)


def test_another_arm_is_not_served_with_scouts(tmp_path) -> None:
    source = (
        "def schedule(beta):\n    return {}\n\n"
        "async def solve(ep):\n"
        "    other = await ep.branch(1, False, 1)\n"
        "    mine = await ep.branch(3, probe=False)\n"
        "    ep.note(other, mine)\n"
        "    return ep.answer[other[0]]\n"
    )
    text = assemble({"c": source}, 2, (), [(0.0, [("c", 0.0)] * 2)], "c")
    nodes = Nodes([-1] * 8, [1] * 8, ["1"] * 4 + ["2"] * 4, [False] * 8, end=[1] * 8, arm=[0] * 4 + [1] * 4)
    with StoreWriter(tmp_path / "s", model="m", dataset="d", task="exact", arms=[{}, {}]) as writer:
        writer.add_problem("q", "2", nodes)
    index = Index.build(Store.open(tmp_path / "s").forest())
    playback = play_on(index, Program("c", text).load()["solve"], {"level": 0}, max_branches=8)
    assert playback.errors == {} and playback.replay.correct.tolist() == [True]
    assert playback.replay.granted.tolist() == [4]


def test_agreement_is_what_a_controller_sees(stores) -> None:
    seen = []

    async def solve(ep):
        opened = await ep.branch(5, probe=False)
        await ep.finish(opened)
        known = [ep.answer[b] for b in opened if ep.answer[b] >= 0]
        seen.append(top_two(known)[0])

    store, seeds = stores[0], (3, 4)
    problems = [p for _ in seeds for p in range(len(store))]
    play_on(Index.build(store.forest()), solve, problems=problems, seeds=np.repeat(seeds, len(store)))
    found = agreement(store, seeds, 5)
    assert found["agreeing"].to_list() == seen
    assert found["seed"].to_list() == np.repeat(seeds, len(store)).tolist()
    assert len(set(seen)) > 2


def test_bins_have_problems_enough() -> None:
    """Of 40 problems, each with 2 episodes."""
    told = [4] * 20 + [3] * 28 + [2] * 26 + [1] * 6
    frame = pl.DataFrame({"problem": [f"q{k // 2}" for k in range(80)], "agreeing": told})
    with pytest.MonkeyPatch.context() as patch:
        found = {}
        for least in (3, 4, 10, 11, 17, 21):
            patch.setattr(fitting, "MIN_PROBLEMS", least)
            found[least] = fitting.edges(frame, 4)
    assert found == {3: (2, 3, 4), 4: (3, 4), 10: (3, 4), 11: (3,), 17: (), 21: ()}


def tally(rng: np.random.Generator, problems: int, bins: int, players: int) -> fitting.Tally:
    share = rng.dirichlet(np.ones(bins), problems)
    accuracy = np.sort(rng.random((problems, bins, players)), axis=2)
    tokens = np.cumsum(rng.integers(1, 50, (players,))) * rng.uniform(0.5, 1.5, (problems, bins, 1))
    names = tuple((f"c{k}", 0.5) for k in range(players))
    return fitting.Tally(names, share, accuracy * share[:, :, None], tokens * share[:, :, None])


def test_exchanges_are_the_best_for_what_they_cost() -> None:
    """Where returns diminish, no combination is more accurate for as many tokens: every one is tried."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        bins, players = int(rng.integers(1, 4)), int(rng.integers(2, 5))
        found = tally(rng, 30, bins, players)
        # The same for every problem, with smaller and smaller steps for each token.
        steps = np.sort(rng.random((bins, players - 1)), axis=1)[:, ::-1] * 0.2
        extra = np.sort(rng.random((bins, players - 1)), axis=1) * 100 + 1
        accuracy = np.cumsum(np.hstack([np.zeros((bins, 1)), steps]), axis=1)
        tokens = np.cumsum(np.hstack([np.full((bins, 1), 10.0), extra]), axis=1)
        found = fitting.Tally(
            found.players, found.share, *(found.share[:, :, None] * each for each in (accuracy, tokens))
        )
        whole = [found.played(who) for who in product(range(players), repeat=bins)]
        last = 0.0
        for who in fitting.exchanges(found):
            spent, right = found.played(who)
            assert spent > last
            assert all(each.mean() <= right.mean() + 1e-9 for cost, each in whole if cost <= spent + 1e-9)
            last = spent
        assert right.mean() == pytest.approx(max(each.mean() for _, each in whole))


def test_noise_is_no_reason_for_a_dearer_player() -> None:
    """One standard error: a player that is dearer and no better comes in a sixth of the time, not half."""
    rng, dearer = np.random.default_rng(1), 0
    for _ in range(200):
        right = rng.random((40, 1, 2)) < 0.5
        found = fitting.Tally(
            (("a", 0.0), ("b", 0.0)), np.ones((40, 1)), right * 1.0, np.array([[[1.0, 2.0]]] * 40)
        )
        dearer += len(list(fitting.exchanges(found))) > 1
    assert 15 < dearer < 55


def test_a_tally_by_hand() -> None:
    rows = [
        ("q1", 0, "a", True, 10), ("q1", 1, "a", False, 30),
        ("q2", 0, "a", True, 20), ("q2", 1, "a", True, 40),
        ("q1", 0, "b", False, 1), ("q1", 1, "b", True, 3),
        ("q2", 0, "b", False, 5), ("q2", 1, "b", True, 7),
    ]  # fmt: skip
    frame = pl.DataFrame(rows, ["problem", "seed", "controller", "correct", "tokens"], orient="row")
    frame = frame.with_columns(store=pl.lit("s"), beta=0.5)
    bins = pl.DataFrame(
        {"store": ["s"] * 4, "problem": ["q1", "q1", "q2", "q2"], "seed": [0, 1, 0, 1], "bin": [0, 1, 1, 1]}
    )
    found = fitting.Tally.of(frame, bins, 2)
    assert found.players == (("a", 0.5), ("b", 0.5))
    assert found.share.tolist() == [[0.5, 0.5], [0, 1]]
    assert found.correct.tolist() == [[[0.5, 0], [0, 0.5]], [[0, 0], [1, 0.5]]]
    assert found.tokens.tolist() == [[[5, 0.5], [15, 1.5]], [[0, 0], [30, 6]]]
    spent, right = found.played([0, 1])
    assert spent == (5 + 1.5 + 6) / 2 and right.tolist() == [1.0, 0.5]


def test_players_that_lack_branches_are_not_chosen(stores, experiment) -> None:
    short = pl.DataFrame(
        {"controller": ["a", "a", "b", "b"], "beta": 0.5, "asked": 100, "granted": [100, 98, 99, 96]}
    )
    assert fitting.replayable(short)["controller"].unique().to_list() == ["a"]


WEIRD = '''"""A controller with names that others have too.

And more words.
"""
import math
HALF = 0.5


def helper(x):
    """Says x,

    on several lines."""
    return f"{x}" + """
  kept as
it is"""


def schedule(beta):
    return {"n": 1 + math.floor(2 * beta), "text": helper("x")}


async def solve(ep, n, text):
    if text != "x\\n  kept as\\nit is":
        raise ValueError(text)
    ids = await ep.branch(n, probe=False)
    await ep.finish(ids)
    return ep.answer[ids[0]] if HALF == 0.5 else None
'''


def test_any_controller_fits_into_the_file(stores, experiment) -> None:
    """Names that are no identifiers or taken, and modules that define the same names."""
    other = WEIRD.replace("HALF = 0.5", "HALF = 0.25").replace("HALF == 0.5", "HALF == 0.25")
    sources = {"solve": WEIRD, "my-own": other, "class": WEIRD, "unplayed": "not Python"}
    players = [("solve", 0.0), ("my-own", 1.0), ("class", 0.5)]
    text = assemble(sources, 2, (1, 2), [(0.0, players), (0.5, players[:1])], "About.")
    check(text)
    assert "And more words" not in text and "unplayed" not in text
    done = experiment.play("", [stores[0]], [Program("weird", text, trusted=True)])
    assert done["error"].unique().to_list() == [""]
    assert done["correct"].mean() > 0.3


def test_a_policy_that_is_no_controller_any_more_says_so() -> None:
    long = shipped("self_consistency").source + f"\nTABLE = ({'1.125, ' * 60})\n"
    with pytest.raises(ProgramError, match="table of what was seen"):
        assemble({"a": long, "b": long}, 2, (2,), [(0.0, [("a", 0.0), ("b", 0.0)])], "About.")


def test_the_command(stores, tmp_path, capsys) -> None:
    out = tmp_path / "mine.py"
    words = ["policy", stores[0].path, "--holdout", stores[1].path, "--controller", *NAMES, "--out", str(out)]
    words += ["--seeds", "3", "--beta", "0,0.5", "--workers", "1"]
    assert autotts.main(words) == 0
    said = capsys.readouterr().out
    for part in (
        "Scouts that agree, by bin: ",
        "on the hold-out, ",
        "mine against self_consistency",
        "mine against adaptive_consistency",
        "m other, mine at beta 0: ",
        "known difficulty against",
        "other: evaluated 3 times (3 different programs)",
    ):
        assert part in said
    text = out.read_text()
    check(text)
    about = text.split('"""')[1]
    assert "36 problems of m on fitted, 3 seeds, betas 0, 0.5; out of" in " ".join(about.split())
    assert max(map(len, text.splitlines())) <= 110
    assert autotts.main(["evaluate", stores[1].path, "--controller", str(out), "--seeds", "1"]) == 0


def test_what_it_is_fitted_to_is_not_held_out(stores, tmp_path, capsys) -> None:
    out = tmp_path / "p.py"
    words = ["policy", stores[0].path, "--holdout", stores[0].path, "--controller", "self_consistency"]
    assert autotts.main([*words, "--out", str(out), "--seeds", "1"]) == 2
    assert "36 problems of the hold-out stores are in the other stores too" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--controller", "best_of_n"], "best_of_n needs prm, which .*fitted does not have"),
        (["--beta", "0.5,1"], "--beta must begin with 0"),
        (
            ["--out", "self_consistency.py"],
            "has the name of a controller to choose from; give the policy anoth",
        ),
        (
            ["--controller", "broken.py"],
            "broken.py cannot be chosen from: line 1: not Python: .* was never closed",
        ),
        (["--controller", "idle.py"], "idle.py cannot be chosen from: .*solve"),
        (["--scouts", "100"], "choose smaller --beta or --scouts"),
        (["--out", "policy.txt"], "policy.txt is to be a controller: give a file whose name ends in .py"),
    ],
)
def test_what_is_wrong_is_said(stores, tmp_path, capsys, monkeypatch, more, says) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("def schedule(beta): return {")
    Path("idle.py").write_text("def schedule(beta): return {}")
    words = ["policy", stores[0].path, "--controller", "self_consistency", "--out", "p.py", "--seeds", "1"]
    assert autotts.main([*words, *more]) == 2
    assert re.search(says, capsys.readouterr().err)
