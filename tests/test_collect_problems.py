"""Problem sets are refused before a token is paid for, never after."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collect.importers.checking import ImportFileError
from collect.problems import Problem, ProblemsError, Source, load_problems
from env.tasks import load_task


def load(path, task="math", **where):
    return load_problems(Source(str(path), **where), load_task(task))


def lines(folder, rows):
    path = folder / "problems.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


SUMS = [{"problem": "What is 1 + 1?", "answer": 2}, {"problem": "Half of 3?", "answer": "\\frac{3}{2}"}]


def test_columns_are_found_or_named(tmp_path):
    expected = [Problem("What is 1 + 1?", "2"), Problem("Half of 3?", "\\frac{3}{2}")]
    assert load(lines(tmp_path, SUMS)) == expected
    assert load(lines(tmp_path, SUMS), limit=1) == expected[:1]
    named = [{"x": row["problem"], "y": row["answer"], "answer": "no"} for row in SUMS]
    assert load(lines(tmp_path, named), question="x", answer="y") == expected
    table = pa.table({"problem": [p.question for p in expected], "answer": [p.gold for p in expected]})
    pq.write_table(table, tmp_path / "problems.parquet")
    assert load(tmp_path / "problems.parquet") == expected


def test_a_dataset_in_a_folder(tmp_path):
    datasets = pytest.importorskip("datasets", reason="`pip install datasets` to test data sets")
    (tmp_path / "set").mkdir()
    rows = [{"question": "What is 1 + 1?", "answer": "2"}]
    (tmp_path / "set" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load(tmp_path / "set") == [Problem("What is 1 + 1?", "2")]
    with pytest.raises(ImportFileError, match=r"the dataset .* cannot be loaded"):
        load(tmp_path / "set", split="nowhere")
    assert datasets


WRONG = [
    (
        "line 1: there is no column answer or gold or target, the columns are problem, solution; "
        "say which has the answers with --answer-column",
        [{"problem": "?", "solution": "1"}],
        {},
    ),
    (
        "line 2: there is no column 'y', the columns are answer, problem",
        [{"problem": "?", "y": "1"}, SUMS[0]],
        {"answer": "y"},
    ),
    (
        "line 1: there is no column question or problem or prompt, the columns are answer",
        [{"answer": "1"}],
        {},
    ),
    ("line 1: `answer` must be a string that is not empty, got null", [{"problem": "?", "answer": None}], {}),
    ("line 1: `answer` must be a string that is not empty, got true", [{"problem": "?", "answer": True}], {}),
    ("line 3: the question is that of ", [*SUMS, {"problem": " What is  1 + 1?", "answer": "2"}], {}),
    ("line 1: expected an object with named fields, got 7", [7], {}),
]


@pytest.mark.parametrize(("message", "rows", "where"), WRONG)
def test_a_wrong_file_is_named(tmp_path, message, rows, where):
    path = lines(tmp_path, rows)
    with pytest.raises((ProblemsError, ImportFileError)) as caught:
        load(path, **where)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_every_gold_that_cannot_be_graded_is_listed(tmp_path):
    rows = [*SUMS, {"problem": "Why?", "answer": "???"}, {"problem": "How?", "answer": "?"}]
    path = lines(tmp_path, rows)
    with pytest.raises(ProblemsError) as caught:
        load(path)
    first, *rest = str(caught.value).splitlines()
    assert first == "2 of 4 problems cannot be graded:"
    assert rest[0].strip().startswith(f"{path}: line 3: the gold answer '???' is not a mathematical")
    assert rest[1].strip().startswith(f"{path}: line 4: the gold answer '?'") and len(rest) == 2
    assert len(load(path, "exact")) == 4
    many = [{"problem": f"Why {n}?", "answer": "?"} for n in range(25)]
    with pytest.raises(ProblemsError, match=r"25 of 25 problems cannot be graded:(.|\n)*and 15 more$"):
        load(lines(tmp_path, many))
    with pytest.raises(ProblemsError, match="is not a letter from A to J"):
        load(lines(tmp_path, SUMS), "choice")


def test_nothing_there(tmp_path):
    with pytest.raises(ImportFileError, match="cannot be read"):
        load(tmp_path / "nowhere.jsonl")
    pq.write_table(pa.table({"problem": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    with pytest.raises(ProblemsError, match="has no problems"):
        load(tmp_path / "empty.parquet")
