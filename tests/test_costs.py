"""Costs: the worked examples by hand, any episode against the slow reference, and what is refused."""

import inspect
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.commands import evaluate as command
from env.costs.log import Log
from env.costs.registry import COSTS, resolve
from env.costs.shapes import SHAPES
from env.episode import KINDS
from env.index import Index
from env.replay import Replay
from env.stand import OPENED
from tests.cost_reference import replayed
from tests.forests import recordings, stored, trees
from tests.playing import grow, play_on
from tests.playing import store as made
from tests.test_replay import _episode, drawn, game_on_trees

TOYS = [
    {"parameters": 1000, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 5},
    {"parameters": 300, "layers": 2, "heads": 3, "kv_heads": 3, "head_dim": 1, "kv_bytes": 1},
]
SPEEDS = {"1": 10, "2": 16, "4": 24, "prm": 60}
PRICES = {"prompt": 2, "cached": 1, "completion": 10, "prm": 3}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Files for costs that need some; those in the plural have something else for the second arm."""
    folder = tmp_path_factory.mktemp("files")
    tables = {
        "toy": TOYS[0],
        "other": TOYS[1],
        "speeds": SPEEDS,
        "all_speeds": [SPEEDS, {"2": 7}],
        "prices": PRICES,
        "all_prices": [PRICES, {"prompt": 5, "completion": 7}],
    }
    for name, table in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(table))
    return {name: str(folder / f"{name}.json") for name in tables}


async def worked(ep):
    """The episode of the docstrings."""
    a, b = await ep.branch(2)
    (c, d), _ = await ep.together(ep.fork(a, 2, probe=False), ep.extend([b], probe=False))
    ep.prune([a, d])
    await ep.finish([c])
    await ep.score([c])
    return ep.answer[c]


@pytest.fixture(scope="module")
def example() -> Log:
    """Two episodes of the worked example."""
    a, b = grow(None, 10, 0), grow(None, 20, 0)
    rest = [grow(b, 30, 1, end=1)]
    for _ in range(2):
        fork = grow(a, 5, 0)
        rest += [fork, grow(fork, 15, 1, end=1)]
    index = made(a, b, *rest, has_scores=True)
    seed = next(s for s in range(99) if _opens_first(index, s))
    playback = play_on(index, worked, problems=(0, 0), seeds=(seed, seed), max_branches=2)
    assert playback.errors == {}
    return Log.of(playback.replay, np.array([[100], [100]]), ["a model"], "a judge")


def _opens_first(index: Index, seed: int) -> bool:
    async def solve(ep):
        ids = await ep.branch(2)
        return 0 if ep.tokens[ids[0]] == 10 else -1

    return bool(play_on(index, solve, seeds=(seed,), max_branches=2).replay.final[0] == 0)


@pytest.mark.parametrize(
    ("spec", "cost"),
    [
        ("tokens", 10 + 20 + 5 + 5 + 30 + 15 + 2 + 2 + 30),
        ("sequential_tokens", 22 + 30 + 15),
        ("prm_tokens", 10 + 5 + 15),
        ("prompt_tokens", 100 + 100 + 110 + 120 + 110 + 110 + 120 + 115),
        ("cached_tokens", 885 - 100),
        ("cached_tokens:16", 96 + 96 + 112 + 96 + 96 + 112 + 112),
        ("eflops:{toy},prm={toy},intensity=10", 178000 + 429060 + 1695300 + 60000 + 138000),
        ("kv_peak", 100 + 10 + 20 + 30 + 5 + 5),
        ("kv_peak:{toy}", 3400),
        ("kv_time", 6700 + 620 + 840 + 450 + 212.5 + 112.5 + 137.5 + 4),
        ("seconds:{speeds}", 1.5 + 1 + 0.75 + 2.5 + 1.5 + 0.5),
        ("price:{prices}", 0.001965),
    ],
)
def test_the_worked_examples(example, files, spec, cost):
    measured = resolve(spec.format(**files))(example)
    assert measured == pytest.approx([cost, cost], rel=1e-12)
    assert f"{cost:.10g}" in inspect.getdoc(COSTS[spec.partition(":")[0]])


def test_every_cost_is_documented_and_offered(example):
    parser = command.argparse.ArgumentParser()
    command.add_arguments(parser)
    offered = next(action.help for action in parser._actions if action.dest == "cost")
    resolve("tokens")
    assert len(COSTS) >= 10
    for name, function in COSTS.items():
        assert name in offered
        assert "Example" in inspect.getdoc(function)


def test_best_of_n_costs_what_the_formula_of_kinetics_says():
    """The released cost model's sum, for 4 branches of 600 tokens each and a prompt of 50."""
    roots = [grow(None, 200, 0) for _ in range(4)]
    more = [grow(grow(root, 300, 0), 100, 1, end=1) for root in roots]
    index = made(*roots, *(node.parent for node in more), *more)

    async def solve(ep):
        ids = await ep.branch(4, probe=False)
        await ep.finish(ids)

    replay = play_on(index, solve, max_branches=4).replay
    log = Log.of(replay, np.array([[50]]), ["Qwen/Qwen3-8B"], None)
    n, p, length, q = 4, 50, 600, SHAPES["Qwen3-8B"]
    wide, narrow = q.layers * q.heads * q.head_dim, q.layers * q.kv_heads * q.head_dim
    compute = (2 * q.parameters * length + 2 * (2 * p + length) * length * wide) * n
    memory = 2 * (2 * p + length * n) * length * narrow * 562.5
    assert resolve("eflops")(log) == pytest.approx([compute + memory], rel=1e-12)
    assert resolve("eflops:Qwen3-8B,intensity=0")(log) == pytest.approx([compute], rel=1e-12)


