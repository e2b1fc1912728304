"""Confidence momentum, CMC (found by AutoTTS, arXiv:2605.08083): follow the trend of the pool's confidence.

The pool is the answers of the branches that have finished. While its confidence does not rise, more branches
are opened; those that agree with its winner run faster, those that keep dissenting are abandoned.
"""

from collections import Counter

from controllers.voting import majority, majority_confidence


def schedule(beta):
    return {
        "initial": max(2, round(2 + 6 * beta)),
        "max_use": min(64, round(4 + 60 * beta)),
        "warm_up": max(2, round(2 + 8 * beta)),
        "patience": max(3, round(3 + 9 * beta)),
        "window": max(2, round(2 + 6 * beta)),
        "alpha": round(0.70 - 0.40 * beta, 4),
        "threshold": round(0.85 + 0.12 * beta, 4),
        "slack": round(0.04 - 0.03 * beta, 4),
        "burst": max(1, round(1 + 2 * beta)),
        "widen": max(1, round(1 + 3 * beta)),
        "trend": round(0.04 - 0.03 * beta, 4),
        "min_complete": max(2, round(2 + 3 * beta)),
        "max_rounds": 500,
    }


async def solve(ep, initial, max_use, warm_up, patience, window, alpha, threshold, slack, burst, widen, trend,
                min_complete, max_rounds):  # fmt: skip
    answer, done = ep.answer, ep.done
    opened = await ep.branch(initial)
    live = [b for b in opened if not done[b]]
    pool = Counter(answer[b] for b in opened if done[b])
    winner, confidence = majority(pool), majority_confidence(pool)
    extensions, dissent = dict.fromkeys(opened, 0), {}
    average, history = 0.0, []
    for r in range(max_rounds):
        average = (1 - alpha) * average + alpha * confidence
        history = [*history, average][-window:]
        warm = r >= warm_up
        leader = winner if warm else None
        if leader is not None:
            dissent = {b: dissent.get(b, 0) + 1 for b in live if answer[b] != leader}
            lost = [b for b, rounds in dissent.items() if rounds >= patience]
            if lost:
                lost = sorted(lost, key=dissent.get, reverse=True)[: max(0, len(live) - 2)]
                ep.prune(lost)
                live = [b for b in live if b not in lost]
        steps = [1] * len(live) if leader is None else [burst if answer[b] == leader else 1 for b in live]
        running = await ep.extend(live, 1 if leader is None else steps)
        if len(running) < len(live):
            # The longest extended ones vote first.
            ended = sorted((b for b in live if done[b]), key=extensions.get, reverse=True)
            pool.update([answer[b] for b in ended])
            winner, confidence = majority(pool), majority_confidence(pool)
        for b, step in zip(live, steps, strict=True):
            extensions[b] += step
        live = running
        average = (1 - alpha) * average + alpha * confidence
        history[-1] = average
        delta = average - history[0] if len(history) > 1 else 0.0
        if warm and average >= threshold and delta >= -slack and pool.total() >= min_complete:
            return winner
        if not live:
            break
        if len(opened) < max_use and delta <= trend and r >= max(1, warm_up // 2) and average < threshold:
            new = await ep.branch(min(widen, max_use - len(opened)))
            opened += new
            extensions |= dict.fromkeys(new, 0)
            live += [b for b in new if not done[b]]
            ended = [answer[b] for b in new if done[b]]
            if ended:
                pool.update(ended)
                winner, confidence = majority(pool), majority_confidence(pool)
    return winner if pool else majority(answer[b] for b in live)
