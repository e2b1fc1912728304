"""Draw a search run as one self-contained HTML file: RUN/report.html.

Works on a run in any state, also while the search is still writing it. A few episodes are played again, to be
stepped through; where the stores are gone, or nothing can isolate the programs, the rest is drawn.

    autotts report runs/first --open
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from env.rooms import Rooms


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `autotts report`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder that `autotts search --out` wrote")
    parser.add_argument("--open", action="store_true", help="show it in a browser")


def run(args: argparse.Namespace, rooms: Rooms) -> int:
    """Write the report and print its path.

    Raises:
        UserError: there is no run in the folder, one of its files is damaged, or the disk refuses.
    """
    from search_agent.report import write_report

    path = write_report(args.run)
    print(path)
    if args.open:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    return 0
