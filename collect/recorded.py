"""How a store was collected, read back from what it says of itself."""

from collections.abc import Mapping
from typing import Any

from collect.engine import Sampling
from collect.existing import Existing
from collect.plan import Arm, Plan, Segments
from collect.probes import Probing
from collect.problems import Source
from collect.prompts import Prompting
from collect.sampler import Drawing, Shape
from env.errors import UserError


def arms_of(existing: Existing, model: str | None, asked: Prompting) -> tuple[Arm, ...]:
    """The arms of a store.

    Args:
        existing: the store.
        model: where its model is; None = where it was when the store was made.
        asked: how questions were put, for stores that do not say, as imported ones.

    Raises:
        UserError: the store says that questions were put otherwise, or has several models.
    """
    recorded = existing.store.meta["arms"]
    if model is not None and len({arm["model"] for arm in recorded}) > 1:
        raise UserError(f"{existing.store.path} is of several models: leave out --model")
    arms = []
    for arm in recorded:
        prompting = prompting_of(arm.get("prompt"))
        if prompting is not None and asked not in (Prompting(), prompting):
            raise UserError(
                f"{existing.store.path} was collected with another prompt, {prompting.text!r} for one; leave "
                "out --prompt, --system, --chat-template-arg and --think-tags"
            )
        arms.append(Arm(model or arm["model"], prompting or asked))
    return tuple(arms)


def prompting_of(recorded: Any) -> Prompting | None:
    """How an arm's questions were put, None if the store does not say."""
    if not isinstance(recorded, Mapping) or "text" not in recorded:
        return None
    return Prompting(**{**recorded, "tags": tuple(recorded["tags"])})


def plan_of_recipe(recipe: Mapping[str, Any], arms: tuple[Arm, ...] | None = None) -> Plan:
    """The plan of a collection whose recipe this is.

    Args:
        recipe: of `Plan.recipe`, as it comes back from JSON.
        arms: in place of the recorded ones.
    """
    recorded = tuple(
        Arm(arm["model"], prompting_of(arm["prompting"]) or Prompting()) for arm in recipe["arms"]
    )
    source = {name: value for name, value in recipe["source"].items() if name not in ("count", "sha256")}
    shape, drawing = recipe["shape"], recipe["drawing"]
    return Plan(
        arms=arms or recorded,
        source=Source(**source),
        dataset=recipe["dataset"],
        task=recipe["task"],
        shape=Shape(
            shape["branches"],
            tuple(shape["fork_depths"]),
            tuple(shape["fork_widths"]),
            shape["max_nodes"],
        ),
        drawing=Drawing(**{**drawing, "sampling": Sampling(**drawing["sampling"])}),
        segments=Segments(**recipe["segments"]),
        probing=None if recipe["probing"] is None else Probing(**recipe["probing"]),
        group=recipe["group"],
        engine_arguments=dict(recipe["engine_arguments"]),
    )
