"""The report of a search: RUN/report.html, one file that needs nothing else, not even a network.

`view` reads the run, `page` tells it, with `charts` (on a `canvas`), `tables` and program `listing`s.
"""

from pathlib import Path

from search_agent.archive import Run
from search_agent.report.page import page
from search_agent.report.view import View

NAME = "report.html"


def write_report(run: Path) -> Path:
    """Draw a run, whatever state it is in, as RUN/report.html.

    Returns:
        The path of the file, which is there whole or as it was before.

    Raises:
        UserError: there is no run in the folder, one of its files is damaged (it is named), or the disk
            refuses.
    """
    Run.open(run).write(NAME, page(View.of(run)))
    return run / NAME
