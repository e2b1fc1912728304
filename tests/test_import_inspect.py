"""Reads what inspect_ai wrote; see fixtures/make_inspect.py."""

import re
import sys

import pytest
from importing import FIXTURES, branches, gold, word_counter

from autotts import main
from collect.importers import inspect_ai
from collect.importers.checking import ImportFileError
from env.store import Store

SUMS, PICK = (FIXTURES / "inspect" / f"{name}.eval" for name in ("sums", "pick"))
pytest.importorskip("inspect_ai", reason="`pip install inspect_ai` to read its logs")


@pytest.fixture
def changed(tmp_path):
    """Writes the log again after `change` had the log and the sample of problem 1, epoch 2."""
    from inspect_ai.log import read_eval_log, write_eval_log

    def rewrite(change, log=SUMS):
        log = read_eval_log(str(log))
        change(log, next((s for s in log.samples if (s.id, s.epoch) == (1, 2)), log.samples[0]))
        write_eval_log(log, str(tmp_path / "log.eval"))
        return tmp_path / "log.eval"

    return rewrite


def test_epochs_are_branches(tmp_path):
    from inspect_ai.log import read_eval_log

    inspect_ai.import_files([SUMS], tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert (store.model, store.dataset, store.capabilities) == ("mockllm/model", "sums", {"text"})
    assert store.meta["sampling"] == {"temperature": 0.7, "max_tokens": 64}
    assert gold(store) == [("What is 2 + 3?", "5"), ("What is 10 + 7?", "17")]
    found = [branches(store, number) for number in range(2)]
    for sample in read_eval_log(str(SUMS)).samples:
        ((tokens, answer, end, scores, text),) = found[sample.id][sample.epoch - 1]
        assert (tokens, scores) == (sample.output.usage.output_tokens, [])
        assert answer == (sample.scores["match"].answer if sample.output.completion else None)
        assert end == (2 if sample.output.stop_reason == "max_tokens" else 1)
        assert text.startswith(sample.output.message.content[0].reasoning)
        assert text.endswith(sample.output.completion)
    ends = [end for problem in found for ((_, _, end, _, _),) in problem]
    assert sorted(set(ends)) == [1, 2]


def test_multiple_choice(tmp_path, capsys):
    command = ["import", "inspect", str(PICK), "--task", "choice", "--out", str(tmp_path / "s")]
    assert main(command) == 0
    assert capsys.readouterr().out.endswith("mockllm/model on pick, 2 problems, 2 branches, 2 segments\n")
    store = Store.open(tmp_path / "s")
    assert gold(store) == [("Is 2 + 3 even?\nA) Yes\nB) No", "B"), ("Is 10 + 7 even?\nA) Yes\nB) No", "B")]
    assert {branches(store, number)[0][0][:2] for number in range(2)} <= {(4, "A"), (4, "B")}


def test_logs_together(tmp_path):
    inspect_ai.import_files([SUMS, PICK], tmp_path / "s", task="exact")
    assert Store.open(tmp_path / "s").dataset == "sums+pick"


def no_usage(log, sample):
    sample.output.usage = None


def secret_thoughts(log, sample):
    no_usage(log, sample)
    sample.output.message.content[0].redacted = True


def test_tokens_are_counted_where_the_server_did_not(tmp_path, changed):
    tokenizer = word_counter(tmp_path)
    inspect_ai.import_files([changed(no_usage)], tmp_path / "s", tokenizer=tokenizer)
    ((tokens, *_, text),) = branches(Store.open(tmp_path / "s"), 1)[1]
    assert tokens == len(re.findall(r"\w+|[^\w\s]+", text)) > 4
    with pytest.raises(ImportFileError, match="`output` has no token count in its `usage`"):
        inspect_ai.import_files([changed(secret_thoughts)], tmp_path / "t", tokenizer=tokenizer)


def test_a_limit_cuts_a_branch_off(tmp_path, changed):
    from inspect_ai.log import EvalSampleLimit

    def limit(log, sample):
        sample.limit = EvalSampleLimit(type="token", limit=10)

    inspect_ai.import_files([changed(limit)], tmp_path / "s")
    assert branches(Store.open(tmp_path / "s"), 1)[1][0][2] == 2


def test_a_question_in_messages(tmp_path, changed):
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser

    def ask(log, sample):
        for each in log.samples:
            each.input = [ChatMessageSystem(content="Think."), ChatMessageUser(content=each.input)]

    inspect_ai.import_files([changed(ask)], tmp_path / "s")
    assert [question for question, _ in gold(Store.open(tmp_path / "s"))] == [
        "What is 2 + 3?",
        "What is 10 + 7?",
    ]


def failed(log, sample):
    from inspect_ai.log import EvalError

    sample.error = EvalError(message="out of memory", traceback="", traceback_ansi="")


def no_choice(log, sample):
    sample.output.choices = []


def two_replies(log, sample):
    sample.messages.append(sample.messages[-1])


def no_text(log, sample):
    sample.input = " "


def two_targets(log, sample):
    sample.target = ["17", "18"]


def other_target(log, sample):
    sample.target = "18"


WRONG_SAMPLES = [
    (failed, "`error` is 'out of memory'; have it done with `inspect eval-retry`"),
    (no_choice, "`output` has 0 choices; a branch is a single reply"),
    (two_replies, "`messages` has 2 replies of the model; a branch is a single reply"),
    (no_usage, "`output` has no token count in its `usage`; count them with --tokenizer NAME"),
    (no_text, "`input` has no text"),
    (two_targets, "`target` is ['17', '18']; a problem has one right answer here"),
    (other_target, "`target` is '18', but '17' in LOG: sample 1, epoch 1 for the same problem"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_SAMPLES, ids=lambda case: getattr(case, "__name__", ""))
def test_a_wrong_sample_is_named(tmp_path, changed, change, message):
    log = changed(change)
    with pytest.raises(ImportFileError) as caught:
        inspect_ai.import_files([log], tmp_path / "s")
    assert str(caught.value) == f"{log}: sample 1, epoch 2: {message.replace('LOG', str(log))}"
    assert not (tmp_path / "s").exists()


def test_a_gold_answer_that_is_none(tmp_path, changed):
    def change(log, sample):
        for each in log.samples:
            each.target = "?" if each.id == 0 else each.target

    log = changed(change)
    with pytest.raises(
        ImportFileError, match=r"log\.eval: sample 0, epoch 1: the gold answer '\?' is not a math"
    ):
        inspect_ai.import_files([log], tmp_path / "s")


def cancelled(log, sample):
    log.status = "cancelled"


def invalidated(log, sample):
    log.invalidated = True


def no_samples(log, sample):
    log.samples = []


WRONG_LOGS = [
    (cancelled, "`status` is 'cancelled'; only complete runs count: finish it with `inspect eval-retry`"),
    (invalidated, "`status` is 'invalidated'; only complete runs count: finish it with `inspect eval-retry`"),
    (no_samples, "`samples` is empty; run inspect without --no-log-samples"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_LOGS, ids=lambda case: getattr(case, "__name__", ""))
def test_a_wrong_log_is_named(tmp_path, changed, change, message):
    log = changed(change)
    with pytest.raises(ImportFileError) as caught:
        inspect_ai.import_files([log], tmp_path / "s")
    assert str(caught.value) == f"{log}: {message}"


@pytest.mark.parametrize("name", ["cut.eval", "other.eval", "other.json", "other.txt"])
def test_a_file_that_is_no_log(tmp_path, name):
    cut = SUMS.read_bytes()[:5000]
    (tmp_path / name).write_bytes(cut if name == "cut.eval" else b"{}")
    with pytest.raises(ImportFileError) as caught:
        inspect_ai.import_files([tmp_path / name], tmp_path / "s")
    assert str(caught.value).startswith(f"{tmp_path / name}: not a log that inspect_ai can read: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ImportFileError, match="cannot be read: No such file"):
        inspect_ai.import_files([tmp_path / "a.eval"], tmp_path / "s")


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    with pytest.raises(ImportFileError, match="needs a package: run `pip install inspect_ai`"):
        inspect_ai.import_files([SUMS], tmp_path / "s")
