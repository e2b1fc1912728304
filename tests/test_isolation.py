import os
import signal
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from env.episode import HEADER, MAGIC, REPLY
from env.isolation.link import Limits
from env.isolation.pool import ENDED, Job, Pool
from env.isolation.zygote import IsolationError
from env.program import MODULES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="untrusted code is run on Linux only")

QUIET = """
def schedule(beta):
    return {"beta": beta, "names": ["a", None, True], "n": 3}

async def solve(ep, **settings):
    ep.note(settings["n"], ep.rng.random(), ep.max_branches)
"""
NOTING = """
{prelude}

def schedule(beta):
    return {{}}

async def solve(ep):
    ep.note({what})
"""


def job(source: str, episodes: int = 1, **options) -> Job:
    return Job(
        **{"source": source, "beta": 0.5, "seed_keys": [7] * episodes, "max_branches": [5] * episodes}
        | options
    )


def answer(frames):
    """An engine that has nothing to say."""
    return [REPLY.pack(MAGIC, HEADER.unpack_from(frame)[1], 0, 0, 0, 0, 0) for _, frame in frames]


def notes(pool: Pool, source: str) -> list[str]:
    """What one episode of `source` left as notes."""
    texts = []

    def listen(frames):
        for _, frame in frames:
            text = HEADER.unpack_from(frame)[-1]
            texts.append(frame[len(frame) - text :].decode())
        return answer(frames)

    (outcome,) = pool.run([job(source, tracing=True)], listen)
    assert outcome.error == ""
    return texts


@pytest.fixture(scope="module")
def pool():
    with Pool(Limits(cpu=2, wall=20.0), {"rooms.helper": "VALUE = 41"}, i_trust_this_code=True) as pool:
        yield pool


# The pool


def test_outcome(pool):
    (outcome,) = pool.run([job(QUIET, 3, overrides={"n": 9})], answer)
    assert outcome.error == "" and outcome.job == 0
    assert outcome.settings == {"beta": 0.5, "names": ["a", None, True], "n": 9}
    assert 0 < outcome.cpu_seconds < 2 and 1 << 20 < outcome.rss < 200 << 20


def test_what_python_thinks_of_a_program_is_not_said_to_whoever_plays_it(pool):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        (outcome,) = pool.run([job(QUIET + "    return None if ep is 'it' else None\n")], answer)
    assert (outcome.error, heard) == ("", [])


def test_a_program_is_compiled_once_unless_its_code_is_too_long(pool):
    for source, kept in ((QUIET, True), (QUIET + "    ep.max_branches\n" * 9_000, False)):
        alike = [next(pool.run([job(source)], answer)) for _ in range(2)]
        assert [outcome.error for outcome in alike] == ["", ""]
        assert alike[0].settings == alike[1].settings and (source in pool._codes) == kept


def test_many_jobs_come_back_once_each(pool):
    outcomes = list(pool.run((job(QUIET, k % 4) for k in range(60)), answer, concurrency=7))
    assert sorted(outcome.job for outcome in outcomes) == list(range(60))
    assert {outcome.error for outcome in outcomes} == {""}


def test_several_jobs_share_a_call_of_the_engine(pool):
    sizes = []

    def slow(frames):
        sizes.append(len(frames))
        time.sleep(0.01)
        return answer(frames)

    list(pool.run([job(QUIET) for _ in range(40)], slow))
    assert sum(sizes) == 40 and max(sizes) > 1


def test_no_jobs(pool):
    assert list(pool.run([], answer)) == []


def test_an_exception_for_one_job_leaves_the_others(pool):
    def picky(frames):
        return [
            ValueError("not you\x1b[2J") if at == 1 else reply
            for (at, _), reply in zip(frames, answer(frames), strict=True)
        ]

    outcomes = sorted(pool.run([job(QUIET)] * 3, picky), key=lambda outcome: outcome.job)
    assert [outcome.error for outcome in outcomes] == ["", "not you\\x1b[2J", ""]


def test_an_engine_that_breaks_ends_the_run_and_the_pool_lives_on(pool):
    def broken(frames):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(pool.run([job(QUIET)] * 20, broken))
    assert [outcome.error for outcome in pool.run([job(QUIET)], answer)] == [""]


def test_a_run_broken_off_leaves_nothing_behind(pool):
    next(pool.run([job(QUIET)] * 50, answer))
    outcomes = list(pool.run([job(QUIET)] * 5, answer))
    assert sorted(outcome.job for outcome in outcomes) == list(range(5))
    zygote = pool._zygote._process.pid
    assert Path(f"/proc/{zygote}/task/{zygote}/children").read_text() == ""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise ValueError('at import')", "ValueError: at import (line 1 of the controller)"),
        ("def schedule(beta):\n    return {}[beta]", "KeyError: 0.5 (line 2 of the controller)"),
        ("import numpy", "ModuleNotFoundError: No module named 'numpy' (line 1 of the controller)"),
        (QUIET.replace('"n": 3', '"n": object()'), "WireError: a value of type object"),
    ],
)
def test_errors_before_the_first_round(pool, source, message):
    (outcome,) = pool.run([job(source)], answer)
    assert outcome.error.startswith(message) and outcome.settings is None


