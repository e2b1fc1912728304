"""`autotts collect` as a user calls it: a store with everything in it, and a clear line for every mistake."""

import json

import pytest
from collecting import write_problems
from vllm_models import shared_model, shared_prm

from autotts import main
from env.store import Store

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]


def arguments(folder, *more, model=None, count=3):
    path = write_problems(folder / "problems.jsonl", count)
    given = ["collect", "--model", str(model or shared_model()), "--problems", str(path), "--task", "exact"]
    given += [
        "--out",
        str(folder / "store"),
        "--branches",
        "3",
        "--segment-tokens",
        "20",
        "--max-tokens",
        "60",
    ]
    return [*given, "--probe-tokens", "8", *more]


def failure(capsys, *given) -> str:
    assert main(list(given)) == 2
    return capsys.readouterr().err.splitlines()[-1].removeprefix("autotts: ")


def test_everything_at_once(tmp_path, capsys):
    given = ["--fork-depths", "1,2", "--fork-width", "3,2", "--prm", str(shared_prm()), "--separator", " "]
    given += ["--prompt", "{question}", "--arm", "think=True", "text=Think: {question}"]
    given += ["--engine-arg", "max_num_seqs=16", "--prm-engine-arg", "max_model_len=512"]
    assert main(arguments(tmp_path, *given)) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{tmp_path}/store: {shared_model()} on problems, 3 problems, 18 branches, ")
    assert "ROC AUC" in shown.out
    assert (
        "to collect: 3 problems, 54 branches of about 30 tokens (a guess, half of --max-tokens" in shown.err
    )
    store = Store.open(tmp_path / "store")
    assert store.capabilities == {"probes", "forks", "prm", "logprob", "confidence", "text", "arms"}
    assert store.meta["prm"] == str(shared_prm())
    prompts = [arm["prompt"]["text"] for arm in store.meta["arms"]]
    assert prompts == ["{question}", "Think: {question}"]
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(shared_model())
    for question, lengths in zip(*store.problems.select(["question", "prompt_tokens"]), strict=True):
        asked = (str(question), {}), (f"Think: {question}", {"think": True})
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, **more
            )
            for text, more in asked
        ]
        expected = [len(tokenizer.encode(text, add_special_tokens=False)) for text in texts]
        assert lengths.as_py() == expected and expected[0] < expected[1]
    forest = store.forest()
    assert len(forest.prm) > 100 and ((forest.prm >= 0) & (forest.prm <= 1)).all()
    assert (
        main(["evaluate", str(tmp_path / "store"), "--controller", "self_consistency", "--seeds", "3"]) == 0
    )
    capsys.readouterr()
    # The same command once more, and another one for the same place.
    assert main(arguments(tmp_path, *given)) == 0
    assert "is complete: there is nothing left to collect" in capsys.readouterr().out
    assert f"there is a store at {tmp_path}/store already" in failure(
        capsys, *arguments(tmp_path, "--seed", "1")
    )


def test_what_it_would_cost(tmp_path, capsys):
    assert main(arguments(tmp_path, "--dry-run", "--expect-tokens", "50", count=7)) == 0
    said = capsys.readouterr().err
    assert "7 problems, 21 branches of about 50 tokens (as --expect-tokens says)" in said
    # Each branch has 2.5 segments, whose probes take 4 tokens; at most 3.
    assert "about 1.26 k tokens, probes included; at most 1.51 k" in said
    assert not (tmp_path / "store").exists()


def test_models_that_are_none(tmp_path, capsys, monkeypatch):
    shared_model()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = failure(capsys, *arguments(tmp_path, model="Qwen/Qwen3-8BB"))
    assert said.startswith("the tokenizer of the model 'Qwen/Qwen3-8BB' cannot be loaded: ")
    assert said.endswith("check --model: a folder, or a name on Hugging Face")
    said = failure(capsys, *arguments(tmp_path, "--engine-arg", "max_num_sequences=16"))
    assert "vLLM cannot load the model" in said and "max_num_sequences" in said and "--engine-arg" in said
    said = failure(capsys, *arguments(tmp_path, "--prm", str(shared_model())))
    assert f"{shared_model()} is a Qwen3ForCausalLM, which is not known as a PRM" in said
    # Nothing was sampled before the PRM was looked at.
    assert not list((tmp_path / "store.collecting").glob("samples-*"))


def test_a_prm_that_cannot_read_the_paths(tmp_path, capsys):
    long = ["--prm", str(shared_prm()), "--expect-tokens", "700", "--max-tokens", "1000"]
    said = failure(capsys, *arguments(tmp_path, *long))
    assert said.startswith("the PRM reads 512 tokens and paths are expected to have 700: --prm-window 512")


def test_options_that_do_not_fit(tmp_path, capsys):
    forks = ["--fork-depths", "1,2,3"]
    assert "3 fork depths and 2 widths" in failure(
        capsys, *arguments(tmp_path, *forks, "--fork-width", "2,2")
    )
    assert "must be ascending" in failure(capsys, *arguments(tmp_path, "--fork-depths", "2,1"))
    assert "at least 2" in failure(capsys, *arguments(tmp_path, *forks, "--fork-width", "1"))
    penalty = arguments(tmp_path, *forks, "--presence-penalty", "0.5")
    assert "forks cannot be sampled with a presence" in failure(capsys, *penalty)
    assert "has no {question}" in failure(capsys, *arguments(tmp_path, "--prompt", "What is it?"))
    tags = arguments(tmp_path, "--think-tags", "<seed:think>", "</seed:think>")
    assert "are not tokens of" in failure(capsys, *tags)


def test_problems_that_cannot_be_graded(tmp_path, capsys):
    given = arguments(tmp_path)
    (tmp_path / "problems.jsonl").write_text(json.dumps({"question": "?", "solution": "1"}))
    assert "there is no column answer or gold or target" in failure(capsys, *given)
    (tmp_path / "problems.jsonl").write_text(json.dumps({"question": "?", "answer": "?"}))
    assert "the gold answer '?' is not" in failure(capsys, *given, "--task", "math")
    assert not (tmp_path / "store.collecting").exists()
