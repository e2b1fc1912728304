"""Replay against a plain simulation: `python -m tests.benchmarks.replay_speed [--episodes N]` from the root.

Episodes of one store (its problems x as many seeds as it takes), the five published controllers at 64
branches, confidence momentum at beta 0.5, under the published protocol. The plain simulation
(tests/simulations.py) is what one would write first: an object a branch, a call a probe, on one core, its
confidence tabulated. Strict isolation and in-process replay use `--workers` processes. All three take turns,
`--repeats` times, and medians count; all must come to the same answers and tokens. Starting processes,
importing and loading are left out.
"""

import argparse
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from collect.importers.autotts import import_files
from env.evaluate import evaluate
from env.program import Program
from env.store import Store
from tests import simulations
from tests.forests import Recording

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    name: simulations.momentum_settings(0.5) if name == "confidence_momentum" else {"max_branches": 64}
    for name in simulations.CONTROLLERS
}
REPLAYED = {"strict": "strict isolation", "none": "in-process"}


def loop(_: int = 0) -> float:
    """Seconds that this machine takes for a fixed piece of pure Python."""
    started, total = time.perf_counter(), 0
    for k in range(3_000_000):
        total += k & 7
    return time.perf_counter() - started


def calibrate(when: str, workers: int) -> None:
    """Show how fast the machine is now, alone and with all workers busy."""
    alone = min(loop() for _ in range(3))
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(loop, range(workers), chunksize=1)
        together = max(pool.map(loop, range(workers), chunksize=1))
    print(f"calibration {when}: a fixed loop takes {alone:.3f} s alone, {together:.3f} s {workers} at once")


def plain(name: str, problems: list, golds: list[str], seeds: range, interval: int) -> tuple[float, int, int]:
    """Seconds, right answers and tokens of the plain simulation."""
    controller, settings = simulations.CONTROLLERS[name], SETTINGS[name]
    right = tokens = 0
    started = time.perf_counter()
    for seed in seeds:
        for branches, gold in zip(problems, golds, strict=True):
            order = list(range(len(branches)))
            random.Random(seed).shuffle(order)
            game = simulations.Game([branches[k] for k in order], interval)
            right += controller(game, **settings) == gold
            tokens += game.tokens
    return time.perf_counter() - started, right, tokens


def replay(store: Store, name: str, seeds: range, isolation: str, workers: int) -> tuple[float, int, int]:
    """Seconds, right answers and tokens of replay."""
    path = ROOT / "controllers" / f"{name}.py"
    program = Program(name, path.read_text(encoding="utf-8"), trusted=True, path=path)
    settings = {} if name == "confidence_momentum" else SETTINGS[name]
    started = time.perf_counter()
    frame = evaluate(
        [store], [program], betas=[0.5], settings=settings, seeds=seeds, protocol="published",
        isolation=isolation, workers=workers,
    ).frame  # fmt: skip
    took = time.perf_counter() - started
    assert frame["error"].unique().to_list() == [""], frame["error"].unique().to_list()
    return took, int(frame["correct"].sum()), int(frame["tokens"].sum())


def main() -> int:
    """Run the benchmark; the exit code says whether it was fast enough and right."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=30_000, help="a setting; default: 30,000")
    parser.add_argument("--recording", default="Qwen3-1.7B/aime24", help="default: Qwen3-1.7B/aime24")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    file = Path(os.environ.get("AUTOTTS_REPLAY_DIR", ROOT.parent / "shared" / "replay"))
    file /= f"{options.recording}.json"
    recorded = json.loads(file.read_text(encoding="utf-8"))
    problems = [[Recording(*branch) for branch in problem["each_branch"]] for problem in recorded]
    golds = [problem["gold_answer"] for problem in recorded]
    interval = recorded[0]["probe_freq"]
    seeds = range(max(1, options.episodes // len(problems)))
    calibrate("before", options.workers)
    took: dict[tuple[str, str], list[float]] = defaultdict(list)
    wrong = False
    with tempfile.TemporaryDirectory() as folder:
        import_files([file], Path(folder) / "store")
        store = Store.open(Path(folder) / "store")
        for isolation in REPLAYED:
            warm = range(100 * options.workers)
            replay(store, "self_consistency", warm, isolation, options.workers)
        print(f"{len(seeds) * len(problems)} episodes a setting, {options.workers} workers; seconds:")
        for _ in range(options.repeats):
            for name in simulations.CONTROLLERS:
                seconds, *expected = plain(name, problems, golds, seeds, interval)
                took[name, "plain"].append(seconds)
                line = f"  {name:<27}plain {seconds:7.2f}"
                for isolation, what in REPLAYED.items():
                    seconds, *came_to = replay(store, name, seeds, isolation, options.workers)
                    took[name, isolation].append(seconds)
                    line += f"   {what} {seconds:7.2f}"
                    wrong |= came_to != expected
                    if came_to != expected:
                        line += f" WRONG: {came_to}, not {expected}"
                print(line, flush=True)
    calibrate("after", options.workers)
    print(f"\nmedians of {options.repeats}     {'plain':>20}{'strict':>12}{'in-process':>20}")
    totals: dict[str, float] = defaultdict(float)
    for name in simulations.CONTROLLERS:
        medians = {how: statistics.median(took[name, how]) for how in ("plain", *REPLAYED)}
        for how, seconds in medians.items():
            totals[how] += seconds
        print(shown(name, medians))
    print(shown("all five", totals))
    drift = [sum(took[name, "plain"][k] for name in simulations.CONTROLLERS) for k in (0, -1)]
    print(f"plain, first and last turn: {drift[0]:.1f} s, {drift[1]:.1f} s")
    ratios = {how: totals["plain"] / totals[how] for how in REPLAYED}
    enough = ratios["strict"] >= 1.5 and ratios["none"] >= 2.5
    print(f"strict isolation {ratios['strict']:.2f} times as fast (1.5 wanted), ", end="")
    print(f"in-process {ratios['none']:.2f} times (2.5 wanted): {'fast enough' if enough else 'TOO SLOW'}")
    return int(wrong or not enough)


def shown(name: str, seconds: dict[str, float]) -> str:
    """A line of the table."""
    ratios = {how: f"{seconds[how]:.2f} ({seconds['plain'] / seconds[how]:.2f}x)" for how in REPLAYED}
    return f"{name:<27}{seconds['plain']:9.2f}{ratios['strict']:>17}{ratios['none']:>17}"


if __name__ == "__main__":
    sys.exit(main())
