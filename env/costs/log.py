"""The action log of a wave of episodes, laid out as columns: all that a cost function is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env.actions import id_counts
from env.episode import BRANCH, FORK, OPENING, PRUNE, SAMPLE, SCORE
from env.order import begins
from env.replay import Replay, Results
from env.stand import EXHAUSTED, LIVE, PRUNED, Ints

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Log:
    """What E episodes did and used: R rows, one for each branch that an action was about.

    Rows are sorted by episode and round, those of a round in the order in which they were asked, the branches
    that it gives up first. Within a round everything runs in parallel. Under the published protocol the
    tokens are the ones that it charges.

    Attributes:
        prompt: int64[E, arms], tokens of each episode's prompt as each arm puts it; 0 where nobody knows.
        models: for each arm, the model that decodes its branches.
        prm_model: the process reward model; None where the store has no scores.
        episode: int64[R], 0 to E - 1.
        round: int64[R], the episode's own, from 0.
        kind: int64[R], as numbered in `env.episode`.
        branch: int64[R], the branch's number in its episode.
        parent: int64[R], the branch that this row forked it from, -1 in all other rows.
        arm: int64[R], a place in `models`.
        context: int64[R], tokens of the branch's path before the action, the prompt not counted.
        tokens: int64[R], decoded by the action.
        asks: bool[R], whether a probe was asked here that had not been asked before at this place.
        probe_tokens: int64[R], decoded for it.
        prm_tokens: int64[R], read by the process reward model.
        end: int64[R], why the branch has ended, a place in `env.episode.ENDS`; 0 where it has not.
    """

    prompt: Ints
    models: tuple[str, ...]
    prm_model: str | None
    episode: Ints
    round: Ints
    kind: Ints
    branch: Ints
    parent: Ints
    arm: Ints
    context: Ints
    tokens: Ints
    asks: NDArray[np.bool_]
    probe_tokens: Ints
    prm_tokens: Ints
    end: Ints

    @classmethod
    def of(cls, replay: Replay, prompt: Ints, models: Sequence[str], prm_model: str | None) -> "Log":
        """Lay out what `replay` kept; it must have been told to keep a log."""
        assert replay.log is not None
        reader = _Reader(replay)
        parts = [reader.read(*entry) for entry in replay.log]
        rows = np.concatenate([np.zeros((_COLUMNS, 0), np.int64), *parts], axis=1)
        return cls._of(rows[:, np.argsort(rows[0], kind="stable")], prompt, models, prm_model)

    @classmethod
    def empty(cls, models: Sequence[str], prm_model: str | None) -> "Log":
        """No episodes at all."""
        return cls._of(
            np.zeros((_COLUMNS, 0), np.int64), np.zeros((0, len(models)), np.int64), models, prm_model
        )

    @classmethod
    def _of(cls, rows: Ints, prompt: Ints, models: Sequence[str], prm_model: str | None) -> "Log":
        episode, turn, kind, branch, parent, arm, context, tokens, asks, probe, prm, end = rows
        return cls(
            prompt=prompt,
            models=tuple(models),
            prm_model=prm_model,
            episode=episode,
            round=turn,
            kind=kind,
            branch=branch,
            parent=parent,
            arm=arm,
            context=context,
            tokens=tokens,
            asks=asks != 0,
            probe_tokens=probe,
            prm_tokens=prm,
            end=end,
        )

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.prompt)

    def total(self, values: NDArray[Any]) -> Floats:
        """float64[E], the sum of each episode's rows (values[R])."""
        sums: Floats = np.bincount(self.episode, values, len(self)).astype(np.float64)
        return sums

    def total_of_turns(self, values: NDArray[Any]) -> Floats:
        """float64[E], the sum of each episode's rounds (values[T])."""
        owner = self.episode[self.first]
        sums: Floats = np.bincount(owner, values, len(self)).astype(np.float64)
        return sums

    @cached_property
    def work(self) -> Ints:
        """int64[R], tokens decoded, those of the probe included: what a branch takes its time for."""
        return self.tokens + self.probe_tokens

    @cached_property
    def first(self) -> Ints:
        """int64[T], the first row of each of the T rounds of all episodes that were about any branch."""
        return np.flatnonzero(begins(self.episode) | begins(self.round))

    @cached_property
    def turn(self) -> Ints:
        """int64[R], which of the T rounds each row is of."""
        return np.repeat(np.arange(len(self.first)), np.diff(self.first, append=len(self.episode)))

    @cached_property
    def steps(self) -> Ints:
        """int64[T], how long each round takes in decoding steps, all its branches decoding side by side."""
        return np.maximum.reduceat(self.work, self.first) if len(self.first) else self.first

    @cached_property
    def clock(self) -> Ints:
        """int64[R], decoding steps of the episode before the row's round."""
        before = np.cumsum(self.steps) - self.steps
        begun = np.searchsorted(self.episode[self.first], self.episode)
        return before[self.turn] - before[begun]

    @cached_property
    def slot(self) -> Ints:
        """int64[R], a number for each branch of each episode."""
        return self.episode * (1 + int(self.branch.max(initial=0))) + self.branch

    @cached_property
    def parent_slot(self) -> Ints:
        """int64[R], the slot that `parent` is in; -1 where there is none."""
        return np.where(self.parent < 0, -1, self.slot - self.branch + self.parent)

    @cached_property
    def born_at(self) -> Ints:
        """int64[slots], tokens of the path that a branch began with: 0 at the root."""
        born = np.zeros(int(self.slot.max(initial=-1)) + 1, np.int64)
        opened = np.isin(self.kind, OPENING)
        born[self.slot[opened]] = self.context[opened]
        return born


