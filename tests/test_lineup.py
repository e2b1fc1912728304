"""Controllers against self-consistency, with figures worked out by hand, and the page that shows them."""

import math
import re
import xml.etree.ElementTree as ET

import polars as pl
import pytest
from pictures import drawings

from env.drawing.lineup import page
from env.frontier import Reference
from env.lineup import BASELINE, Ratio, by_difficulty, lineup

EASY, HARD = [f"easy {k}" for k in range(5)], [f"hard {k}" for k in range(4)]
# A branch costs 100 tokens, so self-consistency at 4, 16 and 64 costs 400, 1600 and 6400.
REFERENCES = {
    "s": Reference(
        tokens=dict.fromkeys(EASY + HARD, 6400.0),
        accuracy=dict.fromkeys(EASY, 0.75) | dict.fromkeys(HARD, 0.25),
    )
}
# (beta, tokens, share of ten seeds that is right); sequential tokens are a tenth of tokens.
VOTING = [(0.0, 100, 4), (0.25, 400, 5), (0.5, 1600, 6), (0.75, 3200, 6), (1.0, 6400, 7)]
FRUGAL = [(0.0, 200, 5), (1.0, 800, 7)]
DEAR = [(0.0, 1000, 5), (1.0, 2000, 6)]


def episodes(controller: str, points, problems=EASY + HARD, short: float = 0.0) -> pl.DataFrame:
    rows = [
        {
            "store": "s", "model": "m", "dataset": "d", "controller": controller, "beta": beta,
            "settings": "{}", "problem": problem, "seed": seed, "correct": seed < right, "tokens": tokens,
            "sequential": tokens // 10, "decode": tokens, "probe": 0, "prm": 0, "rounds": 1, "asked": 100,
            "granted": 100 - round(100 * short * beta), "error": "", "protocol": "standard",
            "isolation": "none", "level": "",
        }
        for beta, tokens, right in points
        for problem in problems
        for seed in range(10)
    ]  # fmt: skip
    return pl.DataFrame(rows)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    # Frugal is right on the hard problems only, as often as it is said; on the easy ones it is hopeless.
    frugal = [episodes("frugal", FRUGAL, HARD), episodes("frugal", [(b, t, 1) for b, t, _ in FRUGAL], EASY)]
    return pl.concat([episodes(BASELINE, VOTING), *frugal, episodes("dear <b>", DEAR, short=0.5)])


def close(*pairs) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) for a, b in pairs)


def test_a_controller_against_self_consistency_by_hand(frame):
    only_hard = frame.filter(pl.col("problem").is_in(HARD))
    found = {entry.controller: entry for entry in lineup(only_hard, REFERENCES)}
    four, sixteen, many = found["frugal"].matches
    # 400 tokens are half way from 200 to 800 in the logarithm; its sequential tokens likewise.
    assert close((four.accuracy.value, 0.6), (four.lead.value, 0.1), (four.sequential, 40))
    assert close((four.tokens.value, 0.5), (four.latency.value, 0.5))
    # Accuracy 0.6 is half way, too; voting needs 1600 tokens for it.
    assert close((sixteen.accuracy.value, 0.7), (sixteen.tokens.value, 0.25), (sixteen.latency.value, 0.25))
    assert close((many.lead.value, 0.0), (many.tokens.value, 0.125))
    # All these problems are the same, so no resample differs.
    assert close(*zip(sixteen.tokens.interval, (0.25, 0.25), strict=True))

    four, sixteen, many = found["dear <b>"].matches
    assert four.accuracy is four.lead is four.sequential is None
    assert close((four.tokens.value, 2.5), (sixteen.tokens.value, 2000 / 1600))
    assert math.isinf(many.tokens.value) and math.isinf(many.tokens.interval[0])
    assert [(place.beta, place.replayable) for place in found["dear <b>"].points] == [(0, True), (1, False)]
    for match in found[BASELINE].matches:
        assert close((match.lead.value, 0), (match.tokens.value, 1), (match.latency.value, 1))


def test_the_whole_grid_has_a_hypervolume_and_comes_first(frame):
    first, *others = lineup(frame, REFERENCES)
    assert first.controller == BASELINE and first.hypervolume is not None
    assert [entry.hypervolume for entry in others] == [None, None]


