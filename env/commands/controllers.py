"""List the shipped controllers: name, what it does and where it is from, file. With names, print their code.

A copy to start from:  autotts controllers self_consistency > mine.py
All that one can do:   autotts controllers --api
"""

import argparse
import ast

from env.rooms import Rooms


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `autotts controllers`."""
    parser.add_argument(
        "controller", nargs="*", metavar="CONTROLLER", help="print this controller's code (a name or a path)"
    )
    parser.add_argument("--api", action="store_true", help="print what a controller can do, see and import")


def run(args: argparse.Namespace, rooms: Rooms) -> int:
    """Print the list, the code of the controllers named, or the reference of their API.

    Raises:
        UserError: there is no such controller.
    """
    for name in args.controller:
        print(rooms.program(name).source, end="")
    if args.api:
        print((rooms.shelf / "api.md").read_text(encoding="utf-8"), end="")
    elif not args.controller:
        for name, path in rooms.controllers().items():
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            summary = " ".join(docstring.split("\n\n")[0].split())
            print(f"{name}\n    {summary}\n    {path}")
    return 0