_COLUMNS = 12


class _Reader:
    """Follows the branches of a wave through its log, a round at a time; arrays by slot as in `env.stand`."""

    def __init__(self, replay: Replay) -> None:
        self.rounds = np.zeros(len(replay), np.int64)
        widest = (int(results.branch.max(initial=0)) for _, _, results in replay.log or ())
        self.capacity = 1 + max(widest, default=0)
        slots = len(replay) * self.capacity
        self.length = np.full(slots, -1, np.int64)
        self.asked_at = np.full(slots, -1, np.int64)
        self.scored = np.zeros(slots, np.int64)
        self.arm = np.zeros(slots, np.int64)
        self.over = np.zeros(slots, np.bool_)

    def read(self, actions: NDArray[Any], ids: NDArray[Any], results: Results) -> Ints:
        """The rows of one round of the wave, a column of `Log` each."""
        table = np.asarray(actions, np.int64).reshape(-1, 5)
        pruned = self._prune(table, np.asarray(ids, np.int64))
        table = table[table[:, 1] != PRUNE]
        rows = np.maximum(results.rows, 0)
        episode, kind, probe, _, argument = np.repeat(table, rows, axis=0).T
        node, slot = results.node, episode * self.capacity + results.branch
        fork = kind == FORK
        # A fork goes on from where its parent stood before the round, any other branch from its own place.
        source = np.where(fork, episode * self.capacity + argument, slot)
        at_root = (kind == BRANCH) | (kind == SAMPLE)
        context = np.where(at_root, 0, self.length[source])
        self.length[slot] = context + results.tokens
        self.arm[slot] = np.where(at_root, argument, self.arm[source])
        asking = (probe != 0) & ((results.end == LIVE) | (results.end == EXHAUSTED))
        asks = asking & (self.asked_at[slot] != node)
        self.asked_at[slot] = np.where(asking, node, self.asked_at[slot])
        scored = self.scored[source]
        prm = np.where(kind == SCORE, context + results.tokens - scored, 0)
        self.scored[slot] = scored + prm
        self.over[slot] |= results.end != LIVE
        parent = np.where(fork, argument, -1)
        columns = [episode, self.rounds[episode], kind, results.branch, parent, self.arm[slot], context]
        columns += [results.tokens, asks, results.probe_tokens, prm, results.end]
        self.rounds[np.unique(results.episode)] += 1
        return np.concatenate([pruned, np.array(columns, np.int64)], axis=1)

    def _prune(self, table: Ints, ids: Ints) -> Ints:
        """A row for each branch that was alive and is given up."""
        episode, kind, _, count, argument = table.T
        action = np.repeat(np.arange(len(table)), id_counts(kind, count, argument))
        named = np.flatnonzero(kind[action] == PRUNE)
        owner, branch = episode[action[named]], ids[named]
        slot = owner * self.capacity + branch
        inside = (branch >= 0) & (branch < self.capacity)
        slot = np.unique(slot[inside])
        slot = slot[(self.length[slot] >= 0) & ~self.over[slot]]
        self.over[slot] = True
        owner, branch = np.divmod(slot, self.capacity)
        nothing, nobody = np.zeros_like(slot), np.full_like(slot, -1)
        columns = [owner, self.rounds[owner], np.full_like(slot, PRUNE), branch, nobody, self.arm[slot]]
        columns += [self.length[slot], nothing, nothing, nothing, nothing, np.full_like(slot, PRUNED)]
        return np.array(columns, np.int64)
