import pytest
from hypothesis import given
from hypothesis import strategies as st

from env.errors import UserError
from search_agent.splits import split

HASHES = st.lists(st.text("0123456789abcdef", min_size=8, max_size=8), min_size=8, max_size=60, unique=True)


@given(HASHES, st.integers(2, 4))
def test_parts_are_disjoint_and_cover_every_problem(problems, folds):
    parts = split(problems, folds)
    everything = [*parts.feedback, *parts.selection, *parts.holdout]
    assert sorted(everything) == sorted(problems)
    assert min(len(parts.feedback), len(parts.selection), len(parts.holdout)) > 0


@given(HASHES, st.randoms(use_true_random=False))
def test_the_order_and_repetition_of_problems_do_not_matter(problems, random):
    shuffled = problems * 2
    random.shuffle(shuffled)
    assert split(shuffled) == split(problems)


def test_shares_of_thirty_problems():
    problems = [f"{k:08x}" for k in range(30)]
    parts = split(problems)
    assert [len(part) for part in (parts.holdout, parts.feedback, parts.selection)] == [9, 7, 14]
    parts = split(problems, 5)
    assert [len(part) for part in (parts.holdout, parts.feedback, parts.selection)] == [9, 5, 16]


def test_the_holdout_does_not_depend_on_the_folds():
    problems = [f"{k:08x}" for k in range(30)]
    assert split(problems, 2).holdout == split(problems, 5).holdout


def test_separate_holdout_stores_leave_all_search_problems_to_the_search():
    parts = split(["a1", "b2", "c3"], 3, holdout=["d4"])
    assert parts.holdout == ("d4",)
    assert len(parts.feedback) + len(parts.selection) == 3


def test_a_holdout_that_was_searched_on_is_refused():
    with pytest.raises(UserError, match="1 problems of the hold-out stores are in the other stores too"):
        split(["a1", "b2", "c3"], 3, holdout=["c3", "d4"])


@pytest.mark.parametrize(
    ("count", "folds", "says"), [(2, 3, "problems are left for 3 folds"), (9, 1, "at least 2")]
)
def test_too_little_to_split_is_an_error(count, folds, says):
    with pytest.raises(UserError, match=says):
        split([f"{k:08x}" for k in range(count)], folds)
