"""Random small stores of trees: as they are handed to a StoreWriter, and on disk."""

import random
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from env.nodes import Nodes
from env.store import Store
from env.store_writer import StoreWriter

UNPARSED = "ERR"
ALL = frozenset({"probes", "forks", "prm", "logprob", "confidence", "text", "arms"})


# One branch of two segments, probed after the first.
CHAIN = Nodes(parent=[-1, 0], tokens=[5, 3], answer=["1", "2"], probed=[True, False], end=[0, 1])


def write(path: Path, problems=(("q", "2", CHAIN),), **options) -> Store:
    """Writes a store of (question, gold, nodes) and opens it; `options` go to the StoreWriter."""
    options = {"model": "m", "dataset": "d", "task": "exact"} | options
    with StoreWriter(path, **options) as writer:
        for question, gold, nodes in problems:
            writer.add_problem(question, gold, nodes, unparsed=[UNPARSED])
    return Store.open(path)


@dataclass
class TreeProblem:
    """One problem as the writer gets it."""

    question: str
    gold: str
    nodes: Nodes


def random_problem(
    rng: random.Random, name: object = 0, nodes: int = 30, capabilities: Collection[str] = ALL
) -> TreeProblem:
    """A problem of `nodes` segments; answers are small whole numbers, sometimes spelt oddly, or UNPARSED."""
    parent, end, answer, probed = [], [], [], []
    childless = set()
    for node in range(nodes):
        open_nodes = [earlier for earlier in range(node) if not end[earlier]]
        if "forks" not in capabilities:
            open_nodes = [earlier for earlier in open_nodes if earlier in childless]
        above = rng.choice(open_nodes) if open_nodes and rng.random() < 0.75 else -1
        childless.discard(above)
        childless.add(node)
        parent.append(above)
        end.append(rng.choice((0, 0, 0, 1, 2)))
        probed.append("probes" in capabilities and rng.random() < 0.7)
        spellings = [str(rng.randrange(4)), f"0{rng.randrange(4)}", f"{rng.randrange(4)}.0", UNPARSED, None]
        answer.append(rng.choice(spellings) if end[-1] or probed[-1] else None)

    def column(capability, make):
        return [make() for _ in range(nodes)] if capability in capabilities else None

    def score():
        return rng.randrange(64) / 64

    return TreeProblem(
        question=f"question {name}",
        gold=str(rng.randrange(4)),
        nodes=Nodes(
            parent=parent,
            tokens=[rng.randrange(1, 100) for _ in range(nodes)],
            answer=answer,
            probed=probed,
            end=end,
            probe_tokens=column("probes", lambda: rng.randrange(-1, 20)),
            arm=column("arms", lambda: rng.randrange(3)),
            prm=column("prm", lambda: [score() for _ in range(rng.randrange(4))]),
            logprob=column("logprob", lambda: -score()),
            confidence=column("confidence", lambda: rng.choice((score(), float("nan")))),
            text=column("text", lambda: rng.choice(("so ½", "", None))),
            token_ids=column("text", lambda: rng.choice(([1, 2], [], None))),
        ),
    )


def random_store(
    path: Path,
    rng: random.Random,
    problems: int = 4,
    nodes: int = 30,
    capabilities: Collection[str] = ALL,
    **options,
) -> Store:
    """Writes a store of random trees and opens it; `options` go to the StoreWriter."""
    options = {"model": "random", "dataset": "trees", "task": "math"} | options
    with StoreWriter(path, **options) as writer:
        for number in range(problems):
            made = random_problem(rng, number, nodes, capabilities)
            writer.add_problem(made.question, made.gold, made.nodes, unparsed=[UNPARSED])
    return Store.open(path)
