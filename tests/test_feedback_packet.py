"""What proposers are told of a round: on a real workbench, within bounds, and nothing it may not tell."""

import math

import polars as pl
import pytest

from env.program import Program
from env.store import Store
from search_agent.archive import Run
from search_agent.arena import Arena
from search_agent.feedback.hindsight import LOSSES, WASTES
from search_agent.feedback.hypothesis import read
from search_agent.feedback.packet import MAX_PACKET, packet, sections
from search_agent.feedback.telling import telling
from search_agent.feedback.verdict import aliases, verdict_on
from search_agent.proposers.text import fit, within
from search_agent.scoring import score
from search_agent.splits import split
from search_agent.workbench import Workbench
from tests import made_up

PROGRAM = """
from controllers.voting import majority

def schedule(beta):
    return {{"n": 1 + round({most} * beta)}}

async def solve(ep, n):
    ids = await ep.branch(n, probe={probe})
    {line}
    await ep.finish(ids)
    return majority(ep.answer[i] for i in ids)
"""
SAYS = "tokens down 10%; sequential holds within 5% at beta 1 because few votes are enough"


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    stores = [Store.open(made_up.store(folder / f"s{k}", problems=30, seed=k)) for k in range(2)]
    problems = stores[0].problems["question_hash"].to_pylist()
    return Arena(stores=stores, holdout=stores, splits=split(problems), seeds=4, workers=1)


@pytest.fixture(scope="module")
def run(arena, tmp_path_factory):
    """A published controller, a round that uses it as its parent's stand-in, and a cheaper one."""
    run = Run.create(tmp_path_factory.mktemp("runs") / "run", {"seed": 0}, {"rounds": 2, "minutes": None})
    programs = {
        "many": PROGRAM.format(most=11, probe=True, line="ep.note(n)"),
        1: PROGRAM.format(most=9, probe=True, line="ep.note(n)"),
        2: PROGRAM.format(most=7, probe=False, line="ids = ids if n < 3 else ids[:-1]"),
    }
    names = aliases(arena)
    for entry, source in programs.items():
        frame = arena.feedback([Program(f"{entry}", source, True)]).frame
        record = {
            "name": f"round {entry}" if entry in (1, 2) else entry,
            "status": "evaluated",
            "error": "",
            "feedback": score(frame, arena.references),
            "memo": {},
        }
        if entry in (1, 2):
            stated = read(SAYS, arena.betas, names).record() if entry == 2 else None
            record |= {"round": entry, "seen": entry - 1, "parent": 1 if entry == 2 else None}
            record |= {"summary": "", "hypothesis": stated}
            record["verdict"] = verdict_on(record, frame, run, arena)
        run.add(entry, record, source, frame, None)
    return run


@pytest.fixture
def bench(run, arena):
    return Workbench(run, arena, 3, {}, lambda source, memo: True)


def test_the_packet_has_everything_most_useful_first(bench, run, arena):
    text = packet(bench)
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    expected = ["Feedback on round 2", "Against the best", "Where accuracy was lost", "Where tokens went"]
    expected += ["What the change did, against round 1", "Episode: ", "Episode: ", "Episode: "]
    assert [title[3:].startswith(begin) for title, begin in zip(titles, expected, strict=True)] == [True] * 8
    assert f"Hypothesis: {SAYS}\nVerdict: held, against round 1\n- tokens down 10%: held (" in text
    assert "- best before it, round 1 (hypervolume" in text and "- many (hypervolume" in text
    assert "all of round 1: " in text and "beta 0.75: " in text
    # One branch in seven is opened and left: what it decoded came to nothing.
    assert "unheard = on branches that showed no answer" in text
    assert text == packet(Workbench(run, arena, 3, {}, lambda source, memo: True))
    episodes = [title.partition("(")[2] for title in titles if "Episode: " in title]
    assert len({episode.split()[1] for episode in episodes}) == 3


