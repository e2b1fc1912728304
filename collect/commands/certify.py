r"""Certify that replay told the truth of a model as it is served: it holds, fails, or is undecided.

autotts certify --controller mine.py --beta 0.5 --store stores/my --dry-run
autotts certify --controller mine.py --beta 0.5 --store stores/my --server http://localhost:8000 --out runs/1
autotts certify ... --temperature 0.6        # served otherwise than the store was collected
autotts certify ... --exported ask.py --i-trust-this-code  # as it was exported, run with your rights

First fresh branches are held against the stored ones, which is cheap: pass rate, length, answers by depth. If
they are alike, the controller and the baselines are played live and held against replay, problem by problem:
accuracy, tokens, decisions. What it takes and how likely it is to decide is printed before; what there is of
it is kept in the run's folder, and the same command goes on after any interruption. The exit status is 0 if
it holds, 1 if it fails, 3 if it is undecided.
"""

import argparse
import asyncio
import hashlib
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collect.commands import asking, existing, where
from collect.commands.certifying import Certifying
from collect.commands.collect import add_prm
from collect.engine import Sampling
from env import files
from env.commands.options import add_controller, beta, natural, positive
from env.commands.terminal import progress_bar
from env.errors import UserError
from env.rooms import Rooms

if TYPE_CHECKING:
    from collect.existing import Existing
    from collect.plan import Plan
    from env.certificate.design import Design, Replayed
    from env.program import Program

