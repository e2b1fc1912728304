"""Whoever writes the controllers: `openai`, `command`, `compose` and `tune`, one interface."""

from __future__ import annotations

import argparse
import copy
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from env.errors import UserError
from search_agent.desk import Lane
from search_agent.pareto import ROLES
from search_agent.proposal import Proposer, Usage

NAMES = ("openai", "command", "compose", "tune")
# These answer at once, and by the archive alone.
QUICK = ("compose", "tune")
NO_KEY = "none"  # local servers ask for no key, the openai package insists on one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the proposers that a user configures."""
    for name in OPTIONS:
        _add_options(parser, name)


def _add_options(parser: argparse.ArgumentParser, name: str) -> None:
    about, add = OPTIONS[name]
    add(parser.add_argument_group(f"proposer {name}", about))


def _add_openai(openai: argparse._ArgumentGroup) -> None:
    openai.add_argument("--model", help="its name at the endpoint (default: $OPENAI_MODEL)")
    openai.add_argument(
        "--base-url", metavar="URL", help="of the endpoint (default: $OPENAI_BASE_URL, else OpenAI)"
    )
    openai.add_argument(
        "--api-key-env",
        metavar="NAME",
        default="OPENAI_API_KEY",
        help="environment variable that holds the key (default: %(default)s)",
    )
    openai.add_argument(
        "--no-tools", action="store_true", help="one prompt, one reply: for models without tool calling"
    )
    openai.add_argument(
        "--max-turns", type=int, metavar="N", default=16, help="replies a round (default: %(default)s)"
    )
    openai.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        default=400_000,
        help="prompt and completion tokens a round (default: %(default)s)",
    )
    openai.add_argument(
        "--max-reply-tokens",
        type=int,
        metavar="N",
        default=16_384,
        help="tokens a reply (default: %(default)s)",
    )
    openai.add_argument(
        "--max-cost", type=float, metavar="USD", help="money the whole run may cost (default: no bound)"
    )
    openai.add_argument(
        "--max-total-tokens",
        type=int,
        metavar="N",
        help="prompt and completion tokens the whole run may take (default: no bound)",
    )
    openai.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help='JSON that adds to our price table: {"model": {"input": 1.25, "cached": 0.125, "output": 10}}, '
        "in USD per million tokens",
    )
    openai.add_argument(
        "--request-timeout",
        type=float,
        metavar="SECONDS",
        default=600.0,
        help="a request (default: %(default)s)",
    )


def _add_command(command: argparse._ArgumentGroup) -> None:
    command.add_argument(
        "--command",
        dest="agent_command",
        metavar="LINE",
        help='run in a folder with PROMPT.md, leaves controller.py there; "manual" waits for a person',
    )
    command.add_argument(
        "--allow-path",
        action="append",
        default=[],
        metavar="PATH[:rw]",
        help="a file or folder the command may see, read-only unless :rw (repeatable)",
    )
    command.add_argument(
        "--pass-env",
        action="append",
        default=[],
        metavar="NAME",
        help="a variable the command gets (repeatable)",
    )
    command.add_argument(
        "--command-minutes",
        type=float,
        metavar="M",
        default=30.0,
        help="time it may take, a round (default: %(default)s)",
    )


# The proposers that have options, what they are, and who adds those.
OPTIONS = {
    "openai": ("a model behind any OpenAI-compatible endpoint", _add_openai),
    "command": ("a coding agent's command line, or a person", _add_command),
}


def default(args: argparse.Namespace) -> str:
    """The proposer of a user who named none: `openai` where key and model are known, else `compose`."""
    if args.agent_command:
        return "command"
    known = (args.model or os.environ.get("OPENAI_MODEL")) and (
        args.base_url or os.environ.get(args.api_key_env)
    )
    return "openai" if known else "compose"


class _Settings(argparse.ArgumentParser):
    """Reads the settings of one proposer: its role, and the options of its kind."""

    def __init__(self, text: str) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self._text = text
        self.add_argument("--role", choices=ROLES, default=ROLES[0])
        if (name := text.partition(":")[0]) in OPTIONS:
            _add_options(self, name)

    def error(self, message: str) -> NoReturn:
        raise UserError(
            f"--proposer {self._text}: {message.replace('--', '')}; expected NAME:OPTION=VALUE,..., NAME "
            f"is {' or '.join(NAMES)} and OPTION role ({'|'.join(ROLES)}) or one that NAME has in "
            "`autotts search --help`"
        )


