"""From a fitted policy to the file that plays it: the chosen controllers, and who plays when."""

import ast
import re
import textwrap
from collections.abc import Mapping, Sequence
from keyword import iskeyword

from env.program import check

# A controller's name and a beta of its own.
Player = tuple[str, float]

HEAD = '''\
"""{docstring}"""

from bisect import bisect

from controllers.voting import top_two

# Whole branches that tell how hard a problem is, and how many of them agree from the second bin on.
SCOUTS = {scouts}
EASIER = {easier}
'''

TAIL = '''

# From which beta on who plays, at which beta of its own: the hardest bin first; or one for all, unscouted.
LEVELS = (
{levels}
)


def schedule(beta):
    return {{"level": bisect([least for least, _ in LEVELS], beta) - 1}}


def resume(ep, opened):
    """The next branches of the first arm that are asked for are those which are open already."""
    fresh, whole = ep.branch, ep.sample

    async def branch(n, probe=True, arm=0):
        if arm or not opened:
            return await fresh(n, probe, arm)
        taken, opened[:n] = opened[:n], []
        return taken + (await fresh(n - len(taken), probe) if n > len(taken) else [])

    async def sample(n, arm=0):
        if arm or not opened:
            return await whole(n, arm)
        taken, opened[:n] = opened[:n], []
        return taken + (await whole(n - len(taken)) if n > len(taken) else [])

    ep.branch, ep.sample = branch, sample


async def solve(ep, level):
    players, at = LEVELS[level][1], 0
    if len(players) > 1:
        opened = await ep.sample(SCOUTS)
        agreeing, _ = top_two(a for a in (ep.answer[b] for b in opened) if a is not None and a >= 0)
        at = bisect(EASIER, agreeing)
        resume(ep, opened)
    player, beta = players[at]
    settings, play = player()
    return await play(ep, **settings(beta))
'''
INDENT = "    "
TAKEN = {"schedule", "solve", "resume", "bisect", "top_two"}


def assemble(
    sources: Mapping[str, str],
    scouts: int,
    easier: Sequence[int],
    levels: Sequence[tuple[float, Sequence[Player]]],
    docstring: str,
) -> str:
    """The text of a controller that plays a policy.

    Args:
        sources: the controllers by name, as their files have them; those that nobody plays are left out.
        scouts: whole branches that are opened to tell how hard a problem is.
        easier: how many of them agree at least, in each bin but the hardest.
        levels: by least beta, upwards: for each bin, the hardest first, who plays at which beta of its own;
            or one who plays everything, without scouts.
        docstring: of the file.

    Raises:
        ProgramError: the file would not keep the contract of a controller, being too long for example.
    """
    played = {name for _, players in levels for name, _ in players}
    names = _identifiers([name for name in sources if name in played])
    rows = []
    for least, players in levels:
        # No-break spaces, so that a line ends between two players and not inside one.
        inside = ", ".join(f"({names[name]},\xa0{beta!r})" for name, beta in players)
        row = textwrap.wrap(f"({least!r}, ({inside},)),", 100, subsequent_indent=INDENT)
        rows.append(textwrap.indent("\n".join(row), INDENT).replace("\xa0", " "))
    text = HEAD.format(docstring=docstring, scouts=scouts, easier=tuple(easier))
    text += "".join(_enclosed(names[name], sources[name]) for name in names)
    text += TAIL.format(levels="\n".join(rows))
    check(text)
    return text


def _identifiers(names: Sequence[str]) -> dict[str, str]:
    """What each controller's function is called; files may have names that are none of Python's, or taken."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"\W", "_", name).lower()
        while not plain.isidentifier() or iskeyword(plain) or plain in {*TAKEN, *found.values()}:
            plain = f"play_{plain}"
        found[name] = plain
    return found


def _enclosed(name: str, source: str) -> str:
    """A controller's module as a function of its own, so that its names stay apart from all others'."""
    tree = ast.parse(source)
    docstring = ast.get_docstring(tree)
    above = tree.body[0].end_lineno if docstring is not None else 0
    # What stands inside a text of several lines must stay where it is.
    fixed = {
        number
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for number in range(node.lineno + 1, (node.end_lineno or 0) + 1)
    }
    body = [
        line if number in fixed or not line else INDENT + line
        for number, line in enumerate(source.split("\n"), 1)
        if number > (above or 0)
    ]
    text = "\n".join(body).strip("\n")
    summary = (docstring or name).split("\n\n")[0]
    about = textwrap.indent(f'"""{summary}"""', INDENT)
    return f"\n\ndef {name}():\n{about}\n\n{text}\n\n{INDENT}return schedule, solve\n"
