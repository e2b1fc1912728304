"""What the report lets a reader look around in: outcomes, episodes, who descends from whom."""

import json
import sys
import time

import polars as pl
import pytest
from made_up_run import make_run
from measured_run import SEEDS, make
from pictures import CURVES, drawings, point

from search_agent.commands.search import draw
from search_agent.report.charts import Step, best_by, trails
from search_agent.report.episodes import choose, compact, episodes
from search_agent.report.lineage import lineage
from search_agent.report.live import redrawing
from search_agent.report.outcomes import outcomes
from search_agent.report.view import View

isolated = pytest.mark.skipif(sys.platform != "linux", reason="untrusted code is run on Linux only")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("measured"))


def test_the_matrix_holds_the_means_of_every_problem(run):
    told = outcomes(run, View.of(run.path))
    assert json.loads(json.dumps(told)) == told
    assert told["betas"] == [0, 0.25, 0.5, 0.75, 1]
    assert set(told["programs"]) == {"round 2", "round 1", "self_consistency", "parallel_probe"}
    parts = [row["part"] for row in told["rows"]]
    assert parts == ["feedback"] * parts.count("feedback") + ["selection"] * parts.count("selection")
    for part in ("feedback", "selection"):
        frame, names = run.episodes("self_consistency", part), run.config["problems"][part]
        column = told["programs"].index("self_consistency")
        rows = {row["problem"]: row["cells"][column] for row in told["rows"] if row["part"] == part}
        letter = {"feedback": "p", "selection": "q"}[part]
        assert sorted(rows) == [f"{letter}{k:02d}" for k in range(1, len(names) + 1)]
        for problem, cells in rows.items():
            played = frame.filter(problem=names[int(problem[1:]) - 1], beta=0.5)
            assert len(played) == cells[2][3] == SEEDS
            assert cells[2][0] == round(100 * played["correct"].mean())
            assert cells[2][1:3] == [round(played["tokens"].mean()), round(played["sequential"].mean())]


@isolated
def test_an_episode_comes_out_as_it_was_measured(run):
    told = episodes(run, View.of(run.path))
    assert told["programs"][0].startswith("round ") and len(told["programs"]) == 4
    assert 2 <= len(told["episodes"]) <= 4
    assert len({each["where"] for each in told["episodes"]}) == len(told["episodes"])
    for each in told["episodes"]:
        for name, played in zip(told["programs"], each["runs"], strict=True):
            assert played["rounds"][0]["actions"][0]["do"] == "branch"
            frame = run.episodes(int(name[6:]) if name.startswith("round") else name, "feedback")
            same = frame.filter(pl.col("sequential") == played["spent"]["sequential"])
            assert played["correct"] in same["correct"]


def row(problem, correct, tokens, beta=0.5):
    return {"store": "s", "problem": problem, "beta": beta, "seed": 0, "correct": correct, "tokens": tokens}


def test_episodes_are_chosen_for_what_differs():
    ours = pl.DataFrame(
        [
            row("a", True, 10),
            row("b", False, 10),
            row("c", True, 10),
            row("d", True, 90),
            row("e", False, 50),
            row("f", False, 60),
            row("f", False, 99, beta=1.0),
        ]
    )
    theirs = ours.with_columns(correct=pl.col("problem").is_in(["b", "c", "d"]), tokens=pl.lit(100))
    assert [(why[:10], where["problem"], where["beta"]) for why, where in choose(ours, theirs)] == [
        ("right, whe", "a", 0.5),
        ("wrong, whe", "b", 0.5),
        ("both right", "c", 0.5),
        ("both wrong", "f", 0.5),
    ]
    assert [where["problem"] for _, where in choose(ours)] == ["d", "f"]


def test_a_log_loses_nothing_on_its_way_to_the_page():
    end = {"answer": 1, "correct": True, "error": "", "spent": {"decode": 9, "sequential": 9}}
    action = {
        "do": "extend",
        "ids": [0, 1, 2, 7],
        "depth": [1] * 4,
        "tokens": [5] * 4,
        "answer": [0, 0, None, -1],
    }
    action |= {"done": [None] * 4, "prm": [[0.1, 0.2], [], [0.3], [0.2]]}
    refused = {"do": "score", "refused": True}
    fork = {
        "do": "fork",
        "ids": [8],
        "from": 2,
        "tokens": [3],
        "answer": [None],
        "done": ["stop"],
        "depth": [2],
    }
    told = compact([{"round": 1, "actions": [action, refused, fork], "notes": ["n" * 999] * 99}, end])
    first, second, third = told["rounds"][0]["actions"]
    assert first == {
        "do": "extend", "ids": "0-2,7", "tokens": 5, "answer": [0, 0, None, -1], "done": None,
        "prm": [0.2, None, 0.3, 0.2],
    }  # fmt: skip
    assert second == refused
    assert third == {"do": "fork", "from": 2, "ids": "8", "tokens": 3, "answer": None, "done": "stop"}
    assert len(json.dumps(told["rounds"][0]["notes"])) < 10_000
    assert told["spent"] == end["spent"]


