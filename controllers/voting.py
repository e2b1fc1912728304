"""Votes over answer codes: what controllers share. Ties go to the answer seen first."""

from collections import Counter
from functools import cache
from math import comb, prod


def tally(votes):
    """How often each answer was given: of an iterable of codes, or of a Counter, which is its own tally."""
    return votes if isinstance(votes, Counter) else Counter(votes)


def majority(votes, guess=None):
    """The most frequent answer; None without votes.

    With a good `guess` it is found sooner: an answer that more than half of a list gives needs no counting.
    """
    if guess is not None and 2 * votes.count(guess) > len(votes):
        return guess
    counts = tally(votes)
    return max(counts, key=counts.get) if counts else None


def top_two(votes):
    """The two largest vote counts (0 where there is no such answer)."""
    counts = sorted(tally(votes).values(), reverse=True)
    return (*counts[:2], 0, 0)[:2]


@cache
def lead_confidence(first, second):
    """P(the leader is the true majority) with `first` votes against `second`, under a uniform prior.

    1 - BetaCDF(1/2; first + 1, second + 1) (Aggarwal et al. 2023), written as the binomial tail it equals.
    """
    draws = first + second + 1
    return sum(comb(draws, k) for k in range(first + 1)) / 2**draws


def majority_confidence(votes):
    """`lead_confidence` of the two most frequent answers; 0 without votes."""
    first, second = top_two(votes)
    return lead_confidence(first, second) if first else 0.0


def path_score(scores, how="last"):
    """The step scores of a path as one number: their "last", "min", "product" or "mean"; 0 without scores."""
    if how not in ("last", "min", "product", "mean"):
        raise ValueError(f"no aggregate {how!r}: choose last, min, product or mean")
    if not scores:
        return 0.0
    if how == "last":
        return scores[-1]
    if how == "min":
        return min(scores)
    return prod(scores) if how == "product" else sum(scores) / len(scores)


def weigh(votes, weights):
    """{answer: sum of its weights} in the order first seen; who has no answer (None or -1) has no vote."""
    sums = {}
    for vote, weight in zip(votes, weights, strict=True):
        if vote is not None and vote >= 0:
            sums[vote] = sums.get(vote, 0.0) + weight
    return sums


def weighted_majority(votes, weights):
    """The answer of the largest sum of weights; None where nobody has an answer."""
    sums = weigh(votes, weights)
    return max(sums, key=sums.get) if sums else None


def best_scored(votes, weights):
    """The answer of the largest single weight; None where nobody has an answer."""
    known = [(w, vote) for vote, w in zip(votes, weights, strict=True) if vote is not None and vote >= 0]
    return max(known, key=lambda one: one[0])[1] if known else None
