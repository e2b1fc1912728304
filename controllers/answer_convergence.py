"""Answer convergence (Liu & Wang 2025, arXiv:2506.02536): stop thinking when the answer no longer changes.

One chain, asked at the end of every segment what it would answer now; it is stopped once `patience` probes in
a row agree. Probes that cannot be parsed agree with nothing.

The source cuts a chain into sentences and asks after each (patience 10). A replay knows answers only at the
ends of the store's segments, which are longer, so the same patience is a longer wait.
"""


def schedule(beta):
    return {"patience": round(2 * 5**beta)}


async def solve(ep, patience):
    opened = running = await ep.branch(1)
    latest, agreed = None, 0
    while running and not ep.done[running[0]]:
        answer = ep.answer[running[0]]
        agreed = agreed + 1 if answer == latest else 1
        latest = answer
        if agreed >= patience and answer is not None and answer >= 0:
            break
        running = await ep.extend(running)
    return ep.answer[opened[0]] if opened else None
