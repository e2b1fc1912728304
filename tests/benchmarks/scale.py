"""What a store of very many problems costs in memory: written, opened, and a sample of it replayed.

    python tests/benchmarks/scale.py [--problems 100000] [--branches 16] [--segments 5] [--sample 200]

The rows are made up, no model is asked: chains with probes, step scores, log probabilities, confidences and
texts, every problem with answers of its own. `peak_mb` is the high-water mark of a process of its own, as the
kernel knows it (VmHWM), Python and its packages included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

SEGMENT = 500
MOST = 2e9


def write(store: str, problems: int, branches: int, segments: int) -> dict[str, float]:
    """Writes a store of chains of `segments` nodes each."""
    import numpy as np

    from env.nodes import Nodes
    from env.store_writer import StoreWriter

    rng = np.random.default_rng(0)
    count = branches * segments
    place = np.arange(count)
    ends = place % segments == segments - 1
    parent = np.where(place % segments == 0, -1, place - 1)
    text = [f"Step {n % segments}: so much for that, and on to the next.\n\n" for n in range(count)]
    began = time.perf_counter()
    with StoreWriter(
        store, model="m", dataset="d", task="exact", segment_tokens=SEGMENT, prm="prm"
    ) as writer:
        for number in range(problems):
            said = rng.integers(0, 6, count)
            writer.add_problem(
                f"What is {number} times {number}?",
                str(number * number),
                Nodes(
                    parent=parent,
                    tokens=np.where(ends, rng.integers(1, SEGMENT, count), SEGMENT),
                    answer=[str(number * number + wrong) for wrong in said.tolist()],
                    probed=~ends,
                    end=ends.astype(np.uint8),
                    probe_tokens=np.where(ends, -1, 7),
                    prm=rng.random((count, 1), np.float32).tolist(),
                    logprob=-rng.random(count, np.float32),
                    confidence=rng.random(count, np.float32),
                    text=text,
                ),
            )
    size = sum(file.stat().st_size for file in Path(store).rglob("*") if file.is_file())
    return {"seconds": time.perf_counter() - began, "store_mb": size / 1e6}


def open_it(store: str) -> dict[str, float]:
    """Opens a store and looks at what its problems are."""
    from env.store import Store

    began = time.perf_counter()
    opened = Store.open(store)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "problems": len(opened)}


def load(store: str) -> dict[str, float]:
    """Loads all trees."""
    from env.store import Store

    began = time.perf_counter()
    forest = Store.open(store).forest()
    return {"seconds": time.perf_counter() - began, "nodes": len(forest.parent)}


def replay(store: str, sample: int) -> dict[str, float]:
    """Plays a controller on a sample of the problems, as `autotts evaluate` does."""
    from env.evaluate import evaluate
    from env.program import Program
    from env.store import Store

    path = ROOT / "controllers/self_consistency.py"
    program = Program("self_consistency", path.read_text(), trusted=True, path=path)
    opened = Store.open(store)
    names = opened.problems["question_hash"].to_pylist()
    chosen = names[:: max(1, len(names) // sample)][:sample]
    began = time.perf_counter()
    frame = evaluate([opened], [program], betas=[0.5], seeds=range(5), problems=chosen, workers=1).frame
    assert (frame["error"] == "").all()
    return {"seconds": time.perf_counter() - began, "episodes": len(frame)}


def peak() -> float:
    """The most memory that this process has held, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024.0 * int(line.split()[1])
    raise KeyError("VmHWM")


def alone(function, *arguments) -> dict[str, float]:
    """Calls one of the functions above in a fresh process."""
    call = f"{function.__name__}(*{arguments!r})"
    code = f"import json; from tests.benchmarks.scale import *; r = {call}; r['peak_mb'] = peak() / 1e6"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(json.dumps(r))"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Runs it all; fails where something takes more than 2 GB."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("problems", 100_000), ("branches", 16), ("segments", 5), ("sample", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store"
        for name, function, arguments in (
            ("write", write, (store, args.problems, args.branches, args.segments)),
            ("open", open_it, (store,)),
            ("load", load, (store,)),
            ("replay", replay, (store, args.sample)),
        ):
            row = alone(function, *arguments)
            worst = max(worst, 1e6 * row["peak_mb"])
            print(f"{name:8}" + "".join(f"  {what} {value:.5g}" for what, value in row.items()), flush=True)
    print(f"worst: {worst / 1e9:.2f} GB, {'within' if worst <= MOST else 'MORE THAN'} {MOST / 1e9:.0f} GB")
    sys.exit(worst > MOST)


if __name__ == "__main__":
    main()
