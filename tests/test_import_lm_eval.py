"""Reads what lm-evaluation-harness wrote; see fixtures/make_lm_eval.py."""

import json

import pytest
from importing import FIXTURES, branches, gold, word_counter

from autotts import main
from collect.importers import lm_eval
from collect.importers.checking import ImportFileError
from env.schema import StoreError
from env.store import Store

(SUMS,) = (FIXTURES / "lm_eval").glob("*/samples_sums_*.jsonl")
(PICK,) = (FIXTURES / "lm_eval").glob("*/samples_pick_*.jsonl")
LINES = [json.loads(line) for line in SUMS.read_text().splitlines()]


def test_every_reply_is_a_branch_whatever_the_filters(tmp_path):
    assert [line["filter"] for line in LINES] == ["first"] * 3 + ["maj@4"] * 3
    lm_eval.import_files([SUMS], tmp_path / "s", word_counter(tmp_path))
    store = Store.open(tmp_path / "s")
    assert (store.model, store.dataset, store.capabilities) == ("tiny__made-up", "sums", {"text"})
    assert store.meta["sampling"] == LINES[0]["arguments"]["gen_args_0"]["arg_1"]
    assert store.meta["sampling"]["temperature"] == 0.7
    # The targets are worked solutions.
    assert gold(store) == [("What is 2 + 3?", "5"), ("What is 10 + 7?", "17"), ("What is 19 + 23?", "42")]
    for number in range(3):
        found = branches(store, number)
        assert [[text] for ((_, _, _, _, text),) in found] == [[text] for text in LINES[number]["resps"][0]]
    assert branches(store, 0)[0] == [(11, "6", 1, [], " 2 and 3 together. So \\boxed{6}.")]
    # Where no answer is given, the task takes the last number there is.
    assert [answer for ((_, answer, *_),) in branches(store, 1)] == ["7", "7", "17", "17"]


def test_the_command(tmp_path, capsys):
    tokenizer = word_counter(tmp_path)
    command = ["import", "lm-eval", str(SUMS), "--tokenizer", tokenizer, "--out", str(tmp_path / "s")]
    assert main(command) == 0
    out = f"{tmp_path}/s: tiny__made-up on sums, 3 problems, 12 branches, 12 segments\n"
    assert capsys.readouterr().out == out
    assert main([*command, "--force", "--model", "a", "--dataset", "b"]) == 0
    assert "s: a on b, 3 problems" in capsys.readouterr().out


def test_only_tasks_that_generate(tmp_path):
    with pytest.raises(ImportFileError) as caught:
        lm_eval.import_files([PICK], tmp_path / "s", word_counter(tmp_path))
    assert str(caught.value) == (
        f"{PICK}: line 1: `arguments` has no settings for generating; only generate_until tasks have replies "
        "to import"
    )
    assert not (tmp_path / "s").exists()


def changed(index=1, **changes):
    """The lines of the fixture with fields of one of them changed, or left out where the change is `...`."""
    lines = [dict(line) for line in LINES]
    lines[index] = {name: value for name, value in (lines[index] | changes).items() if value is not ...}
    return lines


def written(folder, lines, name="model/samples_sums_2026.jsonl"):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def import_lines(folder, lines, **options):
    lm_eval.import_files([written(folder, lines)], folder / "s", word_counter(folder), **options)
    return Store.open(folder / "s")


TWICE = {"question": "What is 2 + 3?", "answer": "#### 5", "parity": 1}
WRONG = [
    ("`doc_id` is missing; there are arguments, doc,", changed(doc_id=...)),
    ('`doc_id` must be a whole number from 0, got "1"', changed(doc_id="1")),
    ("`resps` is missing", changed(resps=...)),
    ("`resps` must be a list of one list of texts", changed(resps=[[["-0.5", "False"]]])),
    ("`resps` must be a list of one list of texts", changed(resps=[["a"], ["b"]])),
    ("`resps` must be a list of one list of texts", changed(resps=[[]])),
    ("`target` must be a string that is not empty, got 17", changed(target=17)),
    ("`arguments`: expected an object with named fields, got null", changed(arguments=...)),
    ("`doc`: expected an object with named fields, got null", changed(doc=...)),
    ('`doc`: `question` must be a string that is not empty, got ["?"]', changed(doc={"question": ["?"]})),
    (
        "`doc` has none of question, problem, query, input, prompt but text, x; name the question with",
        changed(doc={"text": "?", "x": 1}),
    ),
    (
        "`doc` has the question of another document, but differs in other fields; tell them apart with",
        changed(doc=TWICE, target="5"),
    ),
    ("the gold answer '?' is not a mathematical expression", changed(target="?")),
    ("expected an object with named fields, got 7", [LINES[0], 7]),
]


