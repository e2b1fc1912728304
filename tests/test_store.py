import json
import random
import time
import tracemalloc
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import ALL, UNPARSED, random_problem, random_store, write

import env.store_writer
from env.nodes import Nodes
from env.schema import FORMAT_VERSION, StoreError
from env.store import Store


def spell(forest, problem, number, kind):
    """What a node's answer or raw id stands for, in words that do not depend on numbering."""
    if number < 0:
        return {-1: "nothing parsed", -2: "not asked"}[number]
    if kind == "raw":
        return forest.raw_text(problem)[number]
    return ("class", number, bool(forest.class_correct[forest.class_first[problem] + number]))


def expected_answers(made):
    """Answers and raw answers of a problem, worked out the long way from what the writer was given."""
    classes, answers, raws = [], [], []
    for answer, probed, end in zip(made.nodes.answer, made.nodes.probed, made.nodes.end, strict=True):
        silent = "nothing parsed" if probed or end else "not asked"
        raws.append(silent if answer is None else answer)
        if answer is None or answer == UNPARSED:
            answers.append(silent)
            continue
        value = Fraction(answer)
        if value not in classes:
            classes.append(value)
        answers.append(("class", classes.index(value), value == Fraction(made.gold)))
    return answers, raws


def test_what_is_read_is_in_memory_of_arrows(tmp_path):
    """Python's own would have to be let go of by threads that may outlive the interpreter."""
    store = random_store(tmp_path / "s", random.Random(0), 1, 200, ALL)
    name, before = store.shards("nodes")[0], pa.total_allocated_bytes()
    data = store.read_bytes(name)
    assert pa.total_allocated_bytes() - before >= len(data) > 0


subsets = st.sets(st.sampled_from(sorted(ALL)))


@given(
    st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 40), subsets, st.sampled_from((1, 60, 1 << 17))
)
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_what_is_read(tmp_path_factory, seed, problems, nodes, capabilities, shard_nodes):
    path = tmp_path_factory.mktemp("store") / "s"
    store = random_store(
        path, random.Random(seed), problems, nodes, capabilities, shard_nodes=shard_nodes, segment_tokens=7
    )
    forest = store.forest()
    rng = random.Random(seed)
    assert len(forest) == len(store) == problems
    assert forest.segment_tokens == 7
    assert len(set(forest.question_hash)) == problems
    for number in range(problems):
        made = random_problem(rng, number, nodes, capabilities)
        given_nodes = made.nodes
        first = forest.first_node[number]
        here = slice(first, forest.first_node[number + 1])
        assert forest.parent[here].tolist() == [p if p < 0 else p + first for p in given_nodes.parent]
        for name in ("tokens", "end", "probed"):
            assert getattr(forest, name)[here].tolist() == getattr(given_nodes, name), name
        for name, default in (("arm", 0), ("probe_tokens", -1)):
            wanted = getattr(given_nodes, name) or [default] * nodes
            assert getattr(forest, name)[here].tolist() == wanted, name
        for name in ("logprob", "confidence"):
            wanted, got = getattr(given_nodes, name), getattr(forest, name)
            assert (got is None) == (wanted is None)
            if got is not None:
                assert np.array_equal(got[here], np.array(wanted, np.float32), equal_nan=True), name
        if forest.prm is not None:
            bounds = forest.prm_first
            scores = [forest.prm[bounds[v] : bounds[v + 1]].tolist() for v in range(here.start, here.stop)]
            assert scores == given_nodes.prm
        answers, raws = expected_answers(made)
        assert [spell(forest, number, a, "answer") for a in forest.answer[here]] == answers
        assert [spell(forest, number, a, "raw") for a in forest.raw[here]] == raws
        raw_correct = forest.raw_correct[forest.raw_first[number] : forest.raw_first[number + 1]].tolist()
        assert raw_correct == [text == made.gold for text in forest.raw_text(number)]
    if "text" in capabilities:
        texts = [row for table in store.texts() for row in table.to_pylist()]
        rng = random.Random(seed)
        wanted = [random_problem(rng, number, nodes, capabilities).nodes for number in range(problems)]
        assert [row["text"] for row in texts] == [text for made in wanted for text in made.text]
        assert [row["token_ids"] for row in texts] == [ids for made in wanted for ids in made.token_ids]


@pytest.mark.parametrize("capability", sorted(ALL))
def test_a_store_says_what_it_can_answer(tmp_path, capability):
    store = random_store(tmp_path / "s", random.Random(3), capabilities={capability})
    assert store.capabilities == {capability}


