"""An episode's action log in short lines: of sixty-four branches, a model reads how the votes moved."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any

from search_agent.proposers.text import clean, cut

FEW = 4  # branches that are told one by one
MAX_NOTE = 120  # characters
MAX_TEXT = 6_000


def text(trace: Sequence[Mapping[str, Any]], limit: int = MAX_TEXT) -> str:
    """The action log of an episode: its outcome, then its rounds; the middle of a long one is left out."""
    told = lines(trace)
    sizes = list(accumulate(len(line) + 1 for line in told))
    head = bisect_right(sizes, limit // 2)
    tail = max(head, bisect_right(sizes, sizes[-1] - limit // 2) + 1)
    gap = [f"[{tail - head} lines left out]"] if tail > head else []
    return cut("\n".join([*told[:head], *gap, *told[tail:]]), limit + 100, "its lines are too long")


def lines(trace: Sequence[Mapping[str, Any]]) -> list[str]:
    """The outcome, then a line a round; rounds in a row that did and saw the same share one.

    Args:
        trace: as `env.evaluate.trace` returns it.
    """
    *rounds, end = trace
    spent = ", ".join(f"{name} {tokens}" for name, tokens in end.get("spent", {}).items())
    error = f"; error: {clean(end['error'], 300)}" if end.get("error") else ""
    outcome = f"answered {end['answer']}: {'right' if end['correct'] else 'wrong'}{error}; tokens: {spent}"
    told = []
    for what, alike in groupby(rounds, _round):
        first, *rest = [entry["round"] for entry in alike]
        told.append(f"{first} to {rest[-1]}, each: {what}" if rest else f"{first}: {what}")
    return [outcome, *told]


def _round(entry: Mapping[str, Any]) -> str:
    told = [_action(action) for action in entry["actions"]]
    told += [f"note: {clean(note, MAX_NOTE)}" for note in entry["notes"]]
    return "; ".join(told)


def _action(action: Mapping[str, Any]) -> str:
    name = f"fork {action['from']} ->" if "from" in action else action["do"]
    if action.get("refused"):
        return f"{name} refused"
    ids = action["ids"]
    if "tokens" not in action:
        return f"{name} {_spans(ids)}"
    scores = [path[-1] if path else None for path in action.get("prm", [[] for _ in ids])]
    rows = list(zip(ids, action["tokens"], action["answer"], action["done"], scores, strict=True))
    if len(rows) <= FEW:
        return f"{name} " + ", ".join(
            f"{id}: +{tokens}"
            + (f" answer {answer}" if answer is not None else "")
            + (f" prm {score:.3f}" if score is not None else "")
            + (f" ({done})" if done else "")
            for id, tokens, answer, done, score in rows
        )
    votes = Counter(answer for answer in action["answer"] if answer is not None)
    ended = [id for id, _, _, done, _ in rows if done]
    scored = sorted(score for score in scores if score is not None)
    return (
        f"{name} {_spans(ids)}: +{sum(action['tokens'])}"
        + (
            ", answers " + " ".join(f"{answer}x{count}" for answer, count in votes.most_common(8))
            if votes
            else ""
        )
        + (f", prm {scored[0]:.3f} to {scored[-1]:.3f}" if scored else "")
        + (f", ended {_spans(ended)}" if ended else "")
    )


def _spans(ids: Sequence[int]) -> str:
    """Ids in short: "0-5,9"."""
    runs = []
    for _, run in groupby(enumerate(sorted(ids)), lambda pair: pair[1] - pair[0]):
        first, *rest = [id for _, id in run]
        runs.append(f"{first}-{rest[-1]}" if rest else str(first))
    return ",".join(runs)
