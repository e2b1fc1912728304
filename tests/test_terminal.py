"""The bar of long commands: there when it takes long, gone afterwards, and never in a file."""

import io
import time

import pytest
from rich.console import Console

from env.commands import terminal


@pytest.fixture
def screen(monkeypatch):
    """What a terminal, or a file, is given to show."""

    def attach(is_terminal: bool) -> io.StringIO:
        shown = io.StringIO()
        console = Console(file=shown, force_terminal=is_terminal, width=80)
        monkeypatch.setattr(terminal, "Console", lambda stderr: console)
        monkeypatch.setattr(terminal, "BAR_AFTER", 0.05)
        return shown

    return attach


def test_a_bar_shows_what_takes_long_also_before_there_is_anything_to_report(screen):
    shown = screen(True)
    with terminal.progress_bar("episodes") as advance:
        time.sleep(0.4)
        assert "episodes" in shown.getvalue()
        advance(3, 7)
        time.sleep(0.4)
        assert "3/7" in shown.getvalue()


def test_no_bar_for_what_is_done_soon_and_none_in_a_file(screen):
    for shown, seconds in ((screen(True), 0.0), (screen(False), 0.2)):
        with terminal.progress_bar("episodes") as advance:
            advance(1, 2)
            time.sleep(seconds)
        assert shown.getvalue() == ""


def test_the_bar_ends_with_an_error(screen):
    screen(True)
    with pytest.raises(KeyboardInterrupt), terminal.progress_bar("episodes"):
        time.sleep(0.1)
        raise KeyboardInterrupt
