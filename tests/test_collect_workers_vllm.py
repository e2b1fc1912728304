"""The whole command with real engines in several processes: of this machine, and of a Ray cluster."""

import argparse
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm", reason="`pip install 'autotts[cpu]'` to test with vLLM")

from checkout import ROOT
from collecting import Borrowed, problems, write_problems
from test_prm_vllm import ENGINE, QUESTION, STEPS, plain_scores, token_classifier
from vllm_models import shared_model

from autotts import main
from collect.collection import Collection
from collect.commands.collect import add_arguments, plan_of
from collect.prm.scorer import open_scorer
from collect.workers import open_scorers, process_workers
from env.store import Store

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]


def options(folder: Path) -> list[str]:
    file = write_problems(folder / "problems.jsonl", 8)
    asked = ["--model", str(shared_model()), "--problems", str(file), "--task", "exact", "--group", "1"]
    asked += ["--branches", "6", "--segment-tokens", "30", "--max-tokens", "300", "--probe-tokens", "8"]
    return [*asked, "--fork-depths", "2", "--engine-arg", "max_num_seqs=4"]


def meta_of_one_process(folder: Path, asked: list[str]) -> dict:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    plan = plan_of(parser.parse_args([*asked, "--out", str(folder / "here")]))
    Collection(plan, problems(8), folder / "here").run(lambda arm: Borrowed())
    return Store.open(folder / "here").meta


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


@pytest.mark.slow
def test_two_processes_one_of_which_is_killed_and_the_same_command(tmp_path):
    asked = options(tmp_path)
    command = [sys.executable, "-m", "autotts", "collect", *asked, "--gpus", "2"]
    command += ["--out", str(tmp_path / "store")]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    finished = tmp_path / "store.collecting" / "samples-0"
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while len(list(finished.glob("[0-9]*.parquet"))) < 1:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    first, second = children(process.pid)
    os.kill(second, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and "was killed by signal 9; what is finished is kept" in said
    assert not Path(f"/proc/{first}").exists() and not Path(f"/proc/{second}").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in finished.glob("[0-9]*.parquet")}
    assert 1 <= len(kept) < 8 and not (tmp_path / "store").exists()
    assert subprocess.run(command, cwd=ROOT, env=environment).returncode == 0
    assert Store.open(tmp_path / "store").meta == meta_of_one_process(tmp_path, asked)


@pytest.mark.slow
def test_actors_of_a_ray_cluster(tmp_path):
    ray = pytest.importorskip("ray", reason="`pip install 'autotts[ray]'` to test with Ray")
    asked = options(tmp_path)
    assert main(["collect", *asked, "--ray", "--gpus", "2", "--out", str(tmp_path / "store")]) == 0
    ray.shutdown()
    assert Store.open(tmp_path / "store").meta == meta_of_one_process(tmp_path, asked)


def test_scorers_in_two_processes(tmp_path):
    torch_model = token_classifier(tmp_path)
    opening = partial(open_scorer, str(tmp_path), "token-classifier", dict(ENGINE))
    scorer = open_scorers(process_workers(2, 1), opening)
    items = [(QUESTION, STEPS), (QUESTION, STEPS[:2]), ("What is 2 + 2?", ["4", "So: 4."])]
    found = scorer.score(items)
    scorer.close()
    assert scorer.kind == "token-classifier" and scorer.context == 512
    for (question, steps), scores in zip(items, found, strict=True):
        expected = plain_scores("token-classifier", tmp_path, torch_model, question, steps)
        np.testing.assert_allclose(scores, expected, atol=1e-4)
