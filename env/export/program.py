"""The controller, the settings and the beta that it was exported with."""

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from env.export.settings import Settings


class Controller(NamedTuple):
    """A controller: its settings at a beta, and the coroutine that plays an episode with them."""

    schedule: Callable[[float], dict[str, Any]]
    solve: Callable[..., Coroutine[Any, Any, int | None]]


BETA = 0.5
NEEDS: frozenset[str] = frozenset()
SETTINGS = Settings()


def controller() -> Controller:
    """One branch, which is what a model does without a controller."""

    def schedule(beta: float) -> dict[str, Any]:
        return {}

    async def solve(ep: Any) -> int | None:
        branches = await ep.sample(1)
        code: int | None = ep.answer[branches[0]]
        return code

    return Controller(schedule, solve)
