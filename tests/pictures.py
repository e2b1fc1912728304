"""Curves to draw, and what tests read off a picture."""

import re
import xml.etree.ElementTree as ET

from env.drawing.canvas import Look
from env.drawing.frontiers import Curve, Point


def point(beta, accuracy, tokens, interval=(0.2, 0.9)):
    return Point(beta, accuracy, interval, tokens, (tokens / 2, tokens * 2), tokens / 3)


CURVES = [
    Curve("round 3", Look(0), [point(0, 0.4, 1e4), point(1, 0.6, 2e5)], 0.5),
    Curve("parallel <probe>", Look(1), [point(0, 0.4, 1e4), point(1, 0.5, 9e5)], 0.4),
]


def drawings(pictures):
    """The wide and the narrow one, parsed: so both are well-formed."""
    found = [ET.fromstring(svg) for svg in re.findall("<svg.*?</svg>", pictures)]
    assert [svg.get("class") for svg in found] == ["wide", "narrow"]
    return found


def numbers(svg):
    return [
        float(x)
        for line in svg.iter("polyline")
        for pair in line.get("points").split()
        for x in pair.split(",")
    ]
