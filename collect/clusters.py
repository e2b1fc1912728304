"""Workers that are actors of a Ray cluster."""

import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from collect.engine import EngineError
from collect.hosted import Hosted
from collect.local import prepare
from collect.workers import AGAIN, ROOT, Worker, divided
from env.errors import UserError


def ray_workers(gpus: int | None, cards: int) -> list[Callable[[], Worker]]:
    """What starts actors that share the cards of a cluster; with the CPU build, as many actors.

    Args:
        gpus: how many cards, None = all that there are.
        cards: that an engine needs.

    Raises:
        UserError: Ray is not installed, or the cluster has no such number of cards.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs Ray: run `pip install 'autotts[ray]'`") from None
    on_cpu = prepare()
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise EngineError(
                f"there is no connection to the Ray cluster {os.environ.get('RAY_ADDRESS', '')}: {error}; "
                "correct RAY_ADDRESS, or unset it"
            ) from error
    if on_cpu:
        return [partial(RayWorker, f"actor {number}", 0) for number in range(gpus or 1)]
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    there = int(resources.get("GPU", 0))
    wanted = gpus or there
    if not 0 < wanted <= there:
        raise UserError(f"the Ray cluster has {there} GPUs; give --gpus as many or fewer, or join more nodes")
    return [partial(RayWorker, f"actor {number}", cards) for number in range(divided(wanted, cards))]


class RayWorker:
    """An actor; see `collect.workers.Worker`. The package must be installed on every node.

    Args:
        name: for errors.
        cards: that it needs.
    """

    def __init__(self, name: str, cards: int) -> None:
        import ray

        self.name = name
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        settings = {
            name: value for name, value in os.environ.items() if name.startswith(("VLLM_", "HF_", "OMP_"))
        }
        environment = {"env_vars": {**settings, "PYTHONPATH": os.pathsep.join(paths)}}
        self._actor: Any = (
            ray.remote(Hosted).options(num_gpus=cards, num_cpus=1, runtime_env=environment).remote()
        )

    def call(self, method: str, *arguments: Any) -> Any:
        """See `collect.workers.Worker.call`."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            return ray.get(getattr(self._actor, method).remote(*arguments))
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise EngineError(f"{self.name}: {type(error.cause).__name__}: {error.cause}; {AGAIN}") from None
        except RayError as error:
            reason = str(error).strip().split("\n")[0]
            raise EngineError(f"the {self.name} on the Ray cluster is gone: {reason}; {AGAIN}") from None

    def close(self) -> None:
        """See `collect.workers.Worker.close`."""
        import ray

        ray.kill(self._actor)
