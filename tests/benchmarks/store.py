"""What a store costs: importing, opening, loading, in time and memory, up to 30,000 problems.

    python tests/benchmarks/store.py [--replay DIR] [--problems 30 300 3000 30000]

Every figure is taken in a process of its own. `resident_mb` is the kernel's high-water mark while the forest
loads, over what the process held before: below ten megabytes it is the price of running the code at all.
`allocated_over_arrays` is the most that Python, NumPy and Arrow had allocated, over the forest's arrays.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

BRANCHES = 16


def import_once(file: str, store: str) -> dict[str, float]:
    """Imports a published file, the start of its worker process included."""
    from collect.importers.autotts import import_files

    began = time.perf_counter()
    import_files([file], store)
    return {"wall_s": time.perf_counter() - began}


def tile(file: str, store: str, problems: int) -> dict[str, float]:
    """Writes a store of that many problems: copies of a recording's, a few branches of each."""
    from collect.importers.autotts import _nodes
    from env.store_writer import StoreWriter

    recording = json.loads(Path(file).read_text())
    trees = [_nodes(problem["each_branch"][:BRANCHES], problem["probe_freq"]) for problem in recording]
    began = time.perf_counter()
    with StoreWriter(store, model="m", dataset="d", task="exact", segment_tokens=500) as writer:
        for number in range(problems):
            nodes, problem = trees[number % len(trees)], recording[number % len(trees)]
            question = f"{problem['question']} ({number})"
            writer.add_problem(question, problem["gold_answer"], nodes, unparsed=["ERR"])
    return {"wall_s": time.perf_counter() - began, "peak_mb": status("VmHWM") / 1e6}


def load(store: str) -> dict[str, float]:
    """Opens and loads a store, after a tiny one: what a process pays once is no part of a store's price."""
    import numpy as np

    from env.nodes import Nodes
    from env.store import Store
    from env.store_writer import StoreWriter

    with tempfile.TemporaryDirectory() as folder:
        with StoreWriter(f"{folder}/s", model="m", dataset="d", task="exact") as writer:
            writer.add_problem("q", "1", Nodes([-1], [1], ["1"], [True], end=[1]))
        Store.open(f"{folder}/s").forest()
    began = time.perf_counter()
    opened = Store.open(store)
    opened_s = time.perf_counter() - began
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    began = time.perf_counter()
    forest = opened.forest()
    loaded_s = time.perf_counter() - began
    resident = status("VmHWM") - before
    arrays = sum(values.nbytes for values in vars(forest).values() if isinstance(values, np.ndarray))
    arrays += forest.raw_strings.nbytes
    return {
        "open_ms": 1000 * opened_s,
        "load_s": loaded_s,
        "nodes": len(forest.parent),
        "arrays_mb": arrays / 1e6,
        "resident_mb": resident / 1e6,
        "allocated_over_arrays": allocated(store) / arrays,
    }


def allocated(store: str) -> int:
    """The most bytes that loading a store holds at once, counted by the allocators."""
    import pyarrow as pa

    from env.store import Store

    pool = pa.system_memory_pool()
    tracemalloc.start()
    Store.open(store).forest()
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return python + pool.max_memory()


def status(field: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise KeyError(field)


def alone(function, *arguments) -> dict[str, float]:
    """Calls one of the functions above in a fresh process."""
    call = f"{function.__name__}(*{arguments!r})"
    code = f"import json; from tests.benchmarks.store import *; print(json.dumps({call}))"
    began = os.times()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    ended = os.times()
    cpu = ended.children_user + ended.children_system - began.children_user - began.children_system
    return json.loads(done.stdout.splitlines()[-1]) | {"process_cpu_s": cpu}


def show(label: str, row: dict[str, float]) -> None:
    """Prints a row."""
    print(f"{label:24}" + "".join(f"  {name} {value:.4g}" for name, value in row.items()), flush=True)


def main() -> None:
    """Runs it all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("AUTOTTS_REPLAY_DIR", ROOT.parent / "shared" / "replay")
    parser.add_argument("--replay", type=Path, default=default, help="the published recordings")
    parser.add_argument("--problems", type=int, nargs="*", default=[30, 300, 3000, 30000])
    args = parser.parse_args()
    files = sorted(args.replay.glob("*/*.json"))
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            store = f"{folder}/{file.parent.name}-{file.stem}"
            show(f"import {file.parent.name} {file.stem}", alone(import_once, str(file), store))
            show("  load", alone(load, store))
        for problems in args.problems:
            store = f"{folder}/{problems}"
            show(f"write {problems} problems", alone(tile, str(files[0]), store, problems))
            show("  load", alone(load, store))


if __name__ == "__main__":
    main()
