"""A unit of work: one controller at one beta on one store, over some problems and seeds, in one process."""

import atexit
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env.costs.known import Known
from env.costs.log import Log
from env.costs.registry import resolve as resolve_cost
from env.episode import SPENT, TOKENS, UNPARSED, Episode
from env.frames import FrameError
from env.index import Index
from env.isolation.link import Limits
from env.isolation.pool import Job, Pool
from env.isolation.wire import pack, unpack
from env.lockstep import describe, play, resolve
from env.playback import Playback
from env.program import Program
from env.replay import Replay
from env.store import Store

# Episodes that one engine plays in lockstep: little enough for caches, enough to share what a call costs. In
# children the episodes' own lists are elsewhere, and a wave's end is when fewer of them play at once.
WAVE, WAVE_APART = 240, 8192
# Episodes that one process plays at most, so that its limits are not tighter the larger the store is.
BATCH = 300
# The fewest episodes of a unit under "batch" that are replayed alone.
AUDITED = 20
# Children that play at once: more of them find their caches cold, fewer share less of what an answer costs.
CONCURRENCY = 4
# Seconds of processor time; a sane controller plays an episode in a millisecond or so.
CPU = 8
NOT_RUN = "not run, since earlier episodes ended so: "


@dataclass(frozen=True)
class Unit:
    """What to play: `problems` (places in the store) x `seeds`, in that order for each seed.

    `refusal` is why the program must not run at all ("" = it may), `log` whether to keep the engines and what
    was said to them. The rest is as in `env.evaluate.evaluate`.
    """

    store: str
    program: Program
    beta: float
    overrides: Mapping[str, Any]
    seeds: Sequence[int]
    problems: Sequence[int]
    protocol: str
    probe_tokens: int
    max_branches: int | None
    isolation: str
    refusal: str = ""
    i_trust_this_code: bool = False
    log: bool = False
    costs: tuple[str, ...] = ()
    prompt_tokens: int = 0


@dataclass
class Played:
    """What became of E episodes, seed by seed: arrays of length E, errors by episode.

    Attributes:
        ledger: int64[E, 4], decode, probe, PRM and sequential tokens.
        settings: what the schedule resolved to; None if it never did.
        level: what held the code ("" in-process).
        costs: float64[E] for each of the unit's costs.
        waves: the engines and what was said to them, kept where a log was asked for.
    """

    correct: NDArray[np.bool_]
    answer: NDArray[np.int64]
    ledger: NDArray[np.int64]
    rounds: NDArray[np.int64]
    asked: NDArray[np.int64]
    granted: NDArray[np.int64]
    errors: dict[int, str] = field(default_factory=dict)
    settings: Mapping[str, Any] | None = None
    level: str = ""
    costs: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    waves: list[Playback] = field(default_factory=list)

    @classmethod
    def empty(cls, episodes: int, costs: Sequence[str] = ()) -> "Played":
        """Nothing played yet."""
        return cls(
            correct=np.zeros(episodes, np.bool_),
            answer=np.full(episodes, UNPARSED, np.int64),
            ledger=np.zeros((episodes, 4), np.int64),
            rounds=np.zeros(episodes, np.int64),
            asked=np.zeros(episodes, np.int64),
            granted=np.zeros(episodes, np.int64),
            costs={spec: np.zeros(episodes) for spec in costs},
        )

    def keep(self, first: int, playback: Playback, log: bool) -> None:
        """Take over what a wave that began at episode `first` came to."""
        replay = playback.replay
        here = slice(first, first + len(replay))
        self.correct[here], self.answer[here], self.ledger[here] = replay.correct, replay.final, replay.ledger
        self.rounds[here], self.asked[here], self.granted[here] = replay.rounds, replay.asked, replay.granted
        self.errors |= {first + episode: text for episode, text in playback.errors.items()}
        if log:
            self.waves.append(playback)


