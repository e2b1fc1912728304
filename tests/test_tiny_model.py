"""The tiny model and its PRM in `data/tiny`: the checkpoints do what their data sheet says."""

import json
import random
from statistics import mean
from typing import Any

import pytest
from checkout import ROOT

from data.tiny.problems import LEVELS, MODULUS, Operation, Problem, as_jsonl, draw, draw_many, splits
from data.tiny.solutions import SEPARATOR, guess, work
from data.tiny.steps import final_answer, is_good, split_steps

TINY = ROOT / "data" / "tiny"


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return json.loads((TINY / "figures.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    return json.loads((TINY / "small" / "figures.json").read_text(encoding="utf-8"))


def test_the_problem_files_are_what_the_generator_makes() -> None:
    for name, problems in splits().items():
        assert (TINY / f"problems-{name}.jsonl").read_text(encoding="utf-8") == as_jsonl(problems)


def test_no_problem_is_in_two_splits_and_every_gold_is_right() -> None:
    questions = []
    for name in splits():
        for line in (TINY / f"problems-{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            questions.append(row["problem"])
            assert row["answer"] == recomputed(row["problem"])
    assert len(set(questions)) == len(questions) == 200


def recomputed(question: str) -> str:
    """The answer from the words of the question alone."""
    start, *steps, _ = question.removeprefix(f"Work modulo {MODULUS}. Start with ").split(". ")
    value = int(start)
    for step in steps:
        words = step.split(") ")[1].split()
        number = int(words[-1]) if words[0] != "square" else value
        value = {
            "add": value + number,
            "subtract": value - number,
            "multiply": value * number,
            "square": value * number,
        }[words[0]]
    return str(value % MODULUS)


def test_problems_left_out_are_not_drawn_again() -> None:
    first = draw_many(3, 50)
    assert draw_many(3, 50) == first
    taken = {problem.question for problem in first[::2]}
    assert not taken.intersection(problem.question for problem in draw_many(3, 50, taken))


PROBLEM = Problem(42, (Operation("*", 3), Operation("^", 2), Operation("-", 70)))


@pytest.mark.parametrize(
    "step",
    [
        "1) 42*3=126->29",
        "1) 42*3->29",
        "Again. 1) 42*3->29",
        "Check 1) 42*3=126->29 ok",
        "Check 1) 42*3=126->29 no, not 31",
        "2) 29*29: 29*2=58, 58*10=580->95, 29*9=261->67, 95+67=162->65",
        "3) 65-70=-5->92",
        "Same: 92, 92",
        "Differ: 17, 92",
        "</think>\n\\boxed{92}",
    ],
)
def test_a_good_step(step: str) -> None:
    assert PROBLEM.values == (42, 29, 65, 92)
    assert is_good(PROBLEM, step)


@pytest.mark.parametrize(
    "step",
    [
        "1) 42*3=127->30",
        "1) 42*3=126->28",
        "1) 42*3=127->29",
        "2) 29*29: 29*2=58, 58*10=580->94, 94+67=161->64",
        "2) 29*29: 29*2=57, 58*10=580->95, 29*9=261->67, 95+67=162->65",
        "3) 64-70=-6->91",
        "4) 65-70=-5->92",
        "Same: 17, 17",
        "</think>\n\\boxed{17}",
        "</think>\n\\boxed{}",
        "65-70=-5->92",
        "",
    ],
)
def test_a_bad_step(step: str) -> None:
    assert not is_good(PROBLEM, step)


def test_a_worker_errs_now_and_then_and_carries_it_on() -> None:
    rng = random.Random(5)
    right = []
    for i in range(400):
        problem = draw(rng, i % len(LEVELS))
        written = work(problem, rng)
        right.append(str(written[-1].value) == problem.answer)
        last_good = is_good(problem, written[-1].text)
        assert last_good or not right[-1] or "=" in written[-1].text
        assert guess(problem, written[-1]) == written[-1].value
        assert guess(problem, None) == problem.values[-1]
        text = SEPARATOR.join(paragraph.text for paragraph in written)
        assert split_steps(text) == [paragraph.text for paragraph in written]
    assert 0.6 < mean(right) < 0.95


def test_the_answer_stands_behind_the_thinking() -> None:
    assert final_answer("1) 2+3=5\n\n</think>\n\\boxed{5}<|im_end|>") == "5"
    assert final_answer("1) 2+3=5\n\n\\boxed{5}") is None


def test_the_figures_are_those_a_controller_needs(figures: dict[str, Any]) -> None:
    for split in ("search", "holdout"):
        found = figures[split]
        assert found["problems"] == 100
        assert 0.35 <= found["accuracy"] <= 0.65
        assert min(found["accuracy_by_problem"]) <= 0.1 and max(found["accuracy_by_problem"]) >= 0.9
        assert found["accuracy"] + 0.12 <= found["majority"] <= 0.95
        assert found["tokens_ratio"] >= 2
        depths = list(found["probe_accuracy"].values())
        assert depths == sorted(depths) and depths[0] < 0.2 and depths[-1] > depths[0] + 0.2
    assert figures["search"]["samples_each"] == 64
    assert figures["prm"]["auc"] > 0.75
    assert figures["prm"]["auc_first"] > 0.75


def test_the_small_model_is_weaker_and_reads_alike(figures: dict[str, Any], small: dict[str, Any]) -> None:
    assert small["parameters"] < figures["parameters"] / 4
    for split in ("search", "holdout"):
        assert 0.15 <= small[split]["accuracy"] <= figures[split]["accuracy"] - 0.15
        assert small[split]["accuracy"] + 0.12 <= small[split]["majority"]
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (TINY / "small" / name).read_bytes() == (TINY / "model" / name).read_bytes()


def test_the_prm_says_how_it_is_asked() -> None:
    from data.tiny.text import prompt_text

    config = json.loads((TINY / "prm" / "config.json").read_text(encoding="utf-8"))
    assert config["prompt_template"].replace("{question}", PROBLEM.question) == prompt_text(PROBLEM)
    assert config["step_separator"] == SEPARATOR


def test_the_data_sheet_states_the_figures(figures: dict[str, Any], small: dict[str, Any]) -> None:
    sheet = (TINY / "README.md").read_text(encoding="utf-8")
    for told, part in zip((figures, small), sheet.split("## The small model"), strict=True):
        for row, value in (("one sample", "accuracy"), ("majority of all samples", "majority")):
            stated = " | ".join(f"{told[split][value]:.0%}" for split in ("search", "holdout"))
            assert f"| right, {row} | {stated} |" in part
    assert f"ROC curve {figures['prm']['auc']:.2f} over all steps" in sheet
    assert "Demo." in sheet


@pytest.fixture(scope="module")
def made(figures: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The tokenizer, the model and the PRM as transformers loads them."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(TINY / "model", dtype=torch.float32).eval()
    rewarder = transformers.AutoModelForTokenClassification.from_pretrained(
        TINY / "prm", dtype=torch.float32
    ).eval()
    return tokenizer, model, rewarder


@pytest.mark.vllm
def test_the_tokenizer_keeps_any_text_and_spells_numbers(made: tuple[Any, Any, Any]) -> None:
    tokenizer = made[0]
    for text in (
        "1) 42*3=126->29\n\n2) 29+1=30\n\n</think>\n\\boxed{30}<|im_end|>",
        "Größe: 10 €\n\n\n\tx  y",
        "",
    ):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("4711")) == 4
    assert len(tokenizer.encode("\n\n")) == 1
    for token in ("<think>", "</think>", "<|im_start|>", "<|im_end|>"):
        assert len(tokenizer.encode(token)) == 1
    assert tokenizer.eos_token == "<|im_end|>"


@pytest.mark.vllm
def test_the_chat_template_opens_the_thinking(made: tuple[Any, Any, Any]) -> None:
    from data.tiny.text import prompt_text

    tokenizer = made[0]
    chat = [{"role": "user", "content": PROBLEM.question}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == prompt_text(PROBLEM)
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n<think>\n")


def sampled_again(model: Any, tokenizer: Any, told: dict[str, Any]) -> tuple[list[Problem], list]:
    """Samples of a few problems, held against what the figures tell of them."""
    from data.tiny.sampling import sample

    problems, stated = splits()["search"][:10], told["search"]["accuracy_by_problem"][:10]
    samples = sample(model, tokenizer, problems, 16, seed=1234)
    right = [
        mean(final_answer(tokenizer.decode(ids)) == problem.answer for ids in drawn)
        for problem, drawn in zip(problems, samples, strict=True)
    ]
    # Four standard errors of the difference of two means, over 16 and 64 samples each.
    error = sum(p * (1 - p) * (1 / 16 + 1 / 64) for p in stated) ** 0.5 / len(stated)
    assert abs(mean(right) - mean(stated)) < 4 * error + 0.01
    return problems, samples


@pytest.mark.vllm
def test_sampling_again_agrees_with_the_figures(made: tuple[Any, Any, Any], figures: dict[str, Any]) -> None:
    from data.tiny import prm

    fast, model, rewarder = made[0].backend_tokenizer, made[1], made[2]
    problems, samples = sampled_again(model, fast, figures)
    pairs = []
    for problem, drawn in zip(problems, samples, strict=True):
        examples = [prm.example(fast, problem, ids) for ids in drawn]
        for example, scored, ids in zip(examples, prm.score(rewarder, examples), drawn, strict=True):
            pairs += zip(scored, prm.labels_of(fast, problem, ids), strict=True)
            assert len(scored) == example.ids.count(fast.token_to_id(prm.SEPARATOR_TOKEN))
    assert prm.auc(*zip(*pairs, strict=True)) > 0.75


@pytest.mark.vllm
def test_sampling_from_the_small_model_agrees_with_its_figures(
    made: tuple[Any, Any, Any], small: dict[str, Any]
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(TINY / "small").eval()
    assert sum(p.numel() for p in model.parameters()) == small["parameters"]
    sampled_again(model, made[0].backend_tokenizer, small)


@pytest.mark.vllm
def test_the_auc_is_the_share_of_pairs_in_order() -> None:
    pytest.importorskip("torch")
    from data.tiny.prm import auc

    assert auc([0.1, 0.2, 0.3, 0.4], [False, False, True, True]) == 1
    assert auc([0.1, 0.2, 0.3, 0.4], [True, False, False, True]) == 0.5
    assert auc([0.5, 0.5, 0.5], [True, False, True]) == 0.5
