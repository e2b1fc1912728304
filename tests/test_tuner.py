import random

import pytest

from env.program import Program, check
from search_agent.proposal import NothingToPropose
from search_agent.tuner import TuneProposer, tunable, with_values

SOURCE = '''"""Räume: bytes are not characters."""

TUNABLE = {"margin": (0.5, 3.0), "quorum": (2, 9), "lead": (-2.0, -0.5), "width": (1, 64), "absent": (0, 1)}


def schedule(beta):
    return {"ä": "ä", "margin": 1.5, "width": round(64**beta), "lead": -1.0, "quorum": 4}


async def solve(ep, **settings):
    ids = await ep.branch(1, probe=False)
    await ep.finish(ids)
    return ep.answer[ids[0]]
'''


def test_constants_that_are_plain_numbers_of_the_schedule_can_be_fitted():
    found = tunable(SOURCE)
    assert {name: (c.low, c.high, c.value, c.whole) for name, c in found.items()} == {
        "margin": (0.5, 3.0, 1.5, False),
        "lead": (-2.0, -0.5, -1.0, False),
        "quorum": (2, 9, 4, True),
    }
    other = with_values(SOURCE, {"margin": 2.25, "lead": -0.75, "quorum": 7})
    check(other)
    settings = Program("it", other, True).load()["schedule"](0.5)
    assert settings == {"ä": "ä", "margin": 2.25, "width": 8, "lead": -0.75, "quorum": 7}
    assert with_values(other, {name: c.value for name, c in found.items()}) == SOURCE


@pytest.mark.parametrize(
    "source",
    [
        "def (",
        "\\0",
        SOURCE.replace("TUNABLE =", "CONSTANTS ="),
        SOURCE.replace('TUNABLE = {"margin": (0.5, 3.0), ', "TUNABLE = None  # {").replace("}  # {", ""),
        SOURCE.replace("1.5", "1.5 * beta").replace('"quorum": 4', '"quorum": True').replace("-1.0", "'-1'"),
        SOURCE.replace("(0.5, 3.0)", "(3.0, 0.5)").replace("(2, 9)", "2").replace("(-2.0, -0.5)", "(-2.0,)"),
    ],
)
def test_whatever_else_a_program_says_cannot(source):
    assert tunable(source) == {}


class Bench:
    """As much of a workbench as `tune` looks at."""

    def __init__(self, sources, seed=0):
        self.rng = random.Random(f"{seed} {len(sources)}")
        self._sources = sources

    def history(self):
        return [
            {"round": k, "parent": None, "status": "evaluated", "feedback": self._figures(source)}
            for k, source in enumerate(self._sources, 1)
        ]

    def read_controller(self, round):
        return self._sources[round - 1]

    def _figures(self, source):
        # The nearer its margin is to 2.5, the better a program is.
        margin = tunable(source).get("margin")
        return {"hypervolume": 1 - abs(margin.value - 2.5) if margin else 0.0, "points": [], "seeds": 20}


def tuned(rounds, seed=0, sources=(SOURCE,)):
    sources = list(sources)
    while len(sources) < rounds:
        proposal = TuneProposer().propose(Bench(sources, seed))
        assert proposal.parent and proposal.source not in sources
        sources.append(proposal.source)
    return sources


def test_it_finds_better_constants_and_changes_nothing_else():
    sources = tuned(25)
    for source in sources:
        check(source)
        assert with_values(source, dict.fromkeys(tunable(source), 0)) == with_values(
            SOURCE, dict.fromkeys(tunable(SOURCE), 0)
        )
        for name, c in tunable(source).items():
            assert c.low <= c.value <= c.high, name
    margins = [tunable(source)["margin"].value for source in sources]
    assert min(abs(margin - 2.5) for margin in margins) < 0.1


def test_in_short_a_constant_stays_within_its_bounds():
    narrow = SOURCE.replace("(0.5, 3.0)", "(0.98761, 0.98769)").replace("1.5", "0.98765")
    (_, source) = tuned(2, sources=[narrow])
    assert 0.98761 <= tunable(source)["margin"].value <= 0.98769


def test_the_same_archive_leads_to_the_same_constants():
    whole = tuned(8)
    assert tuned(8, sources=whole[:5]) == whole
    assert tuned(8, seed=1) != whole


def test_without_constants_to_fit_there_is_nothing_to_propose():
    for sources in ([], [SOURCE.replace("TUNABLE", "NOTHING")]):
        with pytest.raises(NothingToPropose):
            TuneProposer().propose(Bench(sources))


def test_a_family_of_few_members_is_fitted_out():
    few = SOURCE.replace("1.5", "1.5 + 0").replace("-1.0", "-beta").replace("(2, 9)", "(2, 4)")
    sources = [with_values(few, {"quorum": quorum}) for quorum in (2, 3, 4)]
    with pytest.raises(NothingToPropose):
        TuneProposer().propose(Bench(sources))
