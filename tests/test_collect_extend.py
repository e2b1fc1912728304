"""Stores that are extended: the same as if they had been collected larger at once."""

import numpy as np
import polars as pl
import pytest

from collect.existing import Existing
from collect.extend import in_order, plan_to_extend
from collect.lacking import read_misses
from collect.tree import Branch
from env.errors import UserError
from env.misses import find_misses
from env.nodes import Nodes
from env.store import Store
from env.store_writer import StoreWriter


def branch(*path: int) -> Branch:
    return Branch(path, [], np.zeros(0, np.float32), None)


def test_branches_come_in_the_order_of_sampling():
    paths = [
        (0,),
        (1,),
        (0, 1, 1),
        (1, 1, 1),
        (1, 1, 2),
        (0, 2, 1),
        (1, 2, 1),
        (0, 1, 1, 2, 1),
        (1, 1, 2, 2, 1),
    ]
    shuffled = [7, 3, 0, 8, 5, 1, 2, 6, 4]
    order = in_order([branch(*paths[number]) for number in shuffled])
    assert [paths[shuffled[place]] for place in order] == paths


def imported(path) -> Store:
    with StoreWriter(path, model="m", dataset="d", task="exact") as writer:
        writer.add_problem("q", "1", Nodes([-1], [1], ["1"], [True], end=[1]))
    return Store.open(path)


def test_imported_stores_are_refused(tmp_path):
    imported(tmp_path / "s")
    with pytest.raises(UserError, match="was not made by `autotts collect`"):
        plan_to_extend(Existing(tmp_path / "s"), 8, None, {})


def test_misses_of_another_store_are_refused(tmp_path):
    store = imported(tmp_path / "s")
    existing = Existing(tmp_path / "s")
    with pytest.raises(UserError, match=r"misses\.parquet cannot be read: .* make it with `autotts evaluate"):
        read_misses(tmp_path, existing)
    row = {"store": "other", "sha256": "0", "problem": "p", "arm": 0, "node": -1, "wanted": 9}
    pl.DataFrame([row]).write_parquet(tmp_path / "misses.parquet")
    with pytest.raises(UserError, match="is about other, not about"):
        read_misses(tmp_path, existing)
    rows = [row, row | {"sha256": store.sha256}, row | {"sha256": store.sha256, "node": 3, "wanted": 2}]
    pl.DataFrame(rows).write_parquet(tmp_path / "misses.parquet")
    assert read_misses(tmp_path, existing) == {("p", 0): {-1: 9, 3: 2}}
    assert read_misses(tmp_path, existing, most=4) == {("p", 0): {-1: 4, 3: 2}}
    pl.DataFrame([row]).clear().write_parquet(tmp_path / "misses.parquet")
    with pytest.raises(UserError, match="every controller got what it asked for"):
        read_misses(tmp_path, existing)


vllm = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]


def marked(test):
    for mark in vllm:
        test = mark(test)
    return test


def extend(source, out, branches=None, lacking=None, waits=None, **options) -> Store:
    from collecting import Borrowed

    from collect.engine import EngineError
    from collect.extend import Extension

    existing = Existing(source.path)
    plan = plan_to_extend(existing, branches, None, {"max_num_seqs": 16})
    job = Extension(existing, plan, out, lacking, **options)
    job.run(lambda arm: Borrowed(waits, EngineError("stopped")))
    return Store.open(out)


def described(store: Store) -> dict:
    """What a store says of itself and its files, but not what it was made of."""
    provenance = {name: value for name, value in store.meta["provenance"].items() if name != "made_from"}
    return store.meta | {"provenance": provenance}


@marked
def test_eight_branches_made_sixteen_are_sixteen(tmp_path):
    pytest.importorskip("vllm")
    from collecting import collect, make_plan

    from collect.engine import EngineError
    from collect.sampler import Shape

    for name, depths, widths in (("chains", (), ()), ("trees", (1, 2), (3, 2))):
        folder = tmp_path / name
        small = collect(make_plan(shape=Shape(3, depths, widths)), folder / "small", 3)
        large = collect(make_plan(shape=Shape(6, depths, widths)), folder / "large", 3)
        with pytest.raises(EngineError):
            extend(small, folder / "out", 6, waits=5)
        out = extend(small, folder / "out", 6)
        assert described(out) == described(large)
        made_from = out.meta["provenance"]["made_from"]
        assert (made_from["how"], made_from["sha256"], made_from["branches"]) == ("extend", small.sha256, 6)
        with pytest.raises(UserError, match="has 6 branches a problem, and --branches is 4: give more"):
            extend(out, folder / "less", 4)
        twice = extend(extend(small, folder / "four", 4), folder / "twice", 6)
        assert described(twice) == described(large)
        assert twice.meta["provenance"]["made_from"]["made_from"]["branches"] == 4


