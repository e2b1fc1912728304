"""Making the two networks learn: examples in, a trained model out."""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data.tiny.problems import LEVELS, draw
from data.tiny.solutions import SEPARATOR, guess, work
from data.tiny.text import ANSWER_OPENING, END, prompt_text

IGNORED = -100
# Solutions longer than this are not learned from, so few samples are longer.
EXAMPLE_TOKENS = 400
# Of the examples, how many stop in the middle of the thinking and guess.
CUT_SHARE = 0.25


@dataclass(frozen=True)
class Example:
    """Token ids, and for each the label that the network should give there (`IGNORED`: none)."""

    ids: list[int]
    labels: list[int]


def solution_example(tokenizer: Any, rng: random.Random, without: Set[str]) -> Example:
    """A problem not in `without` with a worked solution, or with thinking that is cut off and a guess."""
    while True:
        problem = draw(rng, rng.randrange(len(LEVELS)))
        if problem.question in without:
            continue
        written = work(problem, rng)
        value = written[-1].value
        prompt = tokenizer.encode(prompt_text(problem)).ids
        if rng.random() < CUT_SHARE:
            kept = rng.randrange(len(written))
            value = guess(problem, written[kept - 1] if kept else None)
            thinking = "".join(paragraph.text + SEPARATOR for paragraph in written[:kept])
            begun = tokenizer.encode(written[kept].text).ids
            thought = tokenizer.encode(thinking).ids + begun[: max(0, rng.randrange(-4, len(begun)))]
            # Whoever stops the model writes this: it must not learn to stop by itself.
            given = tokenizer.encode(rng.choice(["", SEPARATOR]) + ANSWER_OPENING).ids
        else:
            thought = tokenizer.encode("".join(paragraph.text + SEPARATOR for paragraph in written)).ids
            thought += tokenizer.encode(ANSWER_OPENING).ids
            given = []
        answer = tokenizer.encode(f"{value}}}{END}").ids
        ids = prompt + thought + given + answer
        if len(ids) <= EXAMPLE_TOKENS:
            # Each token is the label of the one before it; what is given is not learned.
            learned = [IGNORED] * len(prompt) + thought + [IGNORED] * len(given) + answer
            return Example(ids, [*learned[1:], IGNORED])


def batches(
    examples: list[Example], tokens: int, pad: int, rng: random.Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """(ids, labels) of about `tokens` tokens each, examples of like length together, in random order.

    Padded on the right: what a causal network says before the padding does not depend on it.
    """
    ordered = sorted(examples, key=lambda example: len(example.ids))
    groups: list[list[Example]] = [[]]
    for example in ordered:
        if len(example.ids) * (len(groups[-1]) + 1) > tokens:
            groups.append([])
        groups[-1].append(example)
    rng.shuffle(groups)
    for group in groups:
        longest = max(len(example.ids) for example in group)
        padding = [longest - len(example.ids) for example in group]
        yield (
            torch.tensor([e.ids + [pad] * n for e, n in zip(group, padding, strict=True)]),
            torch.tensor([e.labels + [IGNORED] * n for e, n in zip(group, padding, strict=True)]),
        )


def fit(
    model: torch.nn.Module,
    steps: Sequence[tuple[Tensor, Tensor]],
    rate: float,
    say: Callable[[str], None],
) -> None:
    """One update a batch: Muon for the matrices within, AdamW for the rest; a warm-up, then a cosine to 0."""

    def share(step: int) -> float:
        warm = len(steps) / 25
        return min(1.0, (step + 1) / warm) * (0.51 + 0.49 * math.cos(math.pi * step / len(steps)))

    within = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    rest = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "layers" in n)]
    optimizers = [
        torch.optim.Muon(within, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, share) for optimizer in optimizers]
    model.train()
    begun, seen = time.monotonic(), 0
    for step, (ids, labels) in enumerate(steps):
        logits = model(input_ids=ids, use_cache=False).logits
        learned = labels != IGNORED
        loss = torch.nn.functional.cross_entropy(logits[learned].float(), labels[learned])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        seen += ids.numel()
        if step % 50 == 0 or step == len(steps) - 1:
            spent = time.monotonic() - begun
            done = f"step {step + 1}/{len(steps)} loss {loss.item():.3f}"
            say(f"{done} {spent:.0f} s, {seen / spent:.0f} tokens/s")
    model.eval()
