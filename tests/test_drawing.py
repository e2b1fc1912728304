import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import CURVES, drawings, numbers, point

from env.drawing.canvas import LEFT, Look, log_ticks, short, spread, ticks
from env.drawing.frontiers import Curve, frontiers
from env.drawing.intervals import Figure, Strip, intervals

SIZES = st.lists(st.tuples(st.floats(0, 300), st.floats(5, 50)), max_size=8)


@given(SIZES)
def test_labels_do_not_overlap_and_stay_inside_where_they_fit(boxes):
    wanted, sizes = [want for want, _ in sorted(boxes)], [size for _, size in sorted(boxes)]
    starts = spread(wanted, sizes, 0, 300)
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    assert all(end <= start + 1e-6 for end, start in zip(ends, starts[1:], strict=False))
    assert all(start >= 0 for start in starts)
    if sum(sizes) <= 300:
        assert all(end <= 300 + 1e-6 for end in ends)


def test_labels_that_have_room_stay_where_they_are_wanted():
    assert spread([10, 100, 250], [20, 20, 20], 0, 300) == [10, 100, 250]


@given(st.floats(-1, 1), st.floats(1e-3, 1e3), st.integers(4, 12))
def test_ticks_are_few_and_round_and_inside(low, span, most):
    found = ticks(low, low + span, most)
    assert 1 <= len(found) <= most
    assert all(low - 1e-6 * span <= value <= low + span * (1 + 1e-6) for value in found)


@given(st.floats(1, 1e6), st.floats(1.01, 1e5))
def test_log_ticks_are_inside(low, ratio):
    found = log_ticks(low, low * ratio)
    assert all(low <= value <= low * ratio for value in found)
    assert found or ratio < 2.5


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (950, "950"), (999.6, "1k"), (12_345, "12.3k"), (1_039_000, "1.04M"), (2e9, "2G")],
)
def test_counts_in_three_digits(number, text):
    assert short(number) == text


def test_frontiers_draw_every_point_and_only_the_winners_intervals():
    for svg in drawings(frontiers("It", CURVES)):
        marks = [path for path in svg.iter("path") if path.find("title") is not None]
        assert len(marks) == 4
        assert sum("whisker k0" == line.get("class") for line in svg.iter("polyline")) == 4
        assert "round 3, beta 1: 60.0% [20.0, 90.0] for 200k tokens, 66.7k on the critical path" in [
            mark.find("title").text for mark in marks
        ]
        width, height = map(float, svg.get("viewBox").split()[2:])
        assert all(0 <= x <= max(width, height) for x in numbers(svg))


def test_a_frontier_of_one_free_point_that_is_always_right_can_be_drawn():
    drawings(frontiers("It", [Curve("round 1", Look(0), [point(0.5, 1.0, 0, None)] * 2, 0)]))


def test_looks_can_be_told_apart():
    looks = {
        (look.css, look.shape) for hollow in (False, True) for look in (Look(s, hollow) for s in range(26))
    }
    assert len(looks) == 2 * 26
    assert Look(0).shape != Look(1).shape and Look(6).css == Look(1).css


FIGURES = [Figure(0.1, (-0.1, 0.3), "one: 0.1"), None, Figure(-9.0, (-12.0, -7.0), "far: -9")]


def test_intervals_have_a_line_for_each_name_and_a_place_for_each_strip():
    names = [("one", Look(0)), ("none", Look(1)), ("far", Look(2, hollow=True))]
    strips = [Strip(("easy", "3 problems"), FIGURES), Strip(("hard", "4 problems"), FIGURES)]
    wide, narrow = drawings(intervals("It", names, strips, "points", floor=-1.0))
    for svg, lists_of_names in ((wide, 1), (narrow, 2)):
        told = [text.text for text in svg.iter("text")]
        assert told.count("none") == lists_of_names and {"easy", "hard", "points"} <= set(told)
        marks = [path for path in svg.iter("path") if path.find("title") is not None]
        assert [mark.find("title").text for mark in marks] == ["one: 0.1", "far: -9"] * 2
        # What is below the floor is an arrow at the edge, and its interval is not in the picture at all.
        assert [mark.get("d") for mark in marks] == [Look(0).shape, LEFT] * 2
        assert len([line for line in svg.iter("polyline") if line.get("class").startswith("span")]) == 2
        width, height = map(float, svg.get("viewBox").split()[2:])
        assert all(0 <= number <= max(width, height) for number in numbers(svg))
