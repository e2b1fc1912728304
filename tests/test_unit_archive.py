"""What `evaluate` keeps in an archive is what it would play, and nothing is played twice."""

import os

import pytest

import env.evaluate
from env.archive import Archive
from env.evaluate import Episodes, evaluate
from env.program import Program
from env.store import Store
from tests import made_up

FIRST = """
import math

def schedule(beta):
    return {"n": 1 + round(beta), "limit": math.inf}

async def solve(ep, n, limit):
    ids = await ep.branch(n)
    await ep.finish(ids)
    return ep.answer[ids[0]]
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store.open(str(made_up.store(tmp_path_factory.mktemp("store") / "sums", problems=4, branches=8)))


@pytest.fixture
def units(monkeypatch) -> list[tuple[str, float]]:
    """(controller, beta) of every unit that is really played."""
    units, play = [], env.evaluate.play_unit

    def noting(unit):
        units.append((unit.program.name, unit.beta))
        return play(unit)

    monkeypatch.setattr(env.evaluate, "play_unit", noting)
    return units


def programs(*sources: str) -> list[Program]:
    return [Program(name, source, trusted=True) for name, source in zip("ab", sources, strict=False)]


def played(store: Store, path, sources=(FIRST, FIRST), seeds=3, **options) -> Episodes:
    options = {"betas": (0.0, 1.0), "executor": "serial"} | options
    return evaluate([store], programs(*sources), seeds=range(seeds), archive=Archive(path), **options)


def same(a: Episodes, b: Episodes) -> bool:
    return a.frame.equals(b.frame) and a.schedules == b.schedules


def test_the_second_time_nothing_is_played_and_nothing_differs(store, units, tmp_path):
    first = played(store, tmp_path)
    plain = evaluate([store], programs(FIRST, FIRST), betas=(0.0, 1.0), seeds=range(3), executor="serial")
    assert same(first, plain)
    del units[:]
    seen = []
    assert same(first, played(store, tmp_path, progress=lambda *counts: seen.append(counts)))
    assert units == [] and seen == [(48, 48)]


def test_a_changed_file_is_played_anew_and_only_that(store, units, tmp_path):
    played(store, tmp_path)
    del units[:]
    again = played(store, tmp_path, sources=(FIRST, FIRST + "\n"))
    assert units == [("b", 1.0), ("b", 0.0)]
    assert again.frame.height == 48


@pytest.mark.parametrize(
    "options", [{"seeds": 4}, {"probe_tokens": 3}, {"protocol": "published"}, {"max_branches": 2}]
)
def test_what_changes_figures_is_part_of_the_name(store, units, tmp_path, options):
    played(store, tmp_path)
    del units[:]
    played(store, tmp_path, **options)
    assert len(units) == 4


def test_another_store_under_the_same_path_is_another_store(units, tmp_path):
    sums, kept = tmp_path / "sums", tmp_path / "kept"
    for seed in (1, 2):
        del units[:]
        played(Store.open(str(made_up.store(sums, problems=2, branches=4, seed=seed))), kept)
        assert len(units) == 4
        sums.rename(tmp_path / f"sums-{seed}")


def test_a_price_table_that_changed_is_another_cost(store, units, tmp_path):
    own = tmp_path / "own.py"
    for factor in (1, 2):
        own.write_text(f"def twice(log):\n    return [{factor}] * len(log)\n")
        del units[:]
        played(store, tmp_path / "kept", costs=[f"{own}:twice"])
        assert len(units) == 4


def test_an_interrupted_evaluation_goes_on_where_it_ended(store, units, tmp_path):
    def give_up(done, total):
        if done == 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        played(store, tmp_path, progress=give_up)
    before = {file: os.stat(file).st_mtime_ns for file in tmp_path.iterdir()}
    assert len(before) == 2
    del units[:]
    played(store, tmp_path)
    # The dear ones had come first.
    assert units == [("a", 0.0), ("b", 0.0)]
    assert before.items() <= {file: os.stat(file).st_mtime_ns for file in tmp_path.iterdir()}.items()


def test_a_damaged_file_is_played_anew(store, units, tmp_path):
    first = played(store, tmp_path)
    file = sorted(tmp_path.iterdir())[0]
    file.write_bytes(file.read_bytes()[:100])
    del units[:]
    assert same(first, played(store, tmp_path)) and len(units) == 1


def test_errors_are_kept_as_well(store, units, tmp_path):
    broken = FIRST.replace("ep.branch(n)", "ep.branch(-1)")
    first = played(store, tmp_path, sources=(broken,))
    del units[:]
    again = played(store, tmp_path, sources=(broken,))
    assert units == [] and same(first, again) and (again.frame["error"] != "").all()
