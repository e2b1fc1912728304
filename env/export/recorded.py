"""Settings that a collection was made with, and how a reward model is asked."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from env.errors import UserError
from env.export.settings import Settings
from env.index import Index
from env.store import Store

SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "max_tokens",
    "seed",
)


def recorded(store: Store) -> Settings:
    """How a store's branches were asked for, drawn, cut and probed, by default where it does not say.

    A program may open as many branches as in a replay of every problem. Of several arms the first counts.
    """
    return Settings(**said(store), max_branches=int(Index.build(store.forest()).ceilings.min()))


def said(store: Store) -> dict[str, Any]:
    """The settings that a store says itself, by their names in `Settings`; an imported one says few."""
    meta = store.meta
    recipe: Mapping[str, Any] = meta["provenance"].get("recipe") or {}
    arm: Mapping[str, Any] = next(iter(meta["arms"]), {})
    prompt, sampling = arm.get("prompt"), meta["sampling"] or {}
    found: dict[str, Any] = {name: sampling[name] for name in SAMPLING if sampling.get(name) is not None}
    if ends := arm.get("stop_token_ids"):
        found["stop_token_ids"] = tuple(ends)
    if meta["segment_tokens"] is not None:
        found["segment_tokens"] = meta["segment_tokens"]
    if isinstance(prompt, Mapping) and "text" in prompt:
        found |= {"prompt": prompt["text"], "system": prompt["system"], "think_tags": tuple(prompt["tags"])}
        found["chat_template_args"] = dict(prompt["arguments"])
    if segments := recipe.get("segments"):
        found |= {"segment_steps": segments["steps"], "separator": segments["separator"]}
    if probing := recipe.get("probing"):
        found |= {"probe_text": probing["opening"], "probe_tokens": probing["max_tokens"]}
    if drawing := recipe.get("drawing"):
        found |= {"confidence_top": drawing["top_logprobs"], "confidence_window": drawing["window"]}
    return found


def with_prm(
    settings: Settings, model: str, kind: str | None, recipe: Mapping[str, Any] | None = None
) -> Settings:
    """Settings that say how a reward model is asked.

    Args:
        settings: without that.
        model: its name, or the folder of its checkpoint.
        kind: "qwen-prm" or "token-classifier"; None = by its name or its architecture.
        recipe: how a collection asked it.

    Raises:
        UserError: it is of a kind that cannot be asked without its tokenizer at hand.
    """
    recipe = recipe or {}
    config = _read(Path(model) / "config.json")
    kind = kind or recipe.get("kind") or _kind(model, config)
    tag, separator = recipe.get("step_tag"), recipe.get("separator", settings.separator)
    if settings.segment_steps and separator != settings.separator:
        raise UserError(
            f"steps end with {settings.separator!r} for segments and {separator!r} for the reward model"
        )
    settings = replace(settings, separator=separator, prm_window=recipe.get("window"))
    if kind == "qwen-prm":
        return replace(settings, prm_step_tag=tag or config.get("step_separator", "<extra_0>"))
    if kind != "token-classifier" or not config:
        raise UserError(
            f"the reward model {model} cannot be asked without AutoTTS: it must be a qwen-prm, or a "
            "token-classifier in a folder that --prm names; choose a controller without `score`"
        )
    # A tokenizer puts this before every text, and TRL before the question alone.
    first = _read(Path(model) / "tokenizer_config.json").get("bos_token") or ""
    first = first if isinstance(first, str) else first["content"]
    prompt = first + config.get("prompt_template", "{question}")
    return replace(settings, prm_prompt=prompt, prm_step_tag=tag or config.get("step_separator", "\n"))


def _kind(model: str, config: Mapping[str, Any]) -> str:
    (architecture, *_) = config.get("architectures") or [""]
    if architecture == "Qwen2ForProcessRewardModel" or "Qwen2.5-Math-PRM" in model:
        return "qwen-prm"
    return "token-classifier" if architecture.endswith("ForTokenClassification") else architecture


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
