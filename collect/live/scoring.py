"""Step scores for live episodes: whatever waits for the reward model is scored in one call."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from collect.prm.scorer import Item, Scorer
from env.errors import UserError
from env.live.model import ModelError

Scores = list[float | None]


@dataclass
class StepScores:
    """Asks a scorer, which answers one call at a time, for many episodes.

    Args:
        scorer: the reward model.
        separator: what ends a step.
    """

    scorer: Scorer
    separator: str
    _waiting: "list[tuple[Item, asyncio.Future[Scores]]]" = field(default_factory=list)
    _task: "asyncio.Task[None] | None" = None
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    async def of(self, question: str, steps: Sequence[str]) -> Scores:
        """Scores of steps, one each, None beyond what the model can read. Raises ModelError."""
        if not steps:
            return []
        future: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()
        self._waiting.append(((question, steps), future))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._score())
        return await future

    def close(self) -> None:
        """Let go of the model."""
        self._thread.shutdown()
        self.scorer.close()

    async def _score(self) -> None:
        while self._waiting:
            batch = [each for each in self._waiting if not each[1].done()]
            self._waiting = []
            items = [item for item, _ in batch]
            try:
                found = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self.scorer.score, items
                )
            # Whoever waits must hear of it, whatever it is.
            except Exception as error:
                said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                for _, future in batch:
                    if not future.done():
                        future.set_exception(ModelError(f"no step scores: {said}"))
                continue
            for (_, future), scores in zip(batch, found, strict=True):
                if not future.done():
                    future.set_result(scores)
        self._task = None
