"""The controllers on trees, scores and confidences: each choice, each token as in rules played by hand."""

import random
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers import voting
from env.evaluate import evaluate
from env.index import Index
from env.nodes import Nodes
from env.program import check
from env.store import Store
from env.store_writer import StoreWriter
from tests import tree_rules
from tests.forests import Node, Problem, Trees, numbers
from tests.playing import chain, grow, play_on
from tests.programs import isolated, shipped
from tests.tree_games import TreeGame, grove, logged

NAMES = (
    "best_of_n",
    "beam_search",
    "lookahead",
    "dvts",
    "rebase",
    "particle_filter",
    "deepconf",
    "answer_convergence",
    "difficulty_adaptive",
    "ab_mcts",
)
COLUMNS = ("parent", "tokens", "answer", "probed", "end", "probe_tokens", "prm", "confidence")


def forked() -> Problem:
    """So that a store has forks, probes and a second arm, whatever else is in it."""
    root = grow(None, 1, 1, place=0, arm=1)
    leaves = [grow(root, 1, 1, end=1, place=k) for k in (1, 2)]
    return Problem([root, *leaves], frozenset({1}), 4)


def same(name: str, problem: Problem, seed: int, **chosen) -> None:
    """Hold a controller to its rule on one problem: what it does, what it answers, what it pays."""
    game = TreeGame(problem, seed)
    answer = getattr(tree_rules, name)(game, **chosen)
    problem.right = frozenset() if answer is None else frozenset({answer})
    index = Index.build(Trees([problem, forked()], has_scores=True, has_confidence=True).forest())
    solve = shipped(name).load()["solve"]
    playback = play_on(index, solve, chosen, seeds=[seed], max_branches=len(problem.roots))
    assert playback.errors == {}
    replay = playback.replay
    assert logged(replay) == game.rounds
    assert replay.ledger[0].tolist() == game.ledger
    assert (replay.asked[0], replay.granted[0]) == (game.wanted, game.granted)
    assert (replay.final[0] >= 0, bool(replay.correct[0])) == (answer is not None, answer is not None)


groves = numbers.map(grove)
seeds = st.integers(0, 9)
aggregates = st.sampled_from(("last", "min", "product", "mean"))
few = st.integers(1, 12)
checked = settings(max_examples=40, deadline=None)


@checked
@given(groves, seeds, few, aggregates, st.booleans())
def test_best_of_n(problem, seed, max_branches, aggregate, vote) -> None:
    same("best_of_n", problem, seed, max_branches=max_branches, aggregate=aggregate, vote=vote)


@checked
@given(groves, seeds, few, st.integers(1, 5), aggregates)
def test_beam_search(problem, seed, beams, width, aggregate) -> None:
    same("beam_search", problem, seed, beams=beams, width=width, aggregate=aggregate)


@checked
@given(groves, seeds, st.integers(1, 5), st.integers(1, 4), aggregates)
def test_dvts(problem, seed, subtrees, width, aggregate) -> None:
    same("dvts", problem, seed, subtrees=subtrees, width=width, aggregate=aggregate)


@checked
@given(groves, seeds, few, st.sampled_from((0.1, 0.5, 4.0)), aggregates)
def test_rebase(problem, seed, samples, temperature, aggregate) -> None:
    same("rebase", problem, seed, samples=samples, temperature=temperature, aggregate=aggregate)


@checked
@given(groves, seeds, st.integers(1, 4))
def test_answer_convergence(problem, seed, patience) -> None:
    same("answer_convergence", problem, seed, patience=patience)


quarters = st.sampled_from((0.0, 0.25, 0.5, 0.75, 1.0))


@checked
@given(groves, seeds, few, st.integers(1, 4), quarters, quarters, st.integers(1, 4))
def test_deepconf(problem, seed, max_branches, warm_up, keep, consensus, batch) -> None:
    chosen = {"warm_up": warm_up, "keep": keep, "consensus": consensus, "batch": batch}
    same("deepconf", problem, seed, max_branches=max_branches, **chosen)


@checked
@given(groves, seeds, few, st.integers(1, 5), st.integers(0, 3), aggregates)
def test_lookahead(problem, seed, beams, width, lookahead, aggregate) -> None:
    chosen = {"beams": beams, "width": width, "lookahead": lookahead, "aggregate": aggregate}
    same("lookahead", problem, seed, **chosen)


@checked
@given(groves, seeds, few, aggregates)
def test_particle_filter(problem, seed, particles, aggregate) -> None:
    same("particle_filter", problem, seed, particles=particles, aggregate=aggregate)


@checked
@given(groves, seeds, st.integers(1, 40), aggregates)
def test_ab_mcts(problem, seed, generations, aggregate) -> None:
    same("ab_mcts", problem, seed, generations=generations, aggregate=aggregate)


@checked
@given(st.lists(st.integers(-1, 3), min_size=1, max_size=40), seeds, st.integers(1, 48), st.integers(1, 5),
       st.sampled_from((0.6, 0.8, 0.95)))  # fmt: skip
def test_difficulty_adaptive(finals, seed, max_branches, first, threshold) -> None:
    nodes = [grow(None, 2**k % 31, final, end=1, place=k) for k, final in enumerate(finals)]
    chosen = {"max_branches": max_branches, "first": first, "threshold": threshold}
    same("difficulty_adaptive", Problem(nodes, frozenset(), 4), seed, **chosen)


