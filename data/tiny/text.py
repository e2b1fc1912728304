"""The tokenizer and the chat format.

A text is cut into digits, words, signs and separators, then merged by byte-level BPE: every number is spelled
in digits, a blank line is one token, and any text survives the round trip.
"""

import json
import random
from pathlib import Path
from typing import Any

from data.tiny.problems import LEVELS, Problem, draw
from data.tiny.solutions import SEPARATOR, work

PAD, START, END, THINK, CLOSE = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"
VOCABULARY = 384
MAX_TOKENS = 512
# What stands before a forced answer, and what the answer is inside.
ANSWER_OPENING = f"{CLOSE}\n\\boxed{{"

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n<think>\\n' }}{%- endif -%}"
)
PROMPT = f"{START}user\n{{question}}{END}\n{START}assistant\n{THINK}\n"
_PIECES = r"\n\n|\d|[A-Za-z]+| [A-Za-z]+|[^\sA-Za-z\d]+ ?|\s"


def prompt_text(problem: Problem) -> str:
    """What the chat template makes of a problem, up to where the model goes on."""
    return PROMPT.replace("{question}", problem.question)


def make_tokenizer(seed: int) -> Any:
    """A `tokenizers.Tokenizer`, its merges learned from generated problems and solutions."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    rng = random.Random(seed)
    corpus = []
    for i in range(2000):
        problem = draw(rng, i % len(LEVELS))
        solution = SEPARATOR.join(paragraph.text for paragraph in work(problem, rng))
        corpus.append(
            f"system\nuser\n{problem.question}\nassistant\n{solution}\n\n\\boxed{{{problem.answer}}}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = [AddedToken(text, special=True, normalized=False) for text in (PAD, START, END)]
    # Like Qwen3's: text, not control, so that a decoded sample still shows where the thinking ended.
    added += [AddedToken(text, special=False, normalized=False) for text in (THINK, CLOSE)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(added),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens(added)
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` as transformers and vLLM load them."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": [START],
        "model_max_length": MAX_TOKENS,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
