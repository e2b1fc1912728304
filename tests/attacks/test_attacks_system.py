"""Attacks on what the system keeps from a controller: files, processes, network, clocks. One a test.

The attackers skip the check of their language: what must hold them is the kernel. Each runs beside an honest
controller; `Rig.attack` sees that that one, and one after it, come out as ever and the parent stays small.
"""

import os
import re
import socket
import subprocess
import sys

import pytest
from attempts import BITING, BODIES, SYSTEM_CALLS
from rig import attempt


@pytest.fixture
def fill_in(tmp_path):
    """Names the targets: this process, a port it listens on, a directory that anybody may write to."""
    (tmp_path / "precious").write_text("kept")
    tmp_path.chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as server:
        targets = {"PARENT": os.getpid(), "PORT": server.getsockname()[1], "SCRATCH": tmp_path}
        yield lambda body: re.sub("PARENT|PORT|SCRATCH", lambda match: str(targets[match[0]]), body)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert [file.name for file in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("name", BODIES)
def test_refused(rig, leveled_pool, fill_in, name):
    assert rig.attack(leveled_pool, attempt(fill_in(BODIES[name]))).refused


@pytest.mark.parametrize("name", SYSTEM_CALLS)
def test_refused_system_call(rig, leveled_pool, name):
    x86_64, aarch64, words = SYSTEM_CALLS[name]
    number = x86_64 if os.uname().machine == "x86_64" else aarch64
    words = [os.getpid() if word == "PARENT" else word for word in words]
    attack = rig.attack(leveled_pool, attempt(f"return syscall({number}, *{words})"))
    assert attack.refused and "[Errno 1]" in attack.notes[0]


@pytest.mark.parametrize("name", BITING)
def test_bites_where_nothing_holds_it(tmp_path, name):
    (tmp_path / "precious").write_text("lost")
    with socket.create_server(("127.0.0.1", 0)) as server:
        targets = {"PARENT": os.getpid(), "PORT": server.getsockname()[1], "SCRATCH": tmp_path}
        body = re.sub("PARENT|PORT|SCRATCH", lambda match: str(targets[match[0]]), BODIES[name])
        run = f"{attempt(body)}\nattempt()\nos._exit(7)"
        assert (
            subprocess.run([sys.executable, "-I", "-S", "-c", run], stdin=subprocess.DEVNULL).returncode == 7
        )
