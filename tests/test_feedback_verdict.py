"""Hypotheses: the form they are read in, and what paired episodes say of them."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from env.frontier import Reference
from env.program import GRID
from search_agent.feedback.change import changes, summed
from search_agent.feedback.hypothesis import DOWN, FIGURES, HOLDS, UP, Claim, Hypothesis, read, read_leniently
from search_agent.feedback.verdict import judge, rival
from tests.synthetic import episodes

NAMES = {"s1": "stores/a", "s2": "stores/b", **{f"p{k:02d}": f"q{k - 1}" for k in range(1, 13)}}


def stated(text):
    return read(text, GRID, NAMES)


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("tokens down 20%", Claim("tokens", DOWN, 0.2)),
        ("Tokens DOWN by at least 7.5% at betas 0.5 and 1.", Claim("tokens", DOWN, 0.075, (0.5, 1.0))),
        ("sequential tokens up by 3% at beta 0, 0.25", Claim("sequential", UP, 0.03, (0.0, 0.25))),
        ("accuracy up 2 points on s1, p02", Claim("accuracy", UP, 0.02, (), ("s1", "p02"))),
        (
            "accuracy holds within 1% at beta 1 on p01 p02",
            Claim("accuracy", HOLDS, 0.01, (1.0,), ("p01", "p02")),
        ),
        ("accuracy holds .01", Claim("accuracy", HOLDS, 0.01)),
        ("hypervolume up 0.05 on s2, s2", Claim("hypervolume", UP, 0.05, (), ("s2",))),
    ],
)
def test_a_claim_is_read(text, claim):
    assert stated(text).claims == (claim,)


def test_a_hypothesis_has_claims_and_a_why():
    made = stated(
        "tokens down 20% at beta 0.5; accuracy holds within 0.01\n because votes settle because I say so"
    )
    assert [claim.figure for claim in made.claims] == ["tokens", "accuracy"]
    assert made.why == "votes settle because I say so"
    assert str(made) == (
        "tokens down 20% at beta 0.5; accuracy holds within 0.01 because votes settle because I say so"
    )


@given(
    st.lists(
        st.builds(
            Claim,
            st.sampled_from(FIGURES[:3]),
            st.sampled_from((UP, DOWN, HOLDS)),
            st.integers(0, 999).map(lambda k: k / 1000),
            st.lists(st.sampled_from(GRID), unique=True).map(tuple),
            st.lists(st.sampled_from(sorted(NAMES)), unique=True).map(tuple),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(("", "it stops early")),
)
def test_what_is_written_is_read_again_and_survives_json(claims, why):
    made = Hypothesis(tuple(claims), why)
    again = stated(str(made))
    assert str(again) == str(made) and again.why == why
    assert Hypothesis.of(json.loads(json.dumps(made.record()))) == made


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "1 to 4 claims, this one 0"),
        ("; ".join(["tokens down 1%"] * 5), "1 to 4 claims, this one 5"),
        ("it gets better", "cannot read the claim 'it gets better'; the form is: <accuracy"),
        ("tokens down 0.2", "write 0.2%"),
        ("hypervolume up 5%", "write 5 without '%'"),
        ("tokens down 5% at beta 0.3", "no beta 0.3: there are 0, 0.25, 0.5, 0.75, 1"),
        ("tokens down 5% on p99", "no store or problem 'p99'"),
        ("hypervolume up 0.1 at beta 1", "of all betas and problems"),
        ("tokens down 5% at beta 0.5.5", "0.5.5"),
    ],
)
def test_what_cannot_be_checked_is_told_why(text, says):
    with pytest.raises(ValueError, match="(?s)" + says.replace(".", r"\.")):
        stated(text)
    lenient = read_leniently(text, GRID, NAMES)
    assert lenient == (Hypothesis((), text) if text else None)


def frames(change, problems=12, seeds=6, betas=GRID, **columns):
    """A program and its parent: half of the problems in play; `change` gives accuracy and tokens of each."""
    sides = []
    for changed in (False, True):
        parts = []
        for beta in betas:
            rng = np.random.default_rng(int(100 * beta))
            draws = rng.random((problems, seeds))
            accuracy, tokens = change(beta, np.arange(problems)[:, None]) if changed else (0.5, 1.0)
            spent = (1000 * (1 + 4 * beta) * tokens * (1 + np.arange(problems)[:, None] / 10)).astype(int)
            parts.append(episodes(draws < accuracy, spent, beta=beta, **columns))
        sides.append(pl.concat(parts).with_columns(controller=pl.lit(f"round {1 + changed}")))
    return sides[1], sides[0]


def verdict(text, ours, theirs, references=None):
    found = judge(stated(text), ours, theirs, references or {}, NAMES)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


@pytest.mark.parametrize(
    ("text", "outcomes"),
    [
        ("tokens down 15%", "h"),
        ("tokens down 25%", "n"),
        ("tokens up 1%", "n"),
        ("tokens holds within 0%", "h"),
        ("sequential down 15% at beta 1", "h"),
        ("tokens down 15%; accuracy holds within 1 point", "hh"),
        ("accuracy up 20 points", "n"),
        ("tokens down 25%; accuracy holds within 0.01", "nh"),
        ("accuracy up 30 points at beta 1; tokens down 15%", "hh"),
    ],
)
def test_a_claim_held_or_did_not(text, outcomes):
    def change(beta, problem):
        return (1.0 if beta == 1 else 0.5), 0.8

    found = verdict(text, *frames(change))
    words = {"h": "held", "n": "did not hold"}
    assert [claim["outcome"] for claim in found["claims"]] == [words[letter] for letter in outcomes]
    assert found["outcome"] == ("did not hold" if "n" in outcomes else "held")
    for claim in found["claims"]:
        low, high = claim["interval"]
        assert low <= claim["change"] <= high and (claim["units"], claim["of"]) == (12, "problems")
        if claim["claim"].startswith("tokens"):
            assert claim["change"] == pytest.approx(-0.2, abs=0.01)
            assert claim["after"] == pytest.approx(0.8 * claim["before"], rel=0.01)


def test_what_varies_from_problem_to_problem_leaves_it_open():
    ours, theirs = frames(lambda beta, problem: (0.5, np.where(problem % 2, 0.5, 1.4)))
    (claim,) = verdict("tokens down 10%", ours, theirs)["claims"]
    assert claim["outcome"] == "cannot tell" and claim["interval"][0] < -0.1 < claim["interval"][1]
    # Of a single problem the seeds are the sample, and it is about that problem alone.
    (claim,) = verdict("tokens down 10% on p02", ours, theirs)["claims"]
    assert (claim["outcome"], claim["units"], claim["of"]) == ("held", 6, "seeds")
    assert verdict("tokens down 10% on p01", ours, theirs)["outcome"] == "did not hold"
    # In the end one that did not hold decides, whatever the others leave open.
    assert verdict("tokens down 10%; tokens down 10% on p01", ours, theirs)["outcome"] == "did not hold"
    assert verdict("tokens down 10%; tokens down 10% on p02", ours, theirs)["outcome"] == "cannot tell"


def test_too_few_problems_decide_nothing():
    (claim,) = verdict("tokens down 10%", *frames(lambda *_: (0.5, 0.5), problems=5))["claims"]
    assert (claim["outcome"], claim["units"]) == ("cannot tell", 5) and claim["change"] < -0.4
    # Accuracy is decided by the problems in play; here there are none.
    ours, theirs = (side.with_columns(correct=pl.lit(True)) for side in frames(lambda *_: (0.5, 0.5)))
    assert verdict("accuracy holds within 0.1", ours, theirs)["outcome"] == "cannot tell"


def test_free_text_cannot_be_checked():
    found = judge(Hypothesis((), "it gets better"), *frames(lambda *_: (0.5, 0.5)), {}, NAMES)
    assert found == {"outcome": "cannot tell", "claims": []}


def test_only_what_both_have_played_is_compared():
    ours, theirs = frames(lambda *_: (0.5, 0.8))
    (whole,) = verdict("tokens down 15%", ours, theirs)["claims"]
    (part,) = verdict("tokens down 15%", ours.filter(pl.col("seed") < 2), theirs)["claims"]
    assert part == whole
    others = ours.with_columns(store=pl.lit("stores/b"))
    for text in ("tokens down 15%", "tokens down 15% on s2", "hypervolume up 0.1"):
        (claim,) = verdict(text, others, theirs)["claims"]
        assert (claim["outcome"], claim["change"], claim["units"]) == ("cannot tell", None, 0)
    two_stores = (pl.concat([side, side.with_columns(store=pl.lit("stores/b"))]) for side in (ours, theirs))
    assert verdict("tokens down 15% on s2", *two_stores)["outcome"] == "held"


def test_hypervolume_is_of_the_whole_frontier():
    ours, theirs = frames(lambda *_: (0.5, 0.5))
    problems = ours["problem"].unique().to_list()
    known = Reference(dict.fromkeys(problems, 10_000.0), dict.fromkeys(problems, 0.2))
    found = verdict("hypervolume up 0.1", ours, theirs, {"stores/a": known})
    (claim,) = found["claims"]
    assert found["outcome"] == "held" and claim["after"] - claim["before"] == pytest.approx(claim["change"])


def record(number, area, **changes):
    return {
        "round": number,
        "name": f"round {number}",
        "parent": None,
        "seen": number - 1,
        "status": "evaluated",
        "feedback": {"hypervolume": area, "seeds": 8} if area else None,
    } | changes


def test_a_fresh_start_is_held_against_the_best_that_was_known():
    shipped = [
        {"name": name, "status": "evaluated", "feedback": {"hypervolume": area, "seeds": 8}}
        for name, area in (("one", 0.3), ("two", 0.4))
    ]
    few = {"hypervolume": 0.9, "seeds": 2}
    past = [record(1, 0.2), record(2, 0.5), record(3, 0.9, status="dropped", feedback=few), record(4, None)]
    past.append(record(5, 0.7))
    assert rival(record(6, 0.1, seen=1), past, shipped)["name"] == "two"
    assert rival(record(6, 0.1, seen=4), past, shipped)["name"] == "round 2"
    assert rival(record(6, 0.1, parent=3), past, shipped)["name"] == "round 3"
    assert rival(record(6, 0.1, parent=4), past, shipped) is None
    assert rival(record(1, 0.1), [], []) is None


def test_what_it_is_held_against_does_not_tell_who_was_dropped_on_the_selection_problems():
    dropped = record(2, 0.5, status="dropped", race={"part": "selection"})
    assert rival(record(3, 0.1), [record(1, 0.2), dropped], [])["name"] == "round 2"


def test_a_change_is_told_episode_by_episode():
    ours = episodes([[1, 1, 0], [0, 1, 1]], 500, problems=["p01", "p02"])
    theirs = episodes([[0, 0, 1], [0, 1, 1]], 1000, problems=["p01", "p02"])
    pairs = changes(ours, theirs.filter(pl.col("seed") > 0))
    assert pairs.select("problem", "seed", "won", "lost").rows() == [
        ("p01", 1, True, False),
        ("p01", 2, False, True),
        ("p02", 1, False, False),
        ("p02", 2, False, False),
    ]
    first, second = summed(pairs, "problem").to_dicts()
    assert (first["problem"], first["won"], first["won_seed"], first["lost"], first["lost_seed"]) == (
        "p01",
        1,
        1,
        1,
        2,
    )
    assert (second["won_seed"], second["episodes"], second["tokens"], second["tokens_before"]) == (
        None,
        2,
        500,
        1000,
    )