def test_what_cannot_be_played_again_is_told(run, tmp_path):
    view = View.of(run.path)
    run.config["stores"][0]["path"], kept = str(tmp_path / "gone"), run.config["stores"][0]["path"]
    try:
        assert "cannot be played again" in episodes(run, view)
    finally:
        run.config["stores"][0]["path"] = kept
    assert episodes(run, View.of(run.path)) != "No program was measured yet."


@isolated
def test_episodes_that_come_out_otherwise_are_left_out(run, monkeypatch):
    measured = run.episodes
    monkeypatch.setattr(
        run, "episodes", lambda *entry: measured(*entry).with_columns(decode=pl.col("decode") + 1)
    )
    assert episodes(run, View.of(run.path)).startswith("None came out as it is archived")


def step(number, parent=None, value=0.5, partner=None, eligible=True):
    points = () if value is None else (point(0, 0.2, 1e4), point(1, value, 2e5))
    return Step(number, parent, partner, value, eligible, f"round {number}", points)


def test_lines_of_descent_have_lanes_of_their_own_and_the_winners_is_on_top():
    steps = [
        step(1),
        step(2, 1),
        step(3, 1),
        step(4, 2, partner=3),
        step(5, 3),
        step(6, None, None),
        step(7, 5),
    ]
    for svg in drawings(lineage("It", steps, {1, 2, 4})):
        at = {}
        for link in svg.iter("a"):
            x, y = link.find("path").get("transform")[10:-1].split()
            at[int(link.get("href").removeprefix("#round-"))] = float(x), float(y)
        # Round 6 came from nothing and led to nothing.
        assert set(at) == {1, 2, 3, 4, 5, 7}
        assert len({at[n][1] for n in (1, 2, 4)}) == len({at[n][1] for n in (3, 5, 7)}) == 1
        assert at[1][1] < at[3][1]
        assert [at[n][0] for n in sorted(at)] == sorted(x for x, _ in at.values())
        assert sum("partner" in path.get("class") for path in svg.iter("path")) == 1
        assert sum("lead" in path.get("class") for path in svg.iter("path")) == 2


@pytest.mark.parametrize(
    "steps",
    [[], [step(1)], [step(1), step(2, None, None)], [step(3, parent=3)], [step(1, parent=2)]],
)
def test_without_descent_there_is_no_tree(steps):
    assert lineage("It", steps, set()) == ""


def test_many_lines_share_lanes():
    steps = [step(n, parent=n - 1 if n % 3 else None) for n in range(1, 100)]
    (svg, _) = drawings(lineage("It", steps, set()))
    assert float(svg.get("viewBox").split()[3]) < 200


def test_every_round_that_was_measured_leaves_a_trail():
    steps = [
        step(1),
        step(2, value=None),
        step(3, value=0.9, eligible=False),
        step(4, value=0.6),
        step(5, value=0.4),
    ]
    assert best_by(steps) == {1: 1, 3: 1, 4: 4, 5: 4}
    for svg in drawings(trails("It", steps, CURVES[1:])):
        lines = [line.get("class") for line in svg.iter("polyline")]
        assert [name for name in lines if name.startswith("trail")] == [
            "trail r1",
            "trail r3",
            "trail r4",
            "trail r5",
        ]


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_is_drawn_while_it_goes_on_and_not_too_often(run):
    drawn, warnings = run.path / "report.html", []
    drawn.unlink(missing_ok=True)
    with redrawing(run.path, warnings.append, every=1000) as redraw:
        redraw()
        until(drawn.exists)
        drawn.rename(run.path / "first.html")
        for _ in range(5):
            redraw()
    assert not drawn.exists() and not warnings
    assert "the search has not finished" not in (run.path / "first.html").read_text(encoding="utf-8")


def test_a_drawing_that_fails_is_a_warning_and_the_search_goes_on(tmp_path):
    warnings = []
    with redrawing(tmp_path, warnings.append, every=0) as redraw:
        until(lambda: redraw() or warnings)
        redraw()
    (warning,) = warnings
    assert "the search goes on: autotts: no search run in" in warning


def test_a_search_outlives_its_report(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    (run.path / "finalists.json").write_text("{")
    draw(run)
    assert "the report could not be drawn" in capsys.readouterr().err
