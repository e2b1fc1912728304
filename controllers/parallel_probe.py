"""Parallel-Probe (Zheng et al. 2026, arXiv:2602.03845): branches in step, until the majority is stable.

After each step every branch is asked where it stands; those that stay off the majority's track are pruned.
They never voted for the winner, so the vote stands without them.
"""

from controllers.voting import majority


def schedule(beta):
    return {"max_branches": round(64**beta), "stability": 40, "patience": 7, "warm_up": 15, "max_steps": 100}


async def solve(ep, max_branches, stability, patience, warm_up, max_steps):
    voters = await ep.branch(max_branches)
    answer, done = ep.answer, ep.done
    running = [b for b in voters if not done[b]]
    off_track = {}
    winner, stable = None, 0
    for step in range(max_steps):
        running = await ep.extend(running)
        votes = answer if len(voters) == len(answer) else [answer[b] for b in voters]
        previous, winner = winner, majority(votes, winner)
        if step >= warm_up:
            off_track = {b: off_track.get(b, 0) + 1 for b in running if answer[b] != winner}
            lost = {b for b, steps in off_track.items() if steps >= patience}
            if lost:
                ep.prune(lost)
                running = [b for b in running if b not in lost]
                voters = [b for b in voters if b not in lost]
        stable = stable + 1 if winner == previous else 0
        if stable >= stability or not running:
            break
    return winner