def test_the_seed_key_seeds_and_nothing_else(pool):
    import random

    first, again = notes(pool, QUIET), notes(pool, QUIET)
    assert first == again == [f"3 {random.Random(7).random()} 5"]


def test_sets_of_strings_have_one_order(pool):
    source = NOTING.format(prelude="", what="list({str(k) for k in range(50)})")
    with Pool(level="C", i_trust_this_code=True) as other:
        assert notes(pool, source) == notes(other, source)


def test_helpers_can_be_imported(pool):
    source = NOTING.format(prelude="from rooms.helper import VALUE\nimport rooms.helper", what="VALUE + 1")
    assert notes(pool, source) == ["42"]


@pytest.mark.parametrize("module", sorted(MODULES - {"controllers.voting"}))
def test_allowed_modules_need_no_files(pool, module):
    use = {
        "statistics": "(m.quantiles([1, 2, 3, 4]), m.NormalDist(0, 1).cdf(1), m.fmean([1, 2]), m.mode([1]))",
        "collections": "(m.Counter('ab').most_common(), m.namedtuple('P', 'x y')(1, 2), m.OrderedDict(a=1))",
        "functools": "(m.lru_cache(str)(1), m.singledispatch(str)(2), m.partial(max, 1)(2))",
    }.get(module, "m")
    assert notes(pool, NOTING.format(prelude=f"import {module} as m", what=use))


def test_the_child_holds_nothing(pool):
    what = "dict(os.environ), sys.argv, sorted(m for m in sys.modules if m.split('.')[0] == 'env')"
    (told,) = notes(pool, NOTING.format(prelude="import os, sys", what=what))
    assert "HOME" not in told and "PATH" not in told and "replay" not in told and "store" not in told


def test_descriptors_and_memory_stay_flat(pool):
    def run() -> tuple[int, int]:
        list(pool.run([job(QUIET), job("while True: raise ValueError")] * 20, answer))
        statm = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        return len(os.listdir("/proc/self/fd")), statm

    run()
    (files, memory), (files_later, memory_later) = run(), run()
    assert files == files_later and memory_later - memory < 4 << 20


# The zygote


def test_nobody_waits_for_reports_to_be_heard(pool):
    many = 700

    def hang(*_):
        raise AssertionError("an order waits for a report to be heard, which waits for the order")

    signal.signal(signal.SIGALRM, hang)
    signal.alarm(60)
    try:
        for number in range(many):
            pool.end(pool.start(number, job(QUIET)))
        ended = []
        while len(ended) < many:
            ended += [outcome.job for outcome in pool.listen(1)[0]]
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert ended == list(range(many))


def test_a_dead_zygote_is_replaced():
    with Pool(i_trust_this_code=True) as pool:
        first = pool._zygote._process.pid

        def kill(frames):
            if pool._zygote._process.pid == first:
                os.kill(first, signal.SIGKILL)
            return answer(frames)

        # One at least is still busy when it happens.
        jobs = [job("while True: pass"), *[job(QUIET)] * 29]
        outcomes = list(pool.run(jobs, kill, concurrency=4))
        assert sorted(outcome.job for outcome in outcomes) == list(range(30))
        lost = [outcome for outcome in outcomes if outcome.lost]
        assert 0 < len(lost) <= 4 and {outcome.error for outcome in lost} == {ENDED}
        assert [outcome for outcome in outcomes if outcome.error and not outcome.lost] == []
        assert pool._zygote._process.pid != first


def test_a_job_whose_process_is_seen_to_end_before_the_zygote_is_lost_with_it():
    with Pool(i_trust_this_code=True) as pool:
        for told, error, lost in (("", ENDED, True), ("sent nonsense", "sent nonsense", False)):
            zygote = pool._zygote._process.pid
            child = pool.start(3, job("while True: pass"))
            os.kill(zygote, signal.SIGKILL)
            _wait_for_end(zygote)
            pool.end(child, told)
            (outcome,), _ = pool.listen(1)
            assert (outcome.job, outcome.error, outcome.lost) == (3, error, lost)


