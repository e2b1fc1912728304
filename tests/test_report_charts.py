import re

import pytest
from pictures import CURVES, drawings

from search_agent.report.charts import Step, progress

STEPS = [
    Step(1, None, None, 0.3, True, "a"),
    Step(2, 1, None, None, False, "b"),
    Step(3, 1, None, 0.5, True, "c"),
]


def test_progress_links_rounds_and_marks_what_became_of_them():
    for svg in drawings(progress("It", STEPS, CURVES[1:], {1, 3})):
        assert [link.get("href") for link in svg.iter("a")] == ["#round-1", "#round-2", "#round-3"]
        assert [link.find("path").get("class") for link in svg.iter("a")] == [
            "round on",
            "round lost",
            "round on",
        ]
        assert len([path for path in svg.iter("path") if path.get("class") == "parent lead"]) == 1


def test_a_hopeless_round_does_not_squeeze_the_others():
    def height(steps):
        svg = drawings(progress("It", steps, CURVES[1:], set()))[0]
        at = {
            a.get("href"): float(re.search(r" ([\d.]+)\)", a.find("path").get("transform"))[1])
            for a in svg.iter("a")
        }
        return at["#round-1"] - at["#round-3"]

    hopeless = Step(4, 1, None, -50.0, True, "d")
    assert height([*STEPS, hopeless]) > 0.5 * height(STEPS)


@pytest.mark.parametrize("values", [[None], [0.3], [None, None, 0.0], [0.0] * 300])
def test_progress_of_any_run(values):
    steps = [Step(n, n - 1, None, value, True, "") for n, value in enumerate(values, 1)]
    drawings(progress("It", steps, CURVES[1:], set()))
    if values[-1] is not None:
        drawings(progress("It", steps, [], {1}))
