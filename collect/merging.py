"""The store that one run would have made, from the stores of all shards of it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from collect.existing import Existing
from collect.shards import Shard
from env.errors import UserError
from env.store_writer import StoreWriter

# What a description says of the problems that are there, which no two parts share.
_OWN = ("capabilities", "counts", "files", "provenance")


def merge(parts: Sequence[Path], out: Path, force: bool = False) -> None:
    """Makes the store that one run would have made of the stores of all its shards.

    Raises:
        UserError: the parts are not those of one collection, one is missing, or comes twice.
        StoreError: a part cannot be read, or the store not be written.
    """
    stores = [_open(part) for part in parts]
    recipe, shards = _agreed(parts, stores)
    if (missing := shards.of - len(parts)) > 0:
        have = {_shard(store).index for store in stores}
        names = [f"{index}/{shards.of}" for index in range(1, shards.of + 1) if index not in have]
        raise UserError(
            f"{missing} of {shards.of} shards are missing: {', '.join(names)}; collect them, or name them too"
        )
    meta = stores[0].store.meta
    with StoreWriter(
        out,
        model=meta["model"],
        dataset=meta["dataset"],
        task=meta["task"],
        segment_tokens=meta["segment_tokens"],
        segment_rule=meta["segment_rule"],
        sampling=meta["sampling"],
        provenance=meta["provenance"] | {"recipe": recipe},
        arms=meta["arms"],
        prm=meta["prm"],
        force=force,
    ) as writer:
        for store, numbers in _in_order(stores, recipe):
            trees = [store.nodes(number) for number in numbers]
            writer.expect(answer for nodes in trees for answer in nodes.answer if answer is not None)
            for number, nodes in zip(numbers, trees, strict=True):
                problem, prompt = store.problems[number], store.prompt_tokens[number]
                writer.add_problem(problem.question, problem.gold, nodes, prompt_tokens=prompt)


def _open(part: Path) -> Existing:
    if not part.exists() and part.with_name(f"{part.name}.collecting").exists():
        raise UserError(f"the shard {part} is not finished; run its command again, then merge")
    return Existing(part)


def _agreed(parts: Sequence[Path], stores: Sequence[Existing]) -> tuple[dict[str, Any], Shard]:
    """The recipe of the whole, and one of the shards. Raises UserError unless all are shards of one whole."""
    wholes = [_whole(part, store.store.meta) for part, store in zip(parts, stores, strict=True)]
    seen: dict[int, Path] = {}
    for part, store, whole in zip(parts, stores, wholes, strict=True):
        shard = _shard(store)
        if differences := [name for name in whole if whole[name] != wholes[0].get(name)]:
            raise UserError(
                f"{part} and {parts[0]} are not shards of the same collection: they differ in "
                f"{', '.join(differences)}; merge those that were made with the same options"
            )
        if shard.of != _shard(stores[0]).of:
            raise UserError(
                f"{part} is the shard {shard} and {parts[0]} is {_shard(stores[0])}; merge the shards of one "
                "division"
            )
        if shard.index in seen:
            raise UserError(f"{part} and {seen[shard.index]} are both the shard {shard}; name each once")
        seen[shard.index] = part
        groups = _groups(store.store.meta["provenance"]["recipe"])
        expected = sum(groups[group] for group in shard.groups(len(groups)))
        if len(store.problems) != expected:
            raise UserError(
                f"{part} has {len(store.problems)} problems where the shard {shard} has {expected}; "
                "collect it again"
            )
    recipe = dict(stores[0].store.meta["provenance"]["recipe"])
    del recipe["shard"]
    return recipe, _shard(stores[0])


def _whole(part: Path, meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a part's description says that holds of all parts, flat, by name."""
    provenance = meta["provenance"]
    if provenance.get("format") != "collect" or "shard" not in provenance["recipe"]:
        raise UserError(f"{part} is no shard; make shards with `autotts collect --shard i/n`")
    described = {name: value for name, value in meta.items() if name not in _OWN}
    return described | dict(
        _flat({"recipe": provenance["recipe"] | {"shard": None}, "prm": provenance.get("prm")})
    )


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def _shard(store: Existing) -> Shard:
    return Shard(**store.store.meta["provenance"]["recipe"]["shard"])


def _groups(recipe: Mapping[str, Any]) -> list[int]:
    """How many problems each group of the whole has, as `collect.plan.Plan.groups` divides them."""
    count, size = recipe["source"]["count"], recipe["group"]
    return [min(size, count - first) for first in range(0, count, size)]


def _in_order(
    stores: Sequence[Existing], recipe: Mapping[str, Any]
) -> Iterator[tuple[Existing, Sequence[int]]]:
    """All groups as one run does them: the shard that has one, and its problems' numbers there."""
    by_index = {_shard(store).index: store for store in stores}
    done = dict.fromkeys(by_index, 0)
    for group, problems in enumerate(_groups(recipe)):
        index = group % len(stores) + 1
        yield by_index[index], range(done[index], done[index] + problems)
        done[index] += problems
