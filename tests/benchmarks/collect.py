"""How fast a whole collection is beside a bare `LLM.generate` of the very same requests.

    python tests/benchmarks/collect.py [MODEL] [--problems 24] [--branches 16] [--max-tokens 400] ...

Without MODEL: two layers with random weights, the hardest case, since then every line of Python counts. Both
run in one process, one after the other, from a cold prefix cache; the time to load is in neither.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from collect.local import LocalEngine, prepare  # noqa: E402

prepare()

from vllm_models import SMALL, make_model, make_prm  # noqa: E402

from collect.collection import Collection, Scoring  # noqa: E402
from collect.engine import Request, Sampling  # noqa: E402
from collect.local import parameters  # noqa: E402
from collect.plan import Arm, Plan, Segments  # noqa: E402
from collect.prm.scorer import open_scorer  # noqa: E402
from collect.probes import Probing  # noqa: E402
from collect.problems import Problem, Source, load_problems  # noqa: E402
from collect.prompts import Prompting  # noqa: E402
from collect.sampler import Drawing, Shape  # noqa: E402
from env.tasks import load_task  # noqa: E402


class Recording(LocalEngine):
    """Remembers what it was asked, and is not closed by a collection."""

    def __init__(self, model, arguments) -> None:
        super().__init__(model, 20, arguments)
        self.asked: list[Request] = []

    def submit(self, requests):
        self.asked += requests
        return super().submit(requests)

    def close(self) -> None:
        pass

    def bare(self) -> tuple[int, float, float]:
        """Tokens and seconds of one `LLM.generate` with all of it."""
        self._llm.reset_prefix_cache()
        prompts = [{"prompt_token_ids": list(request.prompt)} for request in self.asked]
        settings = [parameters(request) for request in self.asked]
        begin = seconds()
        outputs = self._llm.generate(prompts, settings, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs), *since(begin)


def seconds() -> tuple[float, float]:
    """By the clock, and of this process: on a busy machine only the second says much."""
    return time.perf_counter(), time.process_time()


def since(begin: tuple[float, float]) -> tuple[float, ...]:
    return tuple(now - then for now, then in zip(seconds(), begin, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    for name, default in (("problems", 24), ("branches", 16), ("max-tokens", 400), ("segment-tokens", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--probe-tokens", type=int, default=10)
    parser.add_argument("--file", help="of problems; default: made-up ones")
    parser.add_argument("--prm", action="store_true", help="score steps too, with random weights")
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        model = args.model or str(make_model(folder / "model"))
        settings = SMALL | {"max_num_seqs": 64}
        plan = Plan(
            arms=(Arm(model, Prompting("{question}")),),
            source=Source("made-up"),
            dataset="made-up",
            task="exact",
            shape=Shape(args.branches, (1,), (2,)),
            drawing=Drawing(Sampling(), args.max_tokens),
            segments=Segments(args.segment_tokens),
            probing=Probing(max_tokens=args.probe_tokens),
            engine_arguments=settings,
        )
        problems = [Problem(f"What is {n} + {n}?", str(2 * n)) for n in range(args.problems)]
        if args.file:
            problems = load_problems(Source(args.file, limit=args.problems), load_task("exact"))
        scoring = None
        if args.prm:
            scorer = open_scorer(
                str(make_prm(folder / "prm")), engine_args=settings | {"dtype": "float32", "block_size": 32}
            )
            scorer.close = lambda: None
            scoring = Scoring(lambda: scorer, {"model": "random"}, " ", "random")
        engine = Recording(model, settings)
        engine.submit([])
        collection = Collection(plan, problems, folder / "store", scoring)
        begin = seconds()
        collection.run(lambda arm: engine)
        whole, whole_cpu = since(begin)
        tokens, bare, bare_cpu = engine.bare()
    tally = collection.tally
    assert tokens == tally.decoded_tokens
    print(
        json.dumps(
            {
                "requests": tally.requests,
                "tokens": tokens,
                "collection_tokens_per_s": round(tokens / whole),
                "bare_tokens_per_s": round(tokens / bare),
                "ratio": round(bare / whole, 3),
                "ratio_of_cpu_time": round(bare_cpu / whole_cpu, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
