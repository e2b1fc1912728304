"""`autotts evaluate`: its table, its files, and what it says of what it cannot use."""

import json
import re
import sys

import polars as pl
import pytest

import autotts
from env.commands.tables import _tokens
from tests import made_up

ENDLESS = """
import math

def schedule(beta):
    return {"limit": math.inf, "n": 2}

async def solve(ep, limit, n):
    ids = await ep.branch(n)
    await ep.finish(ids)
    return ep.answer[ids[0]]
"""
IDLE = "def schedule(beta): return {}\nasync def solve(ep): return None\n"
KEYS = {
    "store", "model", "dataset", "controller", "beta", "settings", "problems", "seeds", "accuracy",
    "accuracy_ci", "tokens", "tokens_ci", "sequential_tokens", "shortfall", "errors", "isolation", "protocol",
}  # fmt: skip


@pytest.fixture
def store(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(made_up.store(tmp_path / "sums", problems=4, branches=8))


def evaluated(*arguments: str) -> int:
    return autotts.main(["evaluate", *arguments, "--workers", "1"])


def test_rows_and_episodes_are_written(store, tmp_path, capsys):
    options = ["--beta", "0,1", "--seeds", "2", "--json", "new/rows.json", "--out", "new/episodes"]
    names = ["--controller", "self_consistency", "adaptive_consistency", "--set", "max_branches=2"]
    assert evaluated(store, *names, *options) == 0
    out = capsys.readouterr().out
    rows = json.loads((tmp_path / "new" / "rows.json").read_text())["rows"]
    assert [(row["controller"], row["beta"]) for row in rows] == [
        (name, beta) for name in names[1:3] for beta in (0, 1)
    ]
    assert all(KEYS <= row.keys() for row in rows)
    assert all(
        (row["settings"], row["problems"], row["seeds"]) == ({"max_branches": 2}, 4, 2) for row in rows
    )
    assert rows[2]["schedule"] == {"max_branches": 2, "threshold": 0.95}
    frame = pl.read_parquet(tmp_path / "new" / "episodes" / "episodes.parquet")
    assert frame.height == 2 * 2 * 4 * 2
    assert "sequential" in out and "2 seeds, protocol standard" in out
    assert "sums: evaluated 2 times" in out


@pytest.mark.skipif(sys.platform != "linux", reason="untrusted code is run on Linux only")
def test_what_fails_is_a_row_and_json_stays_json(store, tmp_path, capsys):
    (tmp_path / "endless.py").write_text(ENDLESS)
    (tmp_path / "broken.py").write_text("def schedule(beta):\n    return {\n")
    assert evaluated(store, "--controller", "endless.py", "broken.py", "--beta", "0", "--json", "r.json") == 0
    text = (tmp_path / "r.json").read_text()
    good, bad = json.loads(text, parse_constant=pytest.fail)["rows"]
    assert (good["errors"], good["schedule"], good["isolation"]) == (
        0,
        {"limit": "Infinity", "n": 2},
        "strict",
    )
    assert (bad["errors"], bad["schedule"], bad["accuracy"]) == (400, None, 0)
    assert "broken at beta 0: 400 of 400 episodes failed: ProgramError: line 2: not Python" in (
        " ".join(capsys.readouterr().out.split())
    )


@pytest.mark.skipif(sys.platform != "linux", reason="untrusted code is run on Linux only")
def test_figures_make_room_for_figures_of_whatever_came(store, tmp_path, capsys):
    (tmp_path / "idle.py").write_text(IDLE)
    words = [store, "--controller", "idle.py", "--beta", "0", "--seeds", "1", "--json", "r.json"]
    assert evaluated(*words) == 0
    assert evaluated(*words, "--set", "foo=1") == 0
    (row,) = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert row["errors"] == 4 and "no setting 'foo'" in row["error"]


def test_a_setting_that_one_of_several_has_is_an_error_of_the_others_alone(store, tmp_path):
    words = [store, "--controller", "self_consistency", "confidence_momentum", "--set", "max_branches=2"]
    assert evaluated(*words, "--beta", "0", "--seeds", "1", "--json", "r.json") == 0
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert [row["errors"] > 0 for row in rows] == [False, True]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere", "--controller", "self_consistency"], "there is no store at nowhere"),
        (["sums", "--controller", "self_consistancy"], "Did you mean 'self_consistency'"),
        (["sums", "--controller", "mine.py"], "no controller file mine.py"),
        (["sums", "--controller", "self_consistency", "--json", "sums"], "sums is a folder"),
        (["sums", "--controller", "self_consistency", "--out", "file"], "no folder can be made at file"),
        (["sums", "--controller", "idle.py", "--set", "n={1, 2}"], "a setting cannot have a value"),
        (
            ["sums", "--controller", "self_consistency", "--set", "foo=1"],
            "no such setting; self_consistency has",
        ),
        (
            ["sums", "--controller", "self_consistency", "--set", "max_branches=a"],
            "expects a number, such as",
        ),
        (["sums", "--controller", "self_consistency", "--json", "idle.py"], "no figures of an earlier run"),
    ],
)
def test_what_the_user_can_mend_is_one_line(store, tmp_path, capsys, arguments, says):
    (tmp_path / "file").touch()
    (tmp_path / "idle.py").write_text(IDLE)
    before = sorted(tmp_path.rglob("*"))
    assert evaluated(*arguments) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("autotts: ") and told.err.count("\n") == 1
    assert says in told.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--set=n=", "is not NAME=VALUE"),
        ("--set=n", "is not NAME=VALUE"),
        ("--beta=0,2", "is no list of numbers in [0, 1]"),
        ("--beta=nan", "is no list of numbers in [0, 1]"),
        ("--seeds=0", "is not a whole number of at least 1"),
        ("--seeds=1000001", "give at most 1,000,000"),
    ],
)
def test_options_out_of_range(store, capsys, option, says):
    with pytest.raises(SystemExit) as end:
        evaluated(store, "--controller", "self_consistency", option)
    assert end.value.code == 2
    assert says in capsys.readouterr().err


def test_an_interval_of_few_tokens_is_told_in_tokens(store, capsys):
    assert evaluated(store, "--controller", "self_consistency", "--beta", "0", "--seeds", "2") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("toy-0"))
    tokens, low, high = re.search(r"([\d,]+) \[([\d,]+), ([\d,]+)\] ", row[row.index("]") + 1 :]).groups()
    assert int(low.replace(",", "")) < int(tokens.replace(",", "")) < int(high.replace(",", ""))


@pytest.mark.parametrize(
    ("pair", "text"),
    [
        (None, ""),
        ((411.2, 433.7), " [411, 434]"),
        ((149_900, 150_900), " [149,900, 150,900]"),
        ((141_400, 160_200), " [141, 160]k"),
    ],
)
def test_thousands_only_where_they_say_enough(pair, text):
    assert _tokens(pair) == text
