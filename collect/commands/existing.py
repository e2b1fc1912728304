"""Options of `autotts collect` that start from a store that there is."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env.errors import UserError

if TYPE_CHECKING:
    from collect.collection import Collection, Scoring
    from collect.commands.where import Where
    from collect.existing import Existing
    from collect.plan import Plan

# Reading a token takes memory for the whole vocabulary, which vLLM does not reckon with: smaller batches than
# its own, on a GPU.
BATCH = 2048
# What decides which branches there are, and how they are drawn.
SAMPLING = (
    "problems",
    "question_column",
    "answer_column",
    "config",
    "split",
    "revision",
    "limit",
    "dataset",
    "task",
    "arm",
    "branches",
    "fork_depths",
    "fork_width",
    "max_nodes",
    "max_tokens",
    "temperature",
    "top_p",
    "min_p",
    "top_k",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "expect_tokens",
    "shard",
)
# What decides what is found out about branches.
READING = (
    "prompt",
    "system",
    "chat_template_arg",
    "think_tags",
    "probe_text",
    "probe_tokens",
    "no_probes",
    "segment_tokens",
    "segment_steps",
    "confidence_top",
    "confidence_window",
)
_MODEL = ("model", "engine_arg", "server")


def add_arguments(group: Any) -> None:
    """Declare the options."""
    group.add_argument(
        "--from-samples",
        type=Path,
        metavar="STORE",
        help="sample nothing: add probes, log probabilities and, with --prm, scores to the branches of a "
        "store; --segment-tokens or --segment-steps cut them anew",
    )
    group.add_argument(
        "--rescore",
        type=Path,
        metavar="STORE",
        help="sample nothing: replace the PRM scores of a store by those of --prm (with --force and the same "
        "STORE in place)",
    )
    group.add_argument(
        "--extend",
        type=Path,
        metavar="STORE",
        help="sample what a collected store lacks, as it was sampled: --branches a problem, and --misses",
    )
    group.add_argument(
        "--misses",
        type=Path,
        metavar="DIR",
        help="with --extend: what was asked for in vain, as `autotts evaluate --out DIR` writes it, or a "
        "search of its winner; with --branches, no problem gets more than that many at the root",
    )


def is_asked(args: argparse.Namespace) -> bool:
    """Whether a store is named to start from. Raises UserError if two are."""
    named = [option for option in _OPTIONS if getattr(args, option) is not None]
    if len(named) > 1:
        raise UserError(f"{_flag(named[0])} and {_flag(named[1])} are two jobs: do one, then the other")
    return bool(named)


def run(
    args: argparse.Namespace,
    places: "Where",
    on_cpu: bool,
    scoring_of: "Callable[[], Scoring | None]",
    default_of: Callable[[str], Any],
) -> None:
    """Make the store.

    Args:
        args: all options.
        places: where models run.
        on_cpu: whether vLLM is the build for CPUs.
        scoring_of: gives the PRM that the options ask for.
        default_of: the default of each option.

    Raises:
        UserError: an option says nothing here, or the store is not what it needs.
    """
    from collect.commands.progress import Display
    from collect.work import Tally

    option = next(option for option in _OPTIONS if getattr(args, option) is not None)
    for name in _OPTIONS[option]:
        if getattr(args, name) != default_of(name):
            raise UserError(f"{_flag(name)} says nothing with {_flag(option)}, so leave it out")
    if option == "rescore":
        from collect.rescore import Rescoring

        scoring = scoring_of()
        if scoring is None:
            raise UserError("--rescore needs --prm: the model whose scores are wanted")
        rescoring = Rescoring(args.rescore, args.out, scoring, args.group, args.force)
        if not (_is_complete(rescoring.complete, args.out) or args.dry_run):
            with Display(Tally()) as display:
                rescoring.run(display.report)
        return
    if not on_cpu:
        args.engine_arg = [("max_num_batched_tokens", BATCH), *args.engine_arg]
    if option == "extend":
        collection, lines = _extend(args, places, scoring_of)
    else:
        collection, lines = _from_samples(args, places, scoring_of(), default_of)
    if not _is_complete(collection.complete, args.out):
        print("\n".join(lines), file=sys.stderr)
        if args.dry_run:
            return
    with Display(collection.tally) as display:
        collection.run(lambda arm: places.open_engine(collection.plan, arm), display.report)


def _from_samples(
    args: argparse.Namespace, places: "Where", scoring: "Scoring | None", default_of: Callable[[str], Any]
) -> "tuple[Collection, list[str]]":
    from collect.existing import Existing
    from collect.from_samples import FromSamples

    existing = Existing(args.from_samples)
    recut = args.segment_tokens is not None or args.segment_steps is not None
    plan = places.locate(_reading_plan(args, existing, default_of))
    collection = FromSamples(existing, plan, args.out, recut, scoring, args.force)
    return collection, collection.survey.lines()


def _extend(
    args: argparse.Namespace, places: "Where", scoring_of: "Callable[[], Scoring | None]"
) -> "tuple[Collection, list[str]]":
    from collect.existing import Existing
    from collect.extend import Extension, plan_to_extend
    from collect.lacking import read_misses

    if args.branches is None and args.misses is None:
        raise UserError(
            "--extend must know what the store is to have more of: give --branches, --misses or both"
        )
    existing = Existing(args.extend)
    lacking = None if args.misses is None else read_misses(args.misses, existing, args.branches)
    branches = args.branches if args.misses is None else None
    plan = plan_to_extend(existing, branches, args.model, dict(args.engine_arg))
    take_prm(args, existing)
    extension = Extension(existing, places.locate(plan), args.out, lacking, scoring_of(), args.force)
    return extension, [] if extension.complete else extension.lines()


def take_prm(args: argparse.Namespace, existing: "Existing") -> None:
    """Set the options of the PRM as they were when the store was scored, where none is given."""
    recorded = existing.store.meta["provenance"].get("prm")
    if recorded is None or args.prm is not None:
        return
    args.prm, args.prm_kind, args.prm_window = recorded["model"], recorded["kind"], recorded["window"]
    args.prm_step_tag, args.separator = recorded["step_tag"], recorded["separator"]
    args.prm_engine_arg = [*recorded["engine_args"].items(), *args.prm_engine_arg]


def _reading_plan(args: argparse.Namespace, existing: "Existing", default_of: Callable[[str], Any]) -> "Plan":
    from collect.engine import Sampling
    from collect.plan import Plan, Segments
    from collect.probes import Probing
    from collect.problems import Source
    from collect.prompts import Prompting
    from collect.recorded import arms_of
    from collect.sampler import Drawing, Shape

    store = existing.store
    recipe = store.meta.get("provenance", {}).get("recipe", {})
    probing: Probing | None = Probing(args.probe_text, args.probe_tokens)
    confidence = {"top_logprobs": args.confidence_top, "window": args.confidence_window}
    if recipe.get("probing") and probing != (asked := Probing(**recipe["probing"])):
        _refuse_other(args, default_of, existing, ("probe_text", "probe_tokens"))
        probing = asked
    if "confidence" in store.capabilities and recipe:
        known = {name: recipe["drawing"][name] for name in confidence}
        if confidence != known:
            _refuse_other(args, default_of, existing, ("confidence_top", "confidence_window"))
            confidence = known
    prompting = Prompting(args.prompt, args.system, dict(args.chat_template_arg), tuple(args.think_tags))
    return Plan(
        arms=arms_of(existing, args.model, prompting),
        source=Source(Path(store.path).name),
        dataset=store.dataset,
        task=store.task,
        shape=Shape(),
        drawing=Drawing(Sampling(), 1, **confidence),
        segments=Segments(
            None if args.segment_steps else args.segment_tokens or Segments.tokens,
            args.segment_steps,
            args.separator,
        ),
        probing=None if args.no_probes else probing,
        group=args.group,
        engine_arguments=dict(args.engine_arg),
    )


def _refuse_other(
    args: argparse.Namespace, default_of: Callable[[str], Any], existing: "Existing", names: Sequence[str]
) -> None:
    """Raises UserError if one of these options was given: the store has such figures, made otherwise."""
    for name in names:
        if getattr(args, name) != default_of(name):
            raise UserError(
                f"{existing.store.path} was collected with another {_flag(name)}, and what it has is kept; "
                "leave it out"
            )


def _is_complete(complete: bool, out: Path) -> bool:
    if complete:
        print(f"{out} is complete: there is nothing left to do")
    return complete


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


# The options, and which others say nothing with them.
_OPTIONS = {
    "from_samples": (*SAMPLING, "misses"),
    "rescore": (*SAMPLING, *READING, *_MODEL, "misses"),
    "extend": (*(name for name in SAMPLING if name != "branches"), *READING, "group"),
}
