"""Other people's words as HTML."""

import html


def visible(text: str) -> str:
    """Text in which invisible or direction-changing characters appear as escapes.

    Models write this text, so a reader must see what it is: U+202E becomes its six-letter escape.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def show(text: str) -> str:
    """Text as HTML: markup is inert, and nothing is invisible."""
    return html.escape(visible(text))
