"""One collection on a GPU, end to end, as users run it: bfloat16 and CUDA graphs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from collecting import write_problems

from env.store import Store

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def model() -> str:
    torch = pytest.importorskip("torch", reason="`pip install 'autotts[gpu]'` to test on a GPU")
    pytest.importorskip("vllm", reason="`pip install 'autotts[gpu]'` to test on a GPU")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    path = os.environ.get("AUTOTTS_GPU_MODEL", "")
    if not Path(path).is_dir():
        pytest.skip("set AUTOTTS_GPU_MODEL to the folder of a small reasoning model, such as Qwen3-0.6B")
    return path


def test_collect_kill_and_finish(model, tmp_path):
    command = [sys.executable, "-m", "autotts", "collect", "--model", model, "--out", str(tmp_path / "store")]
    command += ["--problems", str(write_problems(tmp_path / "problems.jsonl", 4)), "--group", "1"]
    command += ["--branches", "8", "--fork-depths", "1", "--segment-tokens", "100", "--max-tokens", "1000"]
    command += ["--engine-arg", "dtype='bfloat16'", "--engine-arg", "max_model_len=4096"]
    finished = tmp_path / "store.collecting" / "samples-0"
    process = subprocess.Popen(command, cwd=ROOT)
    while not list(finished.glob("[0-9]*.parquet")):
        assert process.poll() is None, "it ended before its first group was done"
    process.kill()
    process.wait()
    # What the killed process held of the card is free again, and what it had finished is left as it is.
    kept = {path.name: path.read_bytes() for path in finished.glob("[0-9]*.parquet")}
    process = subprocess.Popen(command, cwd=ROOT)
    while process.poll() is None and finished.exists():
        for name, data in kept.items():
            assert not (finished / name).exists() or (finished / name).read_bytes() == data
    assert process.wait() == 0
    store = Store.open(tmp_path / "store")
    assert len(store) == 4 and store.capabilities >= {"probes", "forks", "logprob", "confidence", "text"}
    forest = store.forest()
    assert sum(forest.parent < 0) == 32 and forest.class_correct.any()
    done = [sys.executable, "-m", "autotts", "evaluate", str(tmp_path / "store"), "--seeds", "5"]
    done += ["--controller", "self_consistency"]
    assert subprocess.run(done, cwd=ROOT, check=False).returncode == 0