def test_a_zygote_that_cannot_be_replaced_is_tried_again(monkeypatch):
    def fail(*_):
        raise IsolationError("no memory")

    with Pool(i_trust_this_code=True) as pool:
        zygote = pool._zygote._process.pid
        os.kill(zygote, signal.SIGKILL)
        _wait_for_end(zygote)
        with monkeypatch.context() as patched, pytest.raises(IsolationError, match="no memory"):
            patched.setattr("env.isolation.pool.Zygote", fail)
            pool.listen(1)
        assert [outcome.lost for outcome in pool.run([job(QUIET)], answer)] == [True]
        assert [outcome.error for outcome in pool.run([job(QUIET)], answer)] == [""]


def test_a_job_for_which_there_was_no_process_is_lost(monkeypatch):
    def start(zygote, number):
        # As the pipes are when nothing was forked that holds their other ends.
        (theirs_in, outbox), (inbox, theirs_out) = os.pipe(), os.pipe()
        os.close(theirs_in)
        os.close(theirs_out)
        return inbox, outbox

    with Pool(i_trust_this_code=True) as pool:
        with monkeypatch.context() as patched:
            patched.setattr("env.isolation.pool.Zygote.start", start)
            (outcome,) = pool.run([job(QUIET)], answer)
        assert outcome.lost and outcome.error == "no process could be started for it"
        (outcome,) = pool.run([job("raise SystemExit")], answer)
        assert outcome.error and not outcome.lost


def test_a_process_that_is_forked_ahead_is_the_next_jobs_and_ends_with_the_zygote():
    with Pool(i_trust_this_code=True) as pool:
        for _ in range(2):
            pool.prepare()
            pool.prepare()
            assert [outcome.error for outcome in pool.run([job(QUIET)] * 2, answer)] == ["", ""]
        pool.prepare()
        files = len(os.listdir("/proc/self/fd"))
        zygote = pool._zygote._process.pid
        os.kill(zygote, signal.SIGKILL)
        _wait_for_end(zygote)
        (outcome,) = pool.run([job(QUIET)], answer)
        assert "run this again" in outcome.error and len(os.listdir("/proc/self/fd")) == files - 2
        assert [outcome.error for outcome in pool.run([job(QUIET)] * 2, answer)] == ["", ""]


def test_everything_ends_with_the_parent():
    endless = "def schedule(beta):\n    while True: pass"
    program = f"""
import os, signal
from env.isolation.pool import Job, Pool
pool = Pool(i_trust_this_code=True)
print(pool._zygote._process.pid, flush=True)
signal.setitimer(signal.ITIMER_REAL, 0.3)
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
list(pool.run([Job({endless!r}, 0.5, [1], [1])] * 3, None))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=Path(__file__).parents[1])
    assert run.returncode == -signal.SIGKILL
    _wait_for_end(int(run.stdout))


def _wait_for_end(zygote: int) -> None:
    """Of the zygote and of all that it has forked."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and list(_session(zygote)):
        time.sleep(0.02)
    assert not list(_session(zygote))


def _session(leader: int):
    """The processes, zombies apart, of the session that the zygote leads."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            yield entry


def test_closing_ends_the_processes():
    with Pool(i_trust_this_code=True) as pool:
        zygote = pool._zygote._process.pid
        assert list(_session(zygote))
    assert not list(_session(zygote))


@pytest.mark.parametrize("interpreter", ["/bin/false", "/bin/there-is-none"])
def test_an_interpreter_that_does_not_start(monkeypatch, interpreter):
    monkeypatch.setattr(sys, "executable", interpreter)
    with pytest.raises(IsolationError, match="did not start"):
        Pool()


# Levels


def test_levels_are_ceilings():
    with Pool(i_trust_this_code=True) as best, Pool(level="B", i_trust_this_code=True) as pool:
        assert pool.level == max(best.level, "B")


def test_level_c_wants_trust():
    with pytest.raises(IsolationError, match="--i-trust-this-code"):
        Pool(level="C")
    with Pool(level="C", i_trust_this_code=True) as pool:
        assert pool.level == "C"
        assert [outcome.error for outcome in pool.run([job(QUIET)], answer)] == [""]


def test_the_level_is_found_by_attacking():
    """A filter that lets one attack through must cost the level, whatever the kernel claims to have."""
    allow_all = struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000)
    weak = f"""
import ctypes, struct, sys
sys.path.append(sys.argv[1])
from env.isolation import child, kernel
program = ctypes.create_string_buffer({allow_all!r}, 8)
kernel._FILTER_HOLDER = struct.pack("@HP", 1, ctypes.addressof(program))
child.main()
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("env.isolation.zygote.BOOT", weak)
        with pytest.raises(IsolationError, match="did not stop our own attacks"):
            Pool()


def test_canaries_need_more_than_permission_errors():
    from env.isolation.canary import _refused

    def wrong():
        raise PermissionError(13, "of another layer")

    assert not _refused(wrong, 1) and _refused(wrong, 13) and not _refused(lambda: None, 13)
