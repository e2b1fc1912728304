"""Pages that need nothing else: one file, readable offline, in the style of the pictures on it."""

import base64
import hashlib
from importlib.metadata import version
from pathlib import Path
from string import Template

from env.drawing import STYLE
from env.drawing.text import show

HEAD = Path(__file__).with_name("head.html")


def fill(template: Path, headline: str, *, style: str = "", script: str = "", **parts: str) -> str:
    """A page whose own policy lets the browser load nothing, and run nothing but `script`.

    Args:
        template: begins with `$head`; has places for whatever else is given, the headline and the version.
        headline: as plain text.
        style: rules besides those of `STYLE`.
        script: what the page runs, put into its place as it is.
        parts: HTML for the places of the template.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    common = {"headline": show(headline), "version": show(version("autotts"))}
    head = _template(HEAD).substitute(
        common,
        style=STYLE.read_text(encoding="utf-8") + style,
        scripts=f"; script-src 'sha256-{digest}'" if script else "",
    )
    return _template(template).substitute(common, head=head.rstrip(), script=script, **parts)


def _template(file: Path) -> Template:
    return Template(file.read_text(encoding="utf-8"))
