"""Votes over answer codes: what controllers share. Ties go to the answer seen first."""

from collections import Counter
from functools import cache
from math import comb


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
