"""What the tests of importers share."""

from pathlib import Path

import pytest
from checkout import ROOT

from env.store import Store

FIXTURES = ROOT / "tests" / "fixtures"


def word_counter(folder: Path) -> str:
    """A tokenizer whose tokens are words and runs of signs; skips where there is no such package."""
    tokenizers = pytest.importorskip("tokenizers", reason="`pip install tokenizers` to test --tokenizer")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    return str(folder / "tokenizer.json")


def branches(store: Store, problem: int = 0) -> list[list[tuple]]:
    """Each branch of a problem as its rows (tokens, raw answer, end, scores, text)."""
    forest = store.forest()
    answers = forest.raw_text(problem)
    first, last = forest.first_node[problem : problem + 2]
    texts = [row["text"] for table in store.texts() for row in table.to_pylist()]
    found: list[list[tuple]] = []
    for node in range(first, last):
        if forest.parent[node] < 0:
            found.append([])
        scores = []
        if forest.prm is not None:
            scores = forest.prm[forest.prm_first[node] : forest.prm_first[node + 1]].tolist()
        answer = answers[forest.raw[node]] if forest.raw[node] >= 0 else None
        row = (int(forest.tokens[node]), answer, int(forest.end[node]), scores, texts[node])
        found[-1].append(row)
    return found


def gold(store: Store) -> list[tuple[str, str]]:
    """Each problem's question and right answer."""
    return [(row["question"], row["gold"]) for row in store.problems.to_pylist()]
