import ast
import itertools
import random

import optuna
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import store as make_store

from env.evaluate import evaluate
from env.program import GRID, Program
from env.store import Store
from search_agent.compose.assemble import assemble, constants
from search_agent.compose.grammar import FIRST, SLOTS
from search_agent.compose.proposer import IMPLIED, ComposeProposer, choices, draw
from search_agent.pareto import founder


def drawn(seed):
    """A random recipe."""
    sampler = optuna.samplers.RandomSampler(seed=seed)
    return draw(optuna.create_study(sampler=sampler).ask())


def every_combination():
    for picked in itertools.product(*SLOTS.values()):
        recipe = dict(zip(SLOTS, picked, strict=True))
        if recipe == recipe | IMPLIED.get(recipe["depth"], {}):
            yield recipe | {c.name: [c.low, c.high][: 1 + c.ramp] for c in constants(recipe)}


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="module")
def combinations():
    return [Program(str(k), assemble(recipe), True) for k, recipe in enumerate(every_combination())]


def test_every_combination_of_mechanisms_is_a_program_one_can_read(combinations):
    assert len(combinations) == 5 + 2 * 4 * 5 * 3 * 4
    for program in combinations:
        source = program.source
        solve = next(node for node in ast.parse(source).body if isinstance(node, ast.AsyncFunctionDef))
        settings = program.load()["schedule"](0.5)
        assert [argument.arg for argument in solve.args.args] == ["ep", *settings]
        used = {node.id for node in ast.walk(solve) if isinstance(node, ast.Name)}
        assert set(settings) <= used, "a constant that does nothing"
        assert max(map(len, source.splitlines())) <= 110
        assert len(source.splitlines()) < 80, "more than a screen"


def test_every_combination_of_mechanisms_keeps_the_contract_and_plays(combinations, tmp_path):
    store = Store.open(make_store(tmp_path / "store", problems=2))
    frame = evaluate([store], combinations, betas=[0.6], seeds=[0], workers=1).frame
    assert set(frame["error"]) == {""}
    answered = frame.group_by("controller").agg(pl.col("answer").max())
    assert answered["answer"].min() >= 0


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_no_setting_falls_as_beta_rises(seed):
    recipe = drawn(seed)
    schedule = Program("it", assemble(recipe), True).load()["schedule"]
    betas = [k / 20 for k in range(21)]
    for constant in constants(recipe):
        values = [schedule(beta)[constant.name] for beta in betas]
        assert values == sorted(values)
        ends = recipe[constant.name]
        assert [values[0], values[-1]] == pytest.approx([ends[0], ends[-1]])
        assert not constant.whole or all(isinstance(value, int) for value in values)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_optimiser_can_be_told_of_any_recipe(seed):
    recipe = drawn(seed)
    assert draw(optuna.trial.FixedTrial(choices(recipe))) == recipe


@pytest.mark.parametrize("recipe", FIRST)
def test_the_first_recipes_are_of_the_grammar(recipe):
    assert draw(optuna.trial.FixedTrial(choices(recipe))) == recipe
    settings = [Program("it", assemble(recipe), True).load()["schedule"](beta) for beta in GRID]
    assert len({str(each) for each in settings}) == len(GRID), "beta moves nothing"


class Bench:
    """As much of a workbench as `compose` looks at."""

    def __init__(self, records, seed=0, ablated=()):
        self.ablated = ablated
        self.round = len(records) + 1
        self.rng = random.Random(f"{seed} {self.round}")
        self._records = records

    def history(self):
        return self._records


def scored(value):
    return {
        "hypervolume": value,
        "seeds": 5,
        "points": [{"beta": 1.0, "accuracy": value / 2, "tokens": 1000}],
    }


