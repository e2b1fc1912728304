"""Each kind of PRM in the real vLLM against a plain torch forward pass of the same checkpoint."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from collect.prm.local import load_kind
from collect.prm.registry import KINDS
from collect.prm.scorer import open_scorer
from env.errors import UserError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

ENGINE = {
    "dtype": "float32",
    "max_model_len": 512,
    "max_num_seqs": 8,
    "enforce_eager": True,
    "kv_cache_memory_bytes": 64 << 20,
    "block_size": 32,
}
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
)
SIZE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}
QUESTION = "Compute 3 * (4 + 5).\nShow your steps. <extra_0> is no tag here, nor is ки."
STEPS = ["First, 4 + 5 = 9.\nThat was the sum.", "Then 3 * 9 = 28.", "So: 28."]


@pytest.fixture(scope="module", autouse=True)
def quiet_engine():
    """One process and one thread: what a test can afford."""
    pytest.importorskip("vllm", reason="`pip install autotts[cpu]` to test PRMs")
    import torch

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_CI_ENV": "1",
            "OMP_NUM_THREADS": "1",
            "TORCH_COMPILE_DISABLE": "1",
            "HF_HUB_OFFLINE": "1",
        }.items():
            patch.setenv(name, os.environ.get(name, value))
        yield


def byte_tokenizer(folder: Path, specials: list[str], template: str | None = None) -> int:
    """Every byte is a token, as the smallest of Qwen's kind; returns the size of the vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: at for at, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made, additional_special_tokens=specials)
    wrapped.chat_template = template
    wrapped.save_pretrained(folder)
    return len(wrapped)


