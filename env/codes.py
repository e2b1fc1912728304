"""The answer codes of an episode: its own numbering of the problem's answers, in the order it saw them."""

import numpy as np
from numpy.typing import NDArray

from env.episode import UNASKED, UNPARSED
from env.index import Index, Ints
from env.order import rank

NEW = -3


class Codes:
    """The codes of E episodes. A code tells a controller which answers agree, and nothing else about them."""

    def __init__(self, index: Index, problems: Ints) -> None:
        self._index = index
        self._problems = problems
        # An episode's codes by answer id, two places on: ids UNASKED and UNPARSED have theirs as well.
        width = np.diff(index.first_answer)[problems] + 2
        self._first = np.cumsum(width) - width + 2
        self._code = np.full(int(width.sum()), NEW, np.int64)
        self._meaning = np.zeros(len(self._code), np.int64)
        self._given = np.zeros(len(problems), np.int64)
        self._begin(np.arange(len(problems)))

    def encode(self, episode: Ints, answer: Ints) -> Ints:
        """What each row shows of an answer id of its problem; UNASKED and UNPARSED stand for themselves."""
        place = self._first[episode] + answer
        code = self._code[place]
        fresh = np.flatnonzero(code == NEW)
        if len(fresh):
            _, first = np.unique(place[fresh], return_index=True)
            fresh = fresh[np.sort(first)]
            owner = episode[fresh]
            number = self._given[owner] + rank(owner)
            self._code[place[fresh]] = number
            self._meaning[self._first[owner] + number] = answer[fresh]
            np.add.at(self._given, owner, 1)
            code = self._code[place]
        return code

    def seen(self, episode: Ints, code: Ints) -> NDArray[np.bool_]:
        """Whether each may be given as an answer: a code that its episode has seen, or UNPARSED for none."""
        seen: NDArray[np.bool_] = (code >= UNPARSED) & (code < self._given[episode])
        return seen

    def correct(self, episode: Ints, code: Ints) -> NDArray[np.bool_]:
        """Whether codes that were seen are the right answer."""
        correct: NDArray[np.bool_] = np.zeros(len(code), np.bool_)
        told = np.flatnonzero(code >= 0)
        owner = episode[told]
        meaning = self._meaning[self._first[owner] + code[told]]
        correct[told] = self._index.correct[self._index.first_answer[self._problems[owner]] + meaning]
        return correct

    def _begin(self, episodes: Ints) -> None:
        first = self._first[episodes]
        self._code[first + UNASKED], self._code[first + UNPARSED] = UNASKED, UNPARSED