def searched(rounds, seed=0, records=()):
    """Records of a search whose hypervolume likes wide races."""
    records, proposer = list(records), ComposeProposer()
    while len(records) < rounds:
        proposal = proposer.propose(Bench(records, seed))
        recipe = proposal.memo["recipe"]
        value = recipe["width"][-1] / 64 + (recipe["widening"] == "fixed")
        records.append(
            {
                "round": len(records) + 1,
                "memo": proposal.memo,
                "status": "evaluated",
                "feedback": None if len(records) % 7 == 3 else scored(value),
                "source": proposal.source,
                "parent": proposal.parent,
                "partner": proposal.partner,
            }
        )
    return records


@pytest.fixture(scope="module")
def records():
    return searched(60)


def test_the_same_archive_leads_to_the_same_program(records):
    whole = records[: len(FIRST) + 6]
    resumed = searched(len(FIRST) + 6, records=whole[: len(FIRST) + 2])
    assert resumed == whole
    other = searched(len(FIRST) + 6, seed=1)
    assert [r["source"] for r in other[: len(FIRST)]] == [r["source"] for r in whole[: len(FIRST)]]
    assert [r["source"] for r in other[len(FIRST) :]] != [r["source"] for r in whole[len(FIRST) :]]


def test_no_program_is_proposed_twice_and_parents_are_earlier_rounds(records):
    assert len({record["source"] for record in records}) == len(records)
    assert {record["parent"] for record in records[: len(FIRST)]} == {None}, "each begins a lineage"
    for record in records:
        for origin in (record["parent"], record["partner"]):
            assert origin is None or (records[origin - 1]["feedback"] and origin < record["round"])


def test_a_crossing_takes_every_mechanism_from_one_of_two_lineages(monkeypatch):
    monkeypatch.setattr("search_agent.compose.proposer.FREE", 0.0)
    monkeypatch.setattr("search_agent.compose.proposer.CROSSED", 1.0)
    records = searched(30)
    crossed = [record for record in records[len(FIRST) :] if record["partner"]]
    assert len(crossed) > 10
    for record in crossed:
        recipes = [records[k - 1]["memo"]["recipe"] for k in (record["parent"], record["partner"])]
        assert founder(record["parent"], records) != founder(record["partner"], records)
        child = record["memo"]["recipe"]
        for slot in SLOTS.keys() - IMPLIED["finish"].keys():
            assert child[slot] in {recipe[slot] for recipe in recipes}


def test_without_feedback_proposals_are_independent_and_random():
    alone = [ComposeProposer().propose(Bench([], seed, {"feedback"})) for seed in range(20)]
    after = [ComposeProposer().propose(Bench([], seed, {"feedback"})) for seed in range(20)]
    assert alone == after
    assert len({proposal.source for proposal in alone}) == 20
    assert {proposal.parent for proposal in alone} == {None}
    assert not {proposal.source for proposal in alone} & {assemble(recipe) for recipe in FIRST}


def test_without_beta_no_setting_moves():
    proposal = ComposeProposer().propose(Bench([], ablated={"beta"}))
    schedule = Program("it", proposal.source, True).load()["schedule"]
    assert schedule(0.0) == schedule(1.0)
    assert ComposeProposer().vouches(proposal.source, proposal.memo)


def test_the_optimiser_learns_from_the_feedback(records):
    late = [record["memo"]["recipe"]["widening"] for record in records[-20:]]
    assert late.count("fixed") >= 12


@pytest.mark.parametrize(
    "memo",
    [
        {},
        {"recipe": None},
        {"recipe": {}},
        {"recipe": FIRST[1]},
        {"recipe": FIRST[0] | {"width": ["os", "os"]}},
    ],
)
def test_a_run_folder_vouches_for_nothing(memo):
    """Whoever can write there must not get to run code in-process: the recipe must lead to the program."""
    proposer, source = ComposeProposer(), assemble(FIRST[0])
    assert proposer.vouches(source, {"recipe": FIRST[0]})
    assert not proposer.vouches(source, memo)
    assert not proposer.vouches(source + "\nimport os\n", {"recipe": FIRST[0]})