def test_intervals_say_when_an_accuracy_may_never_be_reached(frame):
    """Frugal gets 0.7 x 4/9 + 0.1 x 5/9, less than voting does, unless a resample is of hard problems."""
    frugal = next(entry for entry in lineup(frame, REFERENCES) if entry.controller == "frugal")
    low, high = frugal.matches[0].tokens.interval
    assert math.isinf(frugal.matches[0].tokens.value) and low < 4 and math.isinf(high)
    assert str(frugal.matches[0].tokens) == f"never [{low:.2f}, never]"
    assert str(Ratio(math.inf, (math.inf, math.inf))) == "never" and str(Ratio(0.5, None)) == "0.50"
    lead = frugal.matches[0].lead
    assert lead.interval[0] < lead.value < lead.interval[1]


def test_by_difficulty_tells_where_a_controller_helps(frame):
    hard, easy = by_difficulty(frame, REFERENCES)
    assert (hard.low, hard.high, hard.problems) == (0.25, 0.25, len(HARD))
    assert (easy.low, easy.high, easy.problems) == (0.75, 0.75, len(EASY))
    assert close((hard.matches["frugal"][0].lead.value, 0.1), (easy.matches["frugal"][0].lead.value, -0.4))
    assert close((hard.matches[BASELINE][1].lead.value, 0.0))


def test_self_consistency_that_ends_early_is_taken_as_far_as_it_went(frame):
    """A store of few branches: what it gets with all of them is all that 64 would get."""
    few = frame.filter((pl.col("controller") != BASELINE) | (pl.col("beta") <= 0.5))
    entry = next(entry for entry in lineup(few, REFERENCES) if entry.controller == BASELINE)
    assert close((entry.matches[2].accuracy.value, 0.6), (entry.matches[2].tokens.value, 1.0))


def shown(frame: pl.DataFrame, **options) -> str:
    entries, levels = lineup(frame, REFERENCES), by_difficulty(frame, REFERENCES)
    given = {"datasets": ["d & e"], "facts": [("seeds", "10")], "notes": ["x cannot be played: s has no prm"]}
    return page(entries, levels, {"frugal"}, **(given | options))


def test_the_page_is_whole_and_loads_nothing(frame):
    text = shown(frame)
    assert not re.search(r"(src|href)=|<script|url\(|@import|https?:", text)
    assert "$" not in text and "x cannot be played: s has no prm" in text
    assert "dear <b>" not in text and "dear &lt;b&gt;" in text and "d &amp; e" in text
    pictures = [ET.fromstring(svg) for svg in re.findall(r"<svg viewBox=\"0 0.*?</svg>", text)]
    # Two frontiers, the hypervolumes, and three budgets by difficulty, each wide and narrow.
    assert [svg.get("class") for svg in pictures] == ["wide", "narrow"] * 6


def test_the_frontiers_mark_verifiers_and_what_cannot_be_replayed(frame):
    text = shown(frame)
    section = text[text.index("<h2>Frontiers</h2>") : text.index("<h2>Frontiers over")]
    for svg in drawings(section):
        looks = {}
        for mark in svg.iter("path"):
            if mark.find("title") is not None:
                looks.setdefault(mark.find("title").text.split(",")[0], []).append(mark.get("class"))
        assert looks["frugal"] == ["mark k1"] * 2
        assert looks["dear <b>"] == ["mark k1 hollow", "caveat k1 hollow", "mark k1 hollow"]
        titles = [title.text for title in svg.iter("title")]
        assert (
            "dear <b>, beta 1: 60.0% [60.0, 60.0] for 2k tokens, 200 on the critical path; "
            "not replayable on this store: 50% shortfall" in titles
        )
        assert len([line for line in svg.iter("polyline") if "whisker" in line.get("class")]) == 2 * 9
    over = text[text.index("<h2>Frontiers over") : text.index("<h2>Hypervolume")]
    assert "sequential tokens a problem, log scale" in over


def test_the_page_says_where_verifiers_help(frame):
    text = shown(frame)
    section = text[text.index("<h2>Where verifiers help") : text.index("<h2>Figures")]
    told = re.findall("<li>(.*?)</li>", section)
    assert told[:2] == ["pass rate 25%: frugal better than voting.", "pass rate 75%: frugal worse."]
    assert "frugal: +10.0 points [10.0, 10.0]" in section
    # 40 points behind is at the edge, as an arrow, and says what it is all the same.
    assert "frugal: -40.0 points" in section and 'd="M-5 0L4-5V5z"' in section


def test_a_page_of_nothing_but_self_consistency(frame):
    alone = frame.filter((pl.col("controller") == BASELINE) & (pl.col("beta") < 1))
    text = shown(alone, notes=[])
    assert "<h2>Hypervolume" not in text and "1 controller " in text
