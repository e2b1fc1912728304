"""The report of a search: RUN/report.html, one file that needs nothing else, not even a network.

`view` reads the run, `outcomes` and `episodes` what a reader may look around in; `page` tells it all, in
`sections` and `rounds`, with pictures (`charts`, `lineage`), `tables` and program `listing`s. The scripts let
a reader step through rounds and episodes.
"""

from pathlib import Path

from search_agent.archive import Run
from search_agent.report.episodes import episodes
from search_agent.report.outcomes import outcomes
from search_agent.report.page import page
from search_agent.report.view import View, reading

NAME = "report.html"


def write_report(run: Path) -> Path:
    """Draw a run, whatever state it is in, as RUN/report.html.

    Returns:
        The path of the file, which is there whole or as it was before.

    Raises:
        UserError: there is no run in the folder, one of its files is damaged (it is named), or the disk
            refuses.
    """
    archive, view = Run.open(run), View.of(run)
    with reading(run):
        matrix, shown = outcomes(archive, view), episodes(archive, view)
    archive.write(NAME, page(view, matrix, shown))
    return run / NAME