BASELINES = ["self_consistency"]
STATUS = {"holds": 0, "fails": 1, "undecided": 3}
CERTIFICATE = "certificate"
SAMPLING = tuple(field.name for field in fields(Sampling))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `autotts certify`."""
    add_controller(parser)
    parser.add_argument("--beta", type=beta, required=True, metavar="B", help="from 0, cheap, to 1, thorough")
    parser.add_argument("--store", type=Path, required=True, metavar="STORE", help="that replay is of")
    parser.add_argument("--out", type=Path, metavar="RUN", help="the run's folder, for the certificate, too")
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what it takes and how likely it is to decide"
    )
    parser.add_argument(
        "--exported", type=Path, metavar="FILE", help="play this file of `autotts export`, run as it is"
    )
    parser.add_argument(
        "--baseline",
        nargs="*",
        default=BASELINES,
        metavar="NAME_OR_PATH",
        help=f"play these as well, at the same beta; default: {' '.join(BASELINES)}",
    )
    group = parser.add_argument_group("how much, and how exactly")
    group.add_argument(
        "--limit", type=positive, metavar="N", help="so many problems of the store; default: all"
    )
    group.add_argument(
        "--branches", type=positive, default=8, metavar="N", help="fresh ones of each problem; default: 8"
    )
    group.add_argument(
        "--episodes", type=positive, default=4, metavar="N", help="live ones of each problem; default: 4"
    )
    group.add_argument(
        "--accuracy-margin", type=_percent, default=0.05, metavar="POINTS", help="still the same; default: 5"
    )
    group.add_argument(
        "--tokens-margin",
        type=_percent,
        default=0.10,
        metavar="PERCENT",
        help="still the same, of tokens and of branches and rounds, which are its decisions; default: 10",
    )
    group.add_argument(
        "--seed", type=natural, default=asking.SEED, metavar="N", help="of the run; default: 1"
    )
    group = parser.add_argument_group("how the model is served")
    where.add_servers(group, asking.PATIENCE, otherwise="required, but for --dry-run")
    group.add_argument(
        "--model",
        metavar="MODEL",
        help="that is asked; default: the store's, else the one that the server has",
    )
    group.add_argument(
        "--concurrency", type=positive, metavar="N", help="problems in flight; default: as live"
    )
    group.add_argument("--run-ahead", type=positive, default=256, metavar="N", help="as live; default: 256")
    group.add_argument("--i-trust-this-code", action="store_true", help="as live")
    group = parser.add_argument_group("how it is sampled, where not as --store was")
    for name in SAMPLING:
        kind = natural if name == "top_k" else float
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="X")
    group.add_argument("--max-tokens", type=positive, metavar="N", help="a branch's length")
    add_prm(parser.add_argument_group("process reward model"))
    parser.set_defaults(gpus=None, ray=False, shard=None, engine_arg=[])


def run(args: argparse.Namespace, rooms: Rooms) -> int:
    """Say what it takes, compare, write the certificate.

    Raises:
        UserError: the controller, the store, the server or an option cannot be used.
    """
    import numpy as np

    from collect.existing import Existing
    from env.certificate import design as designs
    from env.statistics import POWER

    found = Existing(args.store)
    plan = _plan(args, found)
    names = dict.fromkeys([args.controller, *args.baseline])
    programs = [rooms.program(name) for name in names]
    for program in programs:
        program.check()
    if args.exported:
        _check_exported(args, plan, programs[0])
    if not args.dry_run and not (args.out and args.server):
        raise UserError("--out and --server are missing; or give --dry-run to see what it takes")
    design = _design(args, found, programs)
    known = design.known()
    with progress_bar("replays") as progress:
        replayed = design.replay(progress)
    rng, stored = np.random.default_rng(args.seed), list(known.values())
    cost = designs.bill(design, stored, replayed)
    power = designs.power(design, stored, replayed, rng)
    more = designs.enough(design, stored, replayed, rng) if power.holds < POWER else None
    parts = ", ".join(f"{tokens:,} for {name}" for name, tokens in cost.programs.items())
    fresh = f"{cost.branches + cost.probes:,} for fresh branches and their probes"
    print(f"{len(design.problems)} problems: {cost.total:,} tokens, of them {fresh}, {parts}")
    print("\n".join(designs.told(power, more, design)), flush=True)
    if args.dry_run:
        return 0
    return _certify(args, found, plan, design, replayed, designs.as_dict(power, cost))


def _check_exported(args: argparse.Namespace, plan: "Plan", program: "Program") -> None:
    """Raises UserError if --exported is not that of the program, or may not be run."""
    from env.certificate.exported import check_exported

    check_exported(args.exported, program)
    if len(plan.arms) > 1:
        raise UserError(f"{plan.dataset} is of several models, and an exported file asks one")
    if not (program.trusted or args.i_trust_this_code):
        raise UserError(
            f"{args.exported} would run as its users run it, with your rights and your key, and who wrote "
            f"{program.name} is not known: read it, then add --i-trust-this-code"
        )


def _design(args: argparse.Namespace, found: "Existing", programs: "list[Program]") -> "Design":
    import numpy as np

    from env.certificate.design import Design

    if len({program.name for program in programs}) < len(programs):
        raise UserError("two controllers have the same name: a certificate could not tell them apart")
    total = len(found.problems)
    # Spread out: problems are often sorted by difficulty.
    chosen = np.linspace(0, total - 1, min(total, args.limit or total)).round().astype(int).tolist()
    return Design(
        store=found.store,
        problems=chosen,
        programs=programs,
        beta=args.beta,
        branches=args.branches,
        episodes=args.episodes,
        accuracy=args.accuracy_margin,
        tokens=args.tokens_margin,
        i_trust_this_code=args.i_trust_this_code,
    )


def _certify(
    args: argparse.Namespace,
    found: "Existing",
    plan: "Plan",
    design: "Design",
    replayed: "dict[str, Replayed]",
    expected: dict[str, Any],
) -> int:
    from env.certificate.certificate import certificate
    from env.certificate.page import page
    from env.live.bench import Question
    from env.live.folder import CallLog, RunFolder
    from env.tasks import load_task

    where.Where(args).check_vllm()
    plan = _located(args, plan)
    stored = found.store.meta["sampling"]
    existing.take_prm(args, found)
    asked = asking.Asked(
        plan,
        load_task(plan.task),
        [Question(each.question, each.gold) for each in map(found.problems.__getitem__, design.problems)],
        found.store,
        round(expected["tokens"]["branches"] / (len(design.problems) * design.branches * len(plan.arms))),
    )
    args.max_branches = design.max_branches
    args.separator = getattr(args, "separator", plan.segments.separator)
    folder = RunFolder(args.out, _recipe(args, design, plan))
    with folder.locked():
        log = CallLog(folder.path)
        try:
            parts = asyncio.run(Certifying(args, asked, design, folder, log).compare(replayed))
        finally:
            log.close()
    about = {
        "asked": {
            "server": ", ".join(args.server),
            "models": [arm.model for arm in plan.arms],
            "sampling": asdict(plan.drawing.sampling) | {"max_tokens": plan.drawing.max_tokens},
            "stored_sampling": {name: value for name, value in stored.items() if name != "seed"},
            "seed": args.seed,
            "exported": args.exported is not None,
        },
        "expected": expected,
    }
    told = certificate(design, parts, about)
    files.write(folder.path / f"{CERTIFICATE}.json", files.as_json(told))
    files.write(folder.path / f"{CERTIFICATE}.html", page(told).encode())
    for part in parts:
        print("\n".join(f"{finding.verdict}: {part.name}, {finding}" for finding in part.findings))
    print("\n".join([f"the certificate: {told['verdict']}", *told["why"]]))
    print(f"it is in {folder.path}: {CERTIFICATE}.html and {CERTIFICATE}.json")
    return STATUS[told["verdict"]]


def _plan(args: argparse.Namespace, found: "Existing") -> "Plan":
    """How the store was collected, but for the options. Raises UserError if it cannot be certified."""
    from collect.extend import plan_to_extend

    plan = plan_to_extend(found, None, args.model, {}, "certify against a store that `autotts collect` made")
    seed = plan.drawing.seed
    if seed in range(args.seed, args.seed + 1 + args.episodes):
        raise UserError(
            f"{found.store.path} was sampled with the seed {seed}: with --seed {args.seed} its "
            "branches would be drawn once more, not fresh ones; give another --seed"
        )
    own = {name: getattr(args, name) for name in SAMPLING if getattr(args, name) is not None}
    drawing = plan.drawing
    sampling = replace(drawing.sampling, **own)
    drawing = replace(
        drawing, sampling=sampling, max_tokens=args.max_tokens or drawing.max_tokens, seed=args.seed
    )
    return replace(plan, drawing=drawing)


def _located(args: argparse.Namespace, plan: "Plan") -> "Plan":
    """The plan with the model that the server has, if it is one model and goes by another name there."""
    from collect.endpoint import only_model, survey
    from collect.engine import EngineError

    recorded = sorted({arm.model for arm in plan.arms})
    if args.model is not None or len(recorded) > 1:
        return plan
    try:
        survey(args.server, recorded)
    except EngineError:
        # Whether it is the same model, by whatever name, is what is to be found out.
        model = only_model(args.server[0])
        return replace(plan, arms=tuple(replace(arm, model=model) for arm in plan.arms))
    return plan


def _recipe(args: argparse.Namespace, design: "Design", plan: "Plan") -> dict[str, Any]:
    """What decides the certificate."""
    sources = [(program.name, program.source) for program in design.programs]
    exported = args.exported.read_bytes() if args.exported else b""
    return asking.recipe(args, plan) | {
        "certify": design.store.sha256,
        "controllers": [[name, hashlib.sha256(source.encode()).hexdigest()] for name, source in sources],
        "exported": hashlib.sha256(exported).hexdigest() if exported else None,
        "problems": design.names,
        "branches": design.branches,
        "episodes": design.episodes,
        "margins": [design.accuracy, design.tokens],
        "seed": args.seed,
    }


def _percent(text: str) -> float:
    """A share, given in percent."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no number between 0 and 100, such as 5")
    return value / 100
