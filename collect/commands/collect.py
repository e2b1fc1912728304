r"""Sample trees of reasoning from a model, ask on the way what it would answer, and store it all.

autotts collect --model Qwen/Qwen3-8B --problems problems.jsonl --out stores/mine
autotts collect --model Qwen/Qwen3-8B --problems HuggingFaceH4/MATH-500 --split test --out stores/math \
    --prm Qwen/Qwen2.5-Math-PRM-7B --branches 16 --fork-depths 1,2,3 --fork-width 4 --segment-steps 1
autotts collect ... --dry-run

Killed anywhere, the same command goes on where it was: finished groups of problems are kept in
STORE.collecting until the store is made.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collect.commands import existing, where
from env.commands.options import natural, positive, setting
from env.errors import UserError
from env.rooms import Rooms

if TYPE_CHECKING:
    from collect.collection import Scoring
    from collect.commands.where import Where
    from collect.plan import Arm, Plan
    from collect.prompts import Prompting


_GROUP = "problems that are kept together when they are done; default: 8"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `autotts collect`."""
    parser.add_argument("--out", required=True, type=Path, metavar="STORE", help="the folder to make")
    parser.add_argument("--force", action="store_true", help="replace a store that is at STORE")
    parser.add_argument("--dry-run", action="store_true", help="say what it would cost, and stop there")
    parser.add_argument("--group", type=positive, default=8, metavar="N", help=_GROUP)
    add_problems(parser.add_argument_group("problems"))
    add_model(parser.add_argument_group("model"))
    where.add_arguments(parser.add_argument_group("where it runs"))
    trees = parser.add_argument_group("trees")
    _add_tree(trees)
    add_segments(trees)
    add_sampling(parser.add_argument_group("sampling, all of it sent and recorded"))
    add_prm(parser.add_argument_group("process reward model"))
    existing.add_arguments(parser.add_argument_group("on a store that there is"))


def run(args: argparse.Namespace, rooms: Rooms) -> int:
    """Collect, and print what was made.

    Raises:
        UserError: a model, the problems or an option cannot be used, or something is in the way.
    """
    places = where.Where(args)
    on_cpu = places.prepare()
    from collect.collection import Collection
    from collect.commands.progress import Display
    from collect.preflight import forecast
    from collect.problems import load_problems
    from env.tasks import load_task

    if existing.is_asked(args):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        existing.run(args, places, on_cpu, lambda: scoring_of(args, on_cpu, places), parser.get_default)
        if not args.dry_run:
            _report(args.out)
        return 0
    for option in ("model", "problems"):
        if getattr(args, option) is None:
            raise UserError(f"--{option} is missing; see `autotts collect --help`")
    plan = plan_of(args)
    problems = load_problems(plan.source, load_task(plan.task))
    plan = places.locate(plan)
    scoring = scoring_of(args, on_cpu, places)
    collection = Collection(plan, problems, args.out, scoring, args.force, places.shard)
    if collection.complete:
        print(f"{args.out} is complete: there is nothing left to collect")
    else:
        expected = forecast(collection, args.expect_tokens)
        print("\n".join(expected.lines()), file=sys.stderr)
        if args.dry_run:
            return 0
        collection.check_scoring(round(expected.branch_tokens))
    with Display(collection.tally) as display:
        collection.run(lambda arm: places.open_engine(plan, arm), display.report)
    _report(args.out)
    return 0


def plan_of(args: argparse.Namespace) -> "Plan":
    """The plan that the options ask for. Raises UserError if they contradict each other."""
    from collect.engine import Sampling
    from collect.plan import Arm, Plan, Segments
    from collect.probes import Probing
    from collect.problems import Source
    from collect.prompts import Prompting
    from collect.sampler import Drawing, Shape

    arguments = dict(args.chat_template_arg)
    prompting = Prompting(args.prompt, args.system, arguments, tuple(args.think_tags))
    widths = args.fork_width * (len(args.fork_depths) if len(args.fork_width) == 1 else 1)
    sampling = Sampling(
        args.temperature,
        args.top_p,
        args.top_k,
        args.min_p,
        args.presence_penalty,
        args.frequency_penalty,
        args.repetition_penalty,
    )
    others = (_arm(args.model, prompting, dict(settings)) for settings in args.arm)
    return Plan(
        arms=(Arm(args.model, prompting), *others),
        source=Source(
            args.problems,
            args.question_column,
            args.answer_column,
            args.config,
            args.split,
            args.revision,
            args.limit,
        ),
        dataset=args.dataset or Path(args.problems).stem,
        task=args.task,
        shape=Shape(
            args.branches or Shape.branches,
            args.fork_depths,
            widths if args.fork_depths else (),
            args.max_nodes,
        ),
        drawing=Drawing(sampling, args.max_tokens, args.seed, args.confidence_top, args.confidence_window),
        segments=Segments(
            None if args.segment_steps else args.segment_tokens or Segments.tokens,
            args.segment_steps,
            args.separator,
        ),
        probing=None if args.no_probes else Probing(args.probe_text, args.probe_tokens),
        group=args.group,
        engine_arguments=dict(args.engine_arg),
    )


