"""Evaluation: controllers x stores x betas x seeds, split into units of work; a row an episode comes back."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from env.costs.known import Known
from env.costs.registry import check as check_cost
from env.errors import UserError
from env.executors import processors, run_all
from env.isolation.wire import WireError, pack
from env.playback import prepare
from env.program import GRID, Program, check
from env.store import Store
from env.unit import Played, Unit, play_unit

if TYPE_CHECKING:
    import polars as pl

    from env.archive import Archive

ISOLATIONS = ("strict", "batch", "none")
# Starting worker processes costs a second; below this many episodes one process is done sooner.
EPISODES_WORTH_WORKERS = 6_000
# Few enough that no worker is left with much at the end. But an untrusted program is tried out at the start
# of every unit, and waited for there if it hangs.
EPISODES_A_UNIT = 1_000
EPISODES_AN_UNTRUSTED_UNIT = 5_000


@dataclass(frozen=True)
class Episodes:
    """What an evaluation saw.

    Attributes:
        frame: a row an episode: store, model, dataset, controller, beta, settings (the overrides, as JSON),
            problem (question hash), seed, correct, answer (the episode's code, -1 = none), decode, probe,
            prm, tokens (their sum), sequential, rounds, asked, granted (branches and forks), error
            ("" = none), isolation, level (what held untrusted code, "" = it ran in-process), protocol; and a
            column `cost:NAME` for each cost that was asked for.
        schedules: (controller, beta) -> every setting that it resolved to, as the controller told.
    """

    frame: "pl.DataFrame"
    schedules: Mapping[tuple[str, float], Mapping[str, Any]]

    @classmethod
    def joined(cls, parts: Sequence["Episodes"]) -> "Episodes":
        """Several of them as one, in their order."""
        import polars as pl

        schedules = {key: told for part in parts for key, told in part.schedules.items()}
        return cls(pl.concat(part.frame for part in parts), schedules)


def evaluate(
    stores: Sequence[Store],
    programs: Sequence[Program],
    *,
    betas: Sequence[float] = GRID,
    settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = range(100),
    protocol: str = "standard",
    isolation: str | None = None,
    workers: int | None = None,
    executor: str = "processes",
    problems: Collection[str] | None = None,
    probe_tokens: int = 20,
    max_branches: int | None = None,
    i_trust_this_code: bool = False,
    costs: Sequence[str] = (),
    prompt_tokens: int = 0,
    archive: "Archive | None" = None,
    progress: Callable[[int, int], None] | None = None,
) -> Episodes:
    """Play every program on every store at every beta, once a problem and seed.

    Args:
        settings: overrides of the schedule, by name.
        protocol: "standard" or "published" (see `env.index`).
        isolation: "strict" (one episode of a problem a process), "batch" (several, audited by solo replays),
            "none" (in this process); None decides by trust: in-process for what we ship, else strict.
        workers: processes; None = as many as there are processors once the work is worth it.
        problems: question hashes to play; None = all.
        probe_tokens: what a probe costs where the store does not know.
        max_branches: ceiling on branches opened at the root; None = see `env.replay.Replay`.
        i_trust_this_code: run untrusted programs even where nothing can isolate them.
        costs: what to measure besides tokens and sequential tokens, see `env.costs.registry.resolve`.
        prompt_tokens: how long a prompt is taken to be where the store does not know; matters to costs only.
        archive: spares what it holds, and keeps what is played as soon as it is.
        progress: called with the episodes done and all to do.

    A program that does not keep the contract, raises, hangs or cheats gets rows with its error, and the
    others' rows are unaffected.

    Raises:
        UserError: an argument out of range, a store that cannot be read, no isolation on this machine.
    """
    overrides = dict(settings or {})
    _check_arguments(stores, programs, betas, overrides, seeds, isolation)
    costs = tuple(dict.fromkeys(costs))
    _check_costs(stores, costs, protocol)
    prepare()
    units = []
    chosen_by = [_chosen(store, problems) for store in stores]
    total = sum(map(len, chosen_by)) * len(programs) * len(betas) * len(seeds)
    if workers is None:
        workers = len(processors()) if total >= EPISODES_WORTH_WORKERS else 1
    for store, chosen in zip(stores, chosen_by, strict=True):
        for program in programs:
            episodes = EPISODES_A_UNIT if program.trusted else EPISODES_AN_UNTRUSTED_UNIT
            # In an archive units must be the same ones, however many processors there are.
            per_unit = len(seeds) if archive else _seeds_a_unit(len(seeds), len(chosen), episodes, workers)
            mode = isolation or ("none" if program.trusted else "strict")
            refusal = _refusal(program)
            for beta in betas:
                for first in range(0, len(seeds), per_unit):
                    units.append(
                        Unit(
                            store=store.path,
                            program=program,
                            beta=float(beta),
                            overrides=overrides,
                            seeds=tuple(seeds[first : first + per_unit]),
                            problems=tuple(chosen),
                            protocol=protocol,
                            probe_tokens=probe_tokens,
                            max_branches=max_branches,
                            isolation=mode,
                            refusal=refusal,
                            i_trust_this_code=i_trust_this_code,
                            costs=costs,
                            prompt_tokens=prompt_tokens,
                        )
                    )
    by_path = {store.path: store for store in stores}
    place = {id(unit): at for at, unit in enumerate(units)}
    parts: dict[int, Episodes] = {}
    for unit in units if archive else ():
        if archive and (found := archive.get(unit)):
            parts[place[id(unit)]] = found
    # The dear ones first, so that no worker is left with one of them at the end.
    todo = sorted((unit for unit in units if place[id(unit)] not in parts), key=lambda unit: -unit.beta)
    done = total - sum(len(unit.seeds) * len(unit.problems) for unit in todo)
    if progress and done:
        progress(done, total)
    for unit, played in run_all(play_unit, todo, executor, workers):
        told = {} if played.settings is None else {(unit.program.name, unit.beta): played.settings}
        part = parts[place[id(unit)]] = Episodes(_frame(unit, played, by_path[unit.store]), told)
        if archive:
            archive.put(unit, part)
        done += len(unit.seeds) * len(unit.problems)
        if progress:
            progress(done, total)
    return Episodes.joined([parts[at] for at in range(len(units))])


def _seeds_a_unit(seeds: int, problems: int, episodes: int, workers: int) -> int:
    """Seeds for a unit of up to so many episodes, such that the last workers to finish do so together."""
    units = -(-seeds // max(1, episodes // max(1, problems)))
    if units > 1:
        units = -(-units // workers) * workers
    return -(-seeds // units)


def _check_arguments(
    stores: Sequence[Store],
    programs: Sequence[Program],
    betas: Sequence[float],
    overrides: Mapping[str, Any],
    seeds: Sequence[int],
    isolation: str | None,
) -> None:
    if not (stores and programs and len(betas) and len(seeds)):
        raise UserError("nothing to evaluate: give at least one store, controller, beta and seed")
    if isolation is not None and isolation not in ISOLATIONS:
        raise UserError(f"no isolation {isolation!r}: choose {', '.join(ISOLATIONS)}")
    if bad := [beta for beta in betas if not 0 <= beta <= 1]:
        raise UserError(f"beta {bad[0]:g} is outside [0, 1]")
    try:
        pack(overrides)
    except WireError as error:
        raise UserError(f"a setting cannot have {error}") from None
    if len({program.name for program in programs}) < len(programs):
        raise UserError("two controllers of the same name: tables could not tell them apart; rename one file")


def _check_costs(stores: Sequence[Store], costs: Sequence[str], protocol: str) -> None:
    for store in stores if costs else ():
        known = Known.of(store, protocol=protocol)
        for spec in costs:
            check_cost(spec, known.models, known.prm_model)


def _refusal(program: Program) -> str:
    try:
        check(program.source)
    except UserError as error:
        return f"ProgramError: {error}"
    return ""


def _chosen(store: Store, problems: Collection[str] | None) -> list[int]:
    hashes = store.problems["question_hash"].to_pylist()
    return [at for at, name in enumerate(hashes) if problems is None or name in problems]


def _frame(unit: Unit, played: Played, store: Store) -> "pl.DataFrame":
    import polars as pl

    from env.statistics import COST

    hashes = store.problems["question_hash"].to_pylist()
    errors = [""] * (len(unit.seeds) * len(unit.problems))
    for episode, text in played.errors.items():
        errors[episode] = text
    frame = pl.DataFrame(
        {
            "problem": [hashes[p] for p in unit.problems] * len(unit.seeds),
            "seed": np.repeat(np.array(unit.seeds, np.int64), len(unit.problems)),
            "correct": played.correct,
            "answer": played.answer,
            "decode": played.ledger[:, 0],
            "probe": played.ledger[:, 1],
            "prm": played.ledger[:, 2],
            "tokens": played.ledger[:, :3].sum(axis=1),
            "sequential": played.ledger[:, 3],
            "rounds": played.rounds,
            "asked": played.asked,
            "granted": played.granted,
            "error": errors,
            **{f"{COST}{spec}": values for spec, values in played.costs.items()},
        }
    )
    return frame.select(
        pl.lit(unit.store).alias("store"),
        pl.lit(store.model).alias("model"),
        pl.lit(store.dataset).alias("dataset"),
        pl.lit(unit.program.name).alias("controller"),
        pl.lit(unit.beta).alias("beta"),
        pl.lit(json.dumps(dict(unit.overrides), sort_keys=True)).alias("settings"),
        pl.all(),
        pl.lit(unit.isolation).alias("isolation"),
        pl.lit(played.level).alias("level"),
        pl.lit(unit.protocol).alias("protocol"),
    )


def trace(
    store: Store,
    program: Program,
    beta: float,
    problem: str,
    seed: int,
    *,
    settings: Mapping[str, Any] | None = None,
    protocol: str = "standard",
    isolation: str | None = None,
    probe_tokens: int = 20,
    max_branches: int | None = None,
    i_trust_this_code: bool = False,
) -> list[dict[str, Any]]:
    """What one episode did and saw: the engine's own action log, a dictionary a round, JSON-able.

    A round is {"round", "actions": [{"do", "ids", "depth", "tokens", "answer", "done"}], "notes"}; `answer`
    holds the episode's codes (None = not asked). The last entry is {"answer", "correct", "error", "spent"}.

    Args:
        problem: its question hash.

    Raises:
        UserError: the store has no such problem; otherwise as `evaluate`.
    """
    from env.tracing import timeline

    (at,) = _chosen(store, [problem]) or (None,)
    if at is None:
        raise UserError(f"{store.path} has no problem {problem}")
    unit = Unit(
        store=store.path,
        program=program,
        beta=float(beta),
        overrides=dict(settings or {}),
        seeds=(seed,),
        problems=(at,),
        protocol=protocol,
        probe_tokens=probe_tokens,
        max_branches=max_branches,
        isolation=isolation or ("none" if program.trusted else "strict"),
        refusal=_refusal(program),
        i_trust_this_code=i_trust_this_code,
        log=True,
    )
    return timeline(play_unit(unit))
