"""Plays many questions, so many at a time, and keeps each episode when it is done."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
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

    async def play(question: Question, seed: int) -> dict[str, Any]:
        return row_of(question, seed, await bench.play(question, seed))

    return await keep_all(play, questions, seeds, concurrency, folder, concurrency, progress)


async def keep_all(
    play: Callable[[Question, int], Awaitable[dict[str, Any]]],
    questions: Sequence[Question],
    seeds: Sequence[int],
    concurrency: int,
    folder: RunFolder,
    part: int | str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Like `play_all`, whatever an episode is: `play` gives its row, which `part` of the folder keeps."""
    rows = folder.finished(part)
    order = [(question, seed) for seed in seeds for question in questions]
    todo = deque((question, seed) for question, seed in order if (question.name, seed) not in rows)
    done = len(order) - len(todo)
    progress(done, len(order))

    async def work() -> None:
        nonlocal done
        while todo:
            question, seed = todo.popleft()
            row = await play(question, seed)
            folder.write(part, row)
            rows[question.name, seed] = row
            done += 1
            progress(done, len(order))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(todo))):
                group.create_task(work())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [rows[question.name, seed] for question, seed in order]
