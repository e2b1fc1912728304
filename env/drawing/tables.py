"""Tables as HTML."""

from collections.abc import Sequence

from env.drawing.canvas import Look
from env.drawing.text import show


def named(name: str, look: Look) -> str:
    """A controller's mark, as in the pictures, and its name, which may break at its underscores."""
    mark = f'<path class="mark {look.css}" d="{look.shape}"/>'
    return (
        f'<span class="who"><svg viewBox="-7 -7 14 14" aria-hidden="true">{mark}</svg>'
        f"{show(name).replace('_', '_<wbr>')}</span>"
    )


def table(heads: Sequence[str], rows: Sequence[str]) -> str:
    """A table of column heads and of `row`s, which scrolls where it is too wide."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll">{body}</div>'


def row(cells: Sequence[str], style: str = "") -> str:
    """A row of cells, each HTML."""
    return f'<tr class="{style}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def faint(text: str) -> str:
    """What stands beside a figure, such as its interval; "" where there is none."""
    return f' <span class="ci">{text}</span>' if text else ""
