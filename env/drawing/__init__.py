"""Pictures of frontiers as SVG: what an evaluation and the report of a search are drawn with.

`STYLE` is the style sheet that they are drawn for; it follows light and dark, wide and narrow.
"""

from pathlib import Path

STYLE = Path(__file__).with_name("style.css")
