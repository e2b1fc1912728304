"""The costs that come with AutoTTS. Each is one function; a further one needs nothing but `@cost`."""

import numpy as np
from numpy.typing import NDArray

from env.costs.log import Floats, Log
from env.costs.registry import cost
from env.costs.shapes import Shape, shape
from env.costs.sharing import held, integral, peak, reads
from env.costs.tables import read_tables
from env.errors import UserError
from env.order import begins, rank
from env.stand import Ints

Bools = NDArray[np.bool_]


@cost
def tokens(log: Log) -> Floats:
    """All tokens: decoded, decoded for probes, and read by the process reward model.

    Example: 10 + 20 + 5 + 5 + 30 + 15 decoded, 2 + 2 for probes, 30 scored: 119.
    """
    return log.total(log.work + log.prm_tokens)


@cost
def sequential_tokens(log: Log) -> Floats:
    """Tokens on the critical path: each round counts as its longest branch, probe included.

    Example: 22 in round 0, 30 in round 1, 15 in round 2, nothing in round 3: 67.
    """
    return log.total_of_turns(log.steps)


@cost
def prm_tokens(log: Log) -> Floats:
    """Tokens read by the process reward model, each part of a path once.

    Example: the path of 10 + 5 + 15 tokens: 30.
    """
    return log.total(log.prm_tokens)


@cost
def prompt_tokens(log: Log) -> Floats:
    """Tokens sent along: each continuation and each probe is a request that sends its prefix again.

    A branch that decodes anything in a round sends its prompt and its path so far; a probe sends them with
    what was decoded since. The words that a probe adds are not counted: the store does not know them.

    Example: the openings send 100 and 100, the probes 110 and 120, the forks 110 and 110, the continuations
    120 and 115: 885.
    """
    sent, probed, length = _requests(log)
    return log.total(sent * length + probed * (length + log.tokens))