def _arm(model: str, prompting: "Prompting", changes: dict[str, Any]) -> "Arm":
    """Another arm: the first one's model and prompting with some changes."""
    from collect.plan import Arm

    model = str(changes.pop("model", model))
    texts = {name: str(changes.pop(name)) for name in ("text", "system") if name in changes}
    arguments = {**prompting.arguments, **changes}
    return Arm(model, replace(prompting, **texts, arguments=arguments))


def prm_recipe(args: argparse.Namespace) -> dict[str, Any] | None:
    """The PRM that the options ask for, and how it is asked: what decides its scores."""
    if args.prm is None:
        return None
    options = {"kind": args.prm_kind, "window": args.prm_window, "step_tag": args.prm_step_tag}
    return {"model": args.prm, **options, "separator": args.separator}


def scoring_of(args: argparse.Namespace, on_cpu: bool, places: "Where") -> "Scoring | None":
    """The PRM that the options ask for."""
    if (recipe := prm_recipe(args)) is None:
        return None
    from collect.collection import Scoring
    from collect.local import CPU_ARGUMENTS
    from collect.plan import FREE_ARGUMENTS
    from collect.prm.registry import JUDGE

    options = {name: recipe[name] for name in ("kind", "window", "step_tag")}
    given = dict(args.prm_engine_arg)
    arguments = (CPU_ARGUMENTS if on_cpu and args.prm_kind != JUDGE else {}) | given
    kept = {name: value for name, value in sorted(given.items()) if name not in FREE_ARGUMENTS}
    return Scoring(
        lambda: places.open_scorer(args.prm, options, arguments),
        recipe | {"engine_args": kept},
        args.separator,
        args.prm,
        args.prm_window,
        places.at_once,
    )


def add_problems(group: Any) -> None:
    """Declare where problems are and what their answers mean."""
    group.add_argument(
        "--problems",
        metavar="FILE_OR_NAME",
        help="a .jsonl or .parquet file, or a dataset on Hugging Face or in a folder (needs `datasets`)",
    )
    group.add_argument("--question-column", metavar="NAME", help="default: question, problem or prompt")
    group.add_argument("--answer-column", metavar="NAME", help="default: answer, gold or target")
    group.add_argument("--config", help="of a dataset")
    group.add_argument("--split", default="test", help="of a dataset; default: test")
    group.add_argument("--revision", help="of a dataset on Hugging Face; default: the newest")
    group.add_argument("--limit", type=positive, metavar="N", help="only the first N problems")
    group.add_argument("--dataset", metavar="NAME", help="what the store calls it; default: as in --problems")
    group.add_argument(
        "--task",
        default="math",
        help="how answers are read, compared and graded: math, choice, exact, or your own module:Class; "
        "default: math",
    )


def add_model(group: Any, prompt: str | None = None) -> None:
    """Declare the model and how it is asked; `prompt` is the default of what the user says."""
    from collect.probes import OPENING
    from collect.prompts import DEFAULT, THINK

    prompt = prompt or DEFAULT

    group.add_argument("--model", help="a name on Hugging Face, or a folder")
    group.add_argument(
        "--engine-arg",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="anything that vllm.LLM takes, such as tensor_parallel_size=2; may be repeated",
    )
    group.add_argument(
        "--prompt",
        default=prompt,
        metavar="TEXT",
        help=f"what the user says, with {{question}} in it; default: {_shown(prompt)}",
    )
    group.add_argument("--system", metavar="TEXT", help="system prompt; default: the chat template's")
    group.add_argument(
        "--chat-template-arg",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for the chat template, such as enable_thinking=False; may be repeated",
    )
    group.add_argument(
        "--think-tags",
        nargs=2,
        default=THINK,
        metavar=("OPEN", "CLOSE"),
        help=f"the tokens around a model's thinking; default: {' '.join(THINK)}",
    )
    group.add_argument(
        "--arm",
        type=setting,
        nargs="+",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one more arm in the same store, the first one but for model=, text= (as --prompt), system=; "
        "other names go to the chat template; may be repeated",
    )
    group.add_argument(
        "--probe-text",
        default=OPENING,
        metavar="TEXT",
        help="what a probe writes, after closing the thinking, for the model to go on with its answer; "
        f"default: {_shown(OPENING)}",
    )
    group.add_argument(
        "--probe-tokens", type=positive, default=32, metavar="N", help="of an answer, at most; default: 32"
    )
    group.add_argument("--no-probes", action="store_true", help="ask nothing on the way")


