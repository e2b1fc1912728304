"""The figures of the tiny model: is it as unreliable, and as varied, as a controller needs it to be?"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain
from statistics import mean, median, quantiles
from typing import Any

from data.tiny import prm
from data.tiny.problems import LEVELS, Problem
from data.tiny.sampling import probe
from data.tiny.steps import final_answer
from data.tiny.text import prompt_text

PROBE_DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)


def measure(
    model: Any, tokenizer: Any, problems: Sequence[Problem], samples: Sequence[Sequence[list[int]]]
) -> dict[str, Any]:
    """Accuracy, its spread, what a vote gains, lengths, and what early probes answer.

    Probes are put to the first four samples of each problem, at shares of the sample's own length.
    """
    answers = [[final_answer(tokenizer.decode(ids)) for ids in drawn] for drawn in samples]
    single = [mean(a == p.answer for a in row) for p, row in zip(problems, answers, strict=True)]
    voted = [Counter(a for a in row if a).most_common(1) for row in answers]
    majority = [bool(v) and v[0][0] == p.answer for p, v in zip(problems, voted, strict=True)]
    lengths = [[len(ids) for ids in drawn] for drawn in samples]
    tenths = [quantiles(row, n=10) for row in lengths]
    by_level = [mean(single[level :: len(LEVELS)]) for level in range(len(LEVELS))]
    return {
        "problems": len(problems),
        "samples_each": len(samples[0]),
        "accuracy": round(mean(single), 4),
        "accuracy_by_level": [round(value, 4) for value in by_level],
        "accuracy_by_problem": [round(value, 4) for value in single],
        "majority": round(mean(majority), 4),
        "answers_by_problem": round(mean(len({a for a in row if a}) for row in answers), 1),
        "unanswered": round(mean(a is None for row in answers for a in row), 4),
        "tokens_mean": round(mean(map(mean, lengths)), 1),
        "tokens_by_tenth": [round(value) for value in quantiles(chain.from_iterable(lengths), n=10)],
        "tokens_ratio": round(median(tenth[-1] / tenth[0] for tenth in tenths), 2),
        "probe_accuracy": probe_accuracy(model, tokenizer, problems, samples),
    }


def probe_accuracy(
    model: Any, tokenizer: Any, problems: Sequence[Problem], samples: Sequence[Sequence[list[int]]]
) -> dict[str, float]:
    """By share of the sample that was kept: how often the forced answer is right."""
    begun, asked = [], []
    for problem, drawn in zip(problems, samples, strict=True):
        prompt = tokenizer.encode(prompt_text(problem)).ids
        for ids in drawn[:4]:
            for depth in PROBE_DEPTHS:
                begun.append(prompt + ids[: int(depth * len(ids))])
                asked.append((depth, problem.answer))
    right = defaultdict(list)
    for (depth, gold), answer in zip(asked, probe(model, tokenizer, begun), strict=True):
        right[str(depth)].append(answer == gold)
    return {depth: round(mean(values), 4) for depth, values in right.items()}


def measure_prm(
    rewarder: Any, tokenizer: Any, problems: Sequence[Problem], samples: Sequence[Sequence[list[int]]]
) -> dict[str, Any]:
    """How well scores tell good steps from bad ones, and what choosing by them gains.

    `auc_thinking` leaves out the last step, the answer; `auc_first` is about the steps up to a sample's first
    bad one; `best_of_all` answers with the sample whose last step scores highest.
    """
    every, thinking, first, best = [], [], [], []
    for problem, drawn in zip(problems, samples, strict=True):
        examples = [prm.example(tokenizer, problem, ids) for ids in drawn]
        scores = prm.score(rewarder, examples)
        labels = [prm.labels_of(tokenizer, problem, ids) for ids in drawn]
        for scored, good in zip(scores, labels, strict=True):
            pairs = list(zip(scored, good, strict=True))
            every += pairs
            thinking += pairs[:-1]
            first += pairs[: good.index(False) + 1] if False in good else pairs
        top = max(range(len(drawn)), key=lambda i: scores[i][-1])
        best.append(final_answer(tokenizer.decode(drawn[top])) == problem.answer)
    return {
        "steps": len(every),
        "good_share": round(mean(good for _, good in every), 4),
        "auc": round(prm.auc(*zip(*every, strict=True)), 4),
        "auc_thinking": round(prm.auc(*zip(*thinking, strict=True)), 4),
        "auc_first": round(prm.auc(*zip(*first, strict=True)), 4),
        "best_of_all": round(mean(best), 4),
    }