def sentence_tokenizer(folder: Path) -> int:
    """Letters, and the words of Math-Shepherd with the sign that stands for a space, as Mistral has them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(32, 127)] + ["▁", "к", "и", "\n"]
    words = ["<unk>", "<s>", *letters, "▁+", "▁-", "▁к", "▁ки"]
    merges = [("▁", "+"), ("▁", "-"), ("▁", "к"), ("▁к", "и")]
    made = Tokenizer(models.BPE({word: at for at, word in enumerate(words)}, merges, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>").save_pretrained(folder)
    return len(words)


def qwen_prm(folder: Path, specials=("<extra_0>", "<|im_start|>", "<|im_end|>")):
    """A checkpoint of the class that only vLLM has, and the model in plain torch: ids -> float32[T, 2]."""
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen2Config, Qwen2Model

    vocabulary = byte_tokenizer(folder, list(specials), QWEN_TEMPLATE)
    config = Qwen2Config(vocab_size=vocabulary, architectures=["Qwen2ForProcessRewardModel"], **SIZE)
    torch.manual_seed(0)
    backbone = Qwen2Model(config).eval()
    head = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    head[2].weight.data *= 8  # scores that differ between steps
    state = {f"model.{name}": tensor for name, tensor in backbone.state_dict().items()}
    state |= {f"score.{name}": tensor for name, tensor in head.state_dict().items()}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    config.save_pretrained(folder)
    return lambda ids: head(backbone(ids).last_hidden_state)[0]


def token_classifier(folder: Path, labels: int = 2, **settings: str):
    import torch
    from transformers import Qwen3Config, Qwen3ForTokenClassification

    vocabulary = byte_tokenizer(folder, [])
    torch.manual_seed(1)
    config = Qwen3Config(vocab_size=vocabulary, num_labels=labels, head_dim=32, **SIZE)
    model = Qwen3ForTokenClassification(config).eval()
    model.save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return lambda ids: model(ids).logits[0]


def math_shepherd(folder: Path):
    import torch
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

    vocabulary = sentence_tokenizer(folder)
    torch.manual_seed(2)
    model = MistralForCausalLM(MistralConfig(vocab_size=vocabulary, sliding_window=None, **SIZE)).eval()
    model.save_pretrained(folder)
    # As the card has it, where the good sign comes first.
    signs = AutoTokenizer.from_pretrained(folder).encode("+ -")[1:]
    return lambda ids: model(ids).logits[0][:, signs[::-1]]


MAKERS = {"qwen-prm": qwen_prm, "token-classifier": token_classifier, "math-shepherd": math_shepherd}


def expected_sequence(kind: str, tokenizer, question: str, steps: list[str]) -> tuple[list[int], list[int]]:
    """Token ids and positions of tags as each model card, or TRL's trainer, makes them."""
    if kind == "qwen-prm":
        chat = [
            {"role": "system", "content": KINDS[kind].system},
            {"role": "user", "content": question},
            {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
        ]
        ids = tokenizer.encode(tokenizer.apply_chat_template(chat, tokenize=False))
        tag = tokenizer.encode("<extra_0>")[0]
    elif kind == "token-classifier":
        tag = tokenizer.encode("\n", add_special_tokens=False)[-1]
        ids, places = tokenizer.encode(question, add_special_tokens=False), []
        for step in steps:
            ids += [*tokenizer.encode(step, add_special_tokens=False), tag]
            places.append(len(ids) - 1)
        return ids, places
    else:
        ids = tokenizer.encode(question + " " + "\n".join(f"{step} ки" for step in steps))
        tag = tokenizer.encode("ки")[-1]
    return ids, [at for at, token in enumerate(ids) if token == tag][-len(steps) :]


def plain_scores(kind: str, folder: Path, model, question: str, steps: list[str]) -> list[float]:
    import torch
    from transformers import AutoTokenizer

    ids, places = expected_sequence(kind, AutoTokenizer.from_pretrained(folder), question, steps)
    with torch.inference_mode():
        return torch.softmax(model(torch.tensor([ids])), -1)[places, 1].tolist()


@pytest.fixture(scope="module", params=list(MAKERS))
def scored(request, tmp_path_factory):
    """(kind, folder, torch model, scorer), one engine a kind for the whole module."""
    folder = tmp_path_factory.mktemp(f"{request.param}-prm")
    model = MAKERS[request.param](folder)
    scorer = open_scorer(str(folder), request.param, ENGINE)
    yield request.param, folder, model, scorer
    scorer.close()


def test_scores_equal_a_plain_forward_pass(scored) -> None:
    kind, folder, model, scorer = scored
    # Shared beginnings, one path that another begins with, a repetition and a path without steps.
    paths = [
        (QUESTION, STEPS),
        (QUESTION, [*STEPS[:2], "No: 27.", "So: 27."]),
        (QUESTION, STEPS[:1]),
        (QUESTION, STEPS),
        (QUESTION, []),
        ("What is 2 + 2?", ["4"]),
    ]
    found = scorer.score(paths)
    assert [len(scores) for scores in found] == [len(steps) for _, steps in paths]
    for (question, steps), scores in zip(paths, found, strict=True):
        if steps:
            expected = plain_scores(kind, folder, model, question, steps)
            np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert found[0] == found[3]
    assert found[0][:2] == found[1][:2] and found[0][:1] == found[2], "a shared beginning is scored once"
    assert np.ptp([score for scores in found for score in scores]) > 0.05, "a model that can tell steps apart"
    assert scorer.score(paths) == found


def test_shared_beginnings_are_computed_once(scored) -> None:
    _, _, _, scorer = scored
    trunk = [f"Step {number} of the trunk is long enough to fill a block." for number in range(6)]
    paths = [(QUESTION, [*trunk, f"Branch {number}."]) for number in range(16)]
    start = scorer.tokens
    scorer.score(paths[:1])
    one = scorer.tokens - start
    found = scorer.score(paths)
    assert len({tuple(scores[:6]) for scores in found}) == 1
    assert len({scores[6] for scores in found}) == 16
    # Beyond the trunk a path computes its own step and what the trunk has in an unfinished block.
    assert 0 < scorer.tokens - start - 2 * one < 15 * (32 + 32)


def test_a_path_beyond_the_context_is_scored_as_far_as_it_goes(scored) -> None:
    kind, folder, model, scorer = scored
    steps = [f"{number} and so on, and on, and on." for number in range(40)]
    asked, unscored = scorer.steps, scorer.unscored
    (scores,) = scorer.score([(QUESTION, steps)])
    known = [score for score in scores if score is not None]
    assert 3 < len(known) < 40 and scores == known + [None] * (40 - len(known))
    np.testing.assert_allclose(
        known, plain_scores(kind, folder, model, QUESTION, steps[: len(known)]), atol=1e-4
    )
    assert (scorer.steps - asked, scorer.unscored - unscored) == (40, 40 - len(known))
    assert scorer.context == 512


def test_a_checkpoint_says_how_it_is_asked_and_a_window_cuts(tmp_path) -> None:
    model = token_classifier(tmp_path, step_separator="~", prompt_template="Q{question}?")
    scorer = open_scorer(str(tmp_path), engine_args=ENGINE, window=len("Qab?") + len("cd~") + len("ef"))
    assert (scorer.name, scorer.kind) == (str(tmp_path), "token-classifier")
    (scores,) = scorer.score([("ab", ["cd", "ef", "gh"])])
    scorer.close()
    import torch
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(tmp_path).encode("Qab?cd~")
    with torch.inference_mode():
        expected = torch.softmax(model(torch.tensor([ids])), -1)[-1, 1].item()
    assert scores == [pytest.approx(expected, abs=1e-4), None, None]


def test_closing_frees_the_memory(tmp_path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    token_classifier(tmp_path)
    scorer = open_scorer(str(tmp_path), engine_args={**ENGINE, "kv_cache_memory_bytes": 256 << 20})
    scorer.score([(QUESTION, STEPS)])
    before = resident()
    scorer.close()
    assert resident() < before - (200 << 20)
    scorer.close()


def test_a_wrong_step_tag_is_refused(tmp_path) -> None:
    qwen_prm(tmp_path, specials=["<|im_start|>", "<|im_end|>"])
    with pytest.raises(UserError, match=r"no token '<extra_0>'.*--prm-step-tag"):
        open_scorer(str(tmp_path), engine_args=ENGINE)
    with pytest.raises(UserError, match="no token 'ки'"):
        open_scorer(str(tmp_path), "math-shepherd", ENGINE)
    # Also without its weights, before a long sampling.
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no token '<extra_0>'"):
        load_kind(str(tmp_path), None, {}, None)
    assert load_kind(str(tmp_path), None, {}, "<|im_end|>")[1] == 512
    with pytest.raises(UserError, match="vLLM cannot load the PRM"):
        open_scorer(str(tmp_path), engine_args=ENGINE, step_tag="<|im_end|>")


def test_a_model_of_another_kind_is_refused(tmp_path) -> None:
    math_shepherd(tmp_path)
    with pytest.raises(UserError, match=r"MistralForCausalLM, which is not known as a PRM.*math-shepherd"):
        open_scorer(str(tmp_path), engine_args=ENGINE)
    with pytest.raises(UserError, match="no kind of PRM is called 'magic'"):
        open_scorer(str(tmp_path), "magic", ENGINE)
    with pytest.raises(UserError, match="there is no PRM"):
        open_scorer(str(tmp_path / "nowhere"), engine_args=ENGINE)


def test_a_classifier_of_other_things_is_refused(tmp_path) -> None:
    token_classifier(tmp_path, labels=3)
    with pytest.raises(UserError, match=r"no PRM of the kind token-classifier: .*\(\d+, 3\) where two prob"):
        open_scorer(str(tmp_path), engine_args=ENGINE)


def test_a_cache_too_small_for_all_paths_changes_no_score(scored) -> None:
    kind, folder, model, _ = scored
    from transformers import AutoTokenizer

    # Many long prompts advance at once until none has room for its next block.
    small = {
        "kv_cache_memory_bytes": 1 << 20,
        "max_num_batched_tokens": 64,
        "long_prefill_token_threshold": 8,
    }
    scorer = open_scorer(str(folder), kind, ENGINE | small)
    paths = [(f"{number}. {QUESTION}", ["So" + " and so on" * 22, "End."]) for number in range(10)]
    found = scorer.score(paths)
    read = scorer.tokens
    scorer.close()
    for (question, steps), scores in zip(paths, found, strict=True):
        np.testing.assert_allclose(scores, plain_scores(kind, folder, model, question, steps), atol=1e-4)
    tokens = len(expected_sequence(kind, AutoTokenizer.from_pretrained(folder), *paths[0])[0])
    assert read > len(paths) * tokens, "some were interrupted and read again"
