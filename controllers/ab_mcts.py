"""Adaptive-branching tree search, AB-MCTS-A (Inoue et al. 2025, arXiv:2503.04412): wider or deeper?

Every node has a Beta posterior (Jeffreys prior) of what its new children score and one of what comes of its
children; each generation walks from the root, draws from both (Thompson sampling), and either asks the node
for a new child (wider; also where no child can go on) or moves to the child whose own posterior draws best
(deeper). A new child's score counts for its parent's going wider and, on the way down to it, for each choice
that was made. After `generations` the best scored node that has ended answers; if none has, the best scored
one is finished.

Draws: `ep.rng.betavariate` at each node with a choice, wider first, then deeper, then its children in order.
The source's nodes are whole answers and their children refinements of them; a replay has no feedback to
refine by, so here a node is a step (a segment of the store), its score the process reward model's. A node
whose children have all been drawn is asked once too often, and from then on only passed through.
"""

from itertools import pairwise

from controllers.voting import best_scored, path_score

ROOT = -1


def schedule(beta):
    return {"generations": round(16 * 8**beta), "aggregate": "last"}


def draw(ep, seen):
    return ep.rng.betavariate(0.5 + sum(seen), 0.5 + len(seen) - sum(seen))


async def solve(ep, generations, aggregate):
    children, wider, deeper, below, score = {ROOT: []}, {ROOT: []}, {ROOT: []}, {}, {}
    dry, closed = set(), set()
    for _ in range(generations):
        path = [ROOT]
        while going := [c for c in children[path[-1]] if c not in closed]:
            node = path[-1]
            if node not in dry and draw(ep, wider[node]) >= draw(ep, deeper[node]):
                break
            path.append(max(going, key=lambda c: draw(ep, below[c])))
        node = path[-1]
        born = await (ep.branch(1, probe=False) if node == ROOT else ep.fork(node, 1, probe=False))
        for new in born:
            await ep.score(born)
            score[new] = min(max(path_score(ep.prm[new], aggregate), 0.0), 1.0)
            children[node].append(new)
            children[new], wider[new], deeper[new], below[new] = [], [], [], [score[new]]
            wider[node].append(score[new])
            for parent, child in pairwise(path):
                deeper[parent].append(score[new])
                below[child].append(score[new])
            if ep.done[new]:
                closed.add(new)
        if not born:
            dry.add(node)
            while path and path[-1] in dry and closed.issuperset(children[path[-1]]):
                closed.add(path.pop())
        if ROOT in closed:
            break
    ended = [b for b in score if ep.done[b]]
    if not ended and (alive := [b for b in score if b not in dry]):
        ended = [max(alive, key=score.get)]
        await ep.finish(ended)
    return best_scored([ep.answer[b] for b in ended], [score[b] for b in ended])
