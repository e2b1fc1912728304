"""Puts a controller, a model and a task together, and plays questions."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from env.errors import UserError
from env.forest import hash_question
from env.index import Index
from env.live.answers import Answers
from env.live.episode import LiveEpisode
from env.live.model import Model
from env.live.names import MAX_BRANCHES, Fresh, Names, Stored
from env.live.player import Played, Player
from env.store import Store
from env.tasks import Task


class Question(NamedTuple):
    """What is asked, and the right answer; None = nobody knows it."""

    text: str
    gold: str | None = None

    @property
    def name(self) -> str:
        """The same in every store."""
        return hash_question(self.text)


@dataclass(frozen=True)
class Bench:
    """What live episodes are played with.

    Attributes:
        model: is asked.
        player: the controller.
        task: compares and grades answers.
        seed: of the run: episode seed s draws its branches with `seed + s`.
        max_branches: ceiling on branches opened at the root; None = 64, or as a replay of `follow` has it.
        follow: a store whose branches are drawn again, in the order in which a replay of the episode's seed
            serves them; `seed` must be that of its collection, and no other is added to it.
    """

    model: Model
    player: Player
    task: Task
    seed: int = 0
    max_branches: int | None = None
    follow: Store | None = None

    def episode(self, question: Question, seed: int) -> LiveEpisode:
        """An episode that has not begun.

        Raises:
            UserError: the store that is followed does not have the question.
        """
        names: Names
        if self.follow is None:
            run, names, classes = self.seed + seed, Fresh(self.max_branches or MAX_BRANCHES), []
        else:
            problem = self._problems.get(question.name)
            if problem is None:
                raise UserError(f"{self.follow.path} does not have the problem {question.name}")
            run, names = self.seed, Stored(self._index, problem, seed, self.max_branches or 0)
            classes = self.follow.problems["classes"][problem].as_py()
        return LiveEpisode(
            self.model.ask(question.text, run),
            self.model.abilities,
            names,
            Answers(self.task, question.gold, classes),
            seed,
            self.player.columns,
        )

    async def play(self, question: Question, seed: int) -> Played:
        """Play an episode. Raises UserError like `episode`."""
        return await self.player.play(self.episode(question, seed))

    @cached_property
    def _index(self) -> Index:
        assert self.follow is not None
        return Index.build(self.follow.forest())

    @cached_property
    def _problems(self) -> Mapping[str, int]:
        assert self.follow is not None
        names = self.follow.problems["question_hash"].to_pylist()
        return {name: number for number, name in enumerate(names)}
