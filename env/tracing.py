"""The timeline of one episode, from the engine's own action log."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from env.actions import turns
from env.episode import ENDS, FORK, KINDS, PRUNE, UNASKED
from env.replay import Results
from env.unit import Played


def timeline(played: Played) -> list[dict[str, Any]]:
    """The rounds of a unit of one episode, then its outcome; see `env.evaluate.trace` for the shape."""
    rounds: list[dict[str, Any]] = []
    for wave in played.waves:
        notes: dict[int, list[str]] = {}
        for _, turn, text in wave.notes:
            notes.setdefault(turn, []).append(text)
        for turn, (actions, ids, results) in enumerate(wave.replay.log or ()):
            told, said = _actions(actions, ids, results), notes.get(turn, [])
            if told or said:
                rounds.append({"round": len(rounds) + 1, "actions": told, "notes": said})
    names = ("decode", "probe", "prm", "sequential")
    answer = int(played.answer[0])
    return [
        *rounds,
        {
            "answer": None if answer < 0 else answer,
            "correct": bool(played.correct[0]),
            "error": played.errors.get(0, ""),
            "spent": dict(zip(names, played.ledger[0].tolist(), strict=True)),
        },
    ]


def _actions(actions: Any, ids: Any, results: Results) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    for turn in turns(actions, ids, results.rows):
        if turn.kind == PRUNE:
            told.append({"do": "prune", "ids": turn.ids})
        elif turn.rows is None:
            told.append({"do": KINDS[turn.kind], "refused": True})
        else:
            entry: dict[str, Any] = {"do": KINDS[turn.kind], "ids": results.branch[turn.rows].tolist()}
            if turn.kind == FORK:
                entry["from"] = turn.argument
            told.append(entry | _seen(results, turn.rows))
    return told


def _seen(results: Results, here: slice) -> dict[str, Sequence[Any]]:
    seen: dict[str, Sequence[Any]] = {
        "depth": results.depth[here].tolist(),
        "tokens": results.tokens[here].tolist(),
        "answer": [None if code == UNASKED else code for code in results.answer[here].tolist()],
        "done": [ENDS[end] for end in results.end[here].tolist()],
    }
    if results.probe_tokens[here].any():
        seen["probe_tokens"] = results.probe_tokens[here].tolist()
    if results.scores is not None:
        counts, values = results.scores
        stops = np.cumsum(counts)
        seen["prm"] = [
            [round(float(v), 4) for v in values[stops[r] - counts[r] : stops[r]]]
            for r in range(*here.indices(len(counts)))
        ]
    return seen
