"""A question in, an answer out: from Python by `answer`, from a shell by `main`."""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import openai

from env.export.answers import boxed
from env.export.branch import Branch, Question
from env.export.episode import ControllerError, Episode, Said, Spent
from env.export.program import BETA, NEEDS, SETTINGS, controller
from env.export.scoring import Scorer
from env.export.server import ServerError, Usage, model_at

# The key that a server asks for, under the name by which the server itself takes it.
KEY = "VLLM_API_KEY"
# With the package's waits, of 8 seconds at most, long enough for a busy server.
RETRIES = 8


@dataclass(frozen=True)
class Explored:
    """A branch: why it ended (None: it was left), its segments and tokens, the latest answer it gave."""

    done: str | None
    depth: int
    tokens: int
    answer: str | None


@dataclass(frozen=True)
class Result:
    """What came of a question.

    Attributes:
        text: what the winning branch says after its thinking; of one that was not read to its end, what it
            said when it was last asked; of one that has changed its answer since, what it said before.
        answer: the answer by which it won, tidied up; None if there was none.
        reasoning: the winning branch's thinking, up to where it said so.
        usage: what it really took.
        spent: what replay would count.
        rounds: how often the controller waited.
        branches: all of them, in opening order.
        notes: what the controller noted.
    """

    text: str
    answer: str | None
    reasoning: str
    usage: Usage
    spent: Spent
    rounds: int
    branches: list[Explored]
    notes: list[str]


