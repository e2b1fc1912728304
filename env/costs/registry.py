"""The costs by name, and what `--cost` may name: one of them with arguments, or a function of the user's."""

import importlib
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from env.costs.log import Floats, Log
from env.errors import UserError

Cost = Callable[..., Any]
COSTS: dict[str, Cost] = {}


def cost(function: Cost) -> Cost:
    """Make a function known by its name as a cost.

    It takes a `Log` and returns a number for each of its episodes, float64[E]; what it takes besides can be
    given behind the name, as in `--cost eflops:Qwen3-8B,intensity=295`.
    """
    COSTS[function.__name__] = function
    return function


def resolve(spec: str) -> Callable[[Log], Floats]:
    """The cost that `spec` names.

    NAME or NAME:VALUE,KEY=VALUE is one of `COSTS`, VALUE its first argument. FILE.py:FUNCTION or
    MODULE:FUNCTION is a function of the user's own, which takes a `Log` and returns a number an episode. It
    runs in this process with all rights: it is for whoever evaluates, not for controllers.

    Raises:
        UserError: nothing is called that, or it takes no such arguments. So does what is returned, when a
            function of the user's own raises or returns something else than a finite number for each episode.
    """
    import env.costs.catalogue  # noqa: F401  (it fills COSTS)

    name, _, rest = spec.partition(":")
    if name in COSTS:
        given = _arguments(name, rest)
        function = COSTS[name]
        return lambda log: function(log, **given)
    if ":" not in spec:
        raise UserError(
            f"no cost {spec!r}: choose {', '.join(COSTS)}; for a function of your own give "
            "FILE.py:FUNCTION or MODULE:FUNCTION"
        )
    own = _own(spec)
    return lambda log: _guarded(spec, own, log)


def check(spec: str, models: tuple[str, ...], prm_model: str | None) -> None:
    """See that a cost can be had of a store, before the work and not after it.

    Raises:
        UserError: as `resolve`, or what the cost needs to know of the store's models or files is missing.
    """
    function = resolve(spec)
    if spec.partition(":")[0] in COSTS:
        function(Log.empty(models, prm_model))


def _arguments(name: str, text: str) -> dict[str, Any]:
    """What stands behind a cost's name, by parameter."""
    parameters = list(inspect.signature(COSTS[name]).parameters.values())[1:]
    given: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            key, value = (parameters[0].name if parameters and not given else ""), part
        parameter = next((each for each in parameters if each.name == key), None)
        if parameter is None:
            takes = ", ".join(f"{each.name}=..." for each in parameters) or "nothing"
            raise UserError(f"the cost {name} does not take {part!r}: it takes {takes}")
        try:
            given[key] = parameter.annotation(value)
        except ValueError:
            raise UserError(f"{part!r} of the cost {name} must be a number") from None
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in given:
            raise UserError(
                f"the cost {name} needs its {parameter.name}: give {name}:{parameter.name.upper()}"
            )
    return given


def _own(spec: str) -> Cost:
    where, _, name = spec.rpartition(":")
    names: dict[str, Any] = {"__name__": Path(where).stem, "__file__": where}
    try:
        if where.endswith(".py"):
            exec(compile(Path(where).read_text(encoding="utf-8"), where, "exec"), names)
        else:
            names = vars(importlib.import_module(where))
    except Exception as error:
        raise UserError(
            f"the cost {spec} cannot be loaded ({type(error).__name__}: {error}); choose {', '.join(COSTS)}, "
            "or give FILE.py:FUNCTION or MODULE:FUNCTION"
        ) from None
    if not callable(names.get(name)):
        raise UserError(f"{where} has no function {name!r} to be a cost")
    function: Cost = names[name]
    return function


def _guarded(spec: str, function: Cost, log: Log) -> Floats:
    try:
        costs = np.asarray(function(log), np.float64)
    except Exception as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if spec.startswith(frame.filename)
        ]
        where = f" (line {lines[-1]})" if lines else ""
        raise UserError(f"the cost {spec} failed: {type(error).__name__}: {error}{where}") from error
    if costs.shape != (len(log),):
        raise UserError(
            f"the cost {spec} returned an array of shape {costs.shape}: expected a number for each episode, "
            f"here ({len(log)},)"
        )
    if not np.isfinite(costs).all():
        raise UserError(
            f"the cost {spec} returned {costs[~np.isfinite(costs)][0]}: finite numbers are expected"
        )
    return costs
