import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from checkout import ROOT
from trees import CHAIN, write

import env.store_folder
from env.nodes import Nodes
from env.schema import StoreError
from env.store import Store
from env.store_writer import StoreWriter

BAD_NODES = {
    "it has no branches": Nodes([], [], [], []),
    "`tokens` has 1 entries for 2 nodes": Nodes([-1, 0], [1], ["1", "2"], [True, True]),
    "node 1: `tokens` must not be negative": Nodes([-1, 0], [1, -1], ["1", "2"], [True, True]),
    "node 0: its parent must be an earlier node": Nodes([0], [1], ["1"], [True]),
    "node 1: its parent has ended": Nodes([-1, 0], [1, 1], ["1", "2"], [True, True], end=[1, 1]),
    "node 0: `end` must be 0, 1 or 2": Nodes([-1], [1], ["1"], [True], end=[3]),
    "node 0: `probe_tokens` must not be negative": Nodes([-1], [1], ["1"], [True], probe_tokens=[-2]),
    "node 0: `arm` must not be negative": Nodes([-1], [1], ["1"], [True], arm=[-1]),
    "`tokens` must be whole numbers within int32": Nodes([-1], [2**31], ["1"], [True]),
    "`prm` has 2 entries for 1 nodes": Nodes([-1], [1], ["1"], [True], prm=[[], []]),
}


@pytest.mark.parametrize("message", BAD_NODES)
def test_malformed_trees_are_refused_and_leave_nothing(tmp_path, message):
    with pytest.raises(StoreError, match=message):
        write(tmp_path / "s", [("q", "1", CHAIN), ("r", "1", BAD_NODES[message])])
    assert list(tmp_path.iterdir()) == []


def test_a_question_that_comes_twice(tmp_path):
    with pytest.raises(StoreError, match="its question is that of problem 1; put their branches together"):
        write(tmp_path / "s", [("What is it?", "1", CHAIN), ("What \n is it? ", "1", CHAIN)])


def test_no_problem_is_no_store(tmp_path):
    with pytest.raises(StoreError, match="no problem was added"):
        write(tmp_path / "s", [])
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_kept_unless_forced(tmp_path):
    write(tmp_path / "s")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"there is a store at .*--force"):
        write(tmp_path / "s", model="other")
    for force in (False, True):
        with pytest.raises(StoreError, match=r"there is something at .* that is not a store; choose another"):
            write(tmp_path / "notes", force=force)
    assert Store.open(tmp_path / "s").model == "m"
    assert write(tmp_path / "s", model="other", force=True).model == "other"
    with pytest.raises(StoreError):
        write(tmp_path / "s", [("q", "1", Nodes([], [], [], []))], force=True)
    assert Store.open(tmp_path / "s").model == "other"
    (tmp_path / "empty").mkdir()
    assert write(tmp_path / "empty").model == "m"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "notes", "s"]


def test_what_appears_while_writing_is_kept(tmp_path):
    with (
        pytest.raises(StoreError, match="there is something at"),
        StoreWriter(tmp_path / "s", model="m", dataset="d") as writer,
    ):
        writer.add_problem("q", "2", CHAIN)
        (tmp_path / "s").mkdir()
        (tmp_path / "s/mine").write_text("")
    assert [path.name for path in tmp_path.rglob("*")] == ["s", "mine"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(table, file, **options):
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(env.store_folder.pq, "write_table", full)
    with pytest.raises(StoreError, match="No space left on device; nothing of it was kept"):
        write(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_a_file_too_large_leaves_nothing(tmp_path):
    """A real limit of the kernel's, met in the middle of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot be written: .*nothing of it was kept"):
            write(tmp_path / "s")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written: .*file"):
        write(tmp_path / "file/s")
    if os.getuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(StoreError, match="Permission denied"):
            write(tmp_path / "locked/s")
    with pytest.raises(StoreError, match="cannot be written"):
        write("/proc/s")


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {root!r})
    from env.nodes import Nodes
    from env import store_folder, store_writer
    from env.store_writer import StoreWriter

    steps = 0
    def trace(frame, event, argument):
        global steps
        if frame.f_code.co_filename in (store_folder.__file__, store_writer.__file__):
            steps += 1
            if steps == {steps}:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    with StoreWriter({path!r}, model="new", dataset="d", task="exact", shard_nodes=1, force=True) as writer:
        for number in range(3):
            writer.add_problem(str(number), "1", Nodes([-1], [1], ["1"], [True], end=[1]))
    sys.settrace(None)
    print(steps)
"""


def run_and_kill(path, steps):
    code = textwrap.dedent(KILLED).format(root=str(ROOT), path=str(path), steps=steps)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("occupied", [False, True])
def test_kill_at_any_step_leaves_a_whole_store_or_none(tmp_path, occupied):
    """kill -9 at steps spread over the whole of writing: what `path` names is never half a store."""
    steps = int(run_and_kill(tmp_path / "whole", -1).stdout)
    assert steps > 200
    for k in range(5):
        path = tmp_path / f"out{k}/s"
        path.parent.mkdir()
        if occupied:
            write(path)
        killed = run_and_kill(path, steps * (2 * k + 1) // 10)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        if occupied or path.exists():
            store = Store.open(path)
            assert len(store.forest()) == {"m": 1, "new": 3}[store.model]
        # What was left behind is hidden and does not stand in the way of another try.
        assert all(left.name.startswith(".") for left in path.parent.iterdir() if left != path)
        assert len(write(path, force=True)) == 1
