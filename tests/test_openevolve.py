"""Our evaluator under the real OpenEvolve: its loader, its cascade, its loop against a scripted model."""

import asyncio
import json
import os
import re
import subprocess
import sys

import pytest
from checkout import ROOT
from made_up import store as make_store
from scripted_server import ScriptedServer, completion

from env.errors import UserError
from search_agent.openevolve import evaluator, judge

openevolve = pytest.importorskip("openevolve", reason="needs OpenEvolve: pip install -e '.[openevolve]'")

PROGRAM = '''"""Asks {most} branches at most, and lets them vote."""

from controllers.voting import majority


def schedule(beta):
    return {{"n": {schedule}}}


async def solve(ep, n):
    {line}
    ids = await ep.branch(n, probe=False)
    await ep.finish(ids)
    return majority(ep.answer[i] for i in ids)
'''


def program(most, schedule=None, line="pass"):
    return PROGRAM.format(most=most, schedule=schedule or f"1 + round(beta * {most - 1})", line=line)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """An evaluator file, as a user writes it."""
    folder = tmp_path_factory.mktemp("openevolve")
    store = make_store(folder / "store", problems=10, branches=20)
    file = folder / "evaluator.py"
    file.write_text(
        "from search_agent.openevolve import evaluator\n"
        f"evaluate, evaluate_stage1, evaluate_stage2 = evaluator({str(store)!r}, seeds=2)\n"
    )
    return file


@pytest.fixture(autouse=True)
def tidy(monkeypatch):
    """OpenEvolve adds the evaluator's folder to the path, and its module to those loaded."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("evaluation_module", None)


def judged(file, source, **settings):
    """Metrics and artifacts that OpenEvolve's own evaluator comes to."""
    from openevolve.config import EvaluatorConfig
    from openevolve.evaluator import Evaluator

    theirs = Evaluator(EvaluatorConfig(max_retries=0, **settings), str(file))
    metrics = asyncio.run(theirs.evaluate_program(source, "it"))
    theirs._executor.shutdown()
    return metrics, theirs.get_pending_artifacts("it")


def test_a_program_is_worth_its_hypervolume_on_problems_that_the_model_reads_nothing_of(file):
    metrics, artifacts = judged(file, program(8), cascade_evaluation=False)
    assert set(metrics) == {"combined_score", "accuracy", "tokens", "sequential_tokens"}
    assert 0 < metrics["combined_score"] < 5
    assert 0 < metrics["sequential_tokens"] < metrics["tokens"]
    teaching = {"where_accuracy_was_lost", "where_tokens_went", "episode_1", "episode_2", "episode_3"}
    assert set(artifacts) == {"controller_api", "problems"} | teaching
    heads, *rows = (line.split(",") for line in artifacts["problems"].splitlines())
    # Of ten problems three are left for the end, and a third of the others is shown.
    assert [row[heads.index("problem")] for row in rows] == ["p01", "p02", "p03"]
    assert "(s1 p0" in artifacts["episode_1"] and "1: branch 0-" in artifacts["episode_1"]
    assert artifacts["where_accuracy_was_lost"].startswith("all: right ")
    assert "ep.branch" in artifacts["controller_api"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (program(8, line="import os"), "line 11: import os"),
        (program(8, line="1 / 0"), "trial run: ZeroDivisionError"),
        (program(8, schedule="8 - round(7 * beta)"), "mean tokens fall"),
    ],
)
def test_a_program_that_cannot_win_scores_nothing_and_is_told_why(file, source, why):
    metrics, artifacts = judged(file, source)
    assert metrics["combined_score"] == 0
    assert artifacts["objection"].startswith(why)


def test_a_cascade_measures_the_promising_on_more_problems(file):
    whole, _ = judged(file, program(8), cascade_evaluation=False)
    promising, told = judged(file, program(8), cascade_thresholds=[1e-6])
    assert promising == whole
    assert "problems" in told
    stopped, _ = judged(file, program(8), cascade_thresholds=[100.0])
    assert stopped["tokens"] != whole["tokens"]


def test_a_program_runs_where_it_can_touch_nothing(file, tmp_path, monkeypatch):
    for module in ("search_agent.openevolve", "env.evaluate"):
        monkeypatch.setattr(f"{module}.check", lambda source: None)
    candidate = tmp_path / "candidate.py"
    candidate.write_text(program(8, line=f"open({str(tmp_path / 'mine')!r}, 'w').close()"))
    told = judge([str(file.parent / "store")], 2, 3, ["feedback"], str(candidate))
    assert told["metrics"]["combined_score"] == 0
    assert told["artifacts"]["objection"].startswith("trial run: ")
    assert list(tmp_path.iterdir()) == [candidate]


def test_a_store_that_is_not_there_is_named(tmp_path):
    evaluate, *_ = evaluator(tmp_path / "nowhere")
    with pytest.raises(UserError, match="nowhere"):
        evaluate(str(tmp_path / "candidate.py"))


def test_openevolve_finds_a_better_program_with_the_configuration_of_the_readme(file, tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (config,) = re.findall("```yaml\n(# openevolve.yaml\n.*?)```", readme, re.DOTALL)
    start = tmp_path / "start.py"
    start.write_text(program(2))
    better = f"More voters.\n```python\n{program(9)}```\n"
    with ScriptedServer(completion("An idea without a program."), completion(better)) as server:
        configured = tmp_path / "openevolve.yaml"
        configured.write_text(re.sub("https?://\\S+", server.url, config))
        options = ["--config", configured, "--iterations", "2", "--output", tmp_path / "out"]
        done = subprocess.run(
            [sys.executable, "-m", "openevolve.cli", start, file, *options],
            cwd=ROOT,
            env=os.environ | {"OPENAI_API_KEY": "none"},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    asked = json.dumps(server.requests[0])
    assert "ep.branch" in asked and "accuracy_at_0.5" in asked and "of a possible" in asked
    assert (tmp_path / "out" / "best" / "best_program.py").read_text() == program(9).strip()
