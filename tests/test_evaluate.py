"""Evaluation: the same episodes however they are run; what goes wrong is a row, not a crash."""

import json
import random
import sys

import polars as pl
import pytest

from env import unit
from env.errors import UserError
from env.evaluate import evaluate
from env.isolation.link import Limits
from env.program import Program
from env.store import Store
from tests import made_up
from tests.programs import CAREFUL, isolated, shipped, written
from tests.trees import random_store

NAMES = (
    "self_consistency",
    "adaptive_consistency",
    "early_stopping_consistency",
    "parallel_probe",
    "confidence_momentum",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store.open(made_up.store(tmp_path_factory.mktemp("stores") / "sums", problems=5, branches=16))


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> Store:
    return random_store(tmp_path_factory.mktemp("stores") / "trees", random.Random(3), problems=4)


@pytest.fixture
def impatient(monkeypatch):
    """A second of processor time is more than a test has; how long that takes is up to the machine."""
    monkeypatch.setattr(unit, "Limits", lambda **_: Limits(cpu=1, wall=60.0))
    unit._pool.cache_clear()
    yield
    unit._pool.cache_clear()


def outcomes(frame: pl.DataFrame) -> pl.DataFrame:
    """All but how it was run."""
    return frame.drop("isolation", "level")


@isolated
@pytest.mark.parametrize("protocol", ["standard", "published"])
def test_isolation_changes_nothing_about_the_outcome(store, protocol):
    programs = [shipped(name) for name in NAMES] + [CAREFUL]
    chosen = {"betas": [0.3], "seeds": range(4), "protocol": protocol, "workers": 1}
    none, strict, batch = (
        evaluate([store], programs, isolation=isolation, **chosen).frame
        for isolation in ("none", "strict", "batch")
    )
    assert outcomes(none).equals(outcomes(strict))
    assert outcomes(none).equals(outcomes(batch))
    assert none["error"].unique().to_list() == [""]
    assert (none["level"].unique().to_list(), strict["level"].n_unique()) == ([""], 1)
    assert strict["level"][0] in ("A", "B")
    assert none["tokens"].n_unique() > 20


@isolated
def test_isolation_changes_nothing_on_trees(trees):
    none, strict = (
        evaluate([trees], [CAREFUL], betas=[0.5], seeds=range(6), isolation=isolation, workers=1).frame
        for isolation in ("none", "strict")
    )
    assert outcomes(none).equals(outcomes(strict))
    assert none["error"].unique().to_list() == [""]
    assert (none["granted"] > 3).any()


def test_a_frame_has_a_row_an_episode(store):
    done = evaluate(
        [store], [shipped("self_consistency"), shipped("adaptive_consistency")],
        betas=[0, 0.5], seeds=[3, 1], settings={"max_branches": 2}, workers=1,
    )  # fmt: skip
    frame = done.frame
    hashes = store.problems["question_hash"].to_pylist()
    assert frame.height == 2 * 2 * 2 * 5
    assert frame.columns == [
        "store", "model", "dataset", "controller", "beta", "settings", "problem", "seed", "correct", "answer",
        "decode", "probe", "prm", "tokens", "sequential", "rounds", "asked", "granted", "error", "isolation",
        "level", "protocol",
    ]  # fmt: skip
    assert frame["controller"].unique(maintain_order=True).to_list() == [
        "self_consistency",
        "adaptive_consistency",
    ]
    assert frame["seed"][:10].to_list() == [3] * 5 + [1] * 5
    assert frame["problem"][:10].to_list() == hashes * 2
    assert (frame["tokens"] == frame["decode"] + frame["probe"] + frame["prm"]).all()
    assert (frame["sequential"] <= frame["tokens"]).all()
    assert json.loads(frame["settings"][0]) == {"max_branches": 2}
    assert set(frame["isolation"]) == {"none"}
    same = frame.filter(pl.col("beta") == 0).drop("beta")
    assert same.equals(frame.filter(pl.col("beta") == 0.5).drop("beta"))
    assert done.schedules["adaptive_consistency", 0.5] == {"max_branches": 2, "threshold": 0.95}


BROKEN = {
    "raises": written("raises", "await ep.branch(1)\nreturn ep.answer[5]"),
    "garbage": written("garbage", "await ep.branch(1)\nreturn [1]"),
    "misuses": written("misuses", "await ep.extend([0])"),
    "unawaited": written("unawaited", "ids = ep.branch(1)\nawait ep.finish(ids)"),
    "no_syntax": Program("no_syntax", "def schedule(beta):\n    return {\n"),
    "no_contract": Program("no_contract", "x = 1\n"),
    "no_dictionary": written("no_dictionary", "pass", settings="3"),
    "bad_schedule": written("bad_schedule", "pass", settings='{"n": 1 / (beta - beta)}', arguments=", n"),
    "bad_settings": written("bad_settings", "pass", settings='{"n": 1}'),
    "odd_settings": written("odd_settings", "pass", settings='{"n": {1, 2}}', arguments=", n"),
    "leaves": written("leaves", "pass", above="raise SystemExit(3)"),
    "own_kind": written("own_kind", "raise Mine('x')", above="class Mine(BaseException):\n    pass\n"),
    "bad_module": written("bad_module", "pass", above="x = [][0]"),
    "forbidden": written("forbidden", "import os"),
    "sometimes": written(
        "sometimes",
        """
ids = await ep.branch(1)
await ep.finish(ids)
return ep.answer[0 if ep.tokens[0] > 250 else 9]
""",
    ),
}
SAYS = {
    "raises": "IndexError: list index out of range (line 8 of the controller)",
    "garbage": "ControllerError: solve returned list, not an answer code or None",
    "misuses": "ControllerError: unknown branch id: ",
    "unawaited": "TypeError: ",
    "no_syntax": "ProgramError: line 2: not Python: '{' was never closed",
    "no_contract": "ProgramError: no `def schedule(beta)`",
    "no_dictionary": "TypeError: ",
    "bad_schedule": "ZeroDivisionError: ",
    "bad_settings": "TypeError: ",
    "odd_settings": "WireError: a value of type set: only numbers, strings",
    "leaves": "SystemExit: 3",
    "own_kind": "Mine: x (line ",
    "bad_module": "IndexError: ",
    "forbidden": "ProgramError: line 7: import os: a controller may import ",
}


@isolated
@pytest.mark.parametrize("isolation", ["strict", "none"])
def test_what_goes_wrong_is_a_row_and_the_others_still_come(store, isolation):
    programs = [*BROKEN.values(), shipped("self_consistency")]
    done = evaluate([store], programs, betas=[0.5], seeds=range(2), isolation=isolation, workers=1)
    rows = {name: frame for (name,), frame in done.frame.group_by("controller")}
    assert {name: frame.height for name, frame in rows.items()} == {p.name: 10 for p in programs}
    for name, says in SAYS.items():
        assert rows[name]["error"][0].removeprefix(unit.NOT_RUN).startswith(says), name
        assert (rows[name]["error"] != "").all()
        assert not rows[name]["correct"].any()
    assert set(rows["raises"]["rounds"]) == {1}
    assert (rows["raises"]["tokens"] > 0).all()
    failed = rows["sometimes"]["error"] != ""
    assert 0 < failed.sum() < 10
    assert (rows["sometimes"]["decode"] > 250).to_list() == (~failed).to_list()
    assert set(rows["self_consistency"]["error"]) == {""}
    assert rows["self_consistency"]["correct"].any()


@isolated
def test_a_controller_that_never_ends_is_stopped_once(store, impatient):
    hangs = written("hangs", "await ep.branch(1)\nwhile True:\n    pass")
    done = evaluate([store], [hangs, shipped("self_consistency")], betas=[0.5], seeds=range(3), workers=1)
    rows = done.frame.filter(pl.col("controller") == "hangs")
    assert all("processor time" in error for error in rows["error"][:5])
    assert rows["error"][5:].str.starts_with(unit.NOT_RUN).all()
    assert not rows["correct"].any()
    assert set(done.frame["error"][15:]) == {""}


@isolated
def test_a_controller_that_hangs_on_one_problem_is_stopped_once(store, impatient):
    """It would spend the time limit of every seed's process."""
    body = "await ep.finish(await ep.branch(2))"
    costs = evaluate([store], [written("costs", body)], betas=[0.5], seeds=[0], workers=1).frame["decode"]
    hangs = written("hangs", f"{body}\nwhile sum(ep.tokens) == {costs[2]}:\n    pass")
    rows = evaluate([store], [hangs], betas=[0.5], seeds=range(600), workers=1).frame
    assert "processor time" in rows["error"][2]
    assert rows["error"][5:].str.starts_with(unit.NOT_RUN).all()


@isolated
def test_a_controller_that_hangs_later_is_stopped_with_its_wave(store, impatient, monkeypatch):
    monkeypatch.setattr(unit, "WAVE_APART", 20)
    body = "await ep.finish(await ep.branch(2))"
    costs = evaluate([store], [written("costs", body)], betas=[0.5], seeds=range(20), workers=1).frame
    late = next(n for n in range(5, 20) if costs["decode"][n] not in costs["decode"][:5])
    hangs = written("hangs", f"{body}\nwhile sum(ep.tokens) == {costs['decode'][late]}:\n    pass")
    rows = evaluate([store], [hangs], betas=[0.5], seeds=range(20), workers=1).frame
    assert set(rows["error"][:5]) == {""}
    assert rows["error"][20:].str.starts_with(unit.NOT_RUN).all()


@pytest.mark.parametrize("isolation", ["strict", "batch"])
@pytest.mark.parametrize(("problems", "seeds"), [(1, 5), (7, 400), (300, 2), (301, 3), (700, 2), (1500, 2)])
def test_a_process_plays_so_many_episodes_and_under_strict_one_of_a_problem(isolation, problems, seeds):
    work = unit.Unit(
        store="", program=CAREFUL, beta=0, overrides={}, seeds=range(seeds), problems=range(problems),
        protocol="standard", probe_tokens=20, max_branches=None, isolation=isolation,
    )  # fmt: skip
    at, largest = 0, 0
    for first, last in unit._waves(work):
        for span in unit._spans(work, last - first):
            assert first + span.start == at
            at += len(span)
            largest = max(largest, len(span))
            played = range(first + span.start, first + span.stop)
            if isolation == "strict":
                assert played[0] // problems == played[-1] // problems
    assert at == problems * seeds
    assert largest <= unit.BATCH
    assert isolation == "strict" or largest > unit.BATCH / 2 or at < unit.BATCH


def test_settings_from_outside(store):
    program = shipped("self_consistency")
    one, eight = (
        evaluate([store], [program], betas=[1], seeds=range(2), settings={"max_branches": n}, workers=1).frame
        for n in (1, 8)
    )
    assert one["granted"].to_list() == [1] * 10
    assert eight["granted"].to_list() == [8] * 10
    wrong = evaluate([store], [program], betas=[1], seeds=range(2), settings={"branches": 1}, workers=1).frame
    assert wrong["error"][0] == "ControllerError: no setting 'branches': the schedule has max_branches"
    assert wrong["tokens"].sum() == 0


def test_problems_ceilings_and_probes(store):
    chosen = store.problems["question_hash"].to_pylist()[1:4:2]
    program = shipped("parallel_probe")

    def frame(**options):
        return evaluate([store], [program], betas=[0.5], seeds=range(2), workers=1, **options).frame

    few = frame(problems=set(chosen))
    assert few["problem"].to_list() == chosen * 2
    assert few.equals(frame().filter(pl.col("problem").is_in(chosen)))
    assert frame(problems=["nowhere"]).height == 0
    assert set(frame()["granted"]) == {8}
    assert set(frame(max_branches=3)["granted"]) == {3}
    assert set(frame(max_branches=3)["asked"]) == {8}
    free, dear = frame(probe_tokens=0), frame(probe_tokens=7)
    assert free["probe"].sum() == 0
    assert (dear["probe"] % 7 == 0).all() and dear["probe"].sum() > 0
    assert dear["decode"].equals(free["decode"])


def test_the_seed_alone_decides(store):
    program = shipped("confidence_momentum")
    once = evaluate([store], [program], betas=[0.3], seeds=range(5), workers=1).frame
    again = evaluate([store], [program], betas=[0.3], seeds=[4, 2], workers=1).frame
    assert again.equals(pl.concat([once.filter(pl.col("seed") == 4), once.filter(pl.col("seed") == 2)]))
    assert once.group_by("problem").agg(pl.col("tokens").n_unique())["tokens"].min() > 1


def test_workers_change_nothing(store):
    """Untrusted programs go to children of the workers, in units of their own."""
    programs = (
        [shipped("self_consistency"), CAREFUL] if sys.platform == "linux" else [shipped("parallel_probe")]
    )
    told = []
    one, two = (
        evaluate(
            [store], programs, betas=[0, 0.5], seeds=range(3), workers=workers,
            progress=lambda done, total: told.append((done, total)),
        ).frame
        for workers in (1, 2)
    )  # fmt: skip
    assert one.equals(two)
    assert told[: len(told) // 2] == told[len(told) // 2 :]
    assert told[-1] == (one.height, one.height)


def test_several_stores(store, trees):
    frame = evaluate([trees, store], [shipped("self_consistency")], betas=[0], seeds=[0], workers=1).frame
    assert frame["store"].to_list() == [trees.path] * 4 + [store.path] * 5
    assert frame["model"].unique(maintain_order=True).to_list() == ["random", "toy-0"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"betas": []}, "nothing to evaluate: give at least one store, controller, beta and seed"),
        ({"seeds": []}, "nothing to evaluate"),
        ({"betas": [0.5, 1.5]}, r"beta 1.5 is outside \[0, 1\]"),
        ({"betas": [-0.1]}, r"beta -0.1 is outside \[0, 1\]"),
        ({"settings": {"n": {1, 2}}}, "a setting cannot have a value of type set: only numbers"),
        ({"settings": {"n": {1: 2}}}, "a setting cannot have a dictionary whose keys are not all strings"),
        ({"isolation": "some"}, "no isolation 'some': choose strict, batch, none"),
        ({"executor": "cloud"}, "no executor 'cloud': choose serial, processes, ray"),
        ({"protocol": "honest"}, "no protocol 'honest': choose standard or published"),
    ],
)
def test_arguments_out_of_range(store, wrong, says):
    with pytest.raises(UserError, match=says):
        evaluate([store], [shipped("self_consistency")], **{"betas": [0], "seeds": [0], "workers": 1} | wrong)


def test_two_controllers_of_one_name_are_refused(store):
    with pytest.raises(UserError, match="two controllers of the same name"):
        evaluate([store], [CAREFUL, CAREFUL], betas=[0], seeds=[0])


@pytest.mark.parametrize(
    "read",
    [
        "len(ep.tokens) == 4 and min(ep.tokens) > 0",
        "min(ep.depth) >= 1",
        "ep.spent.total == ep.spent.decode + ep.spent.probe > 0 == ep.spent.prm",
        "True",
    ],
)
def test_a_controller_is_told_of_costs_if_it_asks(store, read):
    body = f"branches = await ep.branch(4)\nassert {read}\nawait ep.finish(branches)\nreturn ep.answer[0]"
    frame = evaluate([store], [written("reader", body)], betas=[0], seeds=[1, 2], isolation="none").frame
    assert frame["error"].to_list() == [""] * len(frame)
    assert frame["tokens"].min() > 0
