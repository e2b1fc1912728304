import html
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_run import PROGRAM

from env.drawing.text import show
from search_agent.report.listing import changed_lines, listing


def selectable(text: str) -> str:
    """What a reader who copies the listing gets: removed lines are there to see, not to copy."""
    kept = re.sub(r'<span class="line del".*?\n</span>', "", text)
    return html.unescape(re.sub("<[^>]*>", "", kept)).rstrip("\n")


# All but what `show` writes as an escape, so that a listing can be turned back.
PLAIN = st.text(st.characters(codec="utf-8").filter(str.isprintable), max_size=20)
LINES = st.lists(PLAIN | st.sampled_from(PROGRAM.splitlines()), min_size=1, max_size=12)


@settings(max_examples=40)
@given(LINES, st.none() | LINES)
def test_a_listing_copies_as_the_program(lines, parent):
    source = "\n".join(lines).rstrip("\n")
    old = None if parent is None else "\n".join(parent)
    assert selectable(listing(source, old)) == source


@settings(max_examples=40)
@given(LINES, LINES)
def test_added_and_removed_lines_add_up(new, old):
    new, old = [*new, "end"], [*old, "end"]
    source, parent = "\n".join(new), "\n".join(old)
    added, removed = changed_lines(source, parent)
    assert len(new) - added == len(old) - removed
    shown = listing(source, parent)
    assert shown.count('class="line ins"') == added
    assert shown.count('class="line del"') == removed
    assert changed_lines(source, source) == (0, 0)


@given(st.text())
def test_nothing_that_is_shown_is_markup_or_invisible(text):
    shown = show(text)
    assert not set(shown) & set("<>\"'")
    assert all(char.isprintable() or char in "\n\t" for char in shown)
    assert html.unescape(shown) == text or not text.isprintable()


def test_escapes_keep_what_was_hidden():
    assert show("a\u202eb\x00\ud800\u00a0&amp;") == r"a\u202eb\x00\ud800\xa0&amp;amp;"


def test_tokens_are_coloured_across_lines_and_up_to_an_error():
    shown = listing('def f():\n    """Two\n    lines."""\n    return 1.5  # why\n')
    for piece in (
        '<b class="k">def</b>',
        "lines.&quot;&quot;&quot;</b>",
        '<b class="n">1.5</b>',
        '<b class="c"># why</b>',
    ):
        assert piece in shown
    broken = listing("def f(:\n  return 'a\n")
    assert '<b class="k">def</b>' in broken and "return" in broken


def test_line_ends_of_windows_are_no_difference():
    assert changed_lines("a\r\nb\r\n", "a\nb\n") == (0, 0)