def _add_tree(group: Any) -> None:
    group.add_argument(
        "--branches", type=positive, metavar="N", help="independent ones a problem; default: 64"
    )
    group.add_argument(
        "--fork-depths",
        type=_counts,
        default=(),
        metavar="D,...",
        help="fork the branches after so many segments; default: nowhere",
    )
    group.add_argument(
        "--fork-width",
        type=_counts,
        default=(2,),
        metavar="N,...",
        help="children of a forked segment, its own branch included; one number, or one for each depth; "
        "default: 2",
    )
    group.add_argument(
        "--max-nodes",
        type=positive,
        default=20_000,
        metavar="N",
        help="no more forks where a problem would have more segments; default: 20000",
    )


def add_segments(group: Any) -> None:
    """Declare where branches are cut."""
    group.add_argument(
        "--segment-tokens", type=positive, metavar="N", help="a segment's length; default: 500"
    )
    group.add_argument(
        "--segment-steps",
        type=positive,
        nargs="?",
        const=1,
        metavar="N",
        help="cut segments of N reasoning steps instead; N: 1",
    )
    group.add_argument(
        "--separator",
        type=_escaped,
        default="\n\n",
        metavar="TEXT",
        help="what ends a step, for --segment-steps and --prm; default: a blank line, \\n\\n",
    )


def add_sampling(group: Any, seed: int = 0) -> None:
    """Declare how tokens are drawn; `seed` is the default of the run's."""
    group.add_argument(
        "--max-tokens", type=positive, default=32_768, metavar="N", help="a branch's length; default: 32768"
    )
    for name, default in (("temperature", 1.0), ("top-p", 1.0), ("min-p", 0.0)):
        group.add_argument(f"--{name}", type=float, default=default, metavar="X", help=f"default: {default}")
    group.add_argument("--top-k", type=natural, default=0, metavar="N", help="default: 0, all tokens")
    for name, default in (("presence", 0.0), ("frequency", 0.0), ("repetition", 1.0)):
        group.add_argument(
            f"--{name}-penalty", type=float, default=default, metavar="X", help=f"default: {default}"
        )
    group.add_argument("--seed", type=natural, default=seed, metavar="N", help=f"of the run; default: {seed}")
    group.add_argument(
        "--confidence-top",
        type=natural,
        default=20,
        metavar="K",
        help="a token's confidence is made of its K likeliest alternatives (DeepConf); 0 = none; default: 20",
    )
    group.add_argument(
        "--confidence-window",
        type=positive,
        default=2048,
        metavar="N",
        help="a segment's confidence is that of the N tokens before its end; default: 2048",
    )
    group.add_argument(
        "--expect-tokens",
        type=positive,
        metavar="N",
        help="a branch's length to reckon the cost with; default: the mean so far, else half of --max-tokens",
    )


def add_prm(group: Any) -> None:
    """Declare the process reward model."""
    group.add_argument("--prm", metavar="MODEL", help="scores every step; default: no scores")
    group.add_argument("--prm-kind", metavar="KIND", help="default: by the model's architecture")
    group.add_argument(
        "--prm-window", type=positive, metavar="N", help="score only the first N tokens of a path"
    )
    group.add_argument("--prm-step-tag", metavar="TEXT", help="default: the kind's own")
    group.add_argument(
        "--prm-engine-arg",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for its vLLM",
    )


def _counts(text: str) -> tuple[int, ...]:
    """Whole numbers, separated by commas."""
    return tuple(positive(part.strip()) for part in text.split(","))


def _escaped(text: str) -> str:
    r"""A text in which a shell may write line breaks as \n."""
    if not text:
        raise argparse.ArgumentTypeError("a separator must not be empty")
    return text.replace("\\n", "\n")


def _shown(text: str) -> str:
    return repr(text).replace("%", "%%")


def _report(path: Path) -> None:
    from env.store import Store

    store = Store.open(path)
    print(f"{path}: {store.contents}")
    if "prm" in store.capabilities:
        from collect.prm.quality import measure

        quality = measure(store.forest())
        print("\n".join(quality.lines()))
        if quality.warning:
            print(f"warning: {quality.warning}", file=sys.stderr)
