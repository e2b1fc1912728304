"""`autotts evaluate --all`: who is played, what is kept, what is said and drawn."""

import json
import sys

import polars as pl
import pytest

import autotts
import env.evaluate
from env.holdout import lookups
from tests import made_up

CHAINS = {
    "adaptive_consistency",
    "early_stopping_consistency",
    "parallel_probe",
    "self_consistency",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("all")


@pytest.fixture(scope="module")
def store(folder) -> str:
    return str(made_up.store(folder / "sums", problems=4, branches=8))


def evaluated(*arguments: str) -> int:
    return autotts.main(["evaluate", *arguments, "--all", "--seeds", "2", "--workers", "1"])


@pytest.fixture(scope="module")
def done(store, folder):
    """The first run, into DIR; its figures."""
    assert evaluated(store, "--out", str(folder / "out"), "--json", str(folder / "rows.json")) == 0
    return json.loads((folder / "rows.json").read_text())


def test_whatever_the_store_has_the_means_for_is_played(done, folder):
    played = {row["controller"] for row in done["rows"]}
    assert played >= CHAINS
    assert {row["beta"] for row in done["rows"]} == {0, 0.25, 0.5, 0.75, 1}
    left_out = {sentence.split()[0]: sentence for sentence in done["left_out"]}
    assert played.isdisjoint(left_out) and played | left_out.keys() == autotts.controllers().keys()
    assert left_out["rebase"] == f"rebase cannot be played: {folder / 'sums'} has no forks and no prm"


def test_the_figures_are_there_by_controller_and_by_difficulty(done):
    entry = next(entry for entry in done["lineup"] if entry["controller"] == "self_consistency")
    assert entry["hypervolume_ci"][0] <= entry["hypervolume"] <= entry["hypervolume_ci"][1]
    assert [match["branches"] for match in entry["against_self_consistency"]] == [4, 16, 64]
    assert all(
        match["lead"] == 0 and match["sequential_tokens"] for match in entry["against_self_consistency"]
    )
    assert sum(level["problems"] for level in done["difficulty"]) == 4
    rates = [level["pass_rate"] for level in done["difficulty"]]
    assert rates == sorted(rates)


def test_a_second_run_plays_nothing_and_says_the_same(done, store, folder, monkeypatch, capsys):
    before = len(lookups(store))
    monkeypatch.setattr(env.evaluate, "play_unit", lambda unit: pytest.fail("played again"))
    assert evaluated(store, "--out", str(folder / "out"), "--json", str(folder / "again.json")) == 0
    assert len(lookups(store)) == before
    assert json.loads((folder / "again.json").read_text()) == done
    told = capsys.readouterr().out
    assert "hypervolume" in told and "tokens of 64" in told and "accuracy of 16" in told and "seq." in told
    assert "self_consistency asks for more branches than there are" in told
    assert "best_of_n cannot be played" in told and "not replayable at beta" in told
    assert f"picture: {folder / 'out' / 'frontiers.html'}" in told
    text = (folder / "out" / "frontiers.html").read_text()
    assert "self consistency" in text and "best_of_n cannot be played" in text
    frame = pl.read_parquet(folder / "out" / "episodes.parquet")
    assert set(frame["controller"]) == {row["controller"] for row in done["rows"]}


def test_a_controller_of_ones_own_is_put_beside_them(done, store, folder, monkeypatch, capsys):
    if sys.platform != "linux":
        pytest.skip("untrusted code is run on Linux only")
    names, play = set(), env.evaluate.play_unit
    mine = folder / "mine.py"
    mine.write_text(autotts.controllers()["self_consistency"].read_text())
    before = len(lookups(store))
    monkeypatch.setattr(env.evaluate, "play_unit", lambda unit: names.add(unit.program.name) or play(unit))
    assert (
        evaluated(store, "--controller", str(mine), "--out", str(folder / "out"), "--isolation", "none") == 0
    )
    assert names == {"mine"} and len(lookups(store)) == before + 1
    assert "mine" in (folder / "out" / "frontiers.html").read_text()


def test_interrupted_it_says_how_to_go_on_and_counts_the_look(store, tmp_path, monkeypatch, capsys):
    play, before = env.evaluate.play_unit, len(lookups(store))
    units = []

    def tire(unit):
        if len(units) == 2:
            raise KeyboardInterrupt
        units.append(unit)
        return play(unit)

    monkeypatch.setattr(env.evaluate, "play_unit", tire)
    assert evaluated(store, "--out", str(tmp_path)) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert len(list((tmp_path / "units").iterdir())) == 2
    assert len(lookups(store)) == before + 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--all", "--set", "n=1"], "leave it out with --all"),
        ([], "name controllers with --controller, or give --all"),
    ],
)
def test_what_does_not_go_together(store, capsys, arguments, says):
    assert autotts.main(["evaluate", store, *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_file_that_is_no_python_is_a_row_and_the_pictures_come_all_the_same(done, store, folder, capsys):
    broken = folder / "broken.py"
    broken.write_text("def schedule(beta):\n    return {\n")
    out, rows = folder / "out", folder / "broken.json"
    assert evaluated(store, "--controller", str(broken), "--out", str(out), "--json", str(rows)) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "broken at beta 0: 8 of 8 episodes failed: ProgramError: line 2: not Python" in told
    assert "broken is not among them, since all of its episodes failed: ProgramError" in told
    figures = json.loads(rows.read_text())
    assert {row["controller"] for row in figures["rows"]} - {row["controller"] for row in done["rows"]} == {
        "broken"
    }
    assert figures["lineup"] == done["lineup"]
    assert "broken is not among them" in (out / "frontiers.html").read_text()
