"""Draws whole branches from a model as a collection does: cut, probed at the end of every segment, graded."""

import asyncio
from typing import Any

from env.episode import UNPARSED
from env.forest import END_NONE
from env.live.answers import Answers
from env.live.bench import Question
from env.live.episode import together
from env.live.model import Model, ModelError, Session
from env.tasks import Task, TaskError

# What a branch says at the end of each segment, its tokens, and those of its probes.
Drawn = tuple[list[str | None], int, int]


async def draw(
    model: Model,
    task: Task,
    question: Question,
    classes: list[str],
    seed: int,
    arm: int,
    count: int,
    probes: bool,
) -> dict[str, Any]:
    """Branches of one question, in plain values.

    Args:
        model: is asked.
        task: compares and grades answers.
        question: and its right answer.
        classes: the representatives of the store's answers, whose numbers its classes have.
        seed: of the run.
        arm: which model and prompt; the row's `seed`.
        count: how many branches.
        probes: whether they are asked at the end of every segment.

    Returns:
        What `env.certificate.branches.from_row` reads, and `probe_tokens`, `error` and `model_failed` as
        episodes have them; a model that fails has no branches.
    """
    row = {"problem": question.name, "seed": arm, "branches": [], "probe_tokens": 0}
    answers = Answers(task, question.gold, classes)
    session = model.ask(question.text, seed)
    try:
        drawn = await together([_branch(session, number, arm, probes) for number in range(count)])
        numbers = {text: number for number, text in enumerate(classes)}
        codes = [await answers.codes(said) for said, _, _ in drawn]
        of_code = {}
        for code in {each for some in codes for each in some if each != UNPARSED}:
            of_code[code] = numbers.get(answers.text(code) or "", len(classes) + code)
        finals = {some[-1]: await answers.correct(some[-1]) for some in codes}
        row["branches"] = [
            {
                "tokens": tokens,
                "answers": [of_code.get(code, UNPARSED) for code in some],
                "correct": finals[some[-1]],
            }
            for some, (_, tokens, _) in zip(codes, drawn, strict=True)
        ]
        row["probe_tokens"] = sum(probed for _, _, probed in drawn)
        return row | {"error": "", "model_failed": False}
    except (ModelError, TaskError) as error:
        return row | {"error": f"{type(error).__name__}: {error}", "model_failed": True}
    finally:
        await asyncio.shield(session.close())


async def _branch(session: Session, number: int, arm: int, probes: bool) -> Drawn:
    """One, to its end."""
    name = (number,)
    branch = session.open(name, arm)
    said: list[str | None] = []
    tokens = probed = 0
    while True:
        segment = await branch.advance(name)
        tokens += segment.tokens
        if segment.end != END_NONE:
            return [*said, segment.answer], tokens, probed
        if probes:
            probe = await branch.probe()
            said.append(probe.answer)
            probed += probe.tokens