def play_unit(unit: Unit) -> Played:
    """Play a unit in this process (its controller in children, unless `unit.isolation` is "none").

    Raises:
        UserError: the store cannot be read, or nothing can isolate the program on this machine.
    """
    index = _index(unit.store, unit.protocol, unit.probe_tokens)
    problems = np.tile(np.array(unit.problems, np.int64), len(unit.seeds))
    seeds = np.repeat(np.array(unit.seeds, np.int64), len(unit.problems))
    played = Played.empty(len(problems), unit.costs)
    if unit.refusal:
        played.errors = dict.fromkeys(range(len(problems)), unit.refusal)
        return played
    columns = wanted(unit.program.source)
    load = cache(partial(_load, unit))
    for first, last in _waves(unit):
        replay = Replay(
            index,
            problems[first:last],
            seeds[first:last],
            max_branches=unit.max_branches,
            log=unit.log or bool(unit.costs),
        )
        if unit.isolation == "none":
            playback = Playback(replay, [range(len(replay))], columns)
            failed = _play_here(load, playback, played, unit.log)
        else:
            playback = Playback(replay, _spans(unit, len(replay)), columns)
            failed = _play_apart(unit, playback, played)
        played.keep(first, playback, unit.log)
        _measure(unit, replay, first, played)
        if failed:
            rest = range(last, len(problems))
            played.errors |= dict.fromkeys(rest, f"{NOT_RUN}{failed}")
            break
    if unit.isolation == "batch":
        _audit(unit, played)
    return played


def _measure(unit: Unit, replay: Replay, first: int, played: Played) -> None:
    """What a wave that began at episode `first` cost."""
    if not unit.costs:
        return
    known = Known.of(Store.open(unit.store), unit.prompt_tokens, unit.protocol, replay.index.arms)
    log = Log.of(replay, known.prompt[replay.problems], known.models, known.prm_model)
    for spec in unit.costs:
        played.costs[spec][first : first + len(replay)] = resolve_cost(spec)(log)


@lru_cache(maxsize=16)
def _index_of(path: str, changed: int, protocol: str, probe_tokens: int) -> Index:
    return Index.build(Store.open(path).forest(), protocol, probe_tokens)


def _index(path: str, protocol: str, probe_tokens: int) -> Index:
    meta = Path(path) / "store.json"
    changed = meta.stat().st_mtime_ns if meta.exists() else 0
    return _index_of(path, changed, protocol, probe_tokens)


def wanted(source: str) -> int:
    """The columns to tell a controller: what its source does not name it has no way to read."""
    tokens = "tokens" in source or "depth" in source
    return (TOKENS if tokens else 0) | (SPENT if "spent" in source else 0)


def _waves(unit: Unit) -> list[tuple[int, int]]:
    """Runs of episodes that share an engine; whole seeds, unless a seed has more problems than a wave."""
    total, width = len(unit.seeds) * len(unit.problems), len(unit.problems)
    # A log of all rounds, kept for the costs, is no small thing either.
    most = WAVE if unit.isolation == "none" or unit.costs else WAVE_APART
    if width >= most:
        return [
            (seed * width + first, seed * width + min(first + most, width))
            for seed in range(len(unit.seeds))
            for first in range(0, width, most)
        ]
    step = most // width * width if width else 1
    return [(first, min(first + step, total)) for first in range(0, total, step)]


def _spans(unit: Unit, episodes: int) -> list[range]:
    """Which episodes of a wave share a process: strictly those of one seed, one of each problem."""
    size = min(len(unit.problems), episodes)
    if unit.isolation == "batch":
        size *= max(1, BATCH // size)
    return [
        range(first, min(first + BATCH, start + size, episodes))
        for start in range(0, episodes, size)
        for first in range(start, min(start + size, episodes), BATCH)
    ]


def _play_here(
    load: Callable[[], tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]],
    playback: Playback,
    played: Played,
    tracing: bool,
) -> str:
    replay = playback.replay

    def exchange(frame: bytes) -> bytes:
        (reply,) = playback.answer([(0, frame)])
        if isinstance(reply, FrameError):
            raise reply
        return reply

    try:
        solve, settings, played.settings = load()
        episodes = [
            Episode(key, most, tracing)
            for key, most in zip(replay.seed_keys, replay.max_branches.tolist(), strict=True)
        ]
        play(solve, settings, episodes, exchange)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        failed = describe(error)
        playback.errors |= {e: failed for e in range(len(replay)) if replay.live[e]}
        return failed
    return ""


