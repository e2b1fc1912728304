"""Reads completions with step scores; see fixtures/make_best_of_n.py for where the files are from."""

import json
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from importing import FIXTURES, branches, gold, word_counter

from autotts import main
from collect.importers import best_of_n
from collect.importers.checking import ImportFileError, Record
from env.store import Store

LINES = FIXTURES / "best_of_n" / "best_of_n_completions.jsonl"
PARQUET = FIXTURES / "best_of_n" / "train-00000-of-00001.parquet"
ROWS = [json.loads(line) for line in LINES.read_text().splitlines()]


def imported(folder, *files, **options):
    best_of_n.import_files(files, folder / "s", **options)
    return Store.open(folder / "s")


@pytest.mark.parametrize("file", [LINES, PARQUET], ids=lambda file: file.suffix)
def test_without_a_tokenizer_completions_stay_whole(tmp_path, file):
    store = imported(tmp_path, file, prm="RLHFlow/Llama3.1-8B-PRM-Deepseek-Data")
    assert (store.model, store.dataset, store.capabilities) == ("unknown", file.stem, {"prm", "text"})
    assert store.meta["prm"] == "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data"
    assert store.meta["segment_rule"] == best_of_n.WHOLE
    assert gold(store) == [("What is $2 + 3$?", "5"), ("What is $10 + 7$?", "17")]
    for number, row in enumerate(ROWS):
        for ((tokens, answer, end, scores, text),), *said in zip(
            branches(store, number), row["completion_tokens"], row["scores"], row["completions"], strict=True
        ):
            assert [tokens, pytest.approx(scores), text] == said
            assert f"boxed{{{answer}}}" in text and end == 1


def test_with_a_tokenizer_steps_are_segments(tmp_path):
    store = imported(tmp_path, LINES, tokenizer=word_counter(tmp_path))
    assert store.meta["segment_rule"] == best_of_n.STEPS
    for found, tokens, scores, text in zip(
        branches(store), ROWS[0]["completion_tokens"], ROWS[0]["scores"], ROWS[0]["completions"], strict=True
    ):
        assert [row[3] for row in found] == [[pytest.approx(score)] for score in scores]
        assert sum(row[0] for row in found) == tokens
        assert "".join(row[4] for row in found) == text
        assert [row[1:3] for row in found[:-1]] == [(None, 0)] * (len(found) - 1)
    steps = [(row[0], row[4]) for row in branches(store)[0]]
    assert steps[:2] == [
        (11, "## Step 1: Read\nWe add 2 and 3.\n\n"),
        (9, "## Step 2: Add\nThat makes 6.\n\n"),
    ]
    assert steps[2][1].startswith("Therefore")


def test_steps_that_are_not_as_many_as_scores(tmp_path):
    scores = [[*ROWS[0]["scores"][0], 1.0], *ROWS[0]["scores"][1:]]
    store = imported(
        tmp_path, written(tmp_path, ROWS[0] | {"scores": scores}), tokenizer=word_counter(tmp_path)
    )
    assert [len(found) for found in branches(store)] == [1, 1, 5, 3]
    assert branches(store)[0][0][3] == pytest.approx(scores[0])


def completion(text, scores):
    return best_of_n.Completion(Record("here", {}), text, 10, [1.0] * scores)


@given(st.text("ab \n"), st.integers(1, 8), st.sampled_from(best_of_n.SEPARATORS))
def test_steps_put_together_are_the_text(text, scores, separator):
    steps = completion(text, scores).steps(separator)
    assert steps is None or ("".join(steps) == text and len(steps) == scores)
    assert steps is not None or scores not in (text.count(separator) + 1, len(text.split(separator)))


@pytest.mark.parametrize("separator", best_of_n.SEPARATORS)
def test_a_separator_at_the_end_may_or_may_not_count(separator):
    text = separator.join(["a", "b", ""])
    assert completion(text, 2).steps(separator) == [f"a{separator}", f"b{separator}"]
    assert completion(text, 3).steps(separator) == [f"a{separator}", f"b{separator}", ""]


def test_lines_are_steps_where_blank_lines_are_not(tmp_path):
    """The first text would also do in parts between blank lines, but the others would not."""
    texts, scores = ["a b\n\nc\n\n\n\n5", "a\nb\n5", "c\n5"], [[0.5] * 4, [0.1, 0.2, 0.3], [0.4] * 2]
    row = changed(completions=texts, scores=scores, completion_tokens=[9, 9, 9], answer="5")
    found = branches(imported(tmp_path, written(tmp_path, row), tokenizer=word_counter(tmp_path)))
    assert [len(rows) for rows in found] == [1, 3, 2]
    assert [row[0] for row in found[1]] == [1, 1, 7]


def written(folder, *rows):
    file = folder / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


