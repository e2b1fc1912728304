import json
import os
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from checkout import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from importing import word_counter

from autotts import main
from collect.importers import autotts, jsonl
from collect.importers.checking import ImportFileError
from collect.importers.counting import load_counter
from env.forest import hash_question
from env.schema import StoreError
from env.store import Store
from env.tasks import TaskError

INTERVAL = 500


def recording(**changes):
    """A published problem, with fields changed, or left out where the change is `...`."""
    fields = {
        "question": "What is 1 + 1?",
        "gold_answer": "2",
        "probe_freq": INTERVAL,
        "each_branch": [[["1", "2"], 1400, "2"], [["ERR", "2"], 900, "2"]],
    }
    return {name: value for name, value in (fields | changes).items() if value is not ...}


def published(path, *problems):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(problems)))
    return path


def import_branches(tmp_path, branches, **options):
    file = published(tmp_path / "m" / "d.json", recording(each_branch=branches))
    (store,) = autotts.import_files([file], tmp_path / "s", task="exact", force=True, **options)
    return Store.open(store).forest()


def chains(forest):
    """Each branch as its rows (tokens, raw answer, class, probed, end)."""
    text = forest.raw_text(0)
    found = []
    for node, parent in enumerate(forest.parent):
        if parent < 0:
            found.append([])
        raw, answer = int(forest.raw[node]), int(forest.answer[node])
        word = text[raw] if raw >= 0 else None
        row = (int(forest.tokens[node]), word, answer, bool(forest.probed[node]), int(forest.end[node]))
        found[-1].append(row)
    return found


@pytest.mark.parametrize(
    ("branch", "rows"),
    [
        # The end on the last probe; a tail; a tail longer than the interval; the end exactly at a probe.
        ([["1", "2"], 900, "2"], [(500, "1", 0, True, 0), (400, "2", 1, True, 1)]),
        ([["1", "2"], 1001, "2"], [(500, "1", 0, True, 0), (500, "2", 1, True, 0), (1, "2", 1, False, 1)]),
        ([["1"], 9000, "2"], [(500, "1", 0, True, 0), (8500, "2", 1, False, 1)]),
        ([["1", "2"], 1000, "2"], [(500, "1", 0, True, 0), (500, "2", 1, True, 1)]),
        # Ended by the last probe, but with another answer than it gave.
        ([["1"], 300, "2"], [(300, "1", 0, True, 0), (0, "2", 1, False, 1)]),
        # Never probed; nothing decoded after the last but one probe; no answer at all.
        ([[], 300, "2"], [(300, "2", 0, False, 1)]),
        ([[], 0, "2"], [(0, "2", 0, False, 1)]),
        ([["1", "2"], 500, "2"], [(500, "1", 0, True, 0), (0, "2", 1, True, 1)]),
        ([["ERR"], 600, "ERR"], [(500, "ERR", -1, True, 0), (100, "ERR", -1, False, 1)]),
    ],
)
def test_a_published_branch(tmp_path, branch, rows):
    assert chains(import_branches(tmp_path, [branch])) == [rows]


words = st.sampled_from(["1", "2", "ERR", "x"])


@st.composite
def published_branches(draw):
    probes = draw(st.lists(words, max_size=5))
    least = max(0, INTERVAL * (len(probes) - 1))
    return [probes, draw(st.integers(least, least + 4 * INTERVAL)), draw(words)]


