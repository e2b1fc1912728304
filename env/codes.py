"""The answer codes of an episode: its own numbering of the problem's answers, in the order it saw them."""

import numpy as np
from numpy.typing import NDArray

from env.episode import UNASKED, UNPARSED
from env.index import Index, Ints
from env.order import rank


class Codes:
    """The codes of E episodes. A code tells a controller which answers agree, and nothing else about them."""

    def __init__(self, index: Index, problems: Ints) -> None:
        self._index = index
        self._problems = problems
        answers = np.diff(index.first_answer)[problems]
        self._first = np.cumsum(answers) - answers
        # One spare entry, so that an episode without answers has something to look up.
        self._code = np.full(int(answers.sum()) + 1, UNASKED, np.int64)
        self._meaning = np.zeros(len(self._code), np.int64)
        self._given = np.zeros(len(problems), np.int64)

    def encode(self, episode: Ints, node: Ints, shown: NDArray[np.bool_]) -> Ints:
        """What each row shows: a code, UNPARSED, or UNASKED where nothing is to be shown or known."""
        answer = self._index.answer[node]
        known = shown & (answer >= 0)
        place = np.where(known, self._first[episode] + answer, -1)
        code = self._code[place]
        fresh = np.flatnonzero(known & (code == UNASKED))
        if len(fresh):
            _, first = np.unique(place[fresh], return_index=True)
            fresh = fresh[np.sort(first)]
            owner = episode[fresh]
            number = self._given[owner] + rank(owner)
            self._code[place[fresh]] = number
            self._meaning[self._first[owner] + number] = answer[fresh]
            np.add.at(self._given, owner, 1)
            code = self._code[place]
        if known.all():
            return code
        return np.where(known, code, np.where(shown, np.minimum(answer, UNPARSED), UNASKED))

    def seen(self, episode: Ints, code: Ints) -> NDArray[np.bool_]:
        """Whether each may be given as an answer: a code that its episode has seen, or UNPARSED for none."""
        seen: NDArray[np.bool_] = (code >= UNPARSED) & (code < self._given[episode])
        return seen

    def correct(self, episode: Ints, code: Ints) -> NDArray[np.bool_]:
        """Whether codes that were seen are the right answer."""
        told = code >= 0
        meaning = self._meaning[np.where(told, self._first[episode] + code, -1)]
        first = self._index.first_answer[self._problems[episode]]
        correct: NDArray[np.bool_] = np.zeros(len(code), np.bool_)
        correct[told] = self._index.correct[first[told] + meaning[told]]
        return correct
