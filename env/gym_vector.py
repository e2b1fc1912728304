"""The vector form of `env.gym`: one engine call a step, for all environments together."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from env.errors import UserError
from env.gym_board import Board, Seen
from env.gym_show import NOTHING
from env.gym_table import ANSWER, KILO, Table
from env.stand import Ints
from env.store import Store


class ReplayVectorEnv(VectorEnv[Any, Any, Any]):
    """Many episodes in lockstep; step for step what as many `env.gym.ReplayEnv` do, seeds included.

    An environment whose episode has ended begins the next one in the step after (autoreset mode NEXT_STEP):
    its action is ignored then, and its reward is 0.

    Args:
        num_envs: how many.
        store, protocol, probe_tokens, max_branches, gamma, problems: as of `env.gym.ReplayEnv`.

    Raises:
        UserError: an argument out of range, or a store that cannot be read.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        store: Store | str | Path,
        *,
        protocol: str = "standard",
        probe_tokens: int = 20,
        max_branches: int | None = None,
        gamma: float = 0.001,
        problems: Collection[str] | None = None,
    ) -> None:
        self.table = table = Table.build(store, protocol, probe_tokens, max_branches, problems)
        self.num_envs = num_envs
        self.gamma = gamma
        self.single_action_space = table.action_space()
        self.single_observation_space = table.observation_space()
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._board = Board(table, num_envs)
        self._rngs: list[tuple[np.random.Generator, int]] = []
        self._over = np.zeros(num_envs, np.bool_)

    @property
    def actions(self) -> tuple[str, ...]:
        """What each action does, in words."""
        return self.table.names

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generators of the environments."""
        return tuple(rng for rng, _ in self._rngs)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """What they were seeded with."""
        return tuple(seed for _, seed in self._rngs)

    def action_masks(self) -> NDArray[np.bool_]:
        """bool[num_envs, A], the actions that would change something."""
        return self._board.seen["action_mask"].astype(np.bool_)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Seen, dict[str, Any]]:
        """Begin an episode everywhere.

        Args:
            seed: of the environments, one each; a number is that of the first, and the others count on.
            options: as of `env.gym.ReplayEnv.reset`, for all alike or (as sequences) one each.

        Raises:
            UserError: a wrong number of seeds, an option that there is not, a problem that the store lacks.
        """
        everyone = range(self.num_envs)
        if seed is None or isinstance(seed, int):
            seed = [None if seed is None else seed + i for i in everyone]
        if len(seed) != self.num_envs:
            raise UserError(f"{len(seed)} seeds for {self.num_envs} environments: give one each, or a number")
        if not self._rngs:
            self._rngs = [np_random(one) for one in seed]
        else:
            known = zip(self._rngs, seed, strict=True)
            self._rngs = [rng if one is None else np_random(one) for rng, one in known]
        self._restart(np.arange(self.num_envs), [_of(options, i) for i in everyone])
        return self._report({})

    def step(self, actions: Ints) -> tuple[Seen, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Act everywhere; see `env.gym`.

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
            gymnasium.error.InvalidAction: there is no such action.
        """
        if not self._rngs:
            raise gymnasium.error.ResetNeeded("no episode is under way: call reset() first")
        actions, last = np.array(actions, np.int64), len(self.table.moves) - 1
        if actions.shape != (self.num_envs,) or actions.min() < 0 or actions.max() > last:
            raise gymnasium.error.InvalidAction(f"give {self.num_envs} actions, each from 0 to {last}")
        if self._over.any():
            episodes = np.flatnonzero(self._over)
            actions[episodes] = NOTHING
            self._restart(episodes, [None] * len(episodes))
        paid = self._spent()
        self._board.act(actions)
        cost = self._spent() - paid
        self._over = actions == ANSWER
        correct, outcome = self._finish(np.flatnonzero(self._over))
        observation, info = self._report(outcome)
        truncated = np.zeros(self.num_envs, np.bool_)
        return observation, correct - self.gamma * cost / KILO, self._over.copy(), truncated, info

    def _spent(self) -> Ints:
        decode, probe, prm, _ = self._board.replay.ledger.T
        total: Ints = decode + probe + prm
        return total

    def _finish(self, e: Ints) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Grade those who answered; returns bool[num_envs] as numbers, and what `info` tells of them."""
        replay, ended = self._board.replay, self._over
        self._board.finish(e)
        correct = ended & replay.correct
        if not len(e):
            return correct.astype(np.float64), {}
        problem = np.full(self.num_envs, None, object)
        problem[e] = [self.table.index.forest.question_hash[p] for p in replay.problems[e]]
        told = {
            "correct": correct,
            "tokens": np.where(ended, self._spent(), 0),
            "sequential_tokens": np.where(ended, replay.ledger[:, 3], 0),
            "problem": problem,
            "seed": np.where(ended, replay.seeds, 0),
        }
        return correct.astype(np.float64), told | {f"_{name}": ended.copy() for name in told}

    def _report(self, info: dict[str, Any]) -> tuple[Seen, dict[str, Any]]:
        observation = {name: values.copy() for name, values in self._board.seen.items()}
        everyone = np.ones(self.num_envs, np.bool_)
        return observation, info | {"action_mask": observation["action_mask"], "_action_mask": everyone}

    def _restart(self, e: Ints, options: Sequence[Mapping[str, Any] | None]) -> None:
        """Begin new episodes in some environments."""
        draws = [self.table.draw(self._rngs[i][0]) for i in e.tolist()]
        chosen = [self.table.choose(draw, option) for draw, option in zip(draws, options, strict=True)]
        self._board.restart(e, *zip(*chosen, strict=True))
        self._over[e] = False


def _of(options: Mapping[str, Any] | None, environment: int) -> Mapping[str, Any] | None:
    """Its own part of options that are given as sequences."""
    return options and {
        name: value[environment] if isinstance(value, list | tuple | np.ndarray) else value
        for name, value in options.items()
    }
