"""Which problems serve for what: hold-out, feedback fold, selection folds.

Problems are told apart by the hash of their question, so one and the same problem is on one side in every
store and for every model. The order they are dealt in is a second hash that no option changes: a problem that
was once set aside stays aside in later searches on the same problems.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from env.errors import UserError

HOLDOUT_SHARE = 0.3


@dataclass(frozen=True)
class Splits:
    """Question hashes of each part, sorted; the parts are disjoint.

    Attributes:
        feedback: fold 0: proposers see outcomes and traces of these.
        folds: folds 1 to K-1: the winner is chosen on these, proposers never see them.
        holdout: looked at once, at the end.
    """

    feedback: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...]
    holdout: tuple[str, ...]

    @property
    def selection(self) -> tuple[str, ...]:
        """The problems of `folds`, sorted."""
        return tuple(sorted(problem for fold in self.folds for problem in fold))


def split(problems: Iterable[str], folds: int = 3, holdout: Iterable[str] | None = None) -> Splits:
    """Deal problems into hold-out, feedback and selection.

    Args:
        problems: question hashes of the search stores.
        folds: K; one fold in K is feedback, the others are selection.
        holdout: question hashes of separate hold-out stores; without them 30% of `problems` are set aside.

    Raises:
        UserError: fewer than two folds, too few problems for every part to get one, or a hold-out that has
            problems of the search stores in it.
    """
    if folds < 2:
        raise UserError(f"--folds {folds}: give at least 2, one to learn from and one to select on")
    dealt = sorted(set(problems), key=_card)
    if holdout is None:
        aside = max(1, round(HOLDOUT_SHARE * len(dealt)))
        held, rest = dealt[:aside], dealt[aside:]
    else:
        held, rest = list(holdout), dealt
        require_apart(held, rest)
    if len(rest) < folds:
        raise UserError(
            f"{len(rest)} problems are left for {folds} folds; give larger stores, or a smaller --folds"
        )
    first, *others = (tuple(sorted(rest[k::folds])) for k in range(folds))
    return Splits(first, tuple(others), tuple(sorted(held)))


def require_apart(holdout: Iterable[str], problems: Iterable[str]) -> None:
    """See that no problem of the hold-out (question hashes) is among the others.

    Raises:
        UserError: one is.
    """
    if shared := set(holdout) & set(problems):
        raise UserError(
            f"{len(shared)} problems of the hold-out stores are in the other stores too; what was learnt "
            "from cannot be held out: give other stores to --holdout, or leave it out"
        )


def _card(problem: str) -> str:
    return hashlib.sha256(f"autotts split {problem}".encode()).hexdigest()
