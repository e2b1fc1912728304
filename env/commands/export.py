r"""Write a controller as one Python file that runs it against a vLLM server, without AutoTTS.

autotts export --controller adaptive_consistency --beta 0.5 --store stores/mine --out ask.py
autotts export --controller mine.py --beta 0.25 --temperature 0.6 --max-tokens 16384 --out ask.py

The file needs Python and the openai package. Then:

python ask.py --base-url http://localhost:8000/v1 --model Qwen/Qwen3-8B "What is 6 times 7?"

The controller runs in that process with all the rights of whoever starts it, so read what a model wrote.
Answers are compared as the texts of their boxes: the checker that knows mathematics stays here.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env.commands.options import beta, natural, positive, setting
from env.errors import UserError
from env.rooms import Rooms

if TYPE_CHECKING:
    from env.export.settings import Settings
    from env.store import Store

# Options whose values replace those of a store, under the names that `Settings` has for them.
OWN = (
    "prompt",
    "system",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "max_tokens",
    "segment_tokens",
    "segment_steps",
    "probe_text",
    "max_branches",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `autotts export`."""
    parser.add_argument("--controller", required=True, metavar="NAME_OR_PATH")
    parser.add_argument("--beta", required=True, type=beta, metavar="B", help="from 0, cheap, to 1, thorough")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--store",
        metavar="STORE",
        help="ask and sample as this store was collected, the one on which the controller was found",
    )
    group = parser.add_argument_group("how the model is asked, where it is not as in --store")
    group.add_argument("--prompt", metavar="TEXT", help="what the user says, with {question} in it")
    group.add_argument("--system", metavar="TEXT", help="system prompt; default: the chat template's")
    group.add_argument(
        "--chat-template-arg",
        type=setting,
        action="append",
        metavar="NAME=VALUE",
        help="for the chat template, such as enable_thinking=False; may be repeated",
    )
    group.add_argument("--think-tags", nargs=2, metavar=("OPEN", "CLOSE"), help="default: <think> </think>")
    for name, default in (("temperature", 1.0), ("top-p", 1.0), ("min-p", 0.0)):
        group.add_argument(f"--{name}", type=float, metavar="X", help=f"default: {default}")
    group.add_argument("--top-k", type=natural, metavar="N", help="default: 0, all tokens")
    group.add_argument("--max-tokens", type=positive, metavar="N", help="a branch's length; default: 32768")
    group.add_argument(
        "--segment-tokens", type=positive, metavar="N", help="a segment's length; default: 500"
    )
    group.add_argument(
        "--segment-steps", type=positive, metavar="N", help="cut segments of N reasoning steps instead"
    )
    group.add_argument("--probe-text", metavar="TEXT", help="what a probe writes for the model to go on with")
    group.add_argument(
        "--max-branches", type=positive, metavar="N", help="default: 64, or half of what the store has"
    )
    group.add_argument("--prm", metavar="MODEL", help="the reward model, for controllers that score")
    group.add_argument("--prm-kind", choices=("qwen-prm", "token-classifier"), help="default: by its name")


def run(args: argparse.Namespace, rooms: Rooms) -> int:
    """Write the file, and say how to run it.

    Raises:
        UserError: the controller cannot be exported, the store cannot be read, or something is in the way.
    """
    from env.export.assemble import MARK, assemble
    from env.files import ready, write
    from env.program import needs
    from env.store import Store

    program = rooms.program(args.controller)
    program.check()
    store = Store.open(args.store) if args.store else None
    settings, defaults = _settings(args, store, program.source)
    if "{question}" not in settings.prompt:
        raise UserError(f"the prompt {settings.prompt!r} has no {{question}}, where the question would go")
    origin = f"The settings are those of the collection {store.dataset} of {store.model}" if store else ""
    if origin:
        origin += f", which does not say {', '.join(defaults)}: those are defaults." if defaults else "."
    voting = (rooms.shelf / "voting.py").read_text(encoding="utf-8")
    text = assemble(program, args.beta, settings, voting, origin)
    ready(args.out)
    if args.out.exists() and MARK not in args.out.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{args.out} is there, and no exported file; give another --out")
    write(args.out, text.encode())
    prm = " --prm-url URL --prm-model MODEL" if "prm" in needs(program.source) else ""
    print(f"{args.out}: {program.name} at beta {args.beta:g}")
    if defaults:
        unsaid = ", ".join(defaults)
        print(f"{args.store} does not say these, so they have their defaults unless you give them: {unsaid}")
    print(f'python {args.out} --base-url http://localhost:8000/v1 --model MODEL{prm} "A question"')
    if not program.trusted:
        print(f"{program.name} is none of ours: it will run with all your rights, so read it first")
    return 0


def _settings(args: argparse.Namespace, store: "Store | None", source: str) -> "tuple[Settings, list[str]]":
    """The settings, and the options for those of them that a store should say and does not."""
    from env.export.recorded import recorded, said, with_prm
    from env.export.settings import Settings
    from env.program import needs

    settings = recorded(store) if store is not None else Settings()
    own: dict[str, Any] = {name: getattr(args, name) for name in OWN}
    own["chat_template_args"] = dict(args.chat_template_arg) if args.chat_template_arg else None
    own["think_tags"] = tuple(args.think_tags) if args.think_tags else None
    given = {name: value for name, value in own.items() if value is not None}
    defaults = [] if store is None else _unsaid(list(own), {*said(store), *given})
    if args.segment_tokens:
        if args.segment_steps:
            raise UserError("give --segment-tokens or --segment-steps, not both")
        settings = replace(settings, segment_steps=None)
    settings = replace(settings, **given)
    if "prm" not in needs(source):
        return settings, defaults
    recipe = store.meta["provenance"].get("prm") if store is not None else None
    model = args.prm or (recipe or {}).get("model")
    if model is None:
        raise UserError("this controller scores steps: name its reward model with --prm")
    recipe = recipe if recipe and recipe["model"] == model else None
    return with_prm(settings, model, args.prm_kind, recipe), defaults


def _unsaid(names: list[str], known: set[str]) -> list[str]:
    """The options for what is not known."""
    if "segment_steps" in known:
        known |= {"segment_tokens"}
    # One of the two is enough, and how many branches there are is counted.
    known |= {"segment_steps", "max_branches"}
    unsaid = [name.replace("_args", "_arg").replace("_", "-") for name in names if name not in known]
    return [f"--{name}" for name in unsaid]
