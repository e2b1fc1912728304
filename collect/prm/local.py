"""A PRM in a vLLM engine of this process: one pass a path, and shared beginnings only once."""

import gc
import hashlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from collect.engine import EngineError
from collect.local import prepare
from collect.prm.registry import Kind, Tagged, find_kind
from collect.prm.scorer import KNOWN, Item
from env.errors import UserError

# As for sampling (`collect.local`): the CPU build's own block of 128 tokens is longer than many prefixes.
_CPU_ARGUMENTS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "block_size": 32,
    "kv_cache_memory_bytes": 256 << 20,
}


class LocalScorer:
    """Scores with a checkpoint of one of the `collect.prm.registry.KINDS`; see `Scorer`.

    vLLM's step pooling is not used. It searches the prompt for the tag, so a tag inside a question or a step
    shifts all scores and a wrong one gives none; and it recomputes what the prefix cache has, since the cache
    keeps no outputs. Here every computed token's output comes back, those at known positions are read, and
    what the cache skipped was read in the request that computed it.
    """

    def __init__(
        self,
        model: str,
        kind: str | None,
        engine_args: Mapping[str, Any],
        window: int | None,
        step_tag: str | None,
    ) -> None:
        self._kind, _ = load_kind(model, kind, engine_args, step_tag)
        self.name, self.kind = model, self._kind.name
        self.steps = self.unscored = self.tokens = 0
        self._llm: Any = _engine(model, {**self._kind.engine_args(), **engine_args})
        context: int = self._llm.model_config.max_model_len
        self.context: int | None = context
        self._limit = min(context, window or context)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def score(self, items: Sequence[Item]) -> list[list[float | None]]:
        """See `Scorer.score`."""
        paths = [self._cut(self._kind.read(*item)) if item[1] else Tagged([], []) for item in items]
        names = [_prefixes(path) for path in paths]
        known: dict[bytes, float] = {}
        # What an earlier call left in the cache would be skipped without its scores being known.
        self._llm.reset_prefix_cache()
        self._run(_distinct(zip(paths, names, strict=True)), known, cached=True)
        # Paths that the engine had to interrupt: again, alone and in full.
        for each in zip(paths, names, strict=True):
            if any(name not in known for name in each[1]):
                self._run([each], known, cached=False)
        scores: list[list[float | None]] = []
        for (_, steps), own in zip(items, names, strict=True):
            scores.append([*(known[key] for key in own), *[None] * (len(steps) - len(own))])
            self.steps += len(steps)
            self.unscored += len(steps) - len(own)
        return scores

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

    def _cut(self, path: Tagged) -> Tagged:
        """The path up to the last tag that the model may read."""
        tags = [tag for tag in path.tags if tag < self._limit]
        return Tagged(path.ids[: tags[-1] + 1], tags) if tags else Tagged([], [])

    def _run(
        self, paths: Sequence[tuple[Tagged, list[bytes]]], known: dict[bytes, float], cached: bool
    ) -> None:
        """Scores what `known` does not have yet; the first score of a prefix is kept."""
        for (path, names), (probabilities, skipped) in zip(
            paths, self._encode([path.ids for path, _ in paths], cached), strict=True
        ):
            self.tokens += len(probabilities)
            if len(probabilities) != len(path.ids) - skipped:
                continue  # preempted: outputs of before and after, with overlaps that nobody reports
            for tag, name in zip(path.tags, names, strict=True):
                if tag >= skipped:
                    known.setdefault(name, float(probabilities[tag - skipped, 1]))

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
                f"vLLM stopped: {_line(error)}; run the same command again, and if memory ran out add "
                "--prm-engine-arg max_num_seqs=16 or --prm-window"
            ) from error
        return [(output.outputs.data.float().numpy(), output.num_cached_tokens or 0) for output in outputs]

    def _check(self) -> None:
        """Raises UserError unless the model gives two probabilities a token, which is what a PRM does."""
        path = self._kind.read(*KNOWN)
        ((found, _),) = self._encode([path.ids], cached=False)
        if found.shape != (len(path.ids), 2) or not (abs(found.sum(axis=1) - 1) < 1e-3).all():
            raise UserError(
                f"{self.name} is no PRM of the kind {self.kind}: on a known input its output has the shape "
                f"{found.shape} where two probabilities were expected for each of {len(path.ids)} tokens; "
                "check --prm and --prm-kind"
            )


def _prefixes(path: Tagged) -> list[bytes]:
    """A name for the path up to each tag, the same wherever the token ids are."""
    digest, names, start = hashlib.blake2b(digest_size=16), [], 0
    for tag in path.tags:
        digest.update(array("q", path.ids[start : tag + 1]).tobytes())
        names.append(digest.digest())
        start = tag + 1
    return names


def _distinct(paths: Iterable[tuple[Tagged, list[bytes]]]) -> list[tuple[Tagged, list[bytes]]]:
    """Paths with the same beginning side by side; without those that another begins with."""
    ordered = sorted((each for each in paths if each[1]), key=lambda each: each[0].ids)
    kept = [each for each, (after, _) in pairwise(ordered) if after.ids[: len(each[0].ids)] != each[0].ids]
    return kept + ordered[-1:]


def load_kind(
    model: str, kind: str | None, engine_args: Mapping[str, Any], step_tag: str | None
) -> tuple[Kind, int | None]:
    """What can be known of a checkpoint without its weights: how to ask it, and its context in tokens.

    Raises:
        EngineError: vLLM is not installed.
        UserError: there is no such model, it is no PRM, or it does not know its step tag.
    """
    try:
        prepare()
        from transformers import AutoTokenizer, PretrainedConfig
    except (EngineError, ImportError):
        raise EngineError(
            "PRM scores need vLLM: run `pip install 'autotts[gpu]'`, or 'autotts[cpu]' without a GPU"
        ) from None
    try:
        config = PretrainedConfig.get_config_dict(model)[0]
        if not config:
            raise OSError("it has no config.json")
    except (OSError, ValueError) as error:
        raise UserError(f"there is no PRM {model}: {_line(error)}; check the name or the path") from error
    found = find_kind(model, config, kind)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            engine_args.get("tokenizer", model), trust_remote_code=bool(engine_args.get("trust_remote_code"))
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"the PRM {model} has no tokenizer that can be read: {_line(error)}; put one into its folder"
        ) from error
    bound = found(model, config, tokenizer, step_tag)
    bound.read(*KNOWN)
    return bound, engine_args.get("max_model_len", config.get("max_position_embeddings"))


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
            f"vLLM cannot load the PRM {model}: {_line(error)}; check --prm and --prm-engine-arg"
        ) from error


def _line(error: Exception) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