def test_forks_cost_less_memory_than_branches_of_their_own(example, files):
    """The same lengths without sharing: ETS's point."""
    a, b = grow(None, 40, 0), grow(None, 40, 0)
    leaves = [grow(root, 20, 1, end=1) for root in (a, b, a, b)]
    index = made(a, b, *leaves)

    async def forked(ep):
        (root,) = await ep.branch(1, probe=False)
        await ep.fork(root, 2, probe=False)

    async def apart(ep):
        roots = await ep.branch(2, probe=False)
        await ep.finish(roots)

    logs = [
        Log.of(play_on(index, solve, max_branches=2).replay, np.array([[10]]), ["m"], None)
        for solve in (forked, apart)
    ]
    flops, peaks = ([resolve(spec)(log)[0] for log in logs] for spec in (f"eflops:{files['toy']}", "kv_peak"))
    assert peaks == [10 + 40 + 20 + 20, 10 + 2 * 60]
    weigh = 20 * 562.5
    reads = [10 * 40 + 800 + (10 + 40) * 20 + 2 * 200, 10 * 60 + 2 * 1800]
    compute = [2000 * 80 + 40 * (40 * 30 + 40 * 60), 2000 * 120 + 40 * 120 * 40]
    assert flops == [c + weigh * r for c, r in zip(compute, reads, strict=True)]


PROMPTS = (7, 0, 33, 48)
SPEEDS_BY_ARM = [{1: 10, 2: 16, 4: 24}, {2: 7}]
# What the toys come to: FLOPs for a token, FLOPs for each that it attends to, bytes of cache.
FLOPS, ATTENTION, CACHE = (2000, 600), (40, 24), (20, 12)


def compare(replay: Replay, files: dict[str, str], prm: bool) -> None:
    """Every cost of a log against the reference."""
    arms, two = replay.index.arms, "all_" if replay.index.arms == 2 else ""
    prompts = [[PROMPTS[(k + arm) % len(PROMPTS)] for arm in range(arms)] for k in range(len(replay))]
    log = Log.of(replay, np.array(prompts), ["m"] * arms, "judge" if prm else None)

    def expect(spec: str, costs) -> None:
        assert resolve(spec)(log) == pytest.approx(list(costs), rel=1e-9), spec

    def slowly(block: int):
        return replayed(replay.log, prompts, block=block, speeds=SPEEDS_BY_ARM[:arms], prm_speed=60.0)

    slow = slowly(block=1)
    expect("tokens", replay.ledger[:, :3].sum(axis=1))
    expect("tokens", [sum(s.decoded) + s.prm for s in slow])
    expect("sequential_tokens", replay.ledger[:, 3])
    expect("sequential_tokens", [s.clock for s in slow])
    expect("prm_tokens", replay.ledger[:, 2])
    expect("prm_tokens", [s.prm for s in slow])
    expect("prompt_tokens", [sum(s.sent) for s in slow])
    expect("cached_tokens", [sum(s.cached) for s in slow])
    expect("cached_tokens:4", [sum(s.cached) for s in slowly(block=4)])
    models = "+".join([files["toy"], files["other"]][:arms])
    expect(
        f"eflops:{models},prm={files['toy']},intensity=3",
        [
            sum(
                FLOPS[a] * s.decoded[a] + ATTENTION[a] * s.attended[a] + 3 * CACHE[a] * s.read[a]
                for a in range(arms)
            )
            + FLOPS[0] * s.prm
            + ATTENTION[0] * s.prm_attended
            for s in slow
        ],
    )
    for spec, weights in (("", [1] * arms), (f":{models}", CACHE[:arms])):
        peaks, areas = zip(*(s.held(weights) for s in slow), strict=True)
        expect(f"kv_peak{spec}", peaks)
        expect(f"kv_time{spec}", areas)
    expect(f"seconds:{files[f'{two}speeds']}", [s.seconds for s in slow])
    prices = [(2, 1, 10), (5, 5, 7)]
    expect(
        f"price:{files[f'{two}prices']}",
        [
            sum(
                new * (s.sent[a] - s.cached[a]) + cached * s.cached[a] + out * s.decoded[a]
                for a, (new, cached, out) in enumerate(prices[:arms])
            )
            / 1e6
            + 3 * s.prm / 1e6
            for s in slow
        ],
    )


