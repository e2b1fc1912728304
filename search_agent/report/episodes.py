"""A few episodes worth looking at, each played once more by the best program and its rivals, with a log.

What is shown is what was measured: an episode that does not come out as the archive has it is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from search_agent.archive import Run
from search_agent.report.outcomes import aliases, columns
from search_agent.report.view import View

if TYPE_CHECKING:
    import polars as pl

# A program's own words in a log, and all episodes together, in characters of the page.
MAX_NOTE, MAX_NOTES, MAX_SIZE = 300, 20, 500_000
PROGRAMS = 4
KEYS = ("store", "problem", "beta", "seed")


def episodes(run: Run, view: View) -> dict[str, Any] | str:
    """Episodes of the feedback problems, ready for JSON; or one sentence that says why there are none.

    Returns:
        `programs` (names) and `episodes`: `why`, `where`, `runs`, for each program None (it did not fit) or
        what `compact` makes of its log.
    """
    programs = cast(view)
    played = {entry: run.episodes(entry, "feedback") for entry in programs}
    frames = {entry: frame for entry, frame in played.items() if frame is not None and not frame.is_empty()}
    if not frames:
        return "No program was measured yet."
    chosen = choose(*list(frames.values())[:2])
    try:
        told = list(_played(run, frames, chosen))
    except Exception as error:
        # Whatever is wrong with a store or with this machine, the rest of the run can be shown.
        return f"They cannot be played again: {str(error)[:MAX_NOTE]}"
    if not any(any(each["runs"]) for each in told):
        return "None came out as it is archived, so the stores must have changed since."
    return {
        "programs": [entry if isinstance(entry, str) else f"round {entry}" for entry in frames],
        "episodes": told,
    }


def cast(view: View) -> list[int | str]:
    """Who plays: the best round, the best published controller, the round's parent, the next best."""
    rounds = [entry for entry in columns(view) if isinstance(entry, int)]
    shipped = [entry for entry in columns(view) if isinstance(entry, str)]
    return [*rounds[:1], *shipped[:1], *rounds[1:2], *shipped[1:]][:PROGRAMS]


def choose(ours: pl.DataFrame, theirs: pl.DataFrame | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Up to four episodes of different problems, with why they are worth a look, of those that both played.

    Args:
        ours: episodes of the best program.
        theirs: of its best rival; None = there is none.
    """
    import polars as pl

    both = ours.join(ours if theirs is None else theirs, on=KEYS, suffix="_theirs").with_columns(
        saved=pl.col("tokens_theirs") / pl.col("tokens").clip(1), middle=(pl.col("beta") - 0.5).abs()
    )
    right, rival = pl.col("correct"), pl.col("correct_theirs")
    kinds = [
        ("right, where its best rival is wrong", right & ~rival, "saved"),
        ("wrong, where its best rival is right", ~right & rival, "tokens"),
        ("both right, and most tokens saved", right & rival, "saved"),
        ("both wrong, and most tokens spent", ~right & ~rival, "tokens"),
    ]
    if theirs is None:
        kinds = [("right, and dearest", right, "tokens"), ("wrong, and dearest", ~right, "tokens")]
    chosen: list[tuple[str, dict[str, Any]]] = []
    for why, condition, by in kinds:
        taken = [where["problem"] for _, where in chosen]
        fresh = both.filter(condition, ~pl.col("problem").is_in(taken))
        # At the middle betas a program has both something to decide and something to save.
        order = fresh.sort("middle", by, *KEYS, descending=[False, True, *[False] * len(KEYS)])
        chosen += [(why, {key: row[key] for key in KEYS}) for row in order.head(1).to_dicts()]
    return chosen


def compact(trace: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A log of `env.evaluate.trace` in fewer characters.

    Returns:
        `answer`, `correct`, `error`, `spent` as they are; `rounds`: of each `notes` and `actions`: `do`,
        `ids` as in "0-5,9", and, one value for each branch or one for all, `tokens`, `answer`, `done`,
        `probe_tokens`, `prm` (the last score).
    """
    *rounds, end = trace
    return {
        **end,
        "error": end["error"][:MAX_NOTE],
        "rounds": [
            {
                "actions": [_action(action) for action in each["actions"]],
                "notes": [note[:MAX_NOTE] for note in each["notes"][:MAX_NOTES]],
            }
            for each in rounds
        ],
    }


def _played(
    run: Run, frames: Mapping[int | str, pl.DataFrame], chosen: Sequence[tuple[str, dict[str, Any]]]
) -> Iterator[dict[str, Any]]:
    from env.evaluate import trace
    from env.program import Program
    from env.store import Store

    config, names = run.config, aliases(run.config)
    models = {str(store["path"]): store["model"] for store in config["stores"]}
    stores = {path: Store.open(path) for path in {where["store"] for _, where in chosen}}
    options = {
        "protocol": config["protocol"],
        "probe_tokens": config["probe_tokens"],
        "i_trust_this_code": bool(config["options"].get("i_trust_this_code")),
    }
    size = 0
    for why, where in chosen:
        runs: list[dict[str, Any] | None] = []
        for entry, frame in frames.items():
            source = run.source(entry)
            rows = frame.filter(**where).rows(named=True)
            runs.append(None)
            if source is None or not rows:
                continue
            # A run's folder may be anybody's, so nothing in it is trusted.
            log = trace(
                stores[where["store"]],
                Program(f"episode of {entry}", source),
                where["beta"],
                where["problem"],
                where["seed"],
                **options,
            )
            told = compact(log)
            length = len(json.dumps(told, separators=(",", ":")))
            if _came_out(told, rows[0]) and size + length <= MAX_SIZE:
                size += length
                runs[-1] = told
        place = f"{models[where['store']]}, problem {names[where['problem']]}, beta {where['beta']:g}"
        yield {"why": why, "where": place, "runs": runs}


def _came_out(told: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    spent = [told["spent"][name] for name in ("decode", "probe", "prm", "sequential")]
    return (told["correct"], spent) == (
        row["correct"],
        [row[name] for name in ("decode", "probe", "prm", "sequential")],
    )


def _action(action: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: action[name] for name in ("do", "from", "refused") if name in action}
    if "ids" in action:
        told["ids"] = _spans(action["ids"])
    for name in ("tokens", "answer", "done", "probe_tokens"):
        if name in action:
            told[name] = _one_for_all(action[name])
    if "prm" in action:
        told["prm"] = _one_for_all([path[-1] if path else None for path in action["prm"]])
    return told


def _spans(ids: Sequence[int]) -> str:
    """Ids in short, in their order: "0-5,9"."""
    told = []
    for _, group in groupby(enumerate(ids), lambda pair: pair[1] - pair[0]):
        first, *rest = [number for _, number in group]
        told.append(f"{first}-{rest[-1]}" if rest else str(first))
    return ",".join(told)


def _one_for_all(values: Sequence[Any]) -> Any:
    return values[0] if values and all(value == values[0] for value in values) else list(values)
