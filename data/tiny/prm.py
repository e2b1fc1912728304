"""The process reward model: the tiny model once more, with a head that says how likely a step is good.

TRL's format: a token classifier with two labels, read at the separator that ends each step. The separator is
the blank line that the model writes anyway, so what is scored is what was sampled; only the end token, behind
the last step, becomes a separator.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from data.tiny.problems import Problem
from data.tiny.steps import is_good, split_steps
from data.tiny.text import END, prompt_text
from data.tiny.training import IGNORED, Example

# How the byte-level alphabet writes the separator, a blank line.
SEPARATOR_TOKEN = "ĊĊ"


def scored_ids(tokenizer: Any, problem: Problem, sampled: list[int]) -> list[int]:
    """What is put to the PRM for a sample: the prompt and every whole step with its separator."""
    separator, end = tokenizer.token_to_id(SEPARATOR_TOKEN), tokenizer.token_to_id(END)
    ids = [separator if token == end else token for token in sampled]
    while ids and ids[-1] != separator:
        ids.pop()
    return tokenizer.encode(prompt_text(problem)).ids + ids


def labels_of(tokenizer: Any, problem: Problem, sampled: list[int]) -> list[bool]:
    """For each whole step of a sample: is it good?"""
    text = tokenizer.decode(sampled)
    whole = split_steps(text) if sampled[-1] == tokenizer.token_to_id(END) else split_steps(text)[:-1]
    return [is_good(problem, step) for step in whole]


def example(tokenizer: Any, problem: Problem, sampled: list[int]) -> Example:
    """A sample with a label at each separator."""
    ids = scored_ids(tokenizer, problem, sampled)
    labels = iter(labels_of(tokenizer, problem, sampled))
    separator = tokenizer.token_to_id(SEPARATOR_TOKEN)
    return Example(ids, [int(next(labels)) if token == separator else IGNORED for token in ids])


@torch.inference_mode()
def score(model: Any, examples: Sequence[Example]) -> list[list[float]]:
    """The probability that a step is good, for each step of each example."""
    scores: dict[int, list[float]] = {}
    place = {id(item): i for i, item in enumerate(examples)}
    ordered = sorted(examples, key=lambda item: len(item.ids))
    for at in range(0, len(ordered), 64):
        group = ordered[at : at + 64]
        longest = max(len(item.ids) for item in group)
        ids = torch.tensor([item.ids + [0] * (longest - len(item.ids)) for item in group])
        good: Tensor = model(input_ids=ids, use_cache=False).logits.float().softmax(-1)[..., 1]
        for item, row in zip(group, good.tolist(), strict=True):
            scores[place[id(item)]] = [
                s for s, label in zip(row, item.labels, strict=False) if label != IGNORED
            ]
    return [scores[i] for i in range(len(examples))]


def auc(scores: Sequence[float], good: Sequence[bool]) -> float:
    """Area under the ROC curve: how often a good step outscores a bad one, ties counting half."""
    by_score = Counter(scores)
    below = dict(
        zip(sorted(by_score), accumulate([0, *(by_score[s] for s in sorted(by_score))]), strict=False)
    )
    rank = {s: below[s] + (by_score[s] + 1) / 2 for s in by_score}
    positive = sum(good)
    total = sum(rank[s] for s, g in zip(scores, good, strict=True) if g)
    return (total - positive * (positive + 1) / 2) / (positive * (len(good) - positive))