def _load(unit: Unit) -> tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]:
    """The program's `solve`, its settings, and these as a child would tell them: plain, or an error."""
    names = unit.program.load()
    settings = resolve(names, unit.beta, unit.overrides)
    return names["solve"], settings, unpack(pack(settings))


def _play_apart(unit: Unit, playback: Playback, played: Played) -> str:
    if unit.program.trusted:
        return _run_jobs(unit, playback, played, 0, len(playback.spans))
    # The first job alone: a controller that hangs must not cost its time limit over and over.
    failed = _run_jobs(unit, playback, played, 0, 1)
    if failed:
        rest = range(len(playback.spans[0]), len(playback.replay))
        playback.errors |= dict.fromkeys(rest, f"{NOT_RUN}{failed}")
        return failed
    return _run_jobs(unit, playback, played, 1, len(playback.spans))


def _run_jobs(unit: Unit, playback: Playback, played: Played, first: int, last: int) -> str:
    """Play the jobs of some spans in children; returns why the first of them to fail as a whole did."""
    pool = _pool(unit.i_trust_this_code)
    played.level = pool.level
    failed: dict[int, str] = {}

    def answer(frames: list[tuple[int, bytes]]) -> Sequence[bytes | Exception]:
        return playback.answer([(first + job, frame) for job, frame in frames])

    jobs = [_job(unit, playback.replay, span) for span in playback.spans[first:last]]
    for outcome in pool.run(jobs, answer, CONCURRENCY):
        if outcome.settings is not None:
            played.settings = outcome.settings
        if outcome.error:
            failed[outcome.job] = outcome.error
            span = playback.spans[first + outcome.job]
            playback.errors |= {e: outcome.error for e in span if playback.replay.live[e]}
    # The first in order, not in time, which would be another one each time.
    return failed[min(failed)] if failed else ""


def _job(unit: Unit, replay: Replay, span: range) -> Job:
    return Job(
        source=unit.program.source,
        beta=unit.beta,
        seed_keys=replay.seed_keys[span.start : span.stop],
        max_branches=replay.max_branches[span.start : span.stop].tolist(),
        overrides=unit.overrides,
        tracing=unit.log,
    )


@lru_cache(maxsize=2)
def _pool(i_trust_this_code: bool) -> Pool:
    pool = open_pool(i_trust_this_code)
    atexit.register(pool.close)
    return pool


def open_pool(i_trust_this_code: bool) -> Pool:
    """What plays controllers apart; `i_trust_this_code` as in `env.isolation.pool.Pool`."""
    # Children take turns on the processors, in each worker as many: only one that sleeps takes so long.
    limits = Limits(cpu=CPU, wall=2.0 * CPU * CONCURRENCY)
    return Pool(limits, helpers(), i_trust_this_code=i_trust_this_code)


def helpers() -> dict[str, str]:
    """The modules of ours that a controller may import, by name, as source text."""
    voting = find_spec("controllers.voting")
    assert voting is not None and voting.origin is not None
    return {"controllers.voting": Path(voting.origin).read_text(encoding="utf-8")}


def _audit(unit: Unit, played: Played) -> None:
    """Replay some episodes alone: what a controller answers must not depend on who shares its process."""
    honest = [e for e in range(len(played.answer)) if e not in played.errors]
    key = int(hashlib.sha256(unit.program.source.encode("utf-8", "replace")).hexdigest()[:12], 16)
    count = min(len(honest), max(AUDITED, len(honest) // 50))
    width = len(unit.problems)
    for episode in np.random.default_rng(key).choice(honest, count, replace=False).tolist() if honest else []:
        seed, problem = unit.seeds[episode // width], unit.problems[episode % width]
        alone = play_unit(
            Unit(
                **{**vars(unit), "seeds": (seed,), "problems": (problem,), "isolation": "strict", "costs": ()}
            )
        )
        if (
            alone.errors
            or alone.answer[0] != played.answer[episode]
            or (alone.ledger[0] != played.ledger[episode]).any()
        ):
            played.errors = dict.fromkeys(
                range(len(played.answer)),
                "audit: played alone, an episode answers or spends otherwise than among others; "
                "an episode must depend on nothing but what it has seen itself",
            )
            played.correct[:] = False
            return
