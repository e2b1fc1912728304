"""Sampling from the tiny model with transformers alone, many prompts of one length at a time."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from data.tiny.problems import Problem
from data.tiny.text import ANSWER_OPENING, END, MAX_TOKENS, prompt_text


def continue_all(
    model: Any,
    prompts: Sequence[list[int]],
    end: int,
    greedy: bool = False,
    limit: int = MAX_TOKENS,
    batch: int = 256,
) -> list[list[int]]:
    """What the model goes on with after each prompt: token ids, the end token last unless `limit` came first.

    Drawn at temperature 1 from torch's global generator, or greedily.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        by_length[len(prompt)].append(i)
    out: list[list[int]] = [[] for _ in prompts]
    for length in sorted(by_length):
        group = by_length[length]
        for at in range(0, len(group), batch):
            _continue_batch(model, prompts, group[at : at + batch], out, end, greedy, limit)
    return out


def sample(
    model: Any, tokenizer: Any, problems: Sequence[Problem], each: int, seed: int
) -> list[list[list[int]]]:
    """`each` samples of every problem, without their prompts."""
    torch.manual_seed(seed)
    end = tokenizer.token_to_id(END)
    prompts = [tokenizer.encode(prompt_text(problem)).ids for problem in problems for _ in range(each)]
    drawn = continue_all(model, prompts, end)
    return [drawn[i : i + each] for i in range(0, len(drawn), each)]


def probe(model: Any, tokenizer: Any, begun: Sequence[list[int]]) -> list[str]:
    """What the model answers, greedily, when its thinking is closed after each of these prefixes."""
    opening = tokenizer.encode(ANSWER_OPENING).ids
    drawn = continue_all(
        model, [ids + opening for ids in begun], tokenizer.token_to_id(END), greedy=True, limit=8
    )
    return [tokenizer.decode(ids).split("}")[0] for ids in drawn]


@torch.inference_mode()
def _continue_batch(
    model: Any,
    prompts: Sequence[list[int]],
    rows: list[int],
    out: list[list[int]],
    end: int,
    greedy: bool,
    limit: int,
) -> None:
    """Fill `out` for `rows`, prompts of one length; rows that have ended leave the batch now and then."""
    ids, cache, alive = torch.tensor([prompts[row] for row in rows]), None, list(rows)
    for _ in range(min(limit, MAX_TOKENS - ids.shape[1])):
        result = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, logits = result.past_key_values, result.logits[:, -1].float()
        drawn = logits.argmax(-1) if greedy else torch.multinomial(logits.softmax(-1), 1)[:, 0]
        for row, token in zip(alive, drawn.tolist(), strict=True):
            if not out[row] or out[row][-1] != end:
                out[row].append(token)
        going = [i for i, row in enumerate(alive) if out[row][-1] != end]
        if not going:
            return
        if len(going) < 0.8 * len(alive):
            keep = torch.tensor(going)
            cache.batch_select_indices(keep)
            drawn, alive = drawn[keep], [alive[i] for i in going]
        ids = drawn[:, None]