def changed(**changes):
    return {name: value for name, value in (ROWS[1] | changes).items() if value is not ...}


def first(field, value):
    """A row whose first completion has another value in a field."""
    return changed(**{field: [value, *ROWS[1][field][1:]]})


WRONG = [
    ("`problem` is missing; there are agg_scores, answer,", changed(problem=...)),
    ("`answer` is missing", changed(answer=...)),
    ("`answer` must be a string that is not empty, got 17", changed(answer=17)),
    ("`completions` is missing", changed(completions=...)),
    ("`completions` must be a list, got {}", changed(completions={})),
    ("`scores` is missing", changed(scores=...)),
    ("`scores` has 3 entries for 4 completions", changed(scores=[[1.0]] * 3)),
    ("`completion_tokens` is missing", changed(completion_tokens=...)),
    ("`completion_tokens` is -1, as of a search; branches must", changed(completion_tokens=-1)),
    ("`completion_tokens` has 1 entries for 4 completions", changed(completion_tokens=[1])),
    ("completion 1: `completions` must be a string, got null", first("completions", None)),
    (
        "completion 1: `completion_tokens` must be a whole number from 0, got 1.5",
        first("completion_tokens", 1.5),
    ),
    ("completion 1: `scores` must be a list, got 0.5", first("scores", 0.5)),
    ("completion 1: `scores` must be a list of numbers, one for each step", first("scores", [])),
    ("completion 1: `scores` must be a list of numbers, one for each step", first("scores", [None])),
    ("it has no branches", changed(completions=[], scores=[], completion_tokens=[])),
    ("the gold answer '?' is not a mathematical expression", changed(answer="?")),
]


@pytest.mark.parametrize(("message", "row"), WRONG)
def test_a_wrong_row_is_named(tmp_path, message, row):
    file = written(tmp_path, ROWS[0], row)
    with pytest.raises(ImportFileError) as caught:
        best_of_n.import_files([file], tmp_path / "s")
    assert str(caught.value).startswith(f"{file}: line 2: {message}")
    assert not (tmp_path / "s").exists()


def test_scores_that_are_no_numbers_in_parquet(tmp_path):
    rows = [ROWS[0], first("scores", [float("nan")])]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(
        ImportFileError, match=r"a\.parquet: row 2: completion 1: `scores` must be a list of num"
    ):
        best_of_n.import_files([tmp_path / "a.parquet"], tmp_path / "s")


def test_the_tokenizer_of_another_model(tmp_path):
    file = written(tmp_path, first("completion_tokens", 3))
    with pytest.raises(
        ImportFileError, match="is 3, but --tokenizer finds 20 before the last step; is it right"
    ):
        best_of_n.import_files([file], tmp_path / "s", tokenizer=word_counter(tmp_path))


def test_gold_instead_of_answer(tmp_path):
    file = written(tmp_path, changed(answer=..., gold="17"))
    assert gold(imported(tmp_path, file)) == [("What is $10 + 7$?", "17")]


def test_the_command_joins_files(tmp_path, capsys):
    more = written(tmp_path, changed(completions=["5"], scores=[[1]], completion_tokens=[1]))
    command = ["import", "best-of-n", str(LINES), str(LINES), str(more), "--out", str(tmp_path / "s")]
    assert main([*command, "--model", "m"]) == 0
    out = f"{tmp_path}/s: m on best_of_n_completions+rows, 2 problems, 9 branches, 9 segments\n"
    assert capsys.readouterr().out == out


def test_a_dataset_in_a_folder(tmp_path):
    pytest.importorskip("datasets", reason="`pip install datasets` to read datasets")
    (tmp_path / "set").mkdir()
    shutil.copy(PARQUET, tmp_path / "set")
    store = imported(tmp_path, tmp_path / "set")
    assert [len(branches(store, number)) for number in range(2)] == [4, 4]
    told = {"dataset": str(tmp_path / "set"), "config": None, "split": "train", "revision": None}
    assert store.meta["provenance"]["datasets"] == [told]
    with pytest.raises(ImportFileError, match=r"the dataset .*set cannot be loaded: Unknown split"):
        best_of_n.import_files([tmp_path / "set"], tmp_path / "t", split="test")


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ImportFileError, match=r"owner/name is no \.jsonl or \.parquet file; for a dataset of the"
    ):
        best_of_n.import_files(["owner/name"], tmp_path / "s")


def test_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "a.parquet").write_bytes(PARQUET.read_bytes()[:-10])
    with pytest.raises(ImportFileError, match=r"a\.parquet: not a Parquet file, or damaged: "):
        best_of_n.import_files([tmp_path / "a.parquet"], tmp_path / "s")
    with pytest.raises(ImportFileError, match=r"b\.parquet cannot be read: No such file"):
        best_of_n.import_files([tmp_path / "b.parquet"], tmp_path / "s")