def test_its_figures_are_those_of_the_episodes(bench):
    past, frame = bench.hindsight(2), bench.episodes(2)
    # All of it is in the sample here: shares are those of the evaluation.
    assert len(past) == min(len(frame), 240 // 10 // len(bench.problems) * 10 * len(bench.problems))
    lost = sum((past["loss"] == name).sum() for name in LOSSES)
    assert lost == past["possible"].sum() - past["correct"].sum() > 0
    assert past.select(pl.sum_horizontal("cheapest", *WASTES).sum()).item() == past["tokens"].sum()
    text = packet(bench)
    right, possible = (f"{100 * past[name].mean():.1f}%" for name in ("correct", "possible"))
    assert f"all: right {right} of a possible {possible}; lost: " in text
    assert f"cheapest {100 * past['cheapest'].sum() / past['tokens'].sum():.1f}%" in text


def test_who_was_dropped_early_is_compared_on_the_seeds_it_was_played_on(run, arena, tmp_path):
    """The same program again, after one lap of the race: no difference at all."""
    other = Run.create(tmp_path / "run", {"seed": 0}, {})
    one, frame, source = run.rounds()[0], run.episodes(1, "feedback"), run.source(1)
    lap = frame.filter(pl.col("seed") == frame["seed"].min())
    figures = score(lap, arena.references)
    with other.writing():
        other.add(1, one, source, frame, None)
        again = one | {"round": 2, "name": "round 2", "parent": 1, "status": "dropped", "feedback": figures}
        other.add(2, again, source, lap, None)
    told = packet(Workbench(other, arena, 3, {}, lambda source, memo: True), 2)
    (line,) = (line for line in told.splitlines() if line.startswith("- best before it, round 1"))
    assert "accuracy +0.000 [+0.000, +0.000]; tokens x 1.00 [1.00, 1.00]" in line


def test_it_is_bounded_and_drops_the_least_useful(bench):
    whole = list(sections(bench))
    sizes = []
    for limit in (200, 1_500, 3_000, MAX_PACKET):
        kept, text = list(within(whole, limit)), fit(whole, limit)
        assert len(text) <= max(limit, 600) and kept[0] == whole[0]
        assert [f"## {title}" for title, _ in kept] == [x for x in text.splitlines() if x.startswith("## ")]
        assert kept == [section for section in whole if section in kept]
        sizes.append(len(kept))
    assert sizes[0] == 1 < sizes[1] < sizes[2] < sizes[3] == len(whole)
    assert packet(bench, limit=1_500) == fit(whole, 1_500)


def test_nothing_in_it_tells_which_problems_they_are(bench, arena, run):
    text = packet(bench) + packet(bench, round=1)
    for store in arena.stores:
        assert str(store.path) not in text
        for name in ("question", "question_hash"):
            assert not any(value in text for value in store.problems[name].to_pylist())
    others = set(arena.splits.selection) | set(arena.splits.holdout)
    assert not any(problem in text for problem in others)
    seeds = {word.rstrip("),") for word in text.replace("=", " ").split() if word.startswith("100000")}
    assert seeds and all(int(seed) in bench.seeds for seed in seeds)


def test_a_round_can_be_named_and_has_to_exist(bench, run, arena):
    text = packet(bench, round=1)
    assert text.startswith("## Feedback on round 1\n\nIt stated no hypothesis")
    assert "What the change did, against many" in text
    with pytest.raises(LookupError, match="round 7 was not evaluated"):
        packet(bench, round=7)
    assert packet(Workbench(run, arena, 1, {}, lambda *_: True, seen=0)) == ""
    blind = Workbench(run, arena, 3, {}, lambda *_: True, ablated={"traces"})
    assert [title.split()[0] for title, _ in sections(blind)] == ["Feedback", "Against", "What"]


def test_episodes_worth_reading():
    keys = {"store": "s1", "beta": 0.5, "seed": 1_000_000, "possible": True, "rounds": 4, "first_led": 1}
    rows = [
        keys
        | {"problem": name, "loss": loss, "correct": not loss, "tokens": 100, "cheapest": cheapest}
        | {"settled": settled, "settled_in": 2}
        for name, loss, cheapest, settled in (
            ("p01", "early", 90, 0),
            ("p02", "outvoted", 90, 0),
            ("p03", "outvoted", 90, 0),
            ("p04", "", 50, 20),
            ("p05", "", 10, 60),
            ("p06", "", 5, 0),
        )
    ]
    past = pl.DataFrame(rows)
    pairs = past.select("store", "problem", "beta", "seed").with_columns(
        won=pl.col("problem") == "p06", lost=pl.col("problem") == "p03"
    )
    told = telling(past, pairs)
    assert [(why, where["problem"]) for why, where, _ in told] == [
        ("lost, outvoted", "p02"),
        ("right, and longest at it after it had settled", "p05"),
        ("newly wrong", "p03"),
    ]
    assert (
        told[0][2]
        == "Hindsight: its answer first led in round 1 and had settled in round 2 of 4; lost: outvoted"
    )
    assert telling(past, pairs.with_columns(lost=pl.lit(False)))[2][0] == "newly right"
    assert [where["problem"] for _, where, _ in telling(past, None)] == ["p02", "p05", "p06"]
    assert telling(past.clear(), None) == []
    assert math.isclose(past["tokens"].sum(), 600)
