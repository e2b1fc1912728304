"""The key-value cache of a wave of episodes: what each decoding step reads of it, and what is held when.

Branches that were forked share the beginnings of their paths, and all branches of an arm share the prompt.
What is shared is held once, and read once by all that decode in the same step: so ETS counts (Hooper et al.
2025, arXiv:2502.13575), and Kinetics for prompts. Steps are continuous: to decode w tokens from nothing reads
w * w / 2, as in the sums of Kinetics.
"""

from typing import Literal, NamedTuple

import numpy as np

from env.costs.log import Floats, Log
from env.order import begins
from env.stand import Ints


def reads(log: Log) -> Floats:
    """float64[E, arms]: tokens of the cache that decoding reads, summed over the steps of all rounds."""
    arms = len(log.models)
    busy = np.flatnonzero(log.work > 0)
    steps, turn, owner = log.work[busy], log.turn[busy], log.episode[busy] * arms + log.arm[busy]
    read: Floats = np.bincount(owner, steps * steps / 2, len(log) * arms).astype(np.float64)

    longest = np.zeros(len(log.first) * arms, np.int64)
    np.maximum.at(longest, turn * arms + log.arm[busy], steps)
    prompts = log.prompt[log.episode[log.first]].ravel() * longest
    of_turn = np.repeat(log.episode[log.first] * arms, arms) + np.tile(np.arange(arms), len(log.first))
    read += np.bincount(of_turn, prompts, len(log) * arms)

    # The paths so far, in stretches that one branch each has decoded: its own, its parent's, and so on.
    parent = np.full(len(log.born_at), -1, np.int64)
    parent[log.slot[log.parent >= 0]] = log.parent_slot[log.parent >= 0]
    stretch = np.array([turn, log.slot[busy], log.context[busy], steps, owner])
    stretches = [stretch]
    while stretch.size:
        turn, slot, _, steps, owner = stretch[:, parent[stretch[1]] >= 0]
        stretch = np.array([turn, parent[slot], log.born_at[slot], steps, owner])
        stretches.append(stretch)
    turn, slot, upto, steps, owner = np.concatenate(stretches, axis=1)
    read += np.bincount(owner, _union(turn, slot, upto - log.born_at[slot], steps), len(log) * arms)
    return read.reshape(len(log), arms)


def _union(turn: Ints, slot: Ints, length: Ints, steps: Ints) -> Ints:
    """How often what a branch has decoded is read in a round, as shares of those who read it.

    Each entry reads the first `length` tokens that the branch in `slot` has decoded, `steps` times. A token
    is read as often as the entry says that reads it most often.
    """
    order = np.lexsort((-length, slot, turn))
    turn, slot, length, steps = turn[order], slot[order], length[order], steps[order]
    first = begins(turn) | begins(slot)
    group = np.cumsum(first)
    # The longest so far, from the far end inwards, in each group for itself.
    apart = group * (1 + int(steps.max(initial=0)))
    most = np.maximum.accumulate(steps + apart) - apart
    last = np.append(first[1:], True)
    inner = np.where(last, 0, np.append(length[1:], 0))
    shares = np.zeros_like(steps)
    shares[order] = most * (length - inner)
    return shares


class Held(NamedTuple):
    """Chunks of cache: decoded from `start` to `stop` on their episode's clock, and held until `until`.

    A chunk whose `stop` is its `start` is there at once. `tokens` are int64, and so are the times.
    """

    episode: Ints
    arm: Ints
    tokens: Ints
    start: Ints
    stop: Ints
    until: Ints


def held(log: Log) -> Held:
    """What is in the cache, and when; the clock counts decoding steps, as `Log.clock`.

    The tokens of a path are held until no branch needs them: one needs its path until it is pruned, or has
    ended and nothing more is asked of it, or the episode is over. A probe is held while it is decoded; a
    prompt from the first of its arm's branches to the last.
    """
    done = log.clock + log.work
    over = np.zeros(len(log.born_at), np.int64)
    over[log.slot] = log.total_of_turns(log.steps).astype(np.int64)[log.episode]
    ended = log.end > 0
    np.minimum.at(over, log.slot[ended], done[ended])
    busy = log.work > 0
    np.maximum.at(over, log.slot[busy], done[busy])

    until = np.zeros(len(log.slot), np.int64)
    for rows in _last_round_first(log.round):
        until[rows] = over[log.slot[rows]]
        forks = rows[log.parent[rows] >= 0]
        np.maximum.at(over, log.parent_slot[forks], over[log.slot[forks]])

    arms = len(log.models)
    of_arm = log.episode * arms + log.arm
    begin = np.full(len(log) * arms, np.iinfo(np.int64).max)
    stop = np.zeros(len(log) * arms, np.int64)
    np.minimum.at(begin, of_arm, log.clock)
    np.maximum.at(stop, of_arm, until)
    used = np.flatnonzero(begin <= stop)
    decoded = log.clock + log.tokens
    chunks = (
        Held(used // arms, used % arms, log.prompt.ravel()[used], begin[used], begin[used], stop[used]),
        Held(log.episode, log.arm, log.tokens, log.clock, decoded, until),
        Held(log.episode, log.arm, log.probe_tokens, decoded, done, done),
    )
    columns = (np.concatenate(column) for column in zip(*chunks, strict=True))
    return Held(*columns)


def integral(held: Held, weights: Floats, episodes: int) -> Floats:
    """float64[episodes]: what is held, times the steps for which it is; `weights[arm]` for each token."""
    steps = (held.stop - held.start) / 2 + held.until - held.stop
    areas = np.bincount(held.episode, weights[held.arm] * held.tokens * steps, episodes)
    return areas.astype(np.float64)


def peak(held: Held, weights: Ints, episodes: int) -> Floats:
    """float64[episodes]: the most that is held at any time; `weights[arm]` for each token."""
    held = Held(*(column[held.tokens > 0] for column in held))
    span = 1 + int(held.until.max(initial=0))
    # It only ever falls where something is let go, so the peak is just before one of these places.
    at = np.unique(held.episode * span + held.until)
    episode, until = np.divmod(at, span)

    def so_far(time: Ints, side: Literal["left", "right"], *amounts: Ints) -> list[Ints]:
        """The sums over all chunks of the episode whose time has come."""
        order = np.argsort(held.episode * span + time)
        keys = (held.episode * span + time)[order]
        here, begin = np.searchsorted(keys, at, side), np.searchsorted(keys, episode * span)
        sums = [np.append(0, np.cumsum(amount[order])) for amount in amounts]
        return [each[here] - each[begin] for each in sums]

    weight, grows = weights[held.arm], held.stop > held.start
    pace, size = np.where(grows, weight, 0), weight * held.tokens
    # A chunk that grows has grown for as long as its start is past, less as long as its stop is.
    begun, begun_at = so_far(held.start, "right", pace, pace * held.start)
    full, full_at = so_far(held.stop, "right", pace, pace * held.stop)
    (whole,) = so_far(held.start, "left", np.where(grows, 0, size))
    (gone,) = so_far(held.until, "left", size)
    level = until * begun - begun_at - (until * full - full_at) + whole - gone
    most = np.zeros(episodes, np.int64)
    np.maximum.at(most, episode, level)
    return most.astype(np.float64)


def _last_round_first(rounds: Ints) -> list[Ints]:
    """The rows of each round, from the last round to the first."""
    order = np.argsort(rounds, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(rounds[order])) + 1)[::-1]
