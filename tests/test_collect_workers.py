"""Engines and scorers in processes of their own: what they answer, and what happens when one dies."""

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from toy_engine import ToyEngine, ToyScorer, sample_of

from collect import workers
from collect.engine import EngineError, Request, Sampling, generate
from collect.workers import ProcessWorker, divided, open_engines, open_scorers, process_workers
from env.errors import UserError

HERE = str(Path(__file__).parent)


@pytest.fixture(autouse=True)
def toys_can_be_imported(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", HERE)


@pytest.fixture(params=["processes", "actors"])
def start(request):
    """What starts two workers, of either sort."""
    if request.param == "processes":
        return [partial(ProcessWorker, f"engine {number}", {}) for number in range(2)]
    return [partial(actor, f"actor {number}", 0) for number in range(2)]


def actor(name: str, cards: int):
    """An actor of a Ray cluster that lives as long as the tests."""
    ray = pytest.importorskip("ray", reason="`pip install 'autotts[ray]'` to test with Ray")
    if not ray.is_initialized():
        ray.init(num_cpus=4, num_gpus=0, log_to_driver=False, include_dashboard=False)
    from collect.clusters import RayWorker

    return RayWorker(name, cards)


def requests(count: int) -> list[Request]:
    return [Request([n % 7, 50 + n], 5 + n % 9, n, Sampling(), (1,), origin=n % 7) for n in range(count)]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(reached) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.filterwarnings("ignore")
def test_every_request_is_answered_once_by_the_process_of_its_origin(start):
    engine = open_engines("toy", start, partial(ToyEngine, 0.002))
    assert (engine.context, engine.slots) == (100, 8)
    asked = requests(100)
    samples = generate(engine, asked)
    for request, sample in zip(asked, samples, strict=True):
        assert sample.token_ids == sample_of(request).token_ids
    homes: dict[object, set[int]] = {}
    for request, sample in zip(asked, samples, strict=True):
        homes.setdefault(request.origin, set()).add(sample.cached_tokens)
    assert all(len(pids) == 1 for pids in homes.values())
    pids = set.union(*homes.values())
    assert len(pids) == 2 and os.getpid() not in pids
    with pytest.raises(EngineError, match="nothing was asked of 'toy'"):
        engine.finished()
    engine.close()
    wait_until(lambda: not any(map(is_running, pids)))


@pytest.mark.filterwarnings("ignore")
def test_a_process_that_is_killed_is_an_error_and_no_wait(start):
    engine = open_engines("toy", start, partial(ToyEngine, 0.05))
    engine.submit(requests(200))
    (_, first), *_ = engine.finished()
    threading.Timer(0.1, os.kill, (first.cached_tokens, signal.SIGKILL)).start()
    with pytest.raises(EngineError, match=r"(was killed by signal 9|is gone).*run the same command again"):
        while True:
            engine.finished()
    engine.close()


@pytest.mark.filterwarnings("ignore")
def test_what_a_model_raises_there_is_raised_here(start):
    for error, found in (
        (EngineError("vLLM cannot load the model 'x'"), "^vLLM cannot load the model 'x'$"),
        (RuntimeError("out of memory"), "RuntimeError: out of memory"),
    ):
        with pytest.raises(EngineError, match=found):
            open_engines("toy", start, partial(ToyEngine, error=error))
    engine = open_engines("toy", start, partial(ToyEngine))
    engine.submit([*requests(4), Request([13], 5, 0, Sampling(), (1,))])
    with pytest.raises(EngineError, match="the model stopped at 13"):
        while True:
            engine.finished()
    engine.close()


@pytest.mark.filterwarnings("ignore")
def test_a_scorer_of_several(start):
    scorer = open_scorers(start, partial(ToyScorer, "prm"))
    assert (scorer.name, scorer.kind, scorer.context) == ("prm", "toy", 100)
    items = [(f"q{n % 5}", ["a", "b" * n, "c" * (n % 3)][: 1 + n % 3]) for n in range(20)]
    items.append(("q0", ["a"]))
    scores = scorer.score(items)
    assert [found[1:] for found in scores] == [[len(step) / 100 for step in steps[1:]] for _, steps in items]
    home = {question: found[0] for (question, _), found in zip(items, scores, strict=True)}
    assert all(found[0] == home[question] for (question, _), found in zip(items, scores, strict=True))
    assert len(set(home.values())) == 2
    steps = sum(len(steps) for _, steps in items)
    assert (scorer.steps, scorer.unscored) == (steps, 0)
    scorer.score(items)
    assert scorer.steps == 2 * steps and scorer.tokens == 2 * sum(len(s) for _, own in items for s in own)
    with pytest.raises(UserError, match=r"^this question cannot be scored$"):
        scorer.score([("bad", ["a"])])
    scorer.close()


def test_fewer_questions_than_processes():
    shares = workers._shares([("q", ["a"]), ("q", ["a", "b"])], 3)
    assert sorted(shares) == [[], [], [0, 1]]
    items = [(f"q{n}", ["a"] * n) for n in range(1, 9)]
    loads = [sum(len(items[place][1]) for place in share) for share in workers._shares(items, 2)]
    assert loads == [18, 18]


def test_nothing_is_left_when_whoever_asks_is_gone():
    """The pipe ends with the process that holds its other end, whatever ended that."""
    worker = ProcessWorker("engine 0", {})
    worker.call("open", partial(ToyEngine), ("slots",))
    process = worker._process
    worker._connection.close()
    assert process.wait(20) == 0
    assert not is_running(process.pid)


def test_ctrl_c_is_for_the_process_that_the_user_started():
    worker = ProcessWorker("engine 0", {})
    worker.call("open", partial(ToyEngine), ("slots",))
    assert os.getpgid(worker._process.pid) != os.getpgid(0)
    worker.close()


def test_cards_are_shared_out(monkeypatch):
    monkeypatch.setattr(workers, "prepare", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def cards(gpus, each=1):
        return [start.args[1]["CUDA_VISIBLE_DEVICES"] for start in process_workers(gpus, each)]

    assert cards(3) == ["0", "1", "2"] and cards(4, 2) == ["0,1", "2,3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-abc,7")
    assert cards(2) == ["4", "GPU-abc"]
    with pytest.raises(UserError, match=r"--gpus 4 is more than CUDA_VISIBLE_DEVICES=4,GPU-abc,7.*at most 3"):
        cards(4)
    with pytest.raises(UserError, match=r"3 GPUs cannot be shared out to engines of 2 each.*a multiple of 2"):
        cards(3, 2)
    assert divided(8, 4) == 2


def test_a_process_sees_its_own_card():
    worker = ProcessWorker("GPU 5", {"CUDA_VISIBLE_DEVICES": "5"})
    worker.call("open", partial(ToyEngine), ("slots",))
    environment = Path(f"/proc/{worker._process.pid}/environ").read_bytes().split(b"\0")
    assert b"CUDA_VISIBLE_DEVICES=5" in environment
    worker.close()