@pytest.mark.parametrize(("message", "lines"), WRONG)
def test_a_wrong_line_is_named(tmp_path, message, lines):
    with pytest.raises(ImportFileError) as caught:
        import_lines(tmp_path, lines)
    assert str(caught.value).startswith(f"{tmp_path}/model/samples_sums_2026.jsonl: line 2: {message}")
    assert not (tmp_path / "s").exists()


def test_filters_that_disagree_on_the_replies(tmp_path):
    with pytest.raises(
        ImportFileError, match="line 4: `resps` differs from that of document 0 under another"
    ):
        import_lines(tmp_path, changed(3, resps=[["other"]]))


def test_the_question_may_be_named(tmp_path):
    lines = changed(0, doc=LINES[0]["doc"] | {"text": "Add 2 and 3."})[:1]
    assert gold(import_lines(tmp_path, lines, question="text")) == [("Add 2 and 3.", "5")]
    store = import_lines(tmp_path, lines, question="prompt", force=True)
    assert gold(store) == [("Question: What is 2 + 3?\nAnswer:", "5")]
    with pytest.raises(ImportFileError, match="`doc` has none of nothing but question, answer"):
        import_lines(tmp_path, lines, question="nothing", force=True)


def test_several_runs_become_one_store(tmp_path):
    again = [
        written(tmp_path, changed(n, resps=[["5"]])[n : n + 1], f"m/samples_t{n}_2026.jsonl") for n in (0, 1)
    ]
    tokenizer = word_counter(tmp_path)
    with pytest.raises(
        ImportFileError, match=r"has the model 'tiny__made-up', .* has 'm'; import each alone"
    ):
        lm_eval.import_files([SUMS, *again], tmp_path / "s", tokenizer)
    lm_eval.import_files([SUMS, *again], tmp_path / "s", tokenizer, model="both")
    store = Store.open(tmp_path / "s")
    assert (store.model, store.dataset) == ("both", "sums+t0+t1")
    assert [len(branches(store, n)) for n in range(3)] == [5, 5, 4]
    assert [file["file"] for file in store.meta["provenance"]["files"]][1:] == [path.name for path in again]


def test_the_same_file_counts_once(tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(SUMS.read_bytes())
    with pytest.raises(ImportFileError, match=r"copy\.jsonl and .* are the same; name it once"):
        lm_eval.import_files([SUMS, copy], tmp_path / "s", word_counter(tmp_path), model="m")


def test_other_settings_are_no_sampling_parameters_of_the_store(tmp_path):
    sent = {"gen_args_0": {"arg_0": "?", "arg_1": {"temperature": 1.0}}}
    assert import_lines(tmp_path, changed(arguments=sent)).meta["sampling"] is None


def test_a_store_in_the_way_is_seen_before_any_reading(tmp_path):
    tokenizer = word_counter(tmp_path)
    lm_eval.import_files([SUMS], tmp_path / "s", tokenizer)
    with pytest.raises(StoreError, match="there is a store at"):
        lm_eval.import_files([tmp_path / "nowhere.jsonl"], tmp_path / "s", tokenizer)


def test_a_file_with_nothing_in_it(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n\n")
    with pytest.raises(ImportFileError, match=r"a\.jsonl is empty"):
        lm_eval.import_files([tmp_path / "a.jsonl"], tmp_path / "s", word_counter(tmp_path))