@given(st.lists(published_branches(), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_published_branches_keep_lengths_probes_and_answers(tmp_path_factory, branches):
    forest = import_branches(tmp_path_factory.mktemp("store"), branches)
    assert forest.segment_tokens == INTERVAL
    for (probes, length, final), rows in zip(branches, chains(forest), strict=True):
        assert sum(row[0] for row in rows) == length
        assert [row[1] for row in rows if row[3]] == probes
        assert [row[4] for row in rows] == [0] * (len(rows) - 1) + [1]
        assert rows[-1][1] == final
        # A probe k (from 1) was asked after k intervals, or at the end if that came first.
        assert np.cumsum([row[0] for row in rows if row[3]]).tolist() == [
            min(length, INTERVAL * k) for k in range(1, len(probes) + 1)
        ]
        assert all((row[2] == -1) == (row[1] == "ERR") for row in rows)


WRONG = {
    "`question` is missing": recording(question=...),
    '`question` must be a string that is not empty, got ""': recording(question=""),
    "`gold_answer` is missing": recording(gold_answer=...),
    "`gold_answer` must be a string that is not empty, got 2": recording(gold_answer=2),
    "`gold_answer` must be a string that is not empty, got null": recording(gold_answer=None),
    "`gold_answer` is 'ERR', which stands for no answer": recording(gold_answer="ERR"),
    "the gold answer '?' is not a mathematical expression": recording(question="other", gold_answer="?"),
    "`probe_freq` must be a whole number from 1, got 0": recording(probe_freq=0),
    "`probe_freq` must be a whole number from 1, got true": recording(probe_freq=True),
    '`probe_freq` must be a whole number from 1, got "500"': recording(probe_freq="500"),
    "`probe_freq` must be a whole number from 1, got 500.5": recording(probe_freq=500.5),
    "`each_branch` is empty; leave the problem out or sample it": recording(each_branch=[]),
    "`each_branch` must be a list, got {}": recording(each_branch={}),
    r"`each_branch[1]` must be [probe answers, total tokens, final answer]": recording(each_branch=[1]),
    r"`each_branch[1]` must be [probe answers,": recording(each_branch=[[[], 1]]),
    r"`each_branch[2]` has -1 total tokens, expected a whole number": recording(
        each_branch=[[[], 1, "1"], [[], -1, "1"]]
    ),
    r"`each_branch[1]` has True total tokens": recording(each_branch=[[[], True, "1"]]),
    r"`each_branch[1]` has 1.0 total tokens": recording(each_branch=[[[], 1.0, "1"]]),
    r"`each_branch[1]` has 4294967296 total tokens": recording(each_branch=[[[], 2**32, "1"]]),
    r"`each_branch[1]` has the final answer None, expected a string": recording(each_branch=[[[], 1, None]]),
    r"`each_branch[1]` has probe answers that are not a list of strings": recording(
        each_branch=[[["1", 2], 1000, "1"]]
    ),
    r"`each_branch[1]` has 499 tokens, too few for 2 probes 500 tokens apart": recording(
        each_branch=[[["1", "1"], 499, "1"]]
    ),
    "`final_answers_trace` does not repeat the branches' final answers": recording(
        final_answers_trace=["2", "3"]
    ),
    "its question is that of problem 1": recording(),
    "expected an object with named fields, got 7": 7,
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_published_problem_is_named(tmp_path, message):
    file = published(tmp_path / "m/d.json", recording(), WRONG[message])
    with pytest.raises(ImportFileError) as caught:
        autotts.import_files([file], tmp_path / "s")
    assert str(caught.value).startswith(f"{file}: problem 2: {message}")
    assert not (tmp_path / "s").exists()


def test_one_interval_a_file(tmp_path):
    file = published(tmp_path / "d.json", recording(), recording(question="other", probe_freq=100))
    with pytest.raises(ImportFileError, match=r"problem 2: `probe_freq` is 100, in problem 1 it is 500"):
        autotts.import_files([file], tmp_path / "s")


def wrong_files(tmp_path):
    whole = json.dumps([recording()])
    yield "cut.json", whole[: len(whole) // 2], "not valid JSON, perhaps cut short"
    yield "nan.json", whole.replace("1400", "NaN"), "NaN is not a number"
    yield "half.json", whole.replace("What", "\\ud800"), "surrogates not allowed"
    yield "deep.json", "[" * 100_000, "not valid JSON"
    yield "empty.json", "", "is empty"
    yield "object.json", "{}", "expected a list of problems"
    yield "none.json", "[]", "expected a list of problems"
    yield "nowhere.json", None, "cannot be read: No such file or directory; check the path"


@pytest.mark.parametrize("index", range(8))
def test_a_file_that_is_no_recording(tmp_path, index):
    name, text, message = list(wrong_files(tmp_path))[index]
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ImportFileError, match=message) as caught:
        autotts.import_files([tmp_path / name], tmp_path / "s")
    assert str(tmp_path / name) in str(caught.value)
    assert not (tmp_path / "s").exists()


def test_a_folder_is_no_recording(tmp_path):
    with pytest.raises(ImportFileError, match="is a folder; name the files in it"):
        autotts.import_files([tmp_path], tmp_path / "s")


def test_names_come_from_the_path_unless_given(tmp_path, monkeypatch):
    file = published(tmp_path / "Qwen3-4B/aime24.json", recording())
    monkeypatch.chdir(file.parent)
    (store,) = autotts.import_files(["aime24.json"], tmp_path / "s")
    assert (Store.open(store).model, Store.open(store).dataset) == ("Qwen3-4B", "aime24")
    (store,) = autotts.import_files([file], tmp_path / "t", model="mine", dataset="other")
    assert (Store.open(store).model, Store.open(store).dataset) == ("mine", "other")
    assert Store.open(store).meta["provenance"]["file"] == "aime24.json"


def test_several_files_become_stores_side_by_side(tmp_path, capsys):
    files = [published(tmp_path / model / "aime.json", recording()) for model in "ab"]
    assert main(["import", "autotts", *map(str, files), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/out/{model}/aime: {model} on aime, 1 problems, 2 branches, 5 segments" for model in "ab"
    ]
    for model in "ab":
        assert Store.open(tmp_path / "out" / model / "aime").model == model
    assert main(["import", "autotts", *map(str, files), "--out", str(tmp_path / "out")]) == 2
    assert "there is a store at" in capsys.readouterr().err
    assert main(["import", "autotts", *map(str, files), "--out", str(tmp_path / "out"), "--force"]) == 0
    twice = [str(files[0]), str(files[0]), "--out", str(tmp_path / "other")]
    assert main(["import", "autotts", *twice]) == 2
    assert "would both become" in capsys.readouterr().err


def test_the_published_recordings(replay_dir, tmp_path):
    """One real file in full: all it says is in the store, and within the time promised for it."""
    file = replay_dir / "Qwen3-1.7B" / "aime24.json"
    problems = json.loads(file.read_text())
    began = time.process_time()
    (store,) = autotts.import_files([file], tmp_path / "s")
    assert time.process_time() - began < 1.5
    store = Store.open(store)
    forest = store.forest()
    assert (store.model, store.dataset, store.capabilities) == ("Qwen3-1.7B", "aime24", {"probes"})
    assert list(forest.question_hash) == [hash_question(problem["question"]) for problem in problems]
    for number, problem in enumerate(problems):
        first, last = forest.first_node[number : number + 2]
        ends = first + np.flatnonzero(forest.end[first:last])
        text = forest.raw_text(number)
        assert [text[raw] for raw in forest.raw[ends]] == problem["final_answers_trace"]
        asked = first + np.flatnonzero(forest.probed[first:last])
        assert [text[raw] for raw in forest.raw[asked]] == [
            answer for probes, _, _ in problem["each_branch"] for answer in probes
        ]
        lengths = np.add.reduceat(forest.tokens[first:last], np.flatnonzero(forest.parent[first:last] < 0))
        assert lengths.tolist() == [length for _, length, _ in problem["each_branch"]]
        right = {
            text[raw] for raw in forest.raw[first:last] if forest.raw_correct[forest.raw_first[number] + raw]
        }
        assert right <= {problem["gold_answer"]}
        # Classes only ever join raw answers, so what is right as a string is right as a class.
        correct = forest.class_correct[forest.class_first[number] + forest.answer[ends]]
        assert correct[forest.raw_correct[forest.raw_first[number] + forest.raw[ends]]].all()
    sizes = Counter(np.diff(forest.class_first).tolist())
    assert max(sizes) < 902 and sum(np.diff(forest.class_first)) < sum(np.diff(forest.raw_first))


def line(**changes):
    fields = {"problem": "What is 1 + 1?", "gold": "2", "text": r"It is \boxed{2}.", "tokens": 30}
    return {name: value for name, value in (fields | changes).items() if value is not ...}


def import_lines(tmp_path, *lines, **options):
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(text if isinstance(text, str) else json.dumps(text) for text in lines))
    jsonl.import_file(file, tmp_path / "s", **options)
    return Store.open(tmp_path / "s")


def test_plain_lines(tmp_path):
    probes = [{"tokens": 10, "answer": "1"}, {"tokens": 25, "answer": None, "cost": 7}]
    store = import_lines(
        tmp_path,
        line(),
        "",
        line(problem="What is 2 + 2?", gold="4", text="I give up"),
        line(problem="What is 1  +  1?", probes=probes),
        line(answer=None),
        line(text="", answer="3", probes=[{"tokens": 30, "answer": "3"}]),
    )
    forest = store.forest()
    assert (store.model, store.dataset, store.segment_tokens) == ("unknown", "mine", None)
    assert store.capabilities == {"probes", "text"}
    assert chains(forest)[:4] == [
        [(30, "2", 0, False, 1)],
        [(10, "1", 1, True, 0), (15, None, -1, True, 0), (5, "2", 0, False, 1)],
        [(30, None, -1, False, 1)],
        [(30, "3", 2, True, 1)],
    ]
    assert forest.probe_tokens.tolist() == [-1, -1, 7, -1, -1, -1, -1]
    assert forest.answer[-1] == -1
    texts = [row["text"] for table in store.texts() for row in table.to_pylist()]
    assert texts[:4] == [r"It is \boxed{2}.", None, None, r"It is \boxed{2}."]


@pytest.mark.parametrize(
    ("depths", "tokens", "interval"),
    [([10, 20], 25, 10), ([10, 20], 20, 10), ([10, 15], 15, 10), ([10, 19], 30, None), ([], 30, None)],
)
def test_a_fixed_interval_is_noticed(tmp_path, depths, tokens, interval):
    store = import_lines(tmp_path, line(tokens=tokens, probes=[{"tokens": d, "answer": "1"} for d in depths]))
    assert store.segment_tokens == interval


def test_the_task_reads_answers_that_are_not_given(tmp_path):
    store = import_lines(tmp_path, line(gold="B", text="The answer is (B)."), task="choice")
    assert store.forest().raw_text(0) == ["B"]


WRONG_LINES = {
    "`problem` is missing; there are gold, text, tokens": line(problem=...),
    "`gold` is missing": line(gold=...),
    "`gold` must be a string that is not empty, got 2": line(gold=2),
    "`gold` is '3', but '2' in FILE: line 1 for the same problem": line(gold="3"),
    "`text` is missing": line(text=...),
    "`text` must be a string, got null": line(text=None),
    "`tokens` is missing; give it, or count them with --tokenizer NAME": line(tokens=...),
    "`tokens` must be a whole number from 0, got -1": line(tokens=-1),
    "`tokens` must be a whole number from 0, got false": line(tokens=False),
    "`answer` must be a string that is not empty, got 2": line(answer=2),
    "`probes` must be a list, got 3": line(probes=3),
    '`probes` 1: expected an object with named fields, got [10, "1"]': line(probes=[[10, "1"]]),
    "`probes` 1: `answer` is missing": line(probes=[{"tokens": 1}]),
    "`probes` 1: `tokens` must be a whole number from 1, got 0": line(probes=[{"tokens": 0, "answer": "1"}]),
    "`probes` 1: `tokens` is 31, past the branch's end at 30": line(probes=[{"tokens": 31, "answer": "1"}]),
    "`probes` 2: `tokens` is 9, not more than at the probe before (9)": line(
        probes=[{"tokens": 9, "answer": "1"}] * 2
    ),
    "expected an object with named fields, got []": [],
    "not valid JSON": '{"problem": ',
    "the gold answer '?' is not a mathematical expression": line(problem="other", gold="?"),
}


@pytest.mark.parametrize("message", WRONG_LINES)
def test_a_wrong_line_is_named(tmp_path, message):
    with pytest.raises(ImportFileError) as caught:
        import_lines(tmp_path, line(), WRONG_LINES[message])
    file = f"{tmp_path}/mine.jsonl"
    assert str(caught.value).startswith(f"{file}: line 2: {message.replace('FILE', file)}")
    assert not (tmp_path / "s").exists()


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"problem": "\xff"}')
    with pytest.raises(ImportFileError, match=r"a\.jsonl: line 1: not valid JSON"):
        jsonl.import_file(tmp_path / "a.jsonl", tmp_path / "s")


def test_a_tokenizer_counts(tmp_path):
    tokenizer = word_counter(tmp_path)
    store = import_lines(tmp_path, line(text="a b c", tokens=...), tokenizer=tokenizer)
    assert store.forest().tokens.tolist() == [3]
    with pytest.raises(ImportFileError, match=r"the tokenizer .*mine\.jsonl cannot be loaded"):
        import_lines(tmp_path, line(tokens=...), tokenizer=str(tmp_path / "mine.jsonl"), force=True)


@given(pieces=st.lists(st.text("ab é\n"), min_size=1, max_size=6))
def test_the_tokens_of_pieces_are_those_of_the_whole(pieces, tmp_path_factory):
    tokenizers = pytest.importorskip("tokenizers", reason="`pip install tokenizers` to test --tokenizer")
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocabulary = {sign: number for number, sign in enumerate([*sorted(level.alphabet()), "aa"])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("a", "a")]))
    made.pre_tokenizer = level
    made.post_processor = tokenizers.processors.ByteLevel(trim_offsets=True)
    made.save(file := str(tmp_path_factory.mktemp("t") / "tokenizer.json"))
    counts = load_counter(file)(pieces)
    assert len(counts) == len(pieces) and min(counts) >= 0
    assert sum(counts) == len(made.encode("".join(pieces)).ids)
    # Blanks are their tokens even where offsets leave them out.
    assert load_counter(file)(["b\n\n", "b"]) == [3, 1]


def test_without_the_tokenizers_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportFileError, match="--tokenizer needs a package: run `pip install tokenizers`"):
        import_lines(tmp_path, line(tokens=...), tokenizer="gpt2")


@pytest.mark.parametrize("wrong", ["task", "out"])
def test_errors_of_the_store_and_the_task_come_through(tmp_path, wrong):
    if wrong == "task":
        with pytest.raises(TaskError, match="no task 'maths'"):
            import_lines(tmp_path, line(), task="maths")
    else:
        import_lines(tmp_path, line())
        with pytest.raises(StoreError, match="there is a store at"):
            import_lines(tmp_path, line())


def test_the_command_says_what_is_wrong_in_one_line(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    command = [
        sys.executable,
        "autotts.py",
        "import",
        "jsonl",
        str(tmp_path / "a.jsonl"),
        "--out",
        str(tmp_path / "s"),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"}
    )
    assert done.returncode == 2
    assert done.stderr == f"autotts: {tmp_path}/a.jsonl: line 1: `problem` is missing; there are no fields\n"
    assert not done.stdout
