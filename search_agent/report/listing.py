"""Programs and other people's words as HTML that shows every character and runs none."""

import io
import keyword
import tokenize
from collections.abc import Iterator
from difflib import SequenceMatcher
from functools import lru_cache

from env.drawing.text import show

# Token types that are not names, by the CSS class that colours them (Python 3.12 cuts f-strings in pieces).
_KINDS = {tokenize.COMMENT: "c", tokenize.STRING: "s", tokenize.NUMBER: "n"} | {
    getattr(tokenize, name): "s"
    for name in ("FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END")
    if hasattr(tokenize, name)
}


def listing(source: str, parent: str | None = None) -> str:
    """A program as an HTML listing; with a parent's source, one that marks what changed against it.

    The whole program is there in either case. Removed lines and line numbers cannot be selected, so that
    copying the listing copies the program.
    """
    if parent is None:
        rows = [_row("", number, line) for number, line in enumerate(_lines(source), 1)]
    else:
        rows = list(_changes(source, parent))
    return f'<pre class="code"><code>{"".join(rows)}</code></pre>'


def changed_lines(source: str, parent: str) -> tuple[int, int]:
    """How many lines were (added, removed) on the way from the parent to the source."""
    added = removed = 0
    for _, old_first, old_end, new_first, new_end in _edits(parent, source):
        added += new_end - new_first
        removed += old_end - old_first
    return added, removed


def _changes(source: str, parent: str) -> Iterator[str]:
    old, new, kept = _lines(parent), _lines(source), 0
    for _, old_first, old_end, new_first, new_end in _edits(parent, source):
        yield from (_row("", number + 1, new[number]) for number in range(kept, new_first))
        yield from (_row("del", None, line) for line in old[old_first:old_end])
        yield from (_row("ins", number + 1, new[number]) for number in range(new_first, new_end))
        kept = new_end
    yield from (_row("", number + 1, new[number]) for number in range(kept, len(new)))


@lru_cache(maxsize=1)  # They are counted, and then shown.
def _edits(parent: str, source: str) -> list[tuple[str, int, int, int, int]]:
    opcodes = SequenceMatcher(None, _split(parent), _split(source), autojunk=False).get_opcodes()
    return [opcode for opcode in opcodes if opcode[0] != "equal"]


def _row(change: str, number: int | None, line: str) -> str:
    gutter = "" if number is None else number
    return f'<span class="line {change}" data-line="{gutter}">{line}\n</span>'


def _split(source: str) -> list[str]:
    return source.replace("\r\n", "\n").rstrip("\n").split("\n")


def _lines(source: str) -> list[str]:
    """Each line of a program as HTML, its tokens coloured as far as it can be tokenised."""
    lines = _split(source)
    # Nothing behind a NUL is Python, and some of its tokenisers do not survive one.
    python = "\n".join(lines).partition("\0")[0]
    marks: list[list[tuple[int, int, str]]] = [[] for _ in lines]
    try:
        for token in tokenize.generate_tokens(io.StringIO(python + "\n").readline):
            kind = (
                "k"
                if token.type == tokenize.NAME and keyword.iskeyword(token.string)
                else _KINDS.get(token.type)
            )
            if kind is not None:
                (first, start), (last, end) = token.start, token.end
                for number in range(first, last + 1):
                    begin = start if number == first else 0
                    stop = end if number == last else len(lines[number - 1])
                    marks[number - 1].append((begin, stop, kind))
    except (tokenize.TokenError, SyntaxError, ValueError):
        pass  # A program that is not Python is listed all the same, coloured up to where it breaks.
    return [_coloured(line, spans) for line, spans in zip(lines, marks, strict=True)]


def _coloured(line: str, spans: list[tuple[int, int, str]]) -> str:
    pieces, done = [], 0
    for begin, stop, kind in spans:
        pieces.append(f'{show(line[done:begin])}<b class="{kind}">{show(line[begin:stop])}</b>')
        done = stop
    return "".join(pieces) + show(line[done:])
