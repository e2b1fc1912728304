"""Made-up stores, for tests of what runs on stores."""

import random
from pathlib import Path

from env.store_writer import Nodes, StoreWriter


def store(path: Path, *, problems: int = 12, branches: int = 24, seed: int = 0, first: int = 0) -> Path:
    """A store of made-up problems `first`, `first` + 1, ...; right answers come from shorter branches."""
    rng = random.Random(seed)
    with StoreWriter(path, model=f"toy-{seed}", dataset="sums", task="exact", segment_tokens=100) as writer:
        for problem in range(first, first + problems):
            parents, tokens, answers, ends = [], [], [], []
            for _ in range(branches):
                right = rng.random() < (problem - first) / problems
                final = "1" if right else rng.choice("234")
                depth = rng.randrange(2, 5 if right else 9)
                for k in range(depth):
                    last = k == depth - 1
                    parents.append(len(parents) - 1 if k else -1)
                    tokens.append(rng.randrange(20, 100) if last else 100)
                    answers.append(final if last or rng.random() < 0.5 else rng.choice("1234"))
                    ends.append(int(last))
            writer.add_problem(
                f"question {problem}", "1", Nodes(parents, tokens, answers, [True] * len(parents), end=ends)
            )
    return path
