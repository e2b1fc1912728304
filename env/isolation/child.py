"""The clean process that forks a locked-down child a job, and what such a child does.

Started by `env.isolation.zygote`, with a control socket as file descriptor 0; what is said on it and on the
pipes is in `env.isolation.wire`. Nothing that a controller can influence reaches the process that forks.
"""

import gc
import importlib
import marshal
import os
import select
import signal
import socket
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from env import episode, lockstep
from env.isolation import canary, kernel, wire

# What a controller may import, and what those modules import only when they are used.
MODULES = "math statistics collections itertools functools heapq bisect random typing types weakref".split()

REHEARSED = """
from collections import Counter

def schedule(beta):
    return {"width": round(8**beta)}

async def solve(ep, width):
    votes = Counter(ep.answer)
    return max(votes, key=votes.get, default=None)
"""
REHEARSAL = {
    "program": marshal.dumps(compile(REHEARSED, lockstep.SOURCE_NAME, "exec")),
    "beta": 0.5,
    "seed_keys": [1],
    "max_branches": [1],
    "overrides": wire.pack({}),
    "name": "rehearsal",
    "tracing": False,
}
# The reply to its only frame.
NOTHING = episode.REPLY.pack(episode.MAGIC, 1, 0, 0, 0, 0, 0)


def main() -> NoReturn:
    """Load what controllers may use, find out what the kernel enforces, and serve until the socket closes."""
    control = socket.socket(fileno=0)
    for name in MODULES:
        importlib.import_module(name)
    kernel.settle()
    setup = wire.unpack(_hear_from(control))
    for name, source in setup["helpers"].items():
        _register(name, source)
    layers = canary.holding() & wire.LEVELS[setup["level"]]
    if wire.LANDLOCK in layers:
        kernel.forbid_files()
    answer = wire.pack(sorted(layers))
    control.sendall(wire.LENGTH.pack(len(answer)) + answer)
    gc.collect()
    gc.freeze()
    _serve(control, layers, setup["memory"], setup["cpu"])


def _serve(control: socket.socket, layers: set[str], memory: int, cpu: int) -> NoReturn:
    zygote, processes, reports = os.getpid(), dict[int, int](), bytearray()
    while True:
        if reports:
            # Whoever gives orders may be waiting to give one, and hears no report before it is taken.
            readable, writable, _ = select.select([control], [control], [])
            if writable:
                del reports[: control.send(reports, socket.MSG_DONTWAIT)]
            if not readable:
                continue
        order, files, _, _ = socket.recv_fds(control, wire.ORDER.size, 2)
        if len(order) < wire.ORDER.size:
            os._exit(0)
        kind, job = wire.ORDER.unpack(order)
        if kind == wire.START:
            try:
                process = os.fork()
                if process == 0:
                    _job(zygote, files, layers, memory, cpu)
                processes[job] = process
            except OSError:
                # No process to be had: the pipes close and the trusted side sees a job that never began.
                pass
            for file in files:
                os.close(file)
        else:
            reports += wire.REPORT.pack(job, *_reap(processes.pop(job, None)))


def _reap(process: int | None) -> tuple[int, float, int]:
    if process is None:
        return -1, 0.0, 0
    os.kill(process, signal.SIGKILL)
    _, status, usage = os.wait4(process, 0)
    return status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10


def _job(zygote: int, files: list[int], layers: set[str], memory: int, cpu: int) -> NoReturn:
    try:
        kernel.die_with(zygote)
        inbox, outbox = files
        os.dup2(inbox, 0)
        os.dup2(outbox, 1)
        os.closerange(2, kernel.MAX_FILES)
        if not select.select([0], [], [], 0)[0]:
            # What a job writes to is shared with the zygote: have it copied while there is no job yet.
            _play(REHEARSAL, lambda settings: None, lambda frame: NOTHING)
        kernel.confine(layers, memory, cpu)
        _play(marshal.loads(_hear()), lambda settings: _notify({"settings": settings}), _exchange)
    except BaseException as error:
        _notify({"error": lockstep.describe(error)})
    finally:
        os._exit(0)


def _play(
    setup: Mapping[str, Any], tell: Callable[[dict[str, Any]], None], exchange: Callable[[bytes], bytes]
) -> None:
    program = {"__name__": setup["name"]}
    exec(_code(setup["program"]), program)
    settings = lockstep.resolve(program, setup["beta"], wire.unpack(setup["overrides"]))
    tell(settings)
    pairs = zip(setup["seed_keys"], setup["max_branches"], strict=True)
    episodes = [episode.Episode(key, most, setup["tracing"]) for key, most in pairs]
    lockstep.play(program["solve"], settings, episodes, exchange)


def _code(given: bytes | str) -> types.CodeType:
    if isinstance(given, bytes):
        code: types.CodeType = marshal.loads(given)
        return code
    code = compile(given, lockstep.SOURCE_NAME, "exec")
    data = marshal.dumps(code)
    if len(data) > wire.MAX_NOTICE:
        data = b""
    # Before any of it is run.
    _tell(wire.CODE, data)
    return code


def _exchange(frame: bytes) -> bytes:
    _say(frame)
    return _hear()


def _notify(value: dict[str, Any]) -> None:
    _tell(wire.NOTICE, wire.pack(value))


def _tell(magic: int, data: bytes) -> None:
    _say(episode.HEADER.pack(magic, 0, 0, 0, 0, 0, len(data)) + data)


def _say(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


def _hear() -> bytes:
    data = os.read(0, 1 << 16)
    while len(data) < wire.LENGTH.size or len(data) < wire.LENGTH.size + wire.LENGTH.unpack_from(data)[0]:
        more = os.read(0, 1 << 20)
        if not more:
            os._exit(0)
        data += more
    return data[wire.LENGTH.size :]


def _hear_from(control: socket.socket) -> bytes:
    (size,) = wire.LENGTH.unpack(control.recv(wire.LENGTH.size, socket.MSG_WAITALL))
    return control.recv(size, socket.MSG_WAITALL)


def _register(name: str, source: str) -> None:
    """Make a helper module importable, with the packages above it, from its source alone."""
    package, _, last = name.rpartition(".")
    module = types.ModuleType(name)
    sys.modules[name] = module
    if package:
        if package not in sys.modules:
            _register(package, "")
            sys.modules[package].__path__ = []
        setattr(sys.modules[package], last, module)
    exec(compile(source, f"<{name}>", "exec"), module.__dict__)