async def answer(
    question: str,
    *,
    client: openai.AsyncOpenAI,
    model: str,
    beta: float = BETA,
    seed: int = 0,
    read: Callable[[str], str | None] = boxed,
    prm_client: openai.AsyncOpenAI | None = None,
    prm_model: str = "",
) -> Result:
    """Run the controller on one question; any number may be under way at once.

    Args:
        question: its text.
        client: for a vLLM server; retries and time-outs are its own.
        model: its name there.
        beta: from 0, cheap, to 1, thorough.
        seed: of the episode: another draws other branches.
        read: the answer that a text gives, in a form in which equal answers are equal; None = none.
        prm_client: for the server of the reward model, if the controller needs one.
        prm_model: its name there.

    Raises:
        ServerError: a server cannot be used.
        ControllerError: the controller did what it may not, or needs a reward model that was not given.
    """
    began = time.monotonic()
    usage = Usage()
    asked = Question(
        model_at(client, model), question, SETTINGS, SETTINGS.seed + seed, "confidence" in NEEDS, usage
    )
    scorer = None
    if "prm" in NEEDS:
        if prm_client is None:
            raise ControllerError("this controller scores steps: give prm_client and prm_model")
        scorer = Scorer(model_at(prm_client, prm_model), question, SETTINGS, usage)
    await asked.put()
    schedule, solve = controller()
    episode = Episode(asked, scorer, read, seed)
    try:
        code = await solve(episode, **schedule(beta))
        if code is not None and (type(code) is not int or not -1 <= code < len(episode.first)):
            raise ControllerError(f"the controller answered {code!r:.40}, which no branch said")
        said = episode.first[code] if code is not None and code >= 0 else None
        text, reasoning = "", ""
        if episode.branches:
            branch, position, text = _winner(episode, code, said)
            has_ended = branch.ended and position == branch.position
            ids = branch.words if has_ended else branch.ids[:position]
            until = asked.answer_from(ids) - 1 if has_ended else len(ids)
            reasoning = await asked.model.decode(ids[: max(0, until)])
    finally:
        await episode.close()
    usage.seconds = time.monotonic() - began
    seen = zip(episode.answer, episode.said, strict=True)
    told = [None if known is None else read(words) for known, words in seen]
    explored = zip(episode.done, episode.depth, episode.tokens, told, strict=True)
    return Result(
        text=text,
        answer=said.answer if said is not None else None,
        reasoning=reasoning,
        usage=usage,
        spent=episode.spent,
        rounds=episode.rounds,
        branches=[Explored(*each) for each in explored],
        notes=episode.notes,
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        description="Answer a question, or the questions of JSON lines on standard input, with a model at a "
        f"vLLM server. A key that it asks for is read from {KEY}."
    )
    parser.add_argument("question", nargs="?", help='without it: lines such as {"question": "..."}')
    parser.add_argument("--base-url", required=True, metavar="URL", help="such as http://localhost:8000/v1")
    parser.add_argument("--model", required=True, help="its name at the server")
    parser.add_argument("--beta", type=float, default=BETA, help=f"0 cheap, 1 thorough; default: {BETA:g}")
    parser.add_argument("--seed", type=int, default=0, help="another draws other branches; default: 0")
    parser.add_argument("--json", action="store_true", help="print everything, not the text alone")
    parser.add_argument("--concurrency", type=int, default=8, help="questions at a time; default: 8")
    if "prm" in NEEDS:
        parser.add_argument("--prm-url", required=True, metavar="URL", help="of the reward model's server")
        parser.add_argument("--prm-model", required=True, metavar="MODEL", help="its name there")
    args = parser.parse_args(arguments)
    if not 0 <= args.beta <= 1:
        parser.error(f"--beta {args.beta:g} is outside [0, 1]")
    if args.concurrency < 1:
        parser.error("--concurrency must be 1 or more")
    try:
        return asyncio.run(_run(args))
    except KeyboardInterrupt:
        return 130
    except (ServerError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


async def _run(args: argparse.Namespace) -> int:
    async with _client(args.base_url) as client:
        prm_client = _client(args.prm_url) if "prm" in NEEDS else None
        options: dict[str, Any] = {
            "client": client,
            "model": args.model,
            "beta": args.beta,
            "seed": args.seed,
        }
        if prm_client is not None:
            options |= {"prm_client": prm_client, "prm_model": args.prm_model}
        try:
            if args.question is None:
                return await _run_lines(args, options)
            found = await answer(args.question, **options)
            print(_json(asdict(found)) if args.json else found.text)
            return 0
        finally:
            if prm_client is not None:
                await prm_client.close()


async def _run_lines(args: argparse.Namespace, options: dict[str, Any]) -> int:
    """Every line of standard input with its answer, in the same order; a failure is told in its line."""
    rows = [_row(number, line) for number, line in enumerate(sys.stdin, 1) if line.strip()]
    turns = asyncio.Semaphore(args.concurrency)

    async def one(row: dict[str, Any]) -> dict[str, Any]:
        async with turns:
            try:
                found = asdict(await answer(row["question"], **options))
            except Exception as error:
                return row | {"error": f"{type(error).__name__}: {error}"}
        return row | (found if args.json else {"text": found["text"], "answer": found["answer"]})

    failed = False
    for task in [asyncio.create_task(one(row)) for row in rows]:
        told = await task
        failed |= "error" in told
        print(_json(told), flush=True)
    return int(failed)


def _row(number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        raise ValueError(f'line {number} of standard input is not like {{"question": "..."}}')
    return row


def _client(url: str) -> openai.AsyncOpenAI:
    base_url = f"{url.rstrip('/').removesuffix('/v1')}/v1"
    return openai.AsyncOpenAI(base_url=base_url, api_key=os.environ.get(KEY) or "none", max_retries=RETRIES)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _winner(episode: Episode, code: int | None, said: Said | None) -> tuple[Branch, int, str]:
    """The branch that speaks for an answer, after so many tokens, in these words.

    The first that has ended with it, else the first that gives it, else the one that did so first, as it then
    was; for no answer the first of all.
    """
    giving = [i for i, known in enumerate(episode.answer) if known == code and known is not None]
    if said is not None and not giving:
        return episode.branches[said.branch], said.position, said.text
    winner = min(giving, key=lambda i: not episode.branches[i].ended, default=0)
    return episode.branches[winner], episode.branches[winner].position, episode.said[winner]
