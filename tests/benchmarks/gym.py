"""Steps a second of the Gymnasium environments: `python -m tests.benchmarks.gym [STORE]` from the root.

Without a store, imports one of the recordings in AUTOTTS_REPLAY_DIR (default ../shared/replay). What counts
is the processor time that this process spends in `step` and `reset`, not in choosing actions, and nothing
here uses a second core. Two agents: `random` takes any action that the mask allows; `wide` opens 64
branches, then takes all of them a segment further and asks them in turn, so that each of its steps is about
64 branches. The targets, 20,000 single and 300,000 in a vector of 1,024, are held against the median block
of the random one; the best block tells how much other work on the machine took away.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import gymnasium
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
ID = "autotts:AutoTTS/Replay-v0"
ENVS = 1024
TARGETS = {"single": 20_000, "vector": 300_000}
BLOCKS, WARM_UP = 30, 10


def wide(actions: tuple[str, ...]) -> list[int]:
    """What the agent `wide` does, the first that the mask allows."""
    return [actions.index(name) for name in ("open 64", "probe all", "extend all", "answer")]


def pick(mask: np.ndarray, rng: np.random.Generator) -> int:
    """Any action that the mask allows."""
    allowed = np.flatnonzero(mask)
    return int(allowed[int(rng.random() * len(allowed))])


def pick_all(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same for many."""
    ordinal = masks.cumsum(axis=1, dtype=np.int32)
    chosen = (rng.random(len(masks)) * ordinal[:, -1]).astype(np.int32)
    return (ordinal <= chosen[:, None]).sum(axis=1)


def single(store: str, agent: str) -> Iterator[float]:
    """Steps a second of blocks of 1,000 steps; an episode that ends is followed by a `reset`, in the time."""
    env = gymnasium.make(ID, store=store)
    plan, rng = wide(env.unwrapped.actions), np.random.default_rng(0)
    _, info = env.reset(seed=0)
    for _ in range(BLOCKS):
        spent = 0.0
        for _ in range(1000):
            mask = info["action_mask"]
            action = pick(mask, rng) if agent == "random" else next(a for a in plan if mask[a])
            began = time.process_time()
            _, _, over, _, info = env.step(action)
            if over:
                _, info = env.reset()
            spent += time.process_time() - began
        yield 1000 / spent


def vector(store: str, agent: str) -> Iterator[float]:
    """The same for blocks of 10 steps of all environments."""
    envs = gymnasium.make_vec(ID, num_envs=ENVS, vectorization_mode="vector_entry_point", store=store)
    plan, rng = wide(envs.unwrapped.actions), np.random.default_rng(0)
    _, info = envs.reset(seed=0)
    for _ in range(BLOCKS):
        spent = 0.0
        for _ in range(10):
            masks = info["action_mask"]
            if agent == "random":
                actions = pick_all(masks, rng)
            else:
                actions = np.array(plan)[masks[:, plan].argmax(axis=1)]
            began = time.process_time()
            *_, info = envs.step(actions)
            spent += time.process_time() - began
        yield 10 * ENVS / spent


def measure(store: str) -> bool:
    """Print a line a measurement; returns whether the targets are met."""
    met = True
    for kind, blocks in {"single": single, "vector": vector}.items():
        run: Callable[[str, str], Iterator[float]] = blocks
        for agent in ("random", "wide"):
            rates = list(run(store, agent))[WARM_UP:]
            line = f"{kind:6}  {agent:6}  {median(rates):9,.0f} steps/s  (best block {max(rates):9,.0f})"
            if agent == "random":
                verdict = median(rates) >= TARGETS[kind]
                line += f"  target {TARGETS[kind]:,}: {'met' if verdict else 'MISSED'}"
                met &= verdict
            print(line, flush=True)
    return met


def main() -> int:
    """Measure on the given store, or on one imported for it; the exit code says whether targets are met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", nargs="?", help="a store with 128 branches a problem")
    store = parser.parse_args().store
    if store:
        return not measure(store)
    from collect.importers.autotts import import_files

    replay = Path(os.environ.get("AUTOTTS_REPLAY_DIR", ROOT.parent / "shared" / "replay"))
    with tempfile.TemporaryDirectory() as folder:
        import_files([replay / "Qwen3-1.7B" / "aime24.json"], f"{folder}/store")
        return not measure(f"{folder}/store")


if __name__ == "__main__":
    sys.exit(main())
