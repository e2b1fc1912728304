"""What a live episode's answers mean: its own codes for them, by the rule of a store, and which is right."""

import asyncio
from collections.abc import Sequence

from env.episode import UNASKED, UNPARSED
from env.tasks import Task, guarded


class Answers:
    """The codes of one episode; an answer joins the first class whose representative it equals, or founds it.

    Args:
        task: reads and compares answers.
        gold: the right answer; None = nobody knows.
        classes: representatives of classes that there are already, as in the store that is followed.
    """

    def __init__(self, task: Task, gold: str | None = None, classes: Sequence[str] = ()) -> None:
        self._task, self._gold = task, gold
        self._representatives = list(classes)
        self._class: dict[str, int] = {}
        self._codes: dict[int, int] = {}

    async def codes(self, answers: Sequence[str | int | None]) -> list[int]:
        """What a controller is told of answers: numbers in the order in which it first saw their classes.

        Args:
            answers: each a text, None (nothing could be parsed) or UNASKED.

        Raises:
            TaskError: the task failed.
        """
        new = [each for each in dict.fromkeys(answers) if isinstance(each, str) and each not in self._class]
        if new[1:] or (new and self._representatives):
            # Comparing mathematics may take seconds, and other episodes are waiting.
            await asyncio.to_thread(self._classify, new)
        else:
            self._classify(new)
        codes = []
        for answer in answers:
            if isinstance(answer, str):
                codes.append(self._codes.setdefault(self._class[answer], len(self._codes)))
            else:
                codes.append(UNPARSED if answer is None else UNASKED)
        return codes

    def seen(self, code: int) -> bool:
        """Whether it may be given as an answer."""
        return UNPARSED <= code < len(self._codes)

    def text(self, code: int) -> str | None:
        """The answer behind a code that was seen."""
        found = [number for number, known in self._codes.items() if known == code]
        return self._representatives[found[0]] if found else None

    async def correct(self, code: int) -> bool:
        """Whether it is the right answer. Raises TaskError if the task failed."""
        answer = self.text(code)
        if answer is None or self._gold is None:
            return False
        return await asyncio.to_thread(self._grade, self._gold, answer)

    def _grade(self, gold: str, answer: str) -> bool:
        with guarded(self._task):
            return bool(self._task.grade(gold, answer))

    def _classify(self, answers: Sequence[str]) -> None:
        for answer in answers:
            with guarded(self._task):
                equal = (n for n, each in enumerate(self._representatives) if self._task.equal(each, answer))
                number = next(equal, None)
            if number is None:
                number = len(self._representatives)
                self._representatives.append(answer)
            self._class[answer] = number
