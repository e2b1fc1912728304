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

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from env.episode import BRANCH, EXTEND, FINISH, FORK, PROBE, PRUNE, SCORE, UNASKED, UNPARSED
from env.gym_solo import Columns, Solo, buffer
from env.gym_table import ALL, ANSWER, KILO, NOT_OPENED, RUNNING, STATES, Table
from env.gym_vector import ReplayVectorEnv
from env.stand import LIVE, PRUNED, TO_THE_END
from env.store import Store

__all__ = ["ReplayEnv", "ReplayVectorEnv"]

Seen = dict[str, NDArray[Any]]

# Which branches an action about all of them would change.
EVERYWHERE = {EXTEND: "running", FINISH: "running", PROBE: "unasked", SCORE: "unscored"}


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
        self._columns = Columns(self.table.index)
        self._blank = self.table.blank()
        self._seen = self.table.blank()
        # Python writes single numbers into buffers faster than into arrays.
        self._write = {name: buffer(values) for name, values in self._seen.items()}
        self._solo: Solo | None = None

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
        self._problem, self._seed = self.table.choose(self.table.draw(self.np_random), options)
        self._solo = Solo(self._columns, self._problem, self._seed)
        self._roots = int(self.table.ceilings[self._problem])
        self._leader = UNPARSED
        for name, values in self._blank.items():
            self._seen[name][...] = values
        self._write["action_mask"][0] = 1
        self._show_room(self._solo)
        return self._report({})

    def step(self, action: int) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        """Act; see the module's docstring.

        Raises:
            gymnasium.error.ResetNeeded: the episode is over, or none has begun.
            gymnasium.error.InvalidAction: there is no such action.
        """
        solo, mask = self._solo, self._write["action_mask"]
        if solo is None:
            raise gymnasium.error.ResetNeeded("no episode is under way: call reset() first")
        if not 0 <= action < len(mask):
            raise gymnasium.error.InvalidAction(f"no action {action}: there are 0 to {len(mask) - 1}")
        kind, target, width = self.table.moves[action]
        if kind == ANSWER:
            return self._finish(solo)
        paid = solo.spent
        if mask[action]:
            self._act(solo, kind, target, width)
        observation, info = self._report({})
        return observation, 0.0 - self.gamma * (solo.spent - paid) / KILO, False, False, info

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

    def _act(self, solo: Solo, kind: int, target: int, width: int) -> None:
        if kind == BRANCH:
            touched: Sequence[int] = solo.open(width, target)
            self._roots -= len(touched)
            self._show_room(solo)
        elif kind == FORK:
            touched = [target, *solo.fork(target)]
            self._show_room(solo)
        else:
            touched = sorted(getattr(solo, EVERYWHERE[kind])) if target == ALL else [target]
            if kind == PRUNE:
                solo.prune(target)
            elif kind == PROBE:
                solo.ask_answer(touched)
            elif kind == SCORE:
                solo.ask_score(touched)
            else:
                solo.extend(touched, TO_THE_END if kind == FINISH else 1)
        self._show(solo, touched)

    def _finish(self, solo: Solo) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        correct = solo.grade(self._leader)
        self._solo = None
        self._seen["action_mask"][1:] = 0
        observation, info = self._report(
            {
                "correct": correct,
                "tokens": solo.spent,
                "sequential_tokens": solo.ledger[3],
                "problem": self.table.index.forest.question_hash[self._problem],
                "seed": self._seed,
            }
        )
        return observation, float(correct), True, False, info

    def _report(self, info: dict[str, Any]) -> tuple[Seen, dict[str, Any]]:
        observation = {name: values.copy() for name, values in self._seen.items()}
        return observation, info | {"action_mask": observation["action_mask"]}

    def _show(self, solo: Solo, touched: Sequence[int]) -> None:
        """Bring the observation up to date after these branches have changed."""
        write, at = self._write, self.table.at
        mask, state, depth = write["action_mask"], write["state"], write["depth"]
        tokens, answer = write["tokens"], write["answer"]
        extend, finish, prune = at[EXTEND], at[FINISH], at[PRUNE]
        revote = False
        for b in touched:
            depth[b], tokens[b] = solo.depth[b], solo.tokens[b] / KILO
            end, said = solo.end[b], solo.answer[b]
            if state[b] != RUNNING + end:
                state[b] = RUNNING + end
                mask[extend + b] = mask[finish + b] = mask[prune + b] = end == LIVE
                revote |= end == PRUNED and said != UNASKED
            if answer[b] != said:
                answer[b] = said
                revote = True
        if "confidence" in write:
            for b in touched:
                write["confidence"][b] = solo.confidence(b)
        if "score" in write:
            for b in touched:
                write["score"][b] = solo.score[b]
        if "children" in write:
            free = len(solo.end) < self.table.slots
            for b, end in enumerate(solo.end):
                write["children"][b] = children = solo.children(b)
                mask[at[FORK] + b] = free and end != PRUNED and children > 0
        for kind, action in self.table.everywhere.items():
            mask[action] = bool(getattr(solo, EVERYWHERE[kind]))
        spent = write["spent"]
        for column, amount in enumerate(solo.ledger):
            spent[column] = amount / KILO
        if revote:
            self._count_votes(solo)

    def _show_room(self, solo: Solo) -> None:
        """What may still be opened."""
        room = min(self._roots, self.table.slots - len(solo.end))
        self._write["room"][0] = room
        for action in self.table.opens:
            _, arm, width = self.table.moves[action]
            self._write["action_mask"][action] = width <= min(room, solo.left(arm))

    def _count_votes(self, solo: Solo) -> None:
        said = [UNASKED if end == PRUNED else a for a, end in zip(solo.answer, solo.end, strict=True)]
        counts = Counter(said)
        counts[UNASKED] = 0
        votes = [counts[answer] for answer in said]
        most = max(votes)
        self._leader = said[votes.index(most)] if most else UNPARSED
        counts[self._leader] = 0
        self._seen["votes"][: len(votes)] = votes
        self._write["lead"][0], self._write["lead"][1] = most, max(counts.values())
