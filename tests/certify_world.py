"""A made-up model whose branches are drawn from known chances, a store of it, and the certificate of both."""

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from env.certificate.branches import from_row
from env.certificate.certificate import certificate, judge_branches, judge_program
from env.certificate.design import Design
from env.certificate.equivalence import Verdict
from env.certificate.fresh import draw
from env.live.bench import Bench, Question
from env.live.folder import RunFolder
from env.live.model import Abilities, ModelError, Probe, Segment, Usage
from env.live.player import Player
from env.live.run import keep_all, play_all
from env.nodes import Nodes
from env.store import Store
from env.store_writer import StoreWriter
from env.tasks import load_task

CHANCES = (0.1, 0.5, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class World:
    """A model for live episodes; see `env.live.model.Model`.

    Args:
        problems: how many it knows.
        right: added to the chance of a right answer.
        longer: how many times as long its segments are.
        fails: the share of questions that it fails in.
    """

    problems: int = 40
    right: float = 0.0
    longer: float = 1.0
    fails: float = 0.0

    abilities = Abilities()

    @property
    def questions(self) -> list[Question]:
        return [Question(f"question {n}", "right") for n in range(self.problems)]

    def script(self, question: str, name: object) -> list[tuple[int, str]]:
        """A branch: tokens and what it would answer, a segment each."""
        dice = random.Random(f"{question} {name}")
        chance = CHANCES[int(question.split()[1]) % len(CHANCES)] + self.right
        answers = ["right" if dice.random() < chance else f"wrong {dice.randrange(3)}" for _ in range(3)]
        return [
            (round(dice.randrange(20, 60) * self.longer), answer)
            for answer in answers[: 1 + dice.randrange(3)]
        ]

    def store(self, path: Path, branches: int = 48) -> Store:
        with StoreWriter(path, model="made-up", dataset="world", task="exact") as writer:
            for question in self.questions:
                nodes = Nodes(parent=[], tokens=[], answer=[], probed=[], end=[], probe_tokens=[])
                for number in range(branches):
                    said = self.script(question.text, f"stored {number}")
                    for depth, (tokens, answer) in enumerate(said):
                        last = depth == len(said) - 1
                        nodes.parent.append(len(nodes.tokens) - 1 if depth else -1)
                        nodes.tokens.append(tokens)
                        nodes.answer.append(answer)
                        nodes.probed.append(not last)
                        nodes.end.append(int(last))
                        nodes.probe_tokens.append(-1 if last else 3)
                writer.add_problem(question.text, question.gold, nodes)
        return Store.open(path)

    def ask(self, question: str, seed: int) -> "_Session":
        return _Session(self, question, seed)


class _Session:
    def __init__(self, world: World, question: str, seed: int) -> None:
        self.world, self.question, self.seed, self.usage = world, question, seed, Usage()

    def open(self, name, arm) -> "_Branch":
        return _Branch(self.world.script(self.question, (self.seed, name)), self)

    async def close(self) -> None:
        pass


class _Branch:
    def __init__(self, said: list[tuple[int, str]], session: _Session) -> None:
        self.said, self.at, self.session = said, 0, session

    async def advance(self, name) -> Segment:
        await asyncio.sleep(0)
        if random.Random(f"fails {self.session.question}").random() < self.session.world.fails:
            raise ModelError("the model is gone")
        tokens, answer = self.said[self.at]
        self.at += 1
        last = self.at == len(self.said)
        return Segment(tokens, int(last), answer if last else None, 0.0)

    async def probe(self) -> Probe:
        return Probe(self.said[self.at - 1][1], 3)

    def fork(self, name) -> "_Branch":
        return self

    def text(self) -> str:
        return self.said[self.at - 1][1]

    def close(self) -> None:
        pass


def certify(design: Design, model: World, folder: Path, replayed=None) -> dict:
    """As the command does: branches first, the programs if those do not fail."""
    return asyncio.run(_certify(design, model, folder, replayed))


async def _certify(design: Design, model: World, path: Path, replayed) -> dict:
    task, seed = load_task("exact"), 1
    folder = RunFolder(path, {})
    asked = [question for question in model.questions if question.name in design.names]
    stored = design.store.problems
    classes = dict(zip(stored["question_hash"].to_pylist(), stored["classes"].to_pylist(), strict=True))

    async def branches(question, arm):
        return await draw(model, task, question, classes[question.name], seed, arm, design.branches, True)

    rows = await keep_all(branches, asked, [0], 8, folder, ".branches")
    known = design.known()
    pairs = [(from_row(row), known[row["problem"], 0]) for row in rows if not row["model_failed"]]
    parts = [judge_branches(design, pairs, rows, np.random.default_rng(0))]
    programs = design.programs if parts[0].verdict is not Verdict.FAILS else ()
    replayed = replayed or (design.replay(lambda done, total: None) if programs else {})
    for program in programs:
        player = Player(program, design.beta)
        bench = Bench(model, player, task, seed + 1, design.max_branches)
        rows = await play_all(bench, asked, range(design.episodes), 8, folder)
        parts.append(judge_program(design, program.name, replayed[program.name], rows))
        player.close()
        folder = RunFolder(path / program.name, {})
    about = {"asked": {"server": "here", "models": ["made-up"], "exported": False}}
    about["asked"] |= {"sampling": {"temperature": 1.0}, "stored_sampling": {"temperature": 1.0}}
    return certificate(design, parts, about)