@checked
@given(groves, seeds)
def test_a_beam_as_wide_as_the_tree_visits_all_of_it(problem, seed) -> None:
    """Then nothing is a choice: every leaf that has ended votes, every segment is paid for once."""
    width = max(len(problem.roots), 5)
    solve = shipped("beam_search").load()["solve"]
    leaves = [node for node in problem.nodes if node.end and node.answer >= 0]
    votes = [sum(path_scores(node)[-1:]) for node in leaves]
    totals = {a: sum(v for v, leaf in zip(votes, leaves, strict=True) if leaf.answer == a) for a in range(4)}
    given = {leaf.answer for leaf in leaves}
    problem.right = frozenset(a for a in given if totals[a] == max(totals[b] for b in given))
    index = Index.build(Trees([problem, forked()], has_scores=True).forest())
    chosen = {"beams": 1000 * width, "width": width, "aggregate": "last"}
    replay = play_on(index, solve, chosen, seeds=[seed], max_branches=len(problem.roots)).replay
    every = sum(node.tokens for node in problem.nodes)
    assert replay.ledger[0, :3].tolist() == [every, 0, every]
    assert bool(replay.correct[0]) == bool(leaves)


def path_scores(node: Node | None) -> tuple[float, ...]:
    return path_scores(node.parent) + node.scores if node else ()


def demo(path: Path) -> Path:
    """A store whose trees fork at each of four levels, probed, scored and with confidences."""
    rng = random.Random(3)
    with StoreWriter(path, model="m", dataset="trees", task="exact") as writer:
        for number in range(4):
            columns: dict[str, list] = {name: [] for name in COLUMNS}

            def plant(parent: int, level: int, columns=columns) -> None:
                here, right = len(columns["parent"]), rng.random() < 0.6
                over = level == 4
                values = (parent, rng.randrange(10, 30), str(int(right)), True, int(over), 3)
                scores = [rng.uniform(0.3, 0.9) + 0.1 * right], rng.uniform(1, 9)
                for name, value in zip(COLUMNS, (*values, *scores), strict=True):
                    columns[name].append(value)
                for _ in range(0 if over else 5 if level < 2 else 2):
                    plant(here, level + 1)

            for _ in range(8):
                plant(-1, 1)
            writer.add_problem(f"q{number}", "1", Nodes(**columns))
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store.open(demo(tmp_path_factory.mktemp("trees") / "store"))


@pytest.mark.parametrize("name", NAMES)
def test_a_larger_beta_costs_no_less(name, store) -> None:
    done = evaluate([store], [shipped(name)], betas=[0.0, 0.5, 1.0], seeds=range(4), max_branches=8)
    assert done.frame["error"].unique().to_list() == [""]
    spent = done.frame.group_by("beta").agg(pl.col("tokens").mean()).sort("beta")["tokens"].to_list()
    assert spent == sorted(spent)
    schedule = shipped(name).load()["schedule"]
    budgets = [[v for v in schedule(k / 40).values() if not isinstance(v, str)] for k in range(41)]
    assert all(a <= b for less, more in pairwise(budgets) for a, b in zip(less, more, strict=True))
    assert budgets[0] != budgets[20] != budgets[40]


@isolated
def test_isolated_they_do_the_same(store) -> None:
    """Draws of `ep.rng` and all: one child for each seed."""
    programs = [shipped(name) for name in NAMES]
    here, apart = (
        evaluate([store], programs, betas=[0.3], seeds=range(2), isolation=isolation).frame.drop(
            "isolation", "level"
        )
        for isolation in ("none", "strict")
    )
    assert here.equals(apart)
    assert here["error"].unique().to_list() == [""]


@pytest.mark.parametrize("name", NAMES)
def test_they_keep_the_contract_on_one_screen(name) -> None:
    source = shipped(name).source
    check(source)
    assert len(source.splitlines()) <= 64
    assert "replay" in source.split('"""')[1].lower()


def chains() -> Problem:
    return Problem([node for _ in range(6) for node in chain((3, 1), (4, 2), (5, 1))], frozenset(), 4)


def error_of(name: str, index: Index) -> str:
    settings = shipped(name).load()["schedule"](0.5)
    (error,) = play_on(index, shipped(name).load()["solve"], settings).errors.values()
    return error


def test_without_forks_scores_or_confidence_the_outcome_says_what_is_missing() -> None:
    plain = Index.build(Trees([chains()]).forest())
    scored = Index.build(Trees([chains()], has_scores=True).forest())
    for name in NAMES:
        needs = shipped(name).source
        if ".score(" in needs:
            assert "has no process-reward-model scores" in error_of(name, plain)
        if ".fork(" in needs:
            assert "has no forks" in error_of(name, scored)
    assert "has no confidence" in error_of("deepconf", plain)


def test_path_scores_by_hand() -> None:
    scores = [0.5, 0.25, 1.0]
    worth = {how: voting.path_score(scores, how) for how in ("last", "min", "product", "mean")}
    assert worth == {"last": 1.0, "min": 0.25, "product": 0.125, "mean": 1.75 / 3}
    assert voting.path_score([]) == 0
    with pytest.raises(ValueError, match=r"no aggregate 'sum': choose last"):
        voting.path_score(scores, "sum")


def test_weighted_votes_by_hand() -> None:
    votes, weights = [2, -1, 1, None, 2, 1], [0.5, 9.0, 0.75, 9.0, 0.5, 0.25]
    assert voting.weigh(votes, weights) == {2: 1.0, 1: 1.0}
    assert voting.weighted_majority(votes, weights) == 2
    assert voting.best_scored(votes, weights) == 1
    assert voting.weighted_majority([-1, None], [1, 1]) is voting.best_scored([], []) is None
