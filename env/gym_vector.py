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

from env.episode import BRANCH, EXTEND, FINISH, FORK, PROBE, PRUNE, SCORE, UNASKED, UNPARSED
from env.errors import UserError
from env.gym_replay import RestartingReplay
from env.gym_table import ALL, ANSWER, KILO, RUNNING, Table
from env.replay import Results
from env.stand import EXHAUSTED, LIVE, PRUNED
from env.store import Store

Seen = dict[str, NDArray[Any]]
Ints = NDArray[np.int64]
NOTHING = 0
# Of the counts' own type: `ufunc.at` is thirty times slower where it has to convert.
ONE = np.int32(1)


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
        self._kind, self._target, self._width = np.array(table.moves, np.int64).T
        self._replay = RestartingReplay(table.index, num_envs, table.ceilings, table.slots)
        self._rngs: list[tuple[np.random.Generator, int]] = []
        self._seen = table.blank(num_envs)
        self._blank = table.blank()
        each = (num_envs, table.slots)
        # Of branches, beside what is seen: exact tokens, and depths when last asked and when last scored.
        self._tokens = np.zeros(each, np.int64)
        self._asked_depth, self._scored_depth = np.zeros((2, *each), np.int32)
        # Which branches the actions about all of them would change.
        self._running, self._unasked, self._unscored = np.zeros((3, *each), np.bool_)
        self._everywhere = {EXTEND: self._running, PROBE: self._unasked, SCORE: self._unscored}
        self._blocks = np.array([table.at[kind] for kind in (EXTEND, FINISH, PRUNE)])
        # How many branches say what, by code; the first two columns are "not known" and "nothing parsed".
        answers = int(np.diff(table.index.first_answer).max(initial=0))
        self._counts = np.zeros((num_envs, answers + 2), np.int32)
        self._leader = np.full(num_envs, UNPARSED, np.int64)
        self._opened = np.zeros(num_envs, np.int64)
        self._rooted = np.zeros((num_envs, table.index.arms), np.int64)
        self._over = np.zeros(num_envs, np.bool_)
        self._counters: list[NDArray[Any]] = [
            *(self._tokens, self._asked_depth, self._scored_depth, self._counts),
            *(self._running, self._unasked, self._unscored, self._opened, self._rooted, self._over),
        ]

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
        return self._seen["action_mask"].astype(np.bool_)

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
        actions, last = np.asarray(actions, np.int64), len(self._kind) - 1
        if actions.shape != (self.num_envs,) or actions.min() < 0 or actions.max() > last:
            raise gymnasium.error.InvalidAction(f"give {self.num_envs} actions, each from 0 to {last}")
        over = self._over
        ruled_out = self._seen["action_mask"][np.arange(self.num_envs), actions] == 0
        kind = np.where(over | ruled_out, NOTHING, self._kind[actions])
        if over.any():
            episodes = np.flatnonzero(over)
            self._restart(episodes, [None] * len(episodes))
        paid = self._spent()
        self._act(kind, self._target[actions], self._width[actions])
        cost = self._spent() - paid
        self._over[:] = kind == ANSWER
        correct, outcome = self._finish(np.flatnonzero(self._over))
        observation, info = self._report(outcome)
        truncated = np.zeros(self.num_envs, np.bool_)
        return observation, correct - self.gamma * cost / KILO, self._over.copy(), truncated, info

    def _spent(self) -> Ints:
        decode, probe, prm, _ = self._replay.ledger.T
        total: Ints = decode + probe + prm
        return total

    def _act(self, kind: Ints, target: Ints, width: Ints) -> None:
        """One engine call for the actions of all environments, and what it shows."""
        doers = np.flatnonzero((kind != NOTHING) & (kind != ANSWER))
        kind, target, width = kind[doers], target[doers], width[doers]
        opening = (kind == BRANCH) | (kind == FORK)
        # Who is meant, as a table: reading it row by row gives the ids in the order of the actions.
        meant = np.zeros((len(doers), self.table.slots), np.bool_)
        one = np.flatnonzero(~opening & (target != ALL))
        meant[one, target[one]] = True
        about = np.where(kind == FINISH, EXTEND, kind)
        for all_of, branches in self._everywhere.items():
            these = np.flatnonzero((about == all_of) & (target == ALL))
            meant[these] = branches[doers[these]]
        action, ids = np.divmod(np.flatnonzero(meant), self.table.slots)
        table = np.zeros((len(doers), 5), np.int64)
        table[:, 0], table[:, 1], table[:, 2] = doers, kind, kind == PROBE
        table[:, 3] = np.where(opening, width, np.bincount(action, minlength=len(doers)))
        table[:, 4] = np.where(opening, target, kind == EXTEND)
        results = self._replay.step(table, ids)
        pruned = kind[action] == PRUNE
        e, b = doers[action[pruned]], ids[pruned]
        changed = np.zeros(self.num_envs, np.bool_)
        changed[self._prune(e, b)] = True
        changed[self._see(results, kind[kind != PRUNE])] = True
        self._count_votes(np.flatnonzero(changed))
        fork = kind == FORK
        if fork.any():
            self._inherit(doers[fork], target[fork])
        root = kind == BRANCH
        self._opened[doers[opening]] += results.rows[opening[kind != PRUNE]]
        self._rooted[doers[root], target[root]] += results.rows[root[kind != PRUNE]]
        self._show_room(doers[opening])
        self._show_mask()

    def _prune(self, e: Ints, b: Ints) -> Ints:
        """Show that branch b of environment e has been given up; returns where votes have changed."""
        self._seen["state"][e, b] = RUNNING + PRUNED
        for branches in self._everywhere.values():
            branches[e, b] = False
        self._seen["action_mask"][e[:, None], self._blocks + b[:, None]] = 0
        voted = self._seen["answer"][e, b] != UNASKED
        e, b = e[voted], b[voted]
        self._counts[e, self._seen["answer"][e, b] - UNASKED] -= 1
        return e

    def _see(self, results: Results, kind: Ints) -> Ints:
        """Show what a round revealed, `kind` being that of each action; returns where votes have changed."""
        flat: Seen = {name: values.reshape(-1) for name, values in self._seen.items()}
        tokens, asked, scored = (x.reshape(-1) for x in (self._tokens, self._asked_depth, self._scored_depth))
        e = np.repeat(results.episode, results.rows)
        kind = np.repeat(kind, results.rows)
        place = e * self.table.slots + results.branch
        tokens[place] += results.tokens
        flat["tokens"][place] = tokens[place] / KILO
        flat["depth"][place] = results.depth
        flat["state"][place] = RUNNING + results.end
        self._seen["spent"][results.episode] = results.ledger / KILO
        if results.children is not None:
            flat["children"][place] = results.children
        if results.confidence is not None:
            flat["confidence"][place] = np.nan_to_num(results.confidence)
        if results.scores is not None:
            lengths, values = results.scores
            has = lengths > 0
            flat["score"][place[has]] = values[np.cumsum(lengths)[has] - 1]
        for depths, by in ((asked, PROBE), (scored, SCORE)):
            done = np.flatnonzero(kind == by)
            depths[place[done]] = results.depth[done]
        running = results.end == LIVE
        going = running | (results.end == EXHAUSTED)
        self._running.reshape(-1)[place] = running
        self._unasked.reshape(-1)[place] = going & (asked[place] != results.depth)
        self._unscored.reshape(-1)[place] = scored[place] != results.depth
        button = e * len(self.table.moves) + results.branch
        for block in self._blocks:
            flat["action_mask"][button + block] = running
        old, new = flat["answer"][place], results.answer
        told = np.flatnonzero((new != UNASKED) & (new != old))
        voters = e[told]
        counts: NDArray[np.int32] = self._counts.reshape(-1)
        first = voters * self._counts.shape[1] - UNASKED
        np.subtract.at(counts, first + old[told], ONE)
        np.add.at(counts, first + new[told], ONE)
        flat["answer"][place[told]] = new[told]
        return voters

    def _inherit(self, e: Ints, parent: Ints) -> None:
        """A fork, the newest branch of environment e, has taken a child from its parent and its scores."""
        born = self._opened[e]
        self._seen["children"][e, parent] -= 1
        if "score" in self._seen:
            self._seen["score"][e, born] = self._seen["score"][e, parent]

    def _count_votes(self, e: Ints) -> None:
        if not len(e):
            return
        self._counts[e, 0] = 0
        pruned = self._seen["state"].take(e, axis=0) == RUNNING + PRUNED
        said = np.where(pruned, UNASKED, self._seen["answer"].take(e, axis=0))
        votes = self._counts.take((e * self._counts.shape[1] - UNASKED)[:, None] + said)
        rows, first = np.arange(len(e)), votes.argmax(axis=1)
        most = votes[rows, first]
        self._leader[e] = leader = np.where(most > 0, said[rows, first], UNPARSED)
        self._seen["votes"][e] = votes
        self._seen["lead"][e, 0] = most
        self._seen["lead"][e, 1] = np.where(said == leader[:, None], 0, votes).max(axis=1)

    def _show_room(self, e: Ints) -> None:
        """What may still be opened."""
        replay, table = self._replay, self.table
        roots = replay.max_branches[e] - self._rooted[e].sum(axis=1)
        room = np.minimum(roots, table.slots - self._opened[e])
        left = np.minimum(table.index.pool[replay.problems[e]] - self._rooted[e], room[:, None])
        opens = slice(table.opens.start, table.opens.stop)
        self._seen["room"][e, 0] = room
        self._seen["action_mask"][e, opens] = self._width[opens] <= left[:, self._target[opens]]

    def _show_mask(self) -> None:
        seen, table = self._seen, self.table
        mask = seen["action_mask"]
        for kind, branches in self._everywhere.items():
            if kind in table.everywhere:
                mask[:, table.everywhere[kind]] = branches.any(axis=1)
        mask[:, table.everywhere[FINISH]] = mask[:, table.everywhere[EXTEND]]
        if FORK in table.at:
            can = (seen["children"] > 0) & (seen["state"] != RUNNING + PRUNED)
            can &= (self._opened < table.slots)[:, None]
            mask[:, table.at[FORK] :] = can

    def _finish(self, e: Ints) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Grade those who answered; returns bool[num_envs] as numbers, and what `info` tells of them."""
        replay, ended = self._replay, self._over
        replay.finish(e, self._leader[e])
        self._seen["action_mask"][e, 1:] = 0
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
        observation = {name: values.copy() for name, values in self._seen.items()}
        everyone = np.ones(self.num_envs, np.bool_)
        return observation, info | {"action_mask": observation["action_mask"], "_action_mask": everyone}

    def _restart(self, e: Ints, options: Sequence[Mapping[str, Any] | None]) -> None:
        """Begin new episodes in some environments."""
        draws = [self.table.draw(self._rngs[i][0]) for i in e.tolist()]
        chosen = [self.table.choose(draw, option) for draw, option in zip(draws, options, strict=True)]
        self._replay.restart(e, *zip(*chosen, strict=True))
        for name, values in self._blank.items():
            self._seen[name][e] = values
        for values in self._counters:
            values[e] = 0
        self._leader[e] = UNPARSED
        self._seen["action_mask"][e, 0] = 1
        self._show_room(e)


def _of(options: Mapping[str, Any] | None, environment: int) -> Mapping[str, Any] | None:
    """Its own part of options that are given as sequences."""
    return options and {
        name: value[environment] if isinstance(value, list | tuple | np.ndarray) else value
        for name, value in options.items()
    }
