"""Plays an attacker beside an honest controller against the real engine, and sees that nothing came of it."""

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controllers import voting
from env.index import Index
from env.isolation.pool import Job, Outcome, Pool
from env.playback import Playback
from env.replay import Replay
from env.store import Store

HELPERS = {"controllers.voting": Path(voting.__file__).read_text(encoding="utf-8")}
PROBLEMS = 3
# What the parent may grow by while it is attacked: more than the allocator's noise, less than a flood.
FLAT = 24 << 20

HONEST = """
from controllers.voting import majority

def schedule(beta):
    return {"max_branches": 6}

async def solve(ep, max_branches):
    ids = await ep.branch(max_branches)
    while any(ep.done[i] is None for i in ids):
        await ep.extend([i for i in ids if ep.done[i] is None])
    return majority(ep.answer[i] for i in ids)
"""

# `attempt` tells what it got by returning; whatever the system refuses raises.
ATTEMPT = """
import _thread, ctypes, gc, os, socket, signal, sys, time

def syscall(number, *words):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    words = [ctypes.c_long(w) if isinstance(w, int) else w for w in words]
    result = libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result

def attempt():
{body}

def schedule(beta):
    return {{}}

async def solve(ep):
    try:
        loot = attempt()
    except BaseException as error:
        ep.note("refused:", type(error).__name__, error)
    else:
        ep.note("GAINED", loot)
"""


def attempt(body: str) -> str:
    """A controller that tries `body`, the body of a function that returns what it got."""
    return ATTEMPT.format(body=indented(body))


def raw(body: str) -> str:
    """A controller that speaks on its pipes itself: `say(bytes)`, `frame(...)`, `hear()`, `text(...)`."""
    return RAW + indented(body)


def indented(body: str) -> str:
    return textwrap.indent(textwrap.dedent(body.lstrip("\n")), "    ")


RAW = """
import os, struct, sys, time
from array import array

def schedule(beta):
    return {}

async def solve(ep):
    return None

def say(data):
    while data:
        data = data[os.write(1, data):]

def hear():
    return os.read(0, 1 << 16)

def header(round=1, actions=0, ids=0, finals=0, notes=0, text=0, magic=0x31535454):
    return struct.pack("<7I", magic, round, actions, ids, finals, notes, text)

def frame(round=1, actions=(), ids=(), finals=(), notes=(), text=b""):
    # actions: (episode, kind, probe, count, argument); finals: (episode, code, size); notes: (episode, size)
    flat = [word for table in (actions, [ids], finals, notes) for row in table for word in row]
    start = header(round, len(actions), len(ids), len(finals), len(notes), len(text))
    return start + array("i", flat).tobytes() + text

def notice(value):
    from env.isolation import wire
    data = wire.pack(value)
    return struct.pack("<7I", wire.NOTICE, 0, 0, 0, 0, 0, len(data)) + data

from env import lockstep
def play(solve, settings, episodes, exchange):
    attack()
lockstep.play = play

def attack():
"""


@dataclass
class Attack:
    """What came of it: the attacker's outcome, and what its three episodes left in the engine."""

    outcome: Outcome
    notes: list[str]
    errors: dict[int, str]
    replay: Replay

    @property
    def refused(self) -> bool:
        """Whether the attacker got nothing and said so, or was ended."""
        gained = any("GAINED" in note for note in self.notes)
        return not gained and bool(self.outcome.error or any("refused:" in note for note in self.notes))


class Rig:
    """A store of three problems; every job plays each of them once, under a seed of its own."""

    def __init__(self, store: Path) -> None:
        self.index = Index.build(Store.open(store).forest())
        self._expected: Playback | None = None

    def engine(self, jobs: int) -> tuple[Replay, Playback]:
        problems = np.tile(np.arange(PROBLEMS), jobs)
        replay = Replay(self.index, problems, np.repeat(np.arange(jobs), PROBLEMS).tolist())
        spans = [range(first, first + PROBLEMS) for first in range(0, jobs * PROBLEMS, PROBLEMS)]
        return replay, Playback(replay, spans)

    def play(self, pool: Pool, sources: list[str], **options) -> tuple[list[Outcome], Playback]:
        """Play one job a source at the same time."""
        replay, playback = self.engine(len(sources))
        jobs = [
            Job(
                source=source,
                beta=0.5,
                seed_keys=[replay.seed_keys[e] for e in span],
                max_branches=[int(replay.max_branches[e]) for e in span],
                **{"tracing": True, **options},
            )
            for source, span in zip(sources, playback.spans, strict=True)
        ]
        outcomes = sorted(pool.run(jobs, playback.answer), key=lambda outcome: outcome.job)
        return outcomes, playback

    def attack(self, pool: Pool, source: str, **options) -> Attack:
        """Attack while an honest job runs; that job, and one after it, must come out as they always do."""
        expected, before = self.expected(pool), resident()
        (honest, outcome), playback = self.play(pool, [HONEST, source], **options)
        assert resident() - before < FLAT, "the parent's memory grew"
        assert_same(expected, honest, playback)
        (again,), after = self.play(pool, [HONEST])
        assert_same(expected, again, after)
        mine = playback.spans[1]
        return Attack(
            outcome,
            [text for episode, _, text in playback.notes if episode in mine],
            {episode - mine.start: text for episode, text in playback.errors.items() if episode in mine},
            playback.replay,
        )

    def expected(self, pool: Pool) -> Playback:
        """What the honest controller comes to when nobody else is about."""
        if self._expected is None:
            (outcome,), playback = self.play(pool, [HONEST])
            assert outcome.error == "" and not playback.errors
            self._expected = playback
        return self._expected


def assert_same(expected: Playback, outcome: Outcome, playback: Playback) -> None:
    assert outcome.error == "" and not {e: t for e, t in playback.errors.items() if e < PROBLEMS}
    for name in ("final", "correct", "ledger", "rounds"):
        mine, theirs = getattr(playback.replay, name), getattr(expected.replay, name)
        assert (mine[:PROBLEMS] == theirs).all(), name


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
