"""Plays many questions, so many at a time, and keeps each episode when it is done."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from env.live.bench import Bench, Question
from env.live.folder import RunFolder
from env.live.player import Played


def row_of(question: Question, seed: int, played: Played) -> dict[str, Any]:
    """An episode in plain values; never what was asked or answered."""
    ledger = played.ledger
    return {
        "problem": question.name,
        "seed": seed,
        "correct": played.correct,
        "answer": played.answer,
        "decode": ledger.decode,
        "probe": ledger.probe,
        "prm": ledger.prm,
        "tokens": ledger.total,
        "sequential": ledger.sequential,
        "rounds": played.rounds,
        "asked": played.asked,
        "granted": played.granted,
        "seconds": round(played.seconds, 6),
        "usage": asdict(played.usage),
        "error": played.error,
        "model_failed": played.model_failed,
    }


async def play_all(
    bench: Bench,
    questions: Sequence[Question],
    seeds: Sequence[int],
    concurrency: int,
    folder: RunFolder,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Play each question once with each seed, up to `concurrency` at a time.

    Returns:
        A row an episode, seed by seed, those included that the folder had.

    Raises:
        UserError: the folder cannot be written.
    """
    rows = folder.finished(concurrency)
    todo = deque((question, seed) for seed in seeds for question in questions)
    total = len(todo)
    order = [(question.name, seed) for question, seed in todo]
    todo = deque(each for each, key in zip(todo, order, strict=True) if key not in rows)
    progress(total - len(todo), total)

    async def work() -> None:
        while todo:
            question, seed = todo.popleft()
            row = row_of(question, seed, await bench.play(question, seed))
            folder.write(concurrency, row)
            rows[question.name, seed] = row
            progress(len(rows), total)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(todo))):
                group.create_task(work())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [rows[key] for key in order]