def lanes(args: argparse.Namespace, hidden: Sequence[Path] = ()) -> list[Lane]:
    """Build every proposer of a run, `args.proposer` being texts such as "openai:model=gpt-5,role=refine".

    What such a text does not set is as `args` has it. Values with commas in them are quoted.

    Raises:
        UserError: an option is missing or wrong.
    """
    built: list[Lane] = []
    for text in args.proposer:
        name, _, settings = text.partition(":")
        parser = _Settings(text)
        if name not in NAMES:
            parser.error(f"no proposer {name!r}")
        words = shlex.shlex(settings, posix=True, punctuation_chars="")
        words.whitespace, words.whitespace_split, words.commenters = ",", True, ""
        try:
            given = [f"--{word}" for word in words]
        except ValueError as error:
            parser.error(str(error))
        options = parser.parse_args(given, copy.deepcopy(args))
        proposer = make(name, options, hidden)
        model = proposer.settings.get("model")
        label = f"{proposer.name} {model}" if model and len(args.proposer) > 1 else proposer.name
        twins = sum(lane.label.partition(" #")[0] == label for lane in built)
        built.append(
            Lane(
                proposer,
                label=f"{label} #{twins + 1}" if twins else label,
                role=options.role,
                quick=name in QUICK,
                estimate=getattr(proposer, "estimate", Usage()),
            )
        )
    if all(lane.proposer.name == "tune" for lane in built):
        raise UserError("tune fits constants of what others write: give a second --proposer beside it")
    return built


def make(name: str, args: argparse.Namespace, hidden: Sequence[Path] = ()) -> Proposer:
    """Build a proposer from the options of `add_arguments`.

    Args:
        name: of `NAMES`.
        args: the parsed options.
        hidden: stores, hold-outs and the run folder: what a command must never see.

    Raises:
        UserError: an option is missing or wrong.
    """
    if name == "openai":
        return _openai(args)
    if name == "command":
        return _command(args, hidden)
    if name == "compose":
        from search_agent.compose.proposer import ComposeProposer

        return ComposeProposer()
    if name == "tune":
        from search_agent.tuner import TuneProposer

        return TuneProposer()
    raise UserError(f"no proposer {name!r}: there are {', '.join(NAMES)}")


def _openai(args: argparse.Namespace) -> Proposer:
    from search_agent.proposers.endpoint import public_url
    from search_agent.proposers.meter import Limits
    from search_agent.proposers.openai_agent import OpenAIProposer
    from search_agent.proposers.prices import price_of

    model = args.model or os.environ.get("OPENAI_MODEL")
    if not model:
        raise UserError("--proposer openai needs a model: give --model, or set OPENAI_MODEL")
    base_url = args.base_url or os.environ.get("OPENAI_BASE_URL")
    if base_url and not base_url.startswith(("http://", "https://")):
        raise UserError(f"--base-url {base_url}: expected a URL such as http://localhost:8000/v1")
    if base_url and public_url(base_url) != base_url.rstrip("/"):
        raise UserError(
            f"--base-url {public_url(base_url)}: leave user, password and query out; the key is read from "
            f"{args.api_key_env}"
        )
    key = os.environ.get(args.api_key_env)
    if not key and not base_url:
        raise UserError(f"--proposer openai needs a key: set {args.api_key_env}, or see --api-key-env")
    for option in (
        "max_turns",
        "max_tokens",
        "max_reply_tokens",
        "max_cost",
        "max_total_tokens",
        "request_timeout",
    ):
        value = getattr(args, option)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{option.replace('_', '-')} {value}: expected a number above 0")
    price = price_of(model, args.prices)
    if args.max_cost is not None and price is None:
        raise UserError(
            f"--max-cost needs the price of {model}, which is not in our table: give it with --prices FILE "
            f'({{"{model}": {{"input": 1.25, "output": 10}}}}, USD per million tokens)'
        )
    limits = Limits(
        args.max_turns, args.max_tokens, args.max_reply_tokens, args.max_cost, args.max_total_tokens
    )
    return OpenAIProposer(
        model,
        key or NO_KEY,
        base_url,
        tools=not args.no_tools,
        limits=limits,
        price=price,
        timeout=args.request_timeout,
    )


def _command(args: argparse.Namespace, hidden: Sequence[Path]) -> Proposer:
    from search_agent.proposers.bubblewrap import Mount
    from search_agent.proposers.command import CommandProposer

    if not args.agent_command:
        raise UserError(
            "--proposer command needs --command, such as --command \"claude -p 'Read PROMPT.md'\""
        )
    if not args.command_minutes > 0:
        raise UserError(f"--command-minutes {args.command_minutes}: expected a number above 0")
    mounts = [Mount.parse(text) for text in args.allow_path]
    return CommandProposer(args.agent_command, hidden, mounts, args.pass_env, args.command_minutes * 60)