@marked
def test_the_command_and_scores(tmp_path):
    pytest.importorskip("vllm")
    from collecting import write_problems
    from commanding import run_all
    from vllm_models import shared_model, shared_prm

    file = write_problems(tmp_path / "problems.jsonl", 2)
    given = ["collect", "--model", str(shared_model()), "--problems", str(file), "--task", "exact"]
    given += ["--segment-tokens", "20", "--max-tokens", "60", "--probe-tokens", "8", "--separator", " "]
    given += ["--prm", str(shared_prm()), "--prm-engine-arg", "max_model_len=512"]
    run = ["--engine-arg", "max_num_seqs=16", "--out"]
    extended = ["collect", "--extend", str(tmp_path / "small"), *run, str(tmp_path / "out")]
    *made, dry, done, again, unclear, foreign, other = run_all(
        [*given, "--branches", "2", *run, str(tmp_path / "small")],
        [*given, "--branches", "4", *run, str(tmp_path / "large")],
        [*extended, "--branches", "4", "--dry-run"],
        [*extended, "--branches", "4"],
        [*extended, "--branches", "4"],
        extended,
        [*extended, "--branches", "8", "--temperature", "0.5"],
        [*extended, "--branches", "8", "--engine-arg", "dtype=bfloat16"],
    )
    assert [each.status for each in (*made, dry, done, again)] == [0] * 5
    assert "to sample: 4 root branches, and 0 forks" in dry.err
    large, out = (Store.open(tmp_path / name) for name in ("large", "out"))
    assert described(out) == described(large) and "prm" in out.capabilities
    assert "is complete: there is nothing left to do" in again.out
    assert "give --branches, --misses or both" in unclear.err
    assert "--temperature says nothing with --extend" in foreign.err
    assert "was sampled without dtype=bfloat16" in other.err


@marked
def test_what_was_missing_is_there_afterwards(tmp_path):
    pytest.importorskip("vllm")
    from collecting import collect, make_plan

    from collect.sampler import Shape
    from env.evaluate import evaluate
    from tests.programs import written

    greedy = written(
        "forker",
        """
ids = await ep.branch(3, probe=False)
forks = []
for i in ids:
    if not ep.done[i]:
        forks += await ep.fork(i, 3, probe=False)
await ep.finish([*ids, *forks])
""",
    )
    source = collect(make_plan(shape=Shape(4, (1,), (2,))), tmp_path / "source", 3)
    frame = evaluate([source], [greedy], betas=[0.0], seeds=range(4), isolation="none").frame
    assert (frame["asked"] > frame["granted"]).any() and (frame["error"] == "").all()
    misses = find_misses([source], [greedy], frame)
    assert (misses["node"] == -1).any() and (misses["node"] >= 0).any()
    (tmp_path / "run").mkdir()
    misses.write_parquet(tmp_path / "run/misses.parquet")
    lacking = read_misses(tmp_path / "run", Existing(source.path))
    out = extend(source, tmp_path / "out", lacking=lacking)
    forest, before = out.forest(), source.forest()
    roots = [int((forest.parent[slice(*forest.first_node[p : p + 2])] < 0).sum()) for p in range(3)]
    assert roots == [6, 6, 6]
    for problem in range(3):
        arm = lacking[forest.question_hash[problem], 0]
        asked = sum(more for node, more in arm.items() if node >= 0)
        old, new = (np.diff(f.first_node)[problem] for f in (before, forest))
        assert new >= old + asked
    assert_continues(out)
    again = evaluate([out], [greedy], betas=[0.0], seeds=range(4), isolation="none").frame
    # The roots that were asked for are there. Forks of branches that are new may be missing again.
    left = find_misses([out], [greedy], again)
    assert not (left["node"] == -1).any()


def assert_continues(store: Store) -> None:
    """Each path's ids and probabilities are what the model itself says of them."""
    import torch
    from collecting import problems
    from transformers import AutoModelForCausalLM
    from vllm_models import shared_model

    from collect.prompts import Prompter
    from collect.recorded import plan_of_recipe
    from collect.tokens import Tokens

    torch.set_num_threads(1)
    tokens = Tokens(str(shared_model()))
    plan = plan_of_recipe(store.meta["provenance"]["recipe"])
    prompt = Prompter(tokens, plan.arms[0].prompting).encode(problems(1)[0].question).ids
    model = AutoModelForCausalLM.from_pretrained(shared_model(), dtype=torch.float32).eval()
    nodes = Existing(store.path).nodes(0)
    parent, window = np.asarray(nodes.parent).tolist(), plan.drawing.window
    for leaf in (node for node, end in enumerate(np.asarray(nodes.end)) if end):
        path = [leaf]
        while (above := parent[path[-1]]) >= 0:
            path.append(above)
        path.reverse()
        ids = [token for node in path for token in nodes.token_ids[node]]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        logprobs = torch.log_softmax(logits, -1)
        own = logprobs[range(len(ids)), ids].numpy()
        likeliest = -logprobs.topk(20).values.mean(1).numpy()
        at = 0
        for node in path:
            last = at + len(nodes.token_ids[node])
            assert nodes.logprob[node] == pytest.approx(own[at:last].mean(), abs=1e-4)
            group = likeliest[max(0, last - window) : last]
            assert nodes.confidence[node] == pytest.approx(group.mean(), abs=1e-4)
            at = last
