"""The published controllers simulated the obvious way: an object a branch, a call a probe, no engine.

Written from the description of the controllers and of the published protocol. They say what replay must
come to, and how long it takes without an engine.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache


class Branch:
    """A recorded branch; `recording` has `probes`, `length` and `final`."""

    __slots__ = ("answer", "calls", "done", "extensions", "number", "off_track", "probes", "recording")

    def __init__(self, number: int, recording) -> None:
        self.number = number
        self.recording = recording
        self.probes = recording.probes
        self.calls = 0
        self.answer = None
        self.done = False
        self.off_track = 0
        self.extensions = 0


class Game:
    """One problem's recordings, in the order in which they are served."""

    def __init__(self, recordings: Sequence, interval: int) -> None:
        self.waiting = iter(recordings)
        self.interval = interval
        self.branches: list[Branch] = []
        self.tokens = 0

    def open(self, count: int) -> list[Branch]:
        """Open branches through their first segment; fewer where there are no more."""
        opened = []
        for _ in range(count):
            branch = self._next()
            if branch is not None:
                self.call(branch)
                opened.append(branch)
        return opened

    def read(self) -> Branch | None:
        """Open a branch and run it to its end in one go."""
        branch = self._next()
        if branch is not None:
            self.tokens += branch.recording.length
            branch.answer, branch.done = branch.recording.final, True
        return branch

    def call(self, branch: Branch) -> None:
        """Run a branch on to its next probe, or to its end."""
        if branch.calls < len(branch.probes):
            branch.answer = branch.probes[branch.calls]
            self.tokens += self.interval
        else:
            branch.answer, branch.done = branch.recording.final, True
            self.tokens += max(0, branch.recording.length - self.interval * len(branch.probes))
        branch.calls += 1

    def extend(self, branch: Branch, steps: int = 1) -> None:
        """Several calls, as far as the branch goes."""
        for _ in range(steps):
            if not branch.done:
                self.call(branch)

    def abandon(self, branch: Branch) -> None:
        """Give a branch up."""

    def _next(self) -> Branch | None:
        recording = next(self.waiting, None)
        if recording is None:
            return None
        branch = Branch(len(self.branches), recording)
        self.branches.append(branch)
        return branch


def majority(votes):
    counts = Counter(votes)
    return max(counts, key=counts.get) if counts else None


@cache
def lead(first: int, second: int) -> float:
    """1 - BetaCDF(1/2; first + 1, second + 1), by the recurrence of the incomplete beta function."""
    if second == 0:
        return 1 - 0.5 ** (first + 1)
    if first == 0:
        return 0.5 ** (second + 1)
    return (lead(first - 1, second) + lead(first, second - 1)) / 2


def confidence(votes) -> float:
    largest = [count for _, count in Counter(votes).most_common(2)]
    return lead(*(*largest, 0)[:2]) if largest else 0.0


def self_consistency(game: Game, max_branches: int):
    votes = []
    for _ in range(max_branches):
        branch = game.read()
        if branch is not None:
            votes.append(branch.answer)
    return majority(votes)


def adaptive_consistency(game: Game, max_branches: int, threshold: float = 0.95):
    votes = []
    for _ in range(max_branches):
        branch = game.read()
        if branch is None:
            break
        votes.append(branch.answer)
        if len(votes) > 1 and confidence(votes) > threshold:
            break
    return majority(votes)