def test_nodes_on_disk_are_those_of_the_format(tmp_path):
    store = random_store(tmp_path / "s", random.Random(0), problems=1, nodes=3, capabilities=())
    rows = store.read("nodes/000000.parquet").to_pylist()
    assert [row["node"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert row["depth"] == (0 if row["parent"] < 0 else rows[row["parent"]]["depth"] + 1)
        assert (row["prm"], row["logprob"], row["confidence"], row["probe_tokens"]) == (None,) * 4
        # An answer that is there without a class is one that stands for nothing parsed.
        assert (row["answer"] is None) == (row["answer_raw"] in (None, UNPARSED))


def test_metadata(tmp_path):
    store = write(tmp_path / "s", segment_tokens=500, sampling={"temperature": 0.7}, provenance={"file": "x"})
    assert (store.model, store.dataset, store.task, store.segment_tokens) == ("m", "d", "exact", 500)
    assert store.meta["sampling"] == {"temperature": 0.7}
    assert store.meta["provenance"] == {"file": "x"}
    assert store.meta["format_version"] == FORMAT_VERSION
    assert store.meta["arms"] == [{"model": "m", "prompt": None}]
    assert store.meta["counts"] == {"problems": 1, "branches": 1, "nodes": 2}
    assert set(store.meta["files"]) == {"nodes/000000.parquet", "problems.parquet"}
    assert "problems=1, nodes=2, capabilities=['probes']" in repr(store)
    assert "problems=1, nodes=2, roots=1, classes=2, raw=2" in repr(store.forest())


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        random_store(tmp_path / name, random.Random(5))
    for file in (tmp_path / "a").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()


def test_a_store_opens_from_a_uri(tmp_path):
    write(tmp_path / "s")
    assert Store.open(f"file://{tmp_path}/s").forest().tokens.tolist() == [5, 3]
    with pytest.raises(StoreError, match="there is no store at file:///nowhere"):
        Store.open("file:///nowhere")
    with pytest.raises(StoreError, match="there is no store at ftp"):
        Store.open("ftp://a/b")


@pytest.mark.parametrize("file", ["nodes/000001.parquet", "problems.parquet", "text/000000.parquet"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.999])
def test_a_flipped_byte_is_found(tmp_path, file, where):
    store = random_store(tmp_path / "s", random.Random(1), problems=4, shard_nodes=50)
    path = tmp_path / "s" / file
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=f"s/{file} is damaged: its checksum .*; import or collect it again"):
        store.forest()
        list(store.texts())


def test_a_missing_shard_is_named(tmp_path):
    store = write(tmp_path / "s")
    (tmp_path / "s/nodes/000000.parquet").unlink()
    with pytest.raises(StoreError, match=r"s/nodes/000000\.parquet is missing"):
        store.forest()


def test_tables_that_do_not_fit_each_other(tmp_path):
    """Checksums that hold do not prove that somebody's own writer got the rest right."""
    store = random_store(tmp_path / "s", random.Random(1), problems=3)
    file = tmp_path / "s/nodes/000000.parquet"
    pq.write_table(pq.read_table(file).slice(1), file)
    edit_meta(
        tmp_path / "s",
        lambda meta: meta["files"]["nodes/000000.parquet"].update(sha256=env.store_writer.hash_file(file)),
    )
    with pytest.raises(StoreError, match="its tables do not fit each other"):
        Store.open(tmp_path / "s").forest()
    edit_meta(tmp_path / "s", lambda meta: meta["files"].pop("nodes/000000.parquet"))
    with pytest.raises(StoreError, match="its shards hold 0 of 3 problems"):
        Store.open(store.path).forest()


def edit_meta(path, change):
    meta = json.loads((path / "store.json").read_text())
    change(meta)
    (path / "store.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda meta: meta.update(format_version=FORMAT_VERSION + 1),
            "has format version 2, .* up to 1; upgrade it",
        ),
        (lambda meta: meta.update(format_version="1"), "damaged, or not of an AutoTTS store"),
        (lambda meta: meta.update(format="minari"), "damaged, or not of an AutoTTS store"),
        (lambda meta: meta.pop("files"), "damaged: `files` is missing"),
        (lambda meta: meta.update(segment_tokens="500"), "damaged: `segment_tokens` is missing or malformed"),
        (lambda meta: meta["counts"].pop("nodes"), "damaged: `counts` is incomplete"),
    ],
)
def test_metadata_that_cannot_be_trusted(tmp_path, change, message):
    write(tmp_path / "s")
    edit_meta(tmp_path / "s", change)
    with pytest.raises(StoreError, match=message):
        Store.open(tmp_path / "s")


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_metadata_that_is_no_json(tmp_path, text):
    write(tmp_path / "s")
    (tmp_path / "s/store.json").write_text(text)
    with pytest.raises(StoreError, match=r"store\.json is damaged"):
        Store.open(tmp_path / "s")


def test_what_is_not_a_store(tmp_path):
    (tmp_path / "file.json").write_text("[]")
    (tmp_path / "folder").mkdir()
    write(tmp_path / "stores/m/d")
    for name, message in {
        "nowhere": "there is no store at .*nowhere; check the path, or make one with `autotts import`",
        "file.json": r"file\.json is a file, not a store; make a store of it with `autotts import`",
        "folder": r"folder is not a store: it has no store\.json",
        "stores": "stores is not a store, but holds 1 of them; name them, .*stores/m/d for one",
    }.items():
        with pytest.raises(StoreError, match=message):
            Store.open(tmp_path / name)


def test_a_shard_is_loaded_in_three_times_its_arrays(tmp_path):
    """Counted by the allocators at their highest; the arrays are what the forest holds afterwards."""
    rng = np.random.default_rng(0)
    chain = np.arange(-1, 3_999, dtype=np.int32)
    chain[::40] = -1
    answers = [[str(value) for value in rng.integers(0, 300, 4_000)] for _ in range(30)]
    trees = [Nodes(chain, np.full(4_000, 500), answer, np.full(4_000, True)) for answer in answers]
    store = write(tmp_path / "s", [(f"q{k}", "1", nodes) for k, nodes in enumerate(trees)])
    assert len(store.shards("nodes")) == 1
    pool = pa.system_memory_pool()
    tracemalloc.start()
    forest = store.forest()
    peak = tracemalloc.get_traced_memory()[1] + pool.max_memory()
    tracemalloc.stop()
    arrays = sum(values.nbytes for values in vars(forest).values() if isinstance(values, np.ndarray))
    assert pa.default_memory_pool().backend_name != "system"
    assert 0 < peak < 3 * arrays


def test_opening_is_fast(tmp_path):
    random_store(tmp_path / "s", random.Random(0), problems=30)
    began = time.perf_counter()
    store = Store.open(tmp_path / "s")
    assert time.perf_counter() - began < 0.05
    assert "problems" not in vars(store)
