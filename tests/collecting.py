"""What the tests of collections share."""

import json
from pathlib import Path

from vllm_models import SMALL, shared_engine, shared_model

from collect.collection import Collection
from collect.engine import Sampling
from collect.plan import Arm, Plan, Segments
from collect.probes import Probing
from collect.problems import Problem, Source
from collect.prompts import Prompting
from collect.sampler import Drawing, Sampler, Shape
from collect.tokens import Tokens
from collect.tree import Tree
from collect.work import Tally, work_through
from env.store import Store
from env.tasks import load_task

THINKING = Prompting("{question}", arguments={"think": True})
QUICK = Drawing(Sampling(temperature=1.0, top_p=0.95), max_tokens=120, seed=3, window=48)


def problems(count: int) -> list[Problem]:
    return [Problem(f"What is {n} + {3 * n}?", str(4 * n)) for n in range(count)]


def write_problems(path: Path, count: int) -> Path:
    lines = [json.dumps({"question": each.question, "answer": each.gold}) for each in problems(count)]
    path.write_text("\n".join(lines))
    return path


def make_plan(**changes) -> Plan:
    """A small plan: four branches of up to 120 tokens, cut every 30, forked once."""
    settings = {
        "arms": (Arm(str(shared_model()), THINKING),),
        "source": Source("made-up"),
        "dataset": "made-up",
        "task": "exact",
        "shape": Shape(4, (1,), (2,)),
        "drawing": QUICK,
        "segments": Segments(30),
        "probing": Probing(max_tokens=12),
        "group": 2,
        "engine_arguments": SMALL,
    }
    return Plan(**settings | changes)


def make_sampler(plan: Plan) -> Sampler:
    return plan.sampler(0, Tokens(plan.arms[0].model), load_task(plan.task))


def grow(plan: Plan, count: int = 2, tally: Tally | None = None) -> list[Tree]:
    """The trees of some problems, all under way at once."""
    sampler = make_sampler(plan)
    works = ((number, sampler.work(problem)) for number, problem in enumerate(problems(count)))
    trees = dict(work_through(shared_engine(), works, tally or Tally()))
    return [trees[number] for number in range(count)]


class Borrowed:
    """The shared engine, which a collection must not close; may stop after so many waits."""

    def __init__(self, waits: int | None = None, error: BaseException | None = None) -> None:
        self._engine, self._waits, self._error = shared_engine(), waits, error
        self.model, self.context, self.slots = self._engine.model, self._engine.context, self._engine.slots

    def submit(self, requests):
        return self._engine.submit(requests)

    def finished(self):
        if self._waits is not None:
            self._waits -= 1
            if self._waits < 0:
                raise self._error
        return self._engine.finished()

    def close(self) -> None:
        """What is under way would come back to whoever asks next."""
        self._engine.give_up()


def collect(plan: Plan, out: Path, count: int = 5, **options) -> Store:
    Collection(plan, problems(count), out, **options).run(lambda arm: Borrowed())
    return Store.open(out)


def contents(store: Store) -> dict:
    """Everything that a store says: its description with the checksums of all its files."""
    return store.meta
