"""Option values that several commands take, each with an error that says what was expected."""

import argparse
import ast
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from env.errors import UserError
from env.program import GRID, Program

BETAS = ",".join(f"{beta:g}" for beta in GRID)
# Proposers of a search see outcomes on seeds from here on, so no evaluation may use those.
MOST_SEEDS = 1_000_000


def add_controller(parser: argparse.ArgumentParser) -> None:
    """Declare `--controller` of a command that takes one."""
    parser.add_argument(
        "--controller",
        required=True,
        metavar="NAME_OR_PATH",
        help="a shipped one by name (see `autotts controllers`), your own by the path of its file",
    )


def add_settings(
    parser: argparse.ArgumentParser,
    help: str = "override a setting of the controller's schedule; may be repeated",
) -> None:
    """Declare `--set`."""
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="NAME=VALUE", help=help)


def add_costs(parser: argparse.ArgumentParser) -> None:
    """Declare `--cost` and what goes with it."""
    parser.add_argument(
        "--cost",
        action="append",
        default=[],
        metavar="COST",
        help="measure this as well, may be repeated: prompt_tokens, cached_tokens, prm_tokens, "
        "eflops[:MODEL], kv_peak[:MODEL], kv_time[:MODEL], seconds:SPEEDS.json, price:PRICES.json, tokens, "
        "sequential_tokens, or a function of your own, FILE.py:FUNCTION or MODULE:FUNCTION; "
        "env/costs/catalogue.py defines them",
    )
    parser.add_argument(
        "--prompt-tokens",
        type=natural,
        default=0,
        metavar="N",
        help="for --cost: how long a prompt is where the store does not know; default: 0",
    )


def betas(text: str) -> tuple[float, ...]:
    """Numbers in [0, 1], separated by commas."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 <= beta <= 1 for beta in values):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers in [0, 1], such as 0,0.5,1")
    return tuple(dict.fromkeys(values))


def beta(text: str) -> float:
    """One number in [0, 1]."""
    try:
        (value,) = betas(text)
    except (argparse.ArgumentTypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is no number in [0, 1], such as 0.5") from None
    return value


def setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value as Python writes it, or text."""
    name, equals, value = text.partition("=")
    if not (equals and value and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, such as max_branches=16")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def require_settings(
    programs: Sequence[Program], betas: Sequence[float], settings: Mapping[str, Any]
) -> None:
    """Before the work: see that there is a controller with what `--set` overrides.

    Only ours are asked: the others' schedules run where their episodes do, and fail there.

    Raises:
        UserError: nobody has such a setting, or one has a number where none was given.
    """
    ours = [program for program in programs if program.trusted] if settings else []
    schedules = {program.name: program.load()["schedule"](betas[0]) for program in ours}
    for name, value in settings.items():
        known = {program: has[name] for program, has in schedules.items() if name in has}
        if not known and len(ours) == len(programs):
            there = "; ".join(f"{program} has {', '.join(has)}" for program, has in schedules.items())
            raise UserError(f"--set {name}: there is no such setting; {there}")
        for program, usual in known.items():
            if isinstance(usual, Real) and not isinstance(value, Real):
                raise UserError(f"--set {name}={value}: {program} expects a number, such as {usual}")


def natural(text: str) -> int:
    """A whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def seed_count(text: str) -> int:
    """How many seeds, 1 or more."""
    if positive(text) > MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"{text} seeds: give at most {MOST_SEEDS:,}")
    return int(text)


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    if not natural(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
