"""AutoTTS: find the program that spends a reasoning model's tokens best.

The public API, loaded on first use, and the `autotts` command. Importing this module also registers
`AutoTTS/Replay-v0` with Gymnasium, so `gymnasium.make("autotts:AutoTTS/Replay-v0", store=PATH)` works.
"""

import argparse
import difflib
import errno
import os
import select
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Eager, because Gymnasium has no plug-in hook and `import autotts` may well come before `import gymnasium`.
from gymnasium.envs.registration import register

from env.errors import UserError
from env.parser import CommandParser
from env.rooms import Rooms

ROOMS = Rooms(Path(import_module("controllers").__path__[0]), Path(__file__).resolve().parent / "data")

register(
    id="AutoTTS/Replay-v0",
    entry_point="env.gym:ReplayEnv",
    vector_entry_point="env.gym:ReplayVectorEnv",
    kwargs={"store": ROOMS.data / "stores" / "tiny-search"},
)

API = {
    "Episodes": "env.evaluate",
    "Forest": "env.forest",
    "Program": "env.program",
    "Store": "env.store",
    "StoreWriter": "env.store_writer",
    "evaluate": "env.evaluate",
    "summarise": "env.statistics",
    "trace": "env.evaluate",
}
# The shipped controllers by name, and a controller by name or by path.
controllers, program = ROOMS.controllers, ROOMS.program

__all__ = [*API, "UserError", "controllers", "main", "program"]

COMMANDS = {
    "collect": ("collect.commands.collect", "sample trees, probes and scores from a model, with vLLM"),
    "merge": ("collect.commands.merge", "put the shards of a collection together"),
    "import": ("collect.commands.import_", "make a store of recordings, evaluation logs or your own samples"),
    "controllers": ("env.commands.controllers", "list the shipped controllers, or print one"),
    "evaluate": ("env.commands.evaluate", "measure accuracy and cost of controllers on stores"),
    "compare": ("env.commands.compare", "say whether one controller is better than another"),
    "export": ("env.commands.export", "write a controller as one file that runs it against a vLLM server"),
    "policy": ("search_agent.commands.policy", "fit which controller to play by difficulty and budget"),
    "live": ("collect.commands.live", "play a controller against a real model"),
    "certify": ("collect.commands.certify", "say whether replay told the truth of a model that is served"),
    "serve": ("collect.commands.serve", "serve a controller as an OpenAI-compatible endpoint"),
    "search": ("search_agent.commands.search", "search for better controllers"),
    "report": ("search_agent.commands.report", "draw a search run as one self-contained HTML file"),
}

STDOUT = 1
# What the machine refuses, as opposed to what a bug of ours would raise.
REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}


def __getattr__(name: str) -> Any:
    if name not in API:
        raise AttributeError(f"module 'autotts' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(API[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *API})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `autotts` command and return its exit status.

    Status 1 is work that came to nothing; 2 an error that the user can mend, told in one line; 130 Ctrl-C.
    """
    try:
        try:
            return _run(sys.argv[1:] if argv is None else list(argv))
        finally:
            sys.stdout.flush()
    except UserError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        # Without this the interpreter complains once more as it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        return 141
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        where = f": {error.filename}" if error.filename else ""
        return _fail(f"{os.strerror(error.errno)}{where}", 2)


def _run(argv: list[str]) -> int:
    command = argv[0] if argv else "--help"
    parser = argparse.ArgumentParser(prog="autotts", description=_first_paragraph(__doc__))
    parser.add_argument("--version", action="version", version=f"autotts {version('autotts')}")
    choices = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=CommandParser)
    parsers = {name: choices.add_parser(name, help=line) for name, (_, line) in COMMANDS.items()}
    if command not in COMMANDS:
        if not command.startswith("-"):
            raise UserError(f"no command {command!r}.{_hint(command)} `autotts --help` lists the commands.")
        parser.parse_args([command])
    module = import_module(COMMANDS[command][0])
    parsers[command].description = module.__doc__
    parsers[command].formatter_class = argparse.RawDescriptionHelpFormatter
    module.add_arguments(parsers[command])
    status: int = module.run(parser.parse_args(argv), ROOMS)
    return status


def _reader_has_left() -> bool:
    """Is it `| head` that has had enough, and not some pipe of our own that broke?"""
    poll = select.poll()
    poll.register(STDOUT, 0)
    return bool(poll.poll(0))


def _hint(command: str) -> str:
    near = difflib.get_close_matches(command, COMMANDS, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _first_paragraph(text: str | None) -> str:
    return (text or "").split("\n\n")[0]


def _fail(message: str, status: int) -> int:
    print(f"autotts: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
