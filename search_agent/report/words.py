"""Small pieces that the page says the same way everywhere."""

from env.drawing.text import show
from search_agent.report.view import Round


def spoken(name: str) -> str:
    """A controller's name as prose has it."""
    return name.replace("_", " ")


def link(each: Round) -> str:
    """A round's name, which leads to it."""
    return f'<a href="#round-{each.number}">{each.name}</a>'


def stamp(text: str) -> str:
    """A caveat."""
    return f'<span class="badge stamp">{show(text)}</span>'


def count(number: int, noun: str) -> str:
    """So many of something."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def verdict(outcome: str) -> str:
    """What became of a hypothesis, told by sign and word, not by colour alone; "" where nothing did yet."""
    signs = {"held": ("k2", "✓"), "did not hold": ("k1", "✗"), "cannot tell": ("k5", "?")}
    style, sign = signs.get(outcome, ("k5", ""))
    return f'<span class="badge {style}">{sign} {show(outcome)}</span>' if outcome else ""
