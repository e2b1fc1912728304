"""Commands in a process of their own: an engine that closes would take those of other tests with it."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

from checkout import ROOT

CODE = """
import contextlib, io, json, sys
from autotts import main

done = []
for command in json.loads(sys.argv[1]):
    streams = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        status = main(command)
    done.append([status, *(stream.getvalue() for stream in streams)])
print("\\n" + json.dumps(done))
"""


class Done(NamedTuple):
    status: int
    out: str
    err: str


def run_all(*commands: list[str]) -> list[Done]:
    """Runs `autotts` with each of these arguments, one after the other."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-W", "ignore", "-c", CODE, json.dumps(commands)]
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [Done(*each) for each in json.loads(done.stdout.splitlines()[-1])]
