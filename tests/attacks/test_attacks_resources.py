"""Attacks on time, memory and the process itself. One a test."""

import os

import pytest
from rig import attempt, raw


def nested(depth: int) -> str:
    """A short source of which the code is 20**depth lines long: each way out of a `try` has its `finally`."""
    source = "def schedule(beta):\n return {}\nasync def solve(ep):\n"
    for level in range(1, depth + 1):
        indent = " " * level
        source += f"{indent}try:\n" + f"{indent} if ep: return\n" * 20 + f"{indent}finally:\n"
    return source + " " * (depth + 1) + "ep\n"


# Each ends its job, for a reason that contains what follows.
DEADLY = {
    "an endless loop": (attempt("while True: pass"), "processor time"),
    "an endless loop that will not be told": (
        attempt("while True:\n    try:\n        while True: pass\n    except BaseException: pass"),
        "processor time",
    ),
    "an endless loop in C": (attempt("import itertools; sum(itertools.repeat(1))"), "processor time"),
    "leaving": (attempt("os._exit(0)"), "ended before"),
    "leaving as if all were well": (raw("os._exit(0)"), "ended before"),
    "reading at address zero": (attempt("ctypes.string_at(0)"), "Segmentation fault"),
    "writing everywhere": (attempt("ctypes.memset(4096, 0, 1 << 40)"), "Segmentation fault"),
    "a jump to nowhere": (attempt("ctypes.CFUNCTYPE(None)(64)()"), "Segmentation fault"),
    "aborting": (attempt("os.abort()"), "crashed"),
    "raising in the schedule": ("def schedule(beta): raise SystemExit('out')", "SystemExit: out"),
    "leaving at import": ("import os\nos._exit(0)", "ended before"),
    "a loop at import": ("while True: pass", "processor time"),
    "a schedule that is no dictionary": ("def schedule(beta): return 7", "TypeError"),
    "a program without solve": ("def schedule(beta): return {}", "solve"),
    "source that is no source": ("def (", "SyntaxError"),
    "source of a million brackets": ("(" * 1_000_000, "SyntaxError"),
    "source that is endless as code": (nested(6), "MemoryError"),
}

# Each comes to nothing: it is turned down in its episode, or takes nobody with it but its own process.
TURNED_DOWN = {
    "a list without end": "hoard = []\nwhile True: hoard.append(bytes(1 << 16))",
    "a huge array": "return len(bytearray(1 << 40))",
    "a huge string": "return len('x' * (1 << 40))",
    "a huge integer": "return (1 << (1 << 40)).bit_length()",
    "a string that doubles": "text = 'x'\nwhile True: text += text",
    "a mapping of memory": "import mmap; return mmap.mmap(-1, 1 << 40)",
    "recursion without end": "return attempt()",
    "a raised recursion limit": "sys.setrecursionlimit(10**9)\nreturn attempt()",
    "recursion without end in C": "thing = ()\nfor _ in range(10**6): thing = (thing,)\nreturn hash(thing)",
    "crafted bytecode": "return eval(attempt.__code__.replace(co_code=b'd\\xff' * 4, co_consts=()))",
    "exceptions without end": "raise ExceptionGroup('x', [ValueError()] * (1 << 40))",
    "an interrupt": "raise KeyboardInterrupt",
}


@pytest.mark.parametrize("name", DEADLY)
def test_deadly(rig, pool, name):
    source, reason = DEADLY[name]
    attack = rig.attack(pool, source)
    assert reason in attack.outcome.error and not attack.replay.correct[3:].any()


@pytest.mark.parametrize("name", TURNED_DOWN)
def test_turned_down(rig, pool, name):
    attack = rig.attack(pool, attempt(TURNED_DOWN[name]))
    assert attack.refused and attack.outcome.rss < 200 << 20


def test_other_calling_convention(rig, pool):
    if os.uname().machine != "x86_64":
        pytest.skip("only x86_64 has a second calling convention")
    attack = rig.attack(pool, attempt("return syscall(0x40000000 + 39)"))
    assert "Bad system call" in attack.outcome.error