def early_stopping_consistency(game: Game, max_branches: int, window: int = 8):
    votes = []
    for _ in range(max_branches // window):
        latest = [branch.answer for _ in range(window) if (branch := game.read()) is not None]
        votes += latest
        if len(set(latest)) == 1:
            return latest[0]
    return majority(votes)


def parallel_probe(
    game: Game,
    max_branches: int,
    stability: int = 40,
    patience: int = 7,
    warm_up: int = 15,
    max_steps: int = 100,
):
    voters = game.open(max_branches)
    winner, stable = None, 0
    for step in range(max_steps):
        for branch in voters:
            if not branch.done:
                game.extend(branch)
        previous, winner = winner, majority([branch.answer for branch in voters])
        if step >= warm_up and len(voters) > 1:
            pruned = []
            for branch in voters:
                if not branch.done:
                    branch.off_track = 0 if branch.answer == winner else branch.off_track + 1
                    if branch.off_track >= patience:
                        pruned.append(branch)
            for branch in pruned:
                game.abandon(branch)
                voters.remove(branch)
            if not voters:
                return previous
            if pruned:
                winner = majority([branch.answer for branch in voters])
        stable = stable + 1 if step and winner == previous else 0
        if stable >= stability or all(branch.done for branch in voters):
            return winner
    return winner


def confidence_momentum(
    game: Game,
    initial: int,
    max_use: int,
    warm_up: int,
    patience: int,
    window: int,
    alpha: float,
    threshold: float,
    slack: float,
    burst: int,
    widen: int,
    trend: float,
    min_complete: int,
    max_rounds: int = 500,
):
    opened = game.open(initial)
    pool = [branch.answer for branch in opened if branch.done]
    abandoned = set()
    average, history = 0.0, []

    def live() -> list[Branch]:
        return [branch for branch in opened if not branch.done and branch not in abandoned]

    for r in range(max_rounds):
        winner, sure = majority(pool), confidence(pool)
        average = (1 - alpha) * average + alpha * sure
        history = [*history, average][-window:]
        warm = r >= warm_up
        if warm and winner is not None:
            candidates = live()
            for branch in candidates:
                branch.off_track = branch.off_track + 1 if branch.answer != winner else 0
            worst = sorted(candidates, key=lambda branch: -branch.off_track)
            worst = [branch for branch in worst if branch.off_track >= patience]
            for branch in worst[: max(0, len(candidates) - 2)]:
                game.abandon(branch)
                abandoned.add(branch)
        for branch in sorted(live(), key=lambda branch: -branch.extensions):
            steps = burst if warm and winner is not None and branch.answer == winner else 1
            game.extend(branch, steps)
            branch.extensions += steps
            if branch.done:
                pool.append(branch.answer)
        winner, sure = majority(pool), confidence(pool)
        average = (1 - alpha) * average + alpha * sure
        history[-1] = average
        delta = history[-1] - history[0] if len(history) > 1 else 0.0
        if warm and len(pool) >= min_complete and average >= threshold and delta >= -slack:
            return winner
        if not live():
            break
        if len(opened) < max_use and delta <= trend and r >= max(1, warm_up // 2) and average < threshold:
            new = game.open(min(widen, max_use - len(opened)))
            opened += new
            pool += [branch.answer for branch in new if branch.done]
    if pool:
        return majority(pool)
    return majority([branch.answer for branch in opened if branch not in abandoned])


def momentum_settings(b: float) -> dict:
    """The published schedule of confidence momentum."""
    return {
        "initial": max(2, round(2 + 6 * b)),
        "max_use": min(64, round(4 + 60 * b)),
        "warm_up": max(2, round(2 + 8 * b)),
        "patience": max(3, round(3 + 9 * b)),
        "window": max(2, round(2 + 6 * b)),
        "alpha": round(0.70 - 0.40 * b, 4),
        "threshold": round(0.85 + 0.12 * b, 4),
        "slack": round(0.04 - 0.03 * b, 4),
        "burst": max(1, round(1 + 2 * b)),
        "widen": max(1, round(1 + 3 * b)),
        "trend": round(0.04 - 0.03 * b, 4),
        "min_complete": max(2, round(2 + 3 * b)),
        "max_rounds": 500,
    }


CONTROLLERS = {
    "self_consistency": self_consistency,
    "adaptive_consistency": adaptive_consistency,
    "early_stopping_consistency": early_stopping_consistency,
    "parallel_probe": parallel_probe,
    "confidence_momentum": confidence_momentum,
}
