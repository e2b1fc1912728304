"""Reading with the real vLLM what it sampled before: the same figures as sampling with them gives."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from collecting import Borrowed, collect, contents, make_plan, problems
from commanding import run_all
from vllm_models import SMALL, shared_model, shared_prm

from collect.engine import EngineError
from collect.existing import Existing
from collect.from_samples import FromSamples
from collect.local import LocalEngine
from collect.plan import Arm, Segments
from collect.prompts import Prompting
from collect.sampler import Drawing, Shape
from collect.tokens import Tokens
from env.errors import UserError
from env.nodes import Nodes
from env.store import Store
from env.store_writer import StoreWriter

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

CHAIN = "First add the tens: 10 + 20 = 30.\n\nThen the ones: 7 + 5 = 12.\n\nThe final answer is \\boxed{42}."


def bare(**changes):
    """A plan that finds out as little as it can."""
    plan = make_plan(probing=None, **changes)
    drawing = plan.drawing
    return make_plan(
        probing=None, drawing=Drawing(drawing.sampling, drawing.max_tokens, 3, 0, drawing.window), **changes
    )


def read(source, plan, out, waits=None, **options) -> Store:
    error = EngineError("stopped")
    FromSamples(Existing(source.path), plan, out, **options).run(lambda arm: Borrowed(waits, error))
    return Store.open(out)


def nodes_of(store: Store):
    (name,) = store.shards("nodes")
    return store.read(name)


def assert_same(store: Store, expected: Store, close=("confidence",)) -> None:
    """The same nodes, some figures up to rounding: sampled one by one or read at once."""
    assert store.read_bytes("problems.parquet") == expected.read_bytes("problems.parquet")
    for name in expected.shards("text"):
        assert store.read(name).equals(expected.read(name))
    table, other = nodes_of(store), nodes_of(expected)
    for name in table.schema.names:
        if name in close:
            np.testing.assert_allclose(table[name].to_numpy(), other[name].to_numpy(), rtol=0, atol=1e-4)
        else:
            assert table[name].equals(other[name]), name


def test_as_if_it_had_been_collected_so(tmp_path):
    """A store without probes and confidences, read: what collecting with them gives."""
    poor = collect(bare(), tmp_path / "poor")
    assert poor.capabilities == {"forks", "logprob", "text"}
    expected = collect(make_plan(), tmp_path / "rich")
    with pytest.raises(EngineError):
        read(poor, make_plan(), tmp_path / "out", waits=6)
    store = read(poor, make_plan(), tmp_path / "out")
    assert store.capabilities == expected.capabilities
    assert_same(store, expected)
    ours, theirs = store.meta["provenance"], expected.meta["provenance"]
    assert ours["recipe"] == theirs["recipe"]
    assert ours["made_from"] == {"how": "from-samples", "store": "poor", "sha256": poor.sha256}
    assert store.meta["arms"] == expected.meta["arms"]
    assert FromSamples(Existing(tmp_path / "poor"), make_plan(), tmp_path / "out").complete
    # Once more: there is nothing to add, and a branch is read only to know that it is the same model.
    again = FromSamples(Existing(tmp_path / "out"), make_plan(), tmp_path / "again")
    assert (again.survey.branches, again.survey.tokens, again.survey.probes) == (38, 0, 0)
    again.run(lambda arm: Borrowed())
    assert again.tally.requests == 1
    assert contents(Store.open(tmp_path / "again"))["files"] == contents(store)["files"]


def test_cut_anew(tmp_path):
    shape = Shape(4)
    coarse = collect(make_plan(shape=shape, segments=Segments(60)), tmp_path / "coarse", 3)
    fine = collect(make_plan(shape=shape), tmp_path / "fine", 3)
    store = read(coarse, make_plan(shape=shape), tmp_path / "out", recut=True)
    assert_same(store, fine, ("logprob", "confidence"))
    assert store.meta["segment_rule"] == fine.meta["segment_rule"] and store.segment_tokens == 30
    assert store.meta["provenance"]["read"]["segments"] == {"tokens": 30, "steps": None, "separator": "\n\n"}


def import_texts(path, tokens, extra=1) -> Store:
    """An imported store: texts and counts of tokens, whole branches."""
    count = len(tokens.encode(CHAIN)) + extra
    with StoreWriter(path, model=str(shared_model()), dataset="d", task="exact") as writer:
        for number, problem in enumerate(problems(3)):
            chains = Nodes(
                [-1, -1], [count, count + 7 * (number == 2)], ["42", "42"], [False] * 2, end=[1, 1]
            )
            chains.text = [CHAIN, CHAIN]
            writer.add_problem(problem.question, problem.gold, chains)
    return Store.open(path)


def test_texts_without_token_ids(tmp_path):
    tokens = Tokens(str(shared_model()))
    import torch
    from transformers import AutoModelForCausalLM

    source = import_texts(tmp_path / "texts", tokens)
    prompting = Prompting("Solve: {question}")
    plan = make_plan(arms=(Arm(str(shared_model()), prompting),), segments=Segments(10))
    job = FromSamples(Existing(source.path), plan, tmp_path / "out", recut=True)
    assert (job.survey.branches, job.survey.encoded, job.survey.left) == (6, 5, 1)
    count = len(tokens.encode(CHAIN))
    assert job.survey.lines()[2].endswith(f"one of {count + 8} tokens has a text of {count}")
    job.run(lambda arm: Borrowed())
    store = Store.open(tmp_path / "out")
    assert {"probes", "logprob", "confidence"} <= store.capabilities
    assert store.meta["provenance"]["tokens"] == {"branches": 6, "encoded": 5, "left": 1}
    ids = tokens.encode(CHAIN)
    prompt = tokens.encode(
        tokens.chat([{"role": "user", "content": f"Solve: {problems(1)[0].question}"}], {})
    )
    model = AutoModelForCausalLM.from_pretrained(shared_model(), dtype=torch.float32).eval()
    torch.set_num_threads(1)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    logprobs = torch.log_softmax(logits, -1)
    own = logprobs[range(len(ids)), ids].numpy()
    confidence = -logprobs.topk(20).values.mean(1).numpy()
    rows = nodes_of(store).to_pylist()
    first = [row for row in rows if row["problem"] == 0][: len(rows) // 6 + 1]
    chain = first[: next(n for n, row in enumerate(first) if row["end"]) + 1]
    assert sum(row["tokens"] for row in chain) == len(ids) + 1
    at = 0
    for row in chain:
        last = min(at + row["tokens"], len(ids))
        group = confidence[max(0, last - 48) : last]
        if last > at:
            assert row["logprob"] == pytest.approx(float(own[at:last].mean()), abs=1e-4)
            assert row["confidence"] == pytest.approx(float(group.mean()), abs=1e-4)
        assert row["probed"] == (row["end"] == 0)
        at = last
    # The branch whose ids nobody knows is as it was.
    left = [row for row in rows if row["problem"] == 2][-1]
    assert (left["tokens"], left["logprob"], left["depth"]) == (len(ids) + 8, None, 0)
    texts = next(iter(store.texts()))
    assert texts["token_ids"].null_count == len(texts) and texts["text"].to_pylist()[-1] == CHAIN


def make_other_model(folder):
    """The shared one, but what it finds likely the other finds unlikely."""
    import torch
    from transformers import AutoModelForCausalLM

    shutil.copytree(shared_model(), folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)
    model.save_pretrained(folder)
    return folder


def test_what_cannot_be_read(tmp_path):
    tokens, model = Tokens(str(shared_model())), str(shared_model())
    source = import_texts(tmp_path / "texts", tokens, extra=3)
    with pytest.raises(
        UserError, match=r"6 of 6 branches cannot be read with the tokenizer .* has a text of"
    ):
        read(source, make_plan(), tmp_path / "out")
    collected = collect(bare(shape=Shape(2)), tmp_path / "collected", 2)
    other = make_other_model(tmp_path / "other")
    plan = make_plan(arms=(Arm(str(other), make_plan().arms[0].prompting),))
    engine = LocalEngine(str(other), 20, SMALL)
    engine.close = engine.give_up  # Closing would close the engine that tests share.
    with pytest.raises(UserError, match=r"did not write what the store has: .* apart from the"):
        FromSamples(Existing(collected.path), plan, tmp_path / "out").run(lambda arm: engine)
    assert not (tmp_path / "out").exists()
    with StoreWriter(tmp_path / "mute", model=model, dataset="d", task="exact") as writer:
        writer.add_problem("q", "1", Nodes([-1], [1], ["1"], [True], end=[1]))
    with pytest.raises(UserError, match="neither texts nor token ids"):
        read(Store.open(tmp_path / "mute"), make_plan(), tmp_path / "out")


def test_the_command(tmp_path):
    source = collect(bare(), tmp_path / "poor", 2)
    scored = ["--prm", str(shared_prm()), "--separator", " ", "--prm-engine-arg", "max_model_len=512"]
    given = ["collect", "--from-samples", str(source.path), "--out", str(tmp_path / "out")]
    given += ["--probe-tokens", "12", "--confidence-window", "48", "--engine-arg", "max_num_seqs=16"]
    confident = make_plan(probing=None, drawing=replace(make_plan().drawing, top_logprobs=5, window=64))
    sure = collect(confident, tmp_path / "sure", 2)
    dry, done, rescored, probed, foreign, two, prompted = run_all(
        [*given, *scored, "--dry-run"],
        [*given, *scored],
        ["collect", "--rescore", str(source.path), "--out", str(tmp_path / "scored"), *scored],
        [*given[:2], str(sure.path), "--out", str(tmp_path / "probed"), "--probe-tokens", "12"],
        [*given[:3], "--out", str(tmp_path / "new"), "--branches", "4"],
        [*given[:3], "--out", str(tmp_path / "new"), "--rescore", "x"],
        [*given[:3], "--out", str(tmp_path / "new"), "--prompt", "Now {question}"],
    )
    assert (dry.status, done.status, rescored.status) == (0, 0, 0), (dry.err, done.err, rescored.err)
    # Confidence is taken as before, where nothing else is asked for.
    assert probed.status == 0, probed.err
    drawing = Store.open(tmp_path / "probed").meta["provenance"]["recipe"]["drawing"]
    assert (drawing["top_logprobs"], drawing["window"]) == (5, 64)
    assert dry.err.startswith("to read: 16 branches, forks included") and " 8 branches, " in done.out
    store = Store.open(tmp_path / "out")
    assert store.capabilities == {"forks", "logprob", "text", "probes", "confidence", "prm"}
    assert nodes_of(Store.open(tmp_path / "scored"))["prm"].equals(nodes_of(store)["prm"])
    assert "--branches says nothing with --from-samples, so leave it out" in foreign.err
    assert "--from-samples and --rescore are two jobs: do one, then the other" in two.err
    assert "was collected with another prompt" in prompted.err
