"""Makes the tiny model, its PRM and their figures from nothing, in about twenty minutes on one core.

    pip install -e '.[cpu]'
    python -m data.tiny.make [--out FOLDER]
    python -m data.tiny.make --size small    # the smaller model alone, in about six minutes

Writes `model/` and `prm/` (Hugging Face checkpoints), the problem files and `figures.json` into FOLDER, by
default the one that this file is in; of the smaller model `small/`, with figures of its own. Seeded; where
another machine's arithmetic differs in the last bit, the weights and figures differ a little.
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM, Qwen3ForTokenClassification

from data.tiny import prm
from data.tiny.measuring import measure, measure_prm
from data.tiny.problems import FOLDER, as_jsonl, draw_many, splits
from data.tiny.sampling import sample
from data.tiny.solutions import SEPARATOR
from data.tiny.text import END, MAX_TOKENS, PAD, PROMPT, START, VOCABULARY, make_tokenizer, save_tokenizer
from data.tiny.training import batches, fit, solution_example

SEED = 0
EXAMPLES = 24_000
BATCH_TOKENS = 2048
RATE, PRM_RATE = 3e-3, 1.5e-3
PRM_PROBLEMS, PRM_SAMPLES = 1250, 4
MEASURED_SAMPLES = 64
# Of `configuration`: what a size has otherwise.
SIZES: dict[str, dict[str, Any]] = {
    "full": {},
    "small": {
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    },
}


def configuration(**more: Any) -> Qwen3Config:
    """About a million parameters, of which the vocabulary is a twentieth; `more` overrides."""
    sizes = dict(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
    )
    return Qwen3Config(**{**sizes, **more})


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """What a configuration says of the tokens that are not text."""
    roles = {"bos": START, "eos": END, "pad": PAD}
    return {f"{role}_token_id": tokenizer.token_to_id(token) for role, token in roles.items()}


def train_model(tokenizer: Any, without: set[str], size: str) -> Qwen3ForCausalLM:
    """The language model, trained on worked solutions of problems that are not in `without`."""
    rng = random.Random(SEED)
    torch.manual_seed(SEED)
    model = Qwen3ForCausalLM(configuration(**SIZES[size]))
    examples = [solution_example(tokenizer, rng, without) for _ in range(EXAMPLES)]
    fit(model, list(batches(examples, BATCH_TOKENS, tokenizer.token_to_id(PAD), rng)), RATE, say)
    model.config.update(control_tokens(tokenizer))
    return model


def train_prm(tokenizer: Any, model: Qwen3ForCausalLM, without: set[str]) -> Qwen3ForTokenClassification:
    """The PRM: starts as the language model, learns from that model's own samples."""
    problems = draw_many(SEED + 1, PRM_PROBLEMS, without)
    samples = sample(model, tokenizer, problems, PRM_SAMPLES, SEED)
    say(f"{sum(len(ids) for drawn in samples for ids in drawn)} tokens sampled for the PRM")
    config = configuration(
        **control_tokens(tokenizer),
        num_labels=2,
        tie_word_embeddings=False,
        # Said to whoever scores: TRL keeps neither.
        step_separator=SEPARATOR,
        prompt_template=PROMPT,
    )
    rewarder = Qwen3ForTokenClassification(config)
    rewarder.model.load_state_dict(model.model.state_dict())
    examples = [
        prm.example(tokenizer, problem, ids)
        for problem, drawn in zip(problems, samples, strict=True)
        for ids in drawn
    ]
    fit(
        rewarder,
        list(batches(examples, BATCH_TOKENS, tokenizer.token_to_id(PAD), random.Random(SEED))),
        PRM_RATE,
        say,
    )
    return rewarder


def save_model(tokenizer: Any, model: Qwen3ForCausalLM, folder: Path) -> None:
    """Write the language model as transformers and vLLM load it."""
    save_tokenizer(tokenizer, folder)
    model.save_pretrained(folder)
    GenerationConfig(
        do_sample=True,
        temperature=1.0,
        eos_token_id=tokenizer.token_to_id(END),
        pad_token_id=tokenizer.token_to_id(PAD),
    ).save_pretrained(folder)


def say(line: str) -> None:
    """Progress, at once."""
    print(line, flush=True)


def main() -> None:
    """Make everything of a size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    parser.add_argument("--size", choices=SIZES, default="full", help="of the model (default: full)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    chosen = splits()
    full = args.size == "full"
    for name, problems in chosen.items() if full else ():
        (args.out / f"problems-{name}.jsonl").write_text(as_jsonl(problems), encoding="utf-8")
    without = {problem.question for problems in chosen.values() for problem in problems}

    tokenizer = make_tokenizer(SEED)
    model = train_model(tokenizer, without, args.size)
    save_model(tokenizer, model, args.out / ("model" if full else args.size))
    say(f"model after {time.monotonic() - begun:.0f} s")
    if full:
        rewarder = train_prm(tokenizer, model, without)
        save_tokenizer(tokenizer, args.out / "prm")
        rewarder.save_pretrained(args.out / "prm")
        say(f"PRM after {time.monotonic() - begun:.0f} s")

    samples = sample(model, tokenizer, chosen["search"], MEASURED_SAMPLES, SEED + 2)
    held_out = sample(model, tokenizer, chosen["holdout"], MEASURED_SAMPLES // 4, SEED + 3)
    figures = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "search": measure(model, tokenizer, chosen["search"], samples),
        "holdout": measure(model, tokenizer, chosen["holdout"], held_out),
        **({"prm": measure_prm(rewarder, tokenizer, chosen["holdout"], held_out)} if full else {}),
        "cpu_seconds": round(time.process_time()),
        "threads": args.threads,
    }
    told = args.out / ("" if full else args.size) / "figures.json"
    told.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    say(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
