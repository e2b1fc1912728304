"""Scoring by passes over whole paths: which there are, what is read of each, and which need none."""

import hashlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from collect.prm.registry import Kind, Tagged, find_kind
from collect.prm.scorer import KNOWN, Item
from env.errors import UserError


class PathScorer(ABC):
    """A checkpoint of one of the `collect.prm.registry.KINDS`, wherever it runs; see `Scorer`.

    vLLM's step pooling is not used. It searches the prompt for the tag, so a tag inside a question or a step
    shifts all scores and a wrong one gives none. Here every computed token's output comes back, and those at
    known positions are read.

    Args:
        model: its name.
        kind: how it is asked.
        context: the most tokens that it can read.
        window: see `collect.prm.scorer.open_scorer`.
    """

    def __init__(self, model: str, kind: Kind, context: int, window: int | None) -> None:
        self._kind = kind
        self.name, self.kind = model, kind.name
        self.steps = self.unscored = self.tokens = 0
        self.context: int | None = context
        self._limit = min(context, window or context)

    def score(self, items: Sequence[Item]) -> list[list[float | None]]:
        """See `Scorer.score`."""
        paths = [self._cut(self._kind.read(*item)) if item[1] else Tagged([], []) for item in items]
        names = [_prefixes(path) for path in paths]
        known: dict[bytes, float] = {}
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

    @abstractmethod
    def close(self) -> None:
        """See `Scorer.close`."""

    @abstractmethod
    def _encode(self, prompts: list[list[int]], cached: bool) -> list[tuple[Any, int]]:
        """For each prompt float32[T, 2] of its last T tokens, and how many came before them."""

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
        ImportError: transformers is not installed.
        UserError: there is no such model, it is no PRM, or it does not know its step tag.
    """
    from transformers import AutoTokenizer, PretrainedConfig

    try:
        config = PretrainedConfig.get_config_dict(model)[0]
        if not config:
            raise OSError("it has no config.json")
    except (OSError, ValueError) as error:
        raise UserError(f"there is no PRM {model}: {line(error)}; check the name or the path") from error
    found = find_kind(model, config, kind)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            engine_args.get("tokenizer", model), trust_remote_code=bool(engine_args.get("trust_remote_code"))
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"the PRM {model} has no tokenizer that can be read: {line(error)}; put one into its folder"
        ) from error
    bound = found(model, config, tokenizer, step_tag)
    bound.read(*KNOWN)
    return bound, engine_args.get("max_model_len", config.get("max_position_embeddings"))


def line(error: Exception) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
