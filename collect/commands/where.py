"""Where a collection runs, as options: in this process or in several, at servers; all of it, or a shard."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from env.commands.options import positive
from env.errors import UserError

if TYPE_CHECKING:
    from collect.endpoint import Served
    from collect.engine import Engine
    from collect.plan import Plan
    from collect.prm.scorer import Scorer
    from collect.workers import Worker

# What is done here even if servers sample: everything else is theirs, set when they are started.
_TOKENIZING = ("revision", "tokenizer", "tokenizer_revision", "trust_remote_code")
IN_PROCESS = "default: vLLM in this process"


def add_servers(
    group: Any,
    seconds: int = 3600,
    names: Sequence[str] = ("--server",),
    otherwise: str = IN_PROCESS,
) -> None:
    """Declare the options of servers.

    Args:
        group: where they are declared.
        seconds: the default of their patience.
        names: of the first option.
        otherwise: what it says of being left out.
    """
    group.add_argument(
        *names,
        dest="server",
        type=_addresses,
        action="extend",
        default=[],
        metavar="URL,...",
        help="sample at running vLLM servers, such as http://node1:8000 (started with `vllm serve MODEL "
        "--generation-config vllm --enable-prompt-tokens-details`; a key is read from VLLM_API_KEY); may be "
        f"repeated; {otherwise}",
    )
    group.add_argument(
        "--server-requests",
        type=positive,
        default=256,
        metavar="N",
        help="under way at a time, at each server; default: 256",
    )
    group.add_argument(
        "--server-timeout",
        type=positive,
        default=seconds,
        metavar="SECONDS",
        help=f"until a request is tried again; default: {seconds}",
    )
    group.add_argument(
        "--prm-server", type=_addresses, action="extend", default=[], metavar="URL,...", help="of --prm"
    )


def add_arguments(group: Any) -> None:
    """Declare all options."""
    add_servers(group)
    group.add_argument(
        "--gpus",
        type=positive,
        metavar="N",
        help="that many GPUs of this machine, an engine on each, or on each tensor_parallel_size of them; "
        "with the CPU build of vLLM, N processes; default: one engine in this process",
    )
    group.add_argument(
        "--ray",
        action="store_true",
        help="the same on the GPUs of a Ray cluster (RAY_ADDRESS, else one that is started here); needs "
        "`pip install 'autotts[ray]'`; default: all that it has, or --gpus N of them",
    )
    group.add_argument(
        "--shard",
        metavar="I/N",
        help="do every N-th group of problems, from the I-th on, with STORE a part of its own; I counts from "
        "1; `autotts merge` puts the parts together",
    )


class Where:
    """What the options say.

    Attributes:
        shard: the part to do, None = everything.

    Raises:
        UserError: they contradict each other.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        from collect.shards import Shard

        self.shard = Shard.parse(args.shard) if args.shard else None
        self._args = args
        self._served: dict[str, list[Served]] = {}
        if args.prm_server and not args.prm:
            raise UserError("--prm-server needs --prm: the model that it serves")
        if args.server and (args.gpus or args.ray):
            raise UserError("--server samples on the servers' own GPUs: leave out --gpus and --ray")
        if args.server:
            theirs = sorted(name for name, _ in args.engine_arg if name not in _TOKENIZING)
            if theirs:
                raise UserError(
                    f"--engine-arg {theirs[0]} says nothing to a server that is running: start the server "
                    "with it instead"
                )

    def prepare(self) -> bool:
        """Whether vLLM is needed here, and is the build for CPUs; where there is none, `locate` says so.

        Call it before anything imports torch, which reads the number of threads once.
        """
        from collect.engine import EngineError

        with suppress(EngineError):
            return self.check_vllm()
        return False

    def check_vllm(self) -> bool:
        """As `prepare`. Raises EngineError if a model is to be loaded on this machine, which has no vLLM."""
        from collect.local import prepare
        from collect.prm.registry import JUDGE

        scores_here = self._args.prm and not self._args.prm_server and self._args.prm_kind != JUDGE
        return bool(scores_here or not self._args.server) and prepare()

    def locate(self, plan: "Plan") -> "Plan":
        """Looks at the servers, or for vLLM; the plan with the versions of what samples. Raises UserError."""
        self.check_vllm()
        if not self._args.server:
            return plan
        from collect.endpoint import survey
        from collect.plan import versions

        self._served = survey(self._args.server, list(dict.fromkeys(arm.model for arm in plan.arms)))
        found = {each.version or "unknown" for servers in self._served.values() for each in servers}
        own = {name: number for name, number in versions().items() if name == "transformers"}
        return replace(plan, versions={"vllm": ", ".join(sorted(found))} | own)

    def open_engine(self, plan: "Plan", arm: int) -> "Engine":
        """The model of an arm. Raises EngineError."""
        model, top = plan.arms[arm].model, plan.drawing.top_logprobs
        if self._args.server:
            from collect.servers import open_servers

            args = self._args
            return open_servers(model, self._served[model], top, args.server_requests, args.server_timeout)
        from collect.local import LocalEngine

        open_engine = partial(LocalEngine, model, top, dict(plan.engine_arguments))
        if not (self._args.gpus or self._args.ray):
            return open_engine()
        from collect.workers import open_engines

        return open_engines(model, self._workers(plan.engine_arguments), open_engine)

    def open_scorer(self, model: str, options: Mapping[str, Any], arguments: Mapping[str, Any]) -> "Scorer":
        """The PRM; `options` and `arguments` as in `collect.prm.scorer.open_scorer`. Raises UserError."""
        if self._args.prm_server:
            from collect.prm.remote import ServerScorer

            return ServerScorer(
                model, self._args.prm_server, **options, seconds=float(self._args.server_timeout)
            )
        from collect.prm.registry import JUDGE
        from collect.prm.scorer import open_scorer

        open_here = partial(open_scorer, model, engine_args=dict(arguments), **options)
        if not (self._args.gpus or self._args.ray) or options["kind"] == JUDGE:
            return open_here()
        from collect.workers import open_scorers

        return open_scorers(self._workers(arguments), open_here)

    @property
    def at_once(self) -> int:
        """How many groups a scorer should be given at a time."""
        return 2 * (self._args.gpus or (8 if self._args.ray else 1))

    def _workers(self, arguments: Mapping[str, Any]) -> "list[Callable[[], Worker]]":
        """What starts the processes, an engine each."""
        cards = arguments.get("tensor_parallel_size", 1) * arguments.get("pipeline_parallel_size", 1)
        if self._args.ray:
            from collect.clusters import ray_workers

            return ray_workers(self._args.gpus, cards)
        from collect.workers import process_workers

        return process_workers(self._args.gpus, cards)


def _addresses(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
