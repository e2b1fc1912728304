"""Text on its way to a model and back: bounded, printable, and read leniently."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

MAX_SUMMARY = 600  # characters
MAX_HYPOTHESIS = 1_000
BLOCK = re.compile(r"^```[ \t]*(\w*)[^\n]*\n(.*?)(?:^```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
# Within a line: over all that separates lines, a long file of nothing else would take for ever.
GAP = r"[^\w\n]"
HYPOTHESIS = re.compile(rf"^{GAP}*hypothesis{GAP}+(.+)$", re.IGNORECASE | re.MULTILINE)
PARENT = re.compile(
    rf"^{GAP}*parents?{GAP}*(?:rounds?{GAP}*)?(\d+)(?:{GAP}+(?:and{GAP}+)?(?:round{GAP}*)?(\d+))?{GAP}*$",
    re.IGNORECASE | re.MULTILINE,
)


def clean(text: str, limit: int) -> str:
    """Text of unknown origin on one line: unprintable characters escaped, at most `limit` characters."""
    line = "".join(
        c if c.isprintable() else f"\\x{ord(c):02x}" if c not in "\n\t" else " " for c in text[: 2 * limit]
    )
    return line if len(line) <= limit else line[: limit - 1] + "…"


def hide(text: str, secrets: Mapping[str, str]) -> str:
    """A text without the secrets in it: their names stand for them.

    Values under 8 characters are no secrets ("EMPTY" for a local server) and might be ordinary words.
    """
    for name, value in secrets.items():
        if len(value) >= 8:
            text = text.replace(value, f"[{name}]")
    return text


def cut(text: str, limit: int, advice: str) -> str:
    """The beginning of a text that is too long, in whole lines, and a line that says what to ask instead."""
    if len(text) <= limit:
        return text
    kept = text[:limit].rpartition("\n")[0] or text[:limit]
    return f"{kept}\n[cut: {len(text) - len(kept)} more characters; {advice}]"


def fit(sections: Iterable[tuple[str, str]], limit: int) -> str:
    """Titled sections as one text of at most about `limit` characters: see `within`."""
    return "\n\n".join(f"## {title}\n\n{body}" for title, body in within(sections, limit))


def within(sections: Iterable[tuple[str, str]], limit: int) -> Iterator[tuple[str, str]]:
    """Those of some sections, whole, that have room in `limit` characters; the first in any case."""
    used = 0
    for title, body in sections:
        size = len(title) + len(body) + len("## \n\n\n\n")
        if not used or used + size <= limit:
            used += size
            yield title, body


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as comma-separated lines under a header; a float has four significant digits."""
    lines = [",".join(columns)]
    lines += [",".join(_cell(row.get(column)) for column in columns) for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return clean(str(value), 200).replace(",", ";")


def program_in(reply: str) -> str | None:
    """The program in a model's prose: its last Python code block that defines `solve`, else None."""
    blocks = [
        code for language, code in BLOCK.findall(reply) if language.lower() in ("", "py", "python", "python3")
    ]
    return next((code for code in reversed(blocks) if "def solve" in code), None)


class Said(NamedTuple):
    """What a proposer says of its program.

    Attributes:
        summary: what it does differently, and why.
        parent: the round it was derived from, if any.
        partner: the other round, where two were crossed.
        hypothesis: as text; "" = none.
    """

    summary: str
    parent: int | None = None
    partner: int | None = None
    hypothesis: str = ""


def said_in(prose: str, rounds: Sequence[int]) -> Said:
    """What some prose says of a program.

    A line "Parent: 3", or "Parents: 3 and 7", names the rounds it was derived from, if they are of `rounds`;
    a line "Hypothesis: ..." is that; all else outside of code blocks is the summary.
    """
    without_code = BLOCK.sub("", prose)
    named = (PARENT.findall(without_code) or [()])[-1]
    stated = (HYPOTHESIS.findall(without_code) or [""])[-1]
    summary = HYPOTHESIS.sub("", PARENT.sub("", without_code))
    origin = [number for word in named for number in rounds if str(number) == word]
    return Said(
        clean(" ".join(summary.split()), MAX_SUMMARY),
        *[*dict.fromkeys(origin), None, None][:2],
        clean(stated.strip(" *_`"), MAX_HYPOTHESIS),
    )