@cost
def cached_tokens(log: Log, block: int = 1) -> Floats:
    """Of the prompt tokens, those that a prefix cache has: all but each arm's prompt when it is first sent.

    The cache is one that forgets nothing during an episode and knows nothing at its start. What has been
    decoded is in it, as in vLLM's automatic prefix caching.

    Args:
        block: the cache holds whole blocks of so many tokens (vLLM: 16 unless it is told otherwise).

    Example: 885 sent, of which only the first 100 are new: 785. In blocks of 16: 96 + 96 + 112 + 96 + 96 +
    112 + 112 for the openings but the first, the probes, the forks and the continuations: 720.
    """
    if block < 1:
        raise UserError(
            f"a prefix cache has blocks of at least 1 token, not {block}: give cached_tokens:block=16"
        )
    sent, probed, length = _requests(log)
    whole = log.total((sent * (length // block) + probed * ((length + log.tokens) // block)) * block)
    arms = len(log.models)
    first = np.unique((log.episode * arms + log.arm)[sent | probed])
    return whole - np.bincount(first // arms, (log.prompt // block * block).ravel()[first], len(log))


@cost
def eflops(log: Log, models: str = "", prm: str = "", intensity: float = 562.5) -> Floats:
    """Equivalent FLOPs: arithmetic, plus bytes read from memory times the arithmetic they keep waiting.

    Kinetics (Sadhukhan et al. 2025, arXiv:2506.05333): to decode a token behind c others takes 2 FLOPs a
    parameter, 4 * layers * heads * head_dim * c for attention, and reads the 2 * layers * kv_heads *
    head_dim numbers that the cache holds for each of the c; a byte read weighs `intensity` FLOPs. As there,
    weights are read for so many sequences at once that their bytes do not count, and neither does reading
    the prompt. Best of N with a prompt of P and answers of L tokens so comes to

        2 N L parameters + 4 N L (P + L / 2) layers heads head_dim
            + 4 L (P + N L / 2) layers kv_heads head_dim intensity,

    the formula of the cost model that was released with it: the prompt is read once for all. The same holds
    here for any beginning that forked branches share, as ETS has it (Hooper et al. 2025, arXiv:2502.13575).
    The process reward model, which Kinetics does not have, reads many tokens at once, so that only its
    arithmetic counts.

    Args:
        models: the shape of each arm's model, joined by `+`: a name or a JSON file each, or one for all;
            by default those that the store names. See `env.costs.shapes`.
        prm: the shape of the process reward model; by default the one that the store names.
        intensity: FLOPs in the time in which the memory gives a byte; 562.5 is the paper's, for NVIDIA's B200
            (4.5 PFLOP/s, 8 TB/s). For an H100 in 16 bits 295 (989 TFLOP/s, 3.35 TB/s).

    Example: a model of 1000 parameters, 1 layer, 2 heads, 1 of them for keys and values, head_dim 5, at
    intensity 10: 2000 FLOPs a token, 40 for each that it attends to, and 20 bytes of cache for each. To
    decode 12 + 22 + 5 + 5 + 30 + 15 = 89 tokens takes 178000 FLOPs. They attend to 12 * 106 + 22 * 111 +
    2 * 5 * 112.5 + 30 * 135 + 15 * 122.5 = 10726.5 tokens: 429060 FLOPs. They read 2514 tokens from the cache
    in round 0 (the prompt 22 times, 12 * 12 / 2 and 22 * 22 / 2 of their own), 4125 in round 1 (the prompt 30
    times, the 10 of branch 0 five times for both forks, the 20 of branch 1 thirty times, 475 of their own),
    1837.5 in round 2: 8476.5 * 20 bytes * 10 = 1695300. A reward model of the same shape reads 30 tokens,
    60000, that attend to 30 * 115, 138000. Together 2500360.
    """
    shapes = _shapes(log, models)
    weights, attention, cache = (
        np.array([getattr(each, what) for each in shapes], np.float64)
        for what in ("parameters", "attention", "cache")
    )
    attended = log.work * (log.prompt[log.episode, log.arm] + log.context + log.work / 2)
    flops = log.total(2 * weights[log.arm] * log.work + attention[log.arm] * attended)
    flops += intensity * reads(log) @ cache
    if log.prm_model is not None:
        reader = shape(prm or log.prm_model)
        behind = log.prompt[log.episode, log.arm] + log.context - log.prm_tokens / 2
        flops += log.total(log.prm_tokens * (2 * reader.parameters + reader.attention * behind))
    return flops


@cost
def kv_peak(log: Log, models: str = "") -> Floats:
    """The most that the key-value cache holds at any time, shared beginnings once.

    See `env.costs.sharing.held` for what is held when. In tokens; in bytes if `models` are named.

    Args:
        models: shapes as in `eflops`, for bytes.

    Example: just before the end of round 1, the prompt, 10 of branch 0, 20 + 30 of branch 1, 5 + 5 of
    branches 2 and 3: 170. In bytes, at 20 a token: 3400.
    """
    weights = [each.cache for each in _shapes(log, models)] if models else [1] * len(log.models)
    return peak(held(log), np.array(weights, np.int64), len(log))


@cost
def kv_time(log: Log, models: str = "") -> Floats:
    """What the key-value cache holds, summed over decoding steps: token-steps, or byte-steps.

    As `kv_peak`. Divided by the sequential tokens it is the cache's mean size, which decides how many
    problems fit on a machine at once.

    Example: the episode takes 67 steps. The prompt is held for all of them: 6700. Branch 0's 10 tokens grow
    over 10 steps and stay for 57 more, until branch 2, forked from it, ends: 620. Branch 1's 20 and 30: 840
    and 450. Branch 2's 5 and 15: 212.5 and 112.5. Branch 3's 5, pruned 30 steps after it began: 137.5. The
    probes: 2 and 2. Together 9076.5.
    """
    weights = [each.cache for each in _shapes(log, models)] if models else [1] * len(log.models)
    return integral(held(log), np.array(weights, np.float64), len(log))


@cost
def seconds(log: Log, curve: str) -> Floats:
    """Time, from the speeds that were measured for batches of several sizes.

    In a round all branches decode side by side; n of them, of one arm, take n / speed(n) seconds a step, and
    whenever one is done the rest go on as a smaller batch. Arms are machines of their own, and so is the
    process reward model: the round takes as long as the slowest. One episode has the machines to itself, and
    reading prompts takes no time. Between two measured sizes speeds are interpolated; below the smallest a
    branch is as fast as there, above the largest the whole batch is.

    Args:
        curve: a JSON file with the speed in tokens a second for each size of a batch, all its branches
            together, and for the process reward model, if the store has one:
            {"1": 55, "8": 400, "64": 2300, "prm": 12000}. Or a list of them, one for each arm, whose first
            one has "prm".

    Example, with {"1": 10, "2": 16, "4": 24, "prm": 60}: round 0 takes 12 steps of two (1.5 s) and 10 of one
    (1 s); round 1 takes 5 steps of three at 20 tokens a second (0.75 s) and 25 of one (2.5 s); round 2 1.5 s;
    round 3 scores 30 tokens in 0.5 s. Together 7.75.
    """
    example = '{"1": 55, "8": 400, "prm": 12000}'
    tables = read_tables(curve, len(log.models), example)
    prm = tables[0].get("prm")
    if log.prm_model is not None and not prm:
        raise UserError(f'{curve} has no speed for the process reward model: add "prm", as in {example}')
    times = np.zeros(len(log.first))
    for arm, table in enumerate(tables):
        speeds = {int(size): speed for size, speed in table.items() if size.isdecimal()}
        sizes = sorted(speeds)
        if not sizes or not (sizes[0] and all(speeds.values())) or set(table) - {"prm", *map(str, sizes)}:
            raise UserError(f"{curve} must give a speed for each size of a batch, such as {example}")
        rows = np.flatnonzero((log.work > 0) & (log.arm == arm))
        rows = rows[np.lexsort((log.work[rows], log.turn[rows]))]
        turn, steps = log.turn[rows], log.work[rows]
        batch = np.bincount(turn, minlength=len(times))[turn] - rank(turn)
        speed = np.interp(batch, sizes, [speeds[size] for size in sizes])
        speed *= np.minimum(1, batch / sizes[0])
        more = steps - np.where(begins(turn), 0, np.append(0, steps[:-1]))
        times = np.maximum(times, np.bincount(turn, more * batch / speed, len(times)))
    if prm:
        times = np.maximum(times, np.bincount(log.turn, log.prm_tokens, len(times)) / prm)
    return log.total_of_turns(times)


@cost
def price(log: Log, table: str) -> Floats:
    """Money, from prices for a million tokens, requests and cache counted as in the costs of that name.

    Args:
        table: a JSON file with prices for new prompt tokens, cached ones (by default as dear as new ones),
            decoded ones, and those that the process reward model reads, if the store has one:
            {"prompt": 0.1, "cached": 0.01, "completion": 0.4, "prm": 0.05}. Or a list of them, one for each
            arm, whose first one has "prm".

    Example, with {"prompt": 2, "cached": 1, "completion": 10, "prm": 3}: 100 * 2 + 785 * 1 + 89 * 10 + 30 * 3
    = 1965 for a million such episodes, 0.001965 for this one.
    """
    example = '{"prompt": 0.1, "cached": 0.01, "completion": 0.4, "prm": 0.05}'
    tables = read_tables(table, len(log.models), example)
    for each in tables:
        if {"prompt", "completion"} - set(each) or set(each) - {"prompt", "cached", "completion", "prm"}:
            raise UserError(f"{table} must hold prices for a million tokens, such as {example}")
    if log.prm_model is not None and "prm" not in tables[0]:
        raise UserError(f'{table} has no price for the process reward model: add "prm", as in {example}')
    new, decoded = (np.array([each[what] for each in tables]) for what in ("prompt", "completion"))
    cached = np.array([each.get("cached", each["prompt"]) for each in tables])
    sent, probed, length = _requests(log)
    read = sent * length + probed * (length + log.tokens)
    paid = log.total(cached[log.arm] * read + decoded[log.arm] * log.work)
    paid += log.total(log.prm_tokens * tables[0].get("prm", 0.0))
    arms = len(tables)
    first = np.unique((log.episode * arms + log.arm)[sent | probed])
    paid += np.bincount(first // arms, log.prompt.ravel()[first] * (new - cached)[first % arms], len(log))
    return paid / 1e6


def _requests(log: Log) -> tuple[Bools, Bools, Ints]:
    """For each row, whether it decodes, whether it asks a probe, and the tokens before what it decodes."""
    return log.tokens > 0, log.asks, log.prompt[log.episode, log.arm] + log.context


def _shapes(log: Log, models: str) -> list[Shape]:
    """The shape of each arm."""
    names = models.split("+") if models else list(log.models)
    if len(names) == 1:
        names *= len(log.models)
    if len(names) != len(log.models):
        raise UserError(f"{models} names {len(names)} models, and the store has {len(log.models)} arms")
    return [shape(name) for name in names]