@settings(max_examples=150, deadline=None)
@given(trees(), st.lists(_episode, min_size=1, max_size=4), st.sampled_from((None, 1, 3, 100)))
def test_any_episodes_cost_what_the_reference_finds(files, store, episodes, max_branches):
    game = game_on_trees(store, episodes, max_branches, probe_tokens=5)
    game.replay.log = []
    game.play([program for *_, program, _ in episodes])
    compare(game.replay, files, store.has_scores)


@settings(max_examples=50, deadline=None)
@given(recordings(), st.lists(_episode, min_size=1, max_size=4), st.sampled_from((None, 1, 3)))
def test_any_episodes_under_the_published_protocol(files, recorded, episodes, max_branches):
    chosen = [problem % len(recorded) for problem, *_ in episodes]
    index = Index.build(stored(recorded).forest(), "published")
    replay = Replay(index, chosen, [s for _, s, *_ in episodes], max_branches=max_branches, log=True)
    for turn in range(max(len(program) for *_, program, _ in episodes)):
        table, ids = [], []
        for episode, (*_, program, _) in enumerate(episodes):
            for number in program[turn] if turn < len(program) else ():
                known = int(replay._stand.episodes[episode, OPENED])
                row, named = drawn(number, known).encoded(episode)
                table.append(row)
                ids += named
        replay.step(np.array(table, np.int64).reshape(-1, 5), np.array(ids, np.int64))
    compare(replay, files, prm=False)


def test_what_random_episodes_seldom_do(files):
    """Score, fork and score again; probe what is exhausted; an arm that begins when the other is done."""
    root = grow(None, 9, 0, scores=(0.5,))
    forks = [grow(root, tokens, 0, scores=(0.5,)) for tokens in (4, 6)]
    leaves = [grow(fork, 3, 1, scores=(0.5,)) for fork in forks]
    other = grow(None, 2, 0, arm=1, scores=(0.5,))
    index = made(root, *forks, *leaves, other, grow(other, 1, 1, end=1, arm=1), has_scores=True)

    async def solve(ep):
        (a,) = await ep.branch(1, probe=False)
        await ep.score([a])
        (b,) = await ep.fork(a, 1, probe=False)
        (c,), _ = await ep.together(ep.fork(b, 1), ep.score([a]))
        await ep.score([b, c])
        await ep.extend([a, c], 9, probe=False)
        assert ep.done[c] == "exhausted"
        (d,), _ = await ep.together(ep.branch(1, arm=1), ep.probe([b, a]))
        await ep.probe([c])
        ep.prune([b, c, a])
        await ep.extend([d, b], probe=False)

    async def one_after_the_other(ep):
        (a,) = await ep.branch(1, probe=False)
        ep.prune([a])
        await ep.branch(1, probe=False, arm=1)

    for play in (solve, one_after_the_other):
        playback = play_on(index, play, problems=(0, 0), seeds=(0, 1), max_branches=2)
        assert playback.errors == {}
        compare(playback.replay, files, prm=True)


def test_a_log_has_a_row_for_each_branch_of_each_action(example):
    shown = np.array([example.round, example.kind, example.branch, example.parent, example.context])
    rows = [
        (0, "branch", 0, -1, 0), (0, "branch", 1, -1, 0),
        (1, "fork", 2, 0, 10), (1, "fork", 3, 0, 10), (1, "extend", 1, -1, 20),
        (2, "prune", 0, -1, 10), (2, "prune", 3, -1, 15), (2, "finish", 2, -1, 15),
        (3, "score", 2, -1, 30),
    ]  # fmt: skip
    assert len(example) == 2
    assert example.episode.tolist() == [0] * 9 + [1] * 9
    assert shown.T.tolist() == [[a, KINDS.index(b), *rest] for a, b, *rest in rows] * 2
    assert example.asks.tolist() == [True, True, *[False] * 7] * 2
