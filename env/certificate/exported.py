"""Plays a file of `autotts export` in place of the live engine: a process of its own, as its users run it."""

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from env.errors import UserError
from env.live.bench import Question
from env.live.folder import RunFolder
from env.live.model import ModelError
from env.program import Program
from env.tasks import Task, TaskError, guarded

# What the process is told of this one's environment.
TOLD = ("PATH", "VLLM_API_KEY", "SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# Of its error output, what a row carries.
LONGEST = 300
# Of its output, a line: an answer with the winning branch's reasoning.
LONGEST_LINE = 64 << 20


def check_exported(path: Path, program: Program) -> None:
    """See that a file is the export of a program. Raises UserError if it is that of another, or of none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if hashlib.sha256(program.source.encode()).hexdigest() not in text:
        raise UserError(
            f"{path} is no export of {program.name} as it is now; make it anew with `autotts export`"
        )


@dataclass(frozen=True)
class Exported:
    """An exported file at a server.

    Args:
        path: of the file.
        program: whose export it must be.
        beta: that it runs at.
        url: of the server, without /v1.
        model: its name there.
        task: reads and grades its answers.
        seed: of the first episode's branches; another is added to it.
        prm: address of the reward model's server and its name there, if it is asked.

    Raises:
        UserError: it is the export of another program, or of none.
    """

    path: Path
    program: Program
    beta: float
    url: str
    model: str
    task: Task
    seed: int
    prm: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        check_exported(self.path, self.program)

    async def keep_all(
        self,
        questions: Sequence[Question],
        seeds: Sequence[int],
        concurrency: int,
        folder: RunFolder,
        part: str,
        progress: Callable[[int, int], None],
    ) -> list[dict[str, Any]]:
        """As `env.live.run.keep_all`, a process for each seed; an error that it reports is its model's."""
        rows = folder.finished(part)
        progress(len(rows), len(questions) * len(seeds))
        for seed in seeds:
            todo = [question for question in questions if (question.name, seed) not in rows]
            async with aclosing(self._told(todo, seed, concurrency)) as told:
                async for question, reply in told:
                    row = await asyncio.to_thread(self._row, question, seed, reply)
                    folder.write(part, row)
                    rows[question.name, seed] = row
                    progress(len(rows), len(questions) * len(seeds))
        return [rows[question.name, seed] for seed in seeds for question in questions]

    async def _told(
        self, questions: Sequence[Question], seed: int, concurrency: int
    ) -> AsyncGenerator[tuple[Question, dict[str, Any]], None]:
        """What the file says to each question, in their order."""
        if not questions:
            return
        command = [sys.executable, "-I", str(self.path.resolve()), "--base-url", f"{self.url}/v1"]
        command += ["--model", self.model, "--beta", str(self.beta), "--json"]
        command += ["--seed", str(self.seed + seed), "--concurrency", str(concurrency)]
        if self.prm is not None:
            command += ["--prm-url", f"{self.prm[0]}/v1", "--prm-model", self.prm[1]]
        with TemporaryFile() as complaints:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=complaints,
                env={name: os.environ[name] for name in TOLD if name in os.environ},
                limit=LONGEST_LINE,
            )
            assert process.stdin is not None and process.stdout is not None
            try:
                for question in questions:
                    process.stdin.write(json.dumps({"question": question.text}).encode() + b"\n")
                process.stdin.close()
                for question in questions:
                    line = await process.stdout.readline()
                    yield question, json.loads(line) if line else {"error": _last_words(complaints)}
            finally:
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        process.kill()
                await process.wait()

    def _row(self, question: Question, seed: int, told: Mapping[str, Any]) -> dict[str, Any]:
        begun = {"problem": question.name, "seed": seed}
        try:
            if "error" in told:
                raise ModelError(told["error"])
            correct = self._correct(question, told)
        except (ModelError, TaskError) as error:
            none = dict.fromkeys(("decode", "probe", "prm", "tokens", "sequential", "rounds", "granted"), 0)
            return begun | none | {"correct": False, "error": str(error), "model_failed": True}
        decode, probe, prm, sequential = told["spent"]
        return begun | {
            "correct": correct,
            "decode": decode,
            "probe": probe,
            "prm": prm,
            "tokens": decode + probe + prm,
            "sequential": sequential,
            "rounds": told["rounds"],
            "granted": len(told["branches"]),
            "seconds": told["usage"]["seconds"],
            "error": "",
            "model_failed": False,
        }

    def _correct(self, question: Question, told: Mapping[str, Any]) -> bool:
        with guarded(self.task):
            answer = None if told["answer"] is None else self.task.extract(told["text"])
            return bool(answer is not None and question.gold and self.task.grade(question.gold, answer))


def _last_words(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    said = " ".join(complaints.read().decode(errors="replace").split())
    return said[-LONGEST:] or "the exported file ended without a word"
