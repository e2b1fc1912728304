"""Replay as a Gymnasium environment, for learning controllers by reinforcement.

    env = gymnasium.make("autotts:AutoTTS/Replay-v0", store="stores/Qwen3-8B/aime24", gamma=0.001)
    envs = gymnasium.make_vec("autotts:AutoTTS/Replay-v0", num_envs=1024, store="stores/Qwen3-8B/aime24",
                              vectorization_mode="vector_entry_point")

Actions (`env.unwrapped.actions` names them); each means and costs what a controller's call does:

    answer                  ends the episode with what most branches that are not pruned answered last;
                            ties go to the branch opened first, "nothing parsed" votes like any answer
    open 1, 2, 4, 8, ...    opens root branches through their first segment (of each arm, if several)
    extend all, finish all  takes every running branch a segment further, or to its end
    probe all               asks branches that have moved since they were last asked (probes permitting)
    score all               has them scored by the process reward model (if the store has its scores)
    extend i, finish i, prune i
    fork i                  opens a branch from where branch i stands (if the store has forks)

Opening, extending and forking ask nothing: what to pay for is the agent's choice, and every action is a round
of its own on the critical path. An action that the mask rules out does nothing and costs nothing.

An observation is a dictionary. By branch, padded to `max_branches`: `answer` (the episode's own code; -1
nothing parsed, -2 not known), `votes` (branches that give this answer), `state` (see `env.gym_table.STATES`),
`depth` (segments), `tokens` (thousands decoded), and where the store has them `children` (forks left),
`confidence` (of the latest segment; 0 unknown) and `score` (the newest PRM score; -1 none). Of the episode:
`spent` (thousands of decode, probe, PRM and sequential tokens), `lead` (votes for the majority and for the
runner-up), `room` (root branches that may still be opened) and `action_mask`, which `info` has too.

The return of an episode is `correct - gamma * tokens / 1000`, its tokens being those decoded, of probes and
of the PRM: gamma is the price of a thousand tokens in right answers. Every step pays for its own. Only what
was revealed and paid for is ever shown; whether the answer was right is in the last `info`, with `tokens`,
`sequential_tokens`, `problem` (its question hash) and `seed`.

`reset(options={"problem": number or question hash, "seed": seed of the serving order})` chooses an episode.
By default both are drawn: from `problems`, and from orders that evaluation does not use. The `seed` of
`reset` itself seeds these draws, as everywhere in Gymnasium.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from env.episode import UNASKED, UNPARSED
from env.gym_board import Board, Seen
from env.gym_table import ANSWER, KILO, NOT_OPENED, STATES, Table
from env.gym_vector import ReplayVectorEnv
from env.store import Store

__all__ = ["ReplayEnv", "ReplayVectorEnv"]


class ReplayEnv(gymnasium.Env[Any, Any]):
    """One episode at a time; see the module's docstring for actions, observations and reward.

    Args:
        store: a store, or where it is.
        protocol: "standard" or "published" (see `env.index`).
        probe_tokens: what a probe costs where the store does not know.
        max_branches: ceiling on branches opened at the root, and length of the observation's arrays (at least
            64 where branches can fork); None = half of the largest pool, all of it under "published".
        gamma: price of a thousand tokens, in right answers.
        problems: question hashes to draw from; None = all.
        render_mode: "ansi" for text, or None.

    Raises:
        UserError: an argument out of range, or a store that cannot be read.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        store: Store | str | Path,
        *,
        protocol: str = "standard",
        probe_tokens: int = 20,
        max_branches: int | None = None,
        gamma: float = 0.001,
        problems: Collection[str] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.table = Table.build(store, protocol, probe_tokens, max_branches, problems)
        self.gamma = gamma
        self.render_mode = render_mode
        self.action_space = self.table.action_space()
        self.observation_space = self.table.observation_space()
        self._board = Board(self.table, 1)
        self._seen = {name: values[0] for name, values in self._board.seen.items()}
        self._alone, self._chosen = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self._under_way = False

    @property
    def actions(self) -> tuple[str, ...]:
        """What each action does, in words."""
        return self.table.names

    def action_masks(self) -> NDArray[np.bool_]:
        """bool[A], the actions that would change something; what sb3-contrib's MaskablePPO asks for."""
        return self._seen["action_mask"].astype(np.bool_)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Seen, dict[str, Any]]:
        """Begin an episode.

        Raises:
            UserError: an option that there is not, or a problem that the store does not have.
        """
        super().reset(seed=seed)
        problem, order = self.table.choose(self.table.draw(self.np_random), options)
        self._board.restart(self._alone, [problem], [order])
        self._under_way = True
        return self._report({})

    def step(self, action: int) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        """Act; see the module's docstring.

        Raises:
            gymnasium.error.ResetNeeded: the episode is over, or none has begun.
            gymnasium.error.InvalidAction: there is no such action.
        """
        if not self._under_way:
            raise gymnasium.error.ResetNeeded("no episode is under way: call reset() first")
        if not 0 <= action < len(self.table.moves):
            last = len(self.table.moves) - 1
            raise gymnasium.error.InvalidAction(f"no action {action}: there are 0 to {last}")
        if action == ANSWER:
            return self._finish()
        paid = self._spent()
        self._chosen[0] = action
        self._board.act(self._chosen)
        observation, info = self._report({})
        return observation, 0.0 - self.gamma * (self._spent() - paid) / KILO, False, False, info

    def render(self) -> str | None:
        """The branches as text, a line each."""
        if self.render_mode is None:
            return None
        seen = self._seen
        lines = ["branch  state       depth  tokens  answer  votes"]
        for b in range(int((seen["state"] != NOT_OPENED).sum())):
            state, tokens = STATES[seen["state"][b]], round(KILO * float(seen["tokens"][b]))
            answer = {UNASKED: "", UNPARSED: "none"}.get(int(seen["answer"][b]), str(seen["answer"][b]))
            lines.append(
                f"{b:6}  {state:10}  {seen['depth'][b]:5}  {tokens:6}  {answer:>6}  {seen['votes'][b]:5}"
            )
        decode, probe, prm, sequential = (round(KILO * float(x)) for x in seen["spent"])
        lines.append(f"{decode} decoded, {probe} probe, {prm} PRM, {sequential} sequential tokens")
        return "\n".join(lines)

    def _spent(self) -> int:
        decode, probe, prm, _ = self._board.replay.ledger[0].tolist()
        total: int = decode + probe + prm
        return total

    def _finish(self) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        replay = self._board.replay
        self._board.finish(self._alone)
        self._under_way = False
        observation, info = self._report(
            {
                "correct": bool(replay.correct[0]),
                "tokens": self._spent(),
                "sequential_tokens": int(replay.ledger[0, 3]),
                "problem": self.table.index.forest.question_hash[replay.problems[0]],
                "seed": int(replay.seeds[0]),
            }
        )
        return observation, float(replay.correct[0]), True, False, info

    def _report(self, info: dict[str, Any]) -> tuple[Seen, dict[str, Any]]:
        observation = {name: values.copy() for name, values in self._seen.items()}
        return observation, info | {"action_mask": observation["action_mask"]}
