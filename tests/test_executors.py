"""Where units run: in this process, in workers, on Ray; each yields every unit once, with its result."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkout import ROOT

from env.errors import UserError
from env.evaluate import evaluate
from env.executors import processors, run_all
from env.program import Program
from env.store import Store
from tests import made_up


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def fragile(number: int) -> int:
    if number == 2:
        os._exit(3)
    return number


def failing(number: int) -> int:
    if number == 2:
        raise UserError("the store is gone")
    return number


def slow(number: int) -> int:
    time.sleep(0 if number == 0 else 30)
    return number


@pytest.mark.parametrize(
    ("executor", "workers"), [("serial", 4), ("processes", 1), ("processes", 2)], ids=str
)
def test_every_unit_is_yielded_once_with_its_result(executor, workers):
    units = list(range(7))
    done = list(run_all(square, units, executor, workers))
    assert sorted(unit for unit, _ in done) == units
    assert all(result == unit * unit for unit, (result, _) in done)
    processes = {process for _, (_, process) in done}
    if workers == 2:
        assert os.getpid() not in processes
    else:
        assert processes == {os.getpid()}


def test_units_come_back_as_the_objects_they_are():
    units = [[1], [1], [2]]
    done = list(run_all(len, units, "processes", 2))
    assert {id(unit) for unit, _ in done} == {id(unit) for unit in units}


def test_nothing_to_do():
    assert list(run_all(square, [], "processes", 2)) == []


def test_workers_are_kept_for_the_next_call():
    first = {process for _, (_, process) in run_all(square, range(8), "processes", 2)}
    second = {process for _, (_, process) in run_all(square, range(8), "processes", 2)}
    assert len(first | second) <= 2


def test_an_error_of_a_unit_is_raised_here():
    for executor in ("serial", "processes"):
        with pytest.raises(UserError, match="the store is gone"):
            list(run_all(failing, range(4), executor, 2))
    assert len(list(run_all(square, range(4), "processes", 2))) == 4


def test_a_worker_that_dies_is_one_clear_error_and_the_next_call_works():
    with pytest.raises(UserError, match=r"a worker process died.*use fewer --workers or fewer seeds"):
        list(run_all(fragile, range(6), "processes", 2))
    assert len(list(run_all(square, range(4), "processes", 2))) == 4


def test_workers_that_died_between_two_calls_are_one_clear_error_and_the_next_call_works():
    for process in {process for _, (_, process) in list(run_all(square, range(8), "processes", 2))}:
        os.kill(process, signal.SIGKILL)
    with pytest.raises(UserError, match="a worker process died"):
        # Until the death is noticed, a worker that had nothing to do before may do it all.
        for _ in range(100):
            list(run_all(square, range(4), "processes", 2))
            time.sleep(0.1)
    assert len(list(run_all(square, range(4), "processes", 2))) == 4


def test_whoever_stops_listening_is_not_kept_waiting():
    started = time.monotonic()
    running = run_all(slow, range(4), "processes", 2)
    assert next(running) == (0, 0)
    running.close()
    assert time.monotonic() - started < 20
    assert len(list(run_all(square, range(4), "processes", 2))) == 4


def started(program: Path, text: str) -> subprocess.Popen:
    """A program in a file of its own, which is where workers look for what they are to run."""
    program.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, env=environment)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_workers_end_with_whoever_started_them(tmp_path):
    """`kill -9` of a long evaluation must not leave its workers to eat up the machine."""
    run = started(
        tmp_path / "program.py",
        "import os, time\n"
        "from env.executors import run_all\n"
        "def work(pipe):\n"
        "    os.write(1, b'%d\\n' % os.getpid())\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    list(run_all(work, [1, 2], 'processes', 2))\n",
    )
    workers = [int(run.stdout.readline()) for _ in range(2)]
    run.kill()
    # The pipe is at its end when everybody who could write to it is gone.
    assert run.communicate(timeout=20)[0] == b""
    assert not any(running(worker) for worker in workers)


@pytest.mark.skipif(len(processors()) < 2, reason="there is one processor")
@pytest.mark.skipif(sys.platform != "linux", reason="processes choose their processors on Linux alone")
def test_as_many_workers_as_processors_keep_to_one_each(tmp_path):
    run = started(
        tmp_path / "program.py",
        "import os, time\n"
        "from env.executors import processors, run_all\n"
        "def work(unit):\n"
        "    time.sleep(0.05)\n"
        "    return tuple(processors())\n"
        "if __name__ == '__main__':\n"
        "    os.sched_setaffinity(0, processors()[:2])\n"
        "    for workers in (2, 3):\n"
        "        print(sorted({place for _, place in run_all(work, range(60), 'processes', workers)}))\n",
    )
    two = tuple(processors()[:2])
    told = run.communicate(timeout=120)[0].decode()
    assert run.returncode == 0
    assert told.splitlines() == [str([(place,) for place in two]), str([two])]


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_an_unknown_executor_is_an_error():
    with pytest.raises(UserError, match="no executor 'cloud': choose serial, processes, ray"):
        list(run_all(square, [1], "cloud", 1))


def test_ray_is_asked_for_by_name_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="--executor ray needs Ray: pip install"):
        list(run_all(square, [1], "ray", 2))


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install ray")
@pytest.mark.filterwarnings("default")
def test_a_local_ray_comes_to_the_same(tmp_path):
    import ray

    store = Store.open(made_up.store(tmp_path / "store", problems=3, branches=8))
    source = "def schedule(beta):\n    return {}\n\nasync def solve(ep):\n    ids = await ep.branch(3)\n"
    programs = [Program("a", source, trusted=True), Program("b", source + "    return 1 / 0\n")]

    def played(executor: str):
        return evaluate([store], programs, betas=[0, 1], seeds=range(3), executor=executor).frame

    try:
        assert played("ray").equals(played("serial"))
        (tmp_path / "store" / "problems.parquet").unlink()
        Path(store.path, "store.json").touch()
        with pytest.raises(UserError) as caught:
            played("ray")
        assert "ray::" not in str(caught.value)
    finally:
        ray.shutdown()
