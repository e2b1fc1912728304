"""From options to a search that can start, or go on as it was started."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from env.errors import UserError
from env.program import GRID
from env.store import Store
from search_agent.arena import Arena
from search_agent.budget import Budget
from search_agent.desk import Lane
from search_agent.splits import Splits, split

# Bounds of a run, kept apart as `Run.stop`: a resumed run may be given others.
STOP = tuple(field.name for field in fields(Budget))
# These change no round's outcome, so a resumed run may be given others too.
FREE = {*STOP, "workers", "api_key_env", "request_timeout", "resume", "out"}
PATHS = {"prices"}
# Where programs are measured if beta is ablated.
ONE_BETA = 0.5


def merged(
    given: argparse.Namespace, defaults: Mapping[str, Any], saved: Mapping[str, Any], run: Path
) -> argparse.Namespace:
    """The options of a resumed run: those it was started with, and what may be changed as given now.

    Raises:
        UserError: an option was given that would change what the run measures.
    """
    options = {**defaults, **saved}
    for name, value in vars(given).items():
        if value == defaults.get(name):
            continue
        value = _portable(name, value)
        if name not in FREE and value != saved.get(name):
            raise UserError(
                f"{run} was started with {_option(name)} {saved.get(name)}, so --resume cannot go on with "
                f"{value}; leave the option out, or start another run with another --out"
            )
        options[name] = value
    options |= {name: Path(options[name]) for name in PATHS if options.get(name)}
    return argparse.Namespace(**options)


def portable(options: argparse.Namespace) -> dict[str, Any]:
    """The options that determine a run, ready for JSON and for another working directory."""
    return {name: _portable(name, value) for name, value in vars(options).items() if name not in FREE}


def open_arena(options: argparse.Namespace) -> Arena:
    """Open the stores and deal the problems.

    Raises:
        UserError: a store cannot be opened, is given twice, or there are too few problems.
    """
    stores = [Store.open(path) for path in options.stores]
    holdout = [Store.open(path) for path in options.holdout]
    paths = [store.path for store in (*stores, *holdout)]
    if twice := {path for path in paths if paths.count(path) > 1}:
        raise UserError(f"{min(twice)} is given twice; each store counts once")
    splits = split(problems_of(stores), options.folds, problems_of(holdout) if holdout else None)
    return Arena(
        stores=stores,
        holdout=holdout or stores,
        splits=splits,
        seeds=options.seeds,
        protocol=options.protocol,
        probe_tokens=options.probe_tokens,
        i_trust_this_code=options.i_trust_this_code,
        workers=options.workers,
        betas=(ONE_BETA,) if "beta" in options.ablate else GRID,
    )


def configuration(arena: Arena, options: argparse.Namespace, lanes: Sequence[Lane]) -> dict[str, Any]:
    """What determines the result of a run, ready for JSON; a resumed run must come to the same."""
    splits: Splits = arena.splits
    return {
        "stores": [_identity(store) for store in arena.stores],
        "holdout": [_identity(store) for store in arena.holdout],
        "problems": {
            "feedback": list(splits.feedback),
            "selection": list(splits.selection),
            "holdout": list(splits.holdout),
        },
        "proposer": {
            "name": " + ".join(lane.label for lane in lanes),
            "settings": {lane.label: {"role": lane.role, **lane.proposer.settings} for lane in lanes},
        },
        "ablated": sorted(options.ablate),
        "seeds": arena.seeds,
        "final_seeds": arena.final_seeds,
        "folds": options.folds,
        "protocol": arena.protocol,
        "probe_tokens": arena.probe_tokens,
        "seed": options.seed,
        "options": portable(options),
    }


def require_same(config: Mapping[str, Any], saved: Mapping[str, Any], run: Path) -> None:
    """See that nothing a resumed run depends on has changed since it was started.

    Raises:
        UserError: something has, a store's contents for example.
    """
    # Through JSON, as the saved one went.
    config = json.loads(json.dumps(config))
    for key, value in saved.items():
        if key != "options" and config.get(key) != value:
            raise UserError(
                f"{run} cannot be resumed: its {key} changed since it was started; restore it, or "
                "start another run with another --out"
            )


def next_folder(root: Path = Path("runs")) -> Path:
    """The first of runs/0001, runs/0002, ... that comes after all that exist."""
    taken = [int(entry.name) for entry in root.glob("[0-9]*") if entry.name.isdigit()]
    return root / f"{max(taken, default=0) + 1:04d}"


def problems_of(stores: Sequence[Store]) -> list[str]:
    """Question hashes of stores, one after the other."""
    return [problem for store in stores for problem in store.problems["question_hash"].to_pylist()]


def _identity(store: Store) -> dict[str, str]:
    contents = hashlib.sha256(json.dumps(store.meta, sort_keys=True).encode()).hexdigest()[:12]
    return {"path": store.path, "model": store.model, "dataset": store.dataset, "contents": contents}


def portable_paths(stores: Sequence[str]) -> list[str]:
    """The same stores, seen from any working directory."""
    return [path if "://" in path else str(Path(path).resolve()) for path in stores]


def _portable(name: str, value: Any) -> Any:
    if name in {"stores", "holdout"}:
        return portable_paths(value)
    if name in PATHS and value:
        return str(Path(value).resolve())
    return value


def _option(name: str) -> str:
    return "stores" if name == "stores" else f"--{name.replace('_', '-')}"
