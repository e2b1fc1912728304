"""A checkpoint for tests of what talks to models: random weights, a real tokenizer, a chat template."""

import atexit
import contextlib
import functools
import json
import tempfile
from pathlib import Path

import pytest

from collect.engine import EngineError
from collect.local import LocalEngine, prepare

# Torch reads some settings when it is first imported, which whoever imports this has not done yet.
with contextlib.suppress(EngineError):
    prepare()

SIZE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}
# For the engines of tests: what a small machine can afford.
SMALL = {"kv_cache_memory_bytes": 64 << 20, "max_num_seqs": 16}

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if think %}<think>\n{% endif %}{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>"]
CORPUS = [
    "Compute the sum of 17 and 25. First add the tens: 10 + 20 = 30.\n\nThen the ones: 7 + 5 = 12.\n\n",
    "The final answer is \\boxed{42}. So the answer is \\frac{1}{2}, that is 0.5.\n\n",
] * 40


def make_tokenizer():
    """Byte-level BPE, with chat and thinking tokens."""
    transformers = pytest.importorskip(
        "transformers", reason="`pip install 'autotts[cpu]'` to test with a tokenizer"
    )
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    made.train_from_iterator(CORPUS, trainer)
    # As in Qwen3: tokens of their own, but text to a reader.
    made.add_tokens(["<think>", "</think>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|im_start|>", chat_template=CHAT
    )


def make_model(folder: Path, context: int = 8192) -> Path:
    """Writes a Qwen3 of two layers whose next token is nearly anything; skips where there is no torch."""
    torch = pytest.importorskip("torch", reason="`pip install 'autotts[cpu]'` to test with a model")
    transformers = pytest.importorskip("transformers")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    config = transformers.Qwen3Config(
        **SIZE,
        vocab_size=len(tokenizer),
        max_position_embeddings=context,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model = transformers.Qwen3ForCausalLM(config)
    with torch.no_grad():
        # Likely enough that some branches end by themselves, and some stop thinking.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": tokenizer.eos_token_id}))
    return folder


@functools.cache
def shared_model() -> Path:
    """One such model for all tests of a session; skips where there is no vLLM."""
    pytest.importorskip("vllm", reason="`pip install 'autotts[cpu]'` to test with vLLM")
    return make_model(_kept_folder())


def shared_engine():
    """One vLLM engine with it, while that lasts; skips where there is no vLLM."""
    model = shared_model()
    from vllm.distributed.parallel_state import model_parallel_is_initialized

    # Engines share some state of the process, and whichever is closed takes it from the others.
    if not _engines or not model_parallel_is_initialized():
        _engines[:] = [LocalEngine(str(model), 20, SMALL)]
    return _engines[0]


_engines: list[LocalEngine] = []


def make_prm(folder: Path, context: int = 512) -> Path:
    """Writes a reward model with random weights, as TRL trains them: a step is scored at its line break."""
    torch = pytest.importorskip("torch", reason="`pip install 'autotts[cpu]'` to test with a model")
    transformers = pytest.importorskip("transformers")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    config = transformers.Qwen3Config(
        **SIZE, vocab_size=len(tokenizer), max_position_embeddings=context, num_labels=2
    )
    torch.manual_seed(1)
    transformers.Qwen3ForTokenClassification(config).save_pretrained(folder)
    return folder


@functools.cache
def shared_prm() -> Path:
    """One of those for all tests of a session."""
    return make_prm(_kept_folder())


def _kept_folder() -> Path:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)
