"""A PRM in a vLLM engine of this process: one pass a path, and shared beginnings only once."""

import gc
from collections.abc import Mapping, Sequence
from typing import Any

from collect.engine import EngineError
from collect.local import prepare
from collect.prm import passes
from collect.prm.passes import PathScorer, line
from collect.prm.registry import Kind
from collect.prm.scorer import Item

# As for sampling (`collect.local`): the CPU build's own block of 128 tokens is longer than many prefixes.
_CPU_ARGUMENTS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "block_size": 32,
    "kv_cache_memory_bytes": 256 << 20,
}


class LocalScorer(PathScorer):
    """Scores with a checkpoint that it loads; see `Scorer`.

    The prefix cache keeps no outputs, so vLLM's step pooling recomputes what is in it. Here what the cache
    skipped was read in the request that computed it.
    """

    def __init__(
        self,
        model: str,
        kind: str | None,
        engine_args: Mapping[str, Any],
        window: int | None,
        step_tag: str | None,
    ) -> None:
        found, _ = load_kind(model, kind, engine_args, step_tag)
        self._llm: Any = _engine(model, {**found.engine_args(), **engine_args})
        super().__init__(model, found, self._llm.model_config.max_model_len, window)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def score(self, items: Sequence[Item]) -> list[list[float | None]]:
        """See `Scorer.score`."""
        # What an earlier call left in the cache would be skipped without its scores being known.
        self._llm.reset_prefix_cache()
        return super().score(items)

    def close(self) -> None:
        """Stop the engine; what it held on a GPU is free for the next one."""
        llm, self._llm = self._llm, None
        if llm is None:
            return
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _encode(self, prompts: list[list[int]], cached: bool) -> list[tuple[Any, int]]:
        """For each prompt float32[T, 2] of its last T tokens, and how many came before them."""
        if not prompts:
            return []
        from vllm import PoolingParams

        parameters = PoolingParams(task="token_classify", skip_reading_prefix_cache=not cached)
        try:
            outputs = self._llm.encode(
                [{"prompt_token_ids": ids} for ids in prompts],
                parameters,
                pooling_task="token_classify",
                use_tqdm=False,
            )
        except Exception as error:
            raise EngineError(
                f"vLLM stopped: {line(error)}; run the same command again, and if memory ran out add "
                "--prm-engine-arg max_num_seqs=16 or --prm-window"
            ) from error
        return [(output.outputs.data.float().numpy(), output.num_cached_tokens or 0) for output in outputs]


def load_kind(
    model: str, kind: str | None, engine_args: Mapping[str, Any], step_tag: str | None
) -> tuple[Kind, int | None]:
    """As `collect.prm.passes.load_kind`. Raises EngineError if vLLM is not installed."""
    try:
        prepare()
        return passes.load_kind(model, kind, engine_args, step_tag)
    except (EngineError, ImportError):
        raise EngineError(
            "PRM scores need vLLM: run `pip install 'autotts[gpu]'`, or 'autotts[cpu]' without a GPU"
        ) from None


def _engine(model: str, engine_args: Mapping[str, Any]) -> Any:
    on_cpu = prepare()
    try:
        from vllm import LLM
        from vllm.config import PoolerConfig

        own: dict[str, Any] = {
            "runner": "pooling",
            "pooler_config": PoolerConfig(task="token_classify", tok_pooling_type="ALL"),
            "enable_prefix_caching": True,
            **(_CPU_ARGUMENTS if on_cpu else {}),
        }
        return LLM(model, **(own | dict(engine_args)))
    # Files, memory, arguments: vLLM raises whatever comes.
    except Exception as error:
        raise EngineError(
            f"vLLM cannot load the PRM {model}: {line(error)}; check --prm and --prm-engine-arg"
        ) from error
