"""Options of the commands that ask a model live: which model, how it is asked, and about what."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collect.commands import existing, where
from collect.commands.collect import (
    add_model,
    add_prm,
    add_problems,
    add_sampling,
    add_segments,
    plan_of,
    prm_recipe,
    scoring_of,
)
from env.commands.options import positive
from env.errors import UserError

if TYPE_CHECKING:
    from collect.live.calls import Log
    from collect.live.model import LiveModel
    from collect.live.streams import Streams
    from collect.plan import Plan
    from env.live.bench import Question
    from env.program import Program
    from env.store import Store
    from env.tasks import Task

# Without a token for so long a request counts as lost.
PATIENCE = 600
# Not the seed of collections, whose branches a live run must not draw again by accident.
SEED = 1
# What a store decides besides what decides problems and trees.
_DECIDED = (
    {*existing.SAMPLING, *existing.READING, "separator"}
    - {"problems", "question_column", "answer_column", "config", "split", "revision", "limit", "dataset"}
    - {"branches", "fork_depths", "fork_width", "max_nodes", "seed", "shard"}
)
# What a plan has that only trees need.
_NO_TREES: dict[str, Any] = {
    "branches": None,
    "fork_depths": (),
    "fork_width": (2,),
    "max_nodes": 20_000,
    "group": 8,
    "gpus": None,
    "ray": False,
    "shard": None,
}


@dataclass(frozen=True)
class Asked:
    """What the options say.

    Attributes:
        plan: how the model is asked.
        task: what answers mean.
        questions: what it is asked; none where no problems are declared.
        store: the one that says how, if any.
        branch_tokens: expected of a branch; None = unknown.
    """

    plan: "Plan"
    task: "Task"
    questions: "list[Question]"
    store: "Store | None"
    branch_tokens: int | None


def add_arguments(
    parser: argparse.ArgumentParser, problems: bool = True, servers: Sequence[str] = ("--server",)
) -> None:
    """Declare the options; `problems` = whether there is a set of them, `servers` = what servers go by."""
    from collect.prompts import QUESTION

    parser.add_argument(
        "--store",
        type=Path,
        metavar="STORE",
        help="ask as this store was collected: model, prompt, sampling, segments, probes"
        + (", and its problems unless --problems names others" if problems else ""),
    )
    parser.add_argument(
        "--run-ahead",
        type=positive,
        default=256,
        metavar="N",
        help="tokens that a branch may decode before its controller asks for them; default: 256",
    )
    if problems:
        add_problems(parser.add_argument_group("problems"))
    else:
        parser.set_defaults(problems="", question_column=None, answer_column=None, config=None)
        parser.set_defaults(split="test", revision=None, limit=None, dataset=None, task="math")
    # Without a set of problems it is people who ask, and in their own words.
    add_model(parser.add_argument_group("model"), None if problems else QUESTION)
    otherwise = where.IN_PROCESS if problems else "required"
    where.add_servers(parser.add_argument_group("where it runs"), PATIENCE, servers, otherwise)
    add_segments(parser.add_argument_group("segments"))
    add_sampling(parser.add_argument_group("sampling, all of it sent and recorded"), SEED)
    add_prm(parser.add_argument_group("process reward model"))
    parser.set_defaults(**_NO_TREES)


def read(args: argparse.Namespace, add: Callable[[argparse.ArgumentParser], None]) -> Asked:
    """What the options say.

    Args:
        args: the options.
        add: declares them.

    Raises:
        UserError: they contradict each other, a store does not say how it was collected, or the problems
            cannot be used.
    """
    from collect.endpoint import only_model
    from collect.existing import Existing
    from collect.extend import plan_to_extend
    from collect.problems import load_problems
    from env.live.bench import Question
    from env.tasks import load_task

    found = None
    if args.store is None:
        if args.model is None:
            if not args.server:
                raise UserError("--model or --server is missing: what is to be asked?")
            args.model = only_model(args.server[0])
        if args.problems is None:
            raise UserError("--problems or --store is missing: what is to be asked?")
        plan = plan_of(args)
    else:
        parser = argparse.ArgumentParser()
        add(parser)
        for name in sorted(_DECIDED):
            if hasattr(args, name) and getattr(args, name) != parser.get_default(name):
                raise UserError(f"--{name.replace('_', '-')} is the store's to say, so leave it out")
        found = Existing(args.store)
        # Where no set of problems is declared, it is "".
        options = "--model, --prompt" if args.problems == "" else "--model, --problems, --prompt"
        instead = f"leave out --store, and give {options}, --temperature and so on"
        plan = plan_to_extend(found, None, args.model, dict(args.engine_arg), instead)
        plan = replace(plan, drawing=replace(plan.drawing, seed=args.seed))
        existing.take_prm(args, found)
    task = load_task(plan.task)
    if args.problems:
        problems = load_problems(plan_of(args).source if found else plan.source, task)
    else:
        problems = found.problems[: args.limit] if found else []
    tokens = args.expect_tokens or (_mean_length(found) if found else None)
    questions = [Question(problem.question, problem.gold) for problem in problems]
    return Asked(plan, task, questions, found.store if found else None, tokens)


def open_places(args: argparse.Namespace, plan: "Plan") -> "dict[str, list[Streams]]":
    """Where the model of each arm is: servers, or an engine in this process. Raises UserError."""
    from collect.live.server import ServerStreams

    models = list(dict.fromkeys(arm.model for arm in plan.arms))
    if args.server:
        from collect.endpoint import survey

        return {
            model: [ServerStreams(each, args.server_requests, args.server_timeout) for each in served]
            for model, served in survey(args.server, models).items()
        }
    if len(models) > 1:
        raise UserError("several models in one process are too many: serve them, and name each with --server")
    from collect.live.local import LocalStreams
    from collect.local import LocalEngine

    engine = LocalEngine(models[0], plan.drawing.top_logprobs, dict(plan.engine_arguments))
    return {models[0]: [LocalStreams(engine)]}


def open_model(
    args: argparse.Namespace,
    asked: Asked,
    places: "dict[str, list[Streams]]",
    program: "Program",
    log: "Log",
) -> "LiveModel":
    """The model as a program needs it. Raises UserError if it needs what is not there."""
    from collect.live.opening import live_model
    from collect.live.scoring import StepScores
    from env.program import needs

    wanted, scores = needs(program.source), None
    if "prm" in wanted:
        # Two models of one process would work in two threads, which vLLM is not made for.
        args.gpus = None if args.server else 1
        scoring = scoring_of(args, not args.server, where.Where(args))
        if scoring is None:
            raise UserError(f"{program.name} asks for step scores: name a process reward model with --prm")
        scores = StepScores(scoring.open(), scoring.separator)
    return live_model(
        asked.plan,
        asked.task,
        places,
        scores,
        run_ahead=args.run_ahead,
        confidence="confidence" in wanted,
        log=log,
    )


def recipe(args: argparse.Namespace, plan: "Plan") -> dict[str, Any]:
    """How a run asks its model: what decides its figures besides what it plays and on which problems."""
    asked = asdict(plan)
    return {name: asked[name] for name in ("arms", "task", "drawing", "segments", "probing")} | {
        "beta": args.beta,
        "run_ahead": args.run_ahead,
        "prm": prm_recipe(args),
    }


def _mean_length(found: Any) -> int:
    """Mean tokens of a stored branch of the first problem that has any."""
    from collect.preflight import branch_lengths

    nodes = found.nodes(0)
    lengths = [tokens for tokens, _ in branch_lengths(nodes.parent, nodes.tokens, nodes.end)]
    return round(sum(lengths) / max(1, len(lengths))) or 1
