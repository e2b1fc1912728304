"""The strategies on trees, from their rules: recursions over plain objects of `tests.tree_games`.

Each takes a game and its settings, and returns the answer as the tree has it (None = it has none).
"""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction

import numpy as np

from tests.simulations import confidence, lead, majority
from tests.tree_games import Spot, TreeGame


def one_number(scores: Sequence[float], aggregate: str) -> float:
    """What a path is worth."""
    if len(scores) == 0:
        return 0.0
    numbers = [Fraction(score) for score in scores]
    product = math.prod(numbers)
    ways = {"last": numbers[-1], "min": min(numbers), "product": product, "mean": sum(numbers) / len(numbers)}
    return float(ways[aggregate])


def first_best(items: Sequence, worth: Callable) -> object:
    """The item of the largest worth; of equals the first."""
    best = items[0]
    for item in items[1:]:
        if worth(item) > worth(best):
            best = item
    return best


def elect(spots: Sequence[Spot], weight: Callable[[Spot], float], summed: bool = True) -> int | None:
    """The answer whose voters weigh most together, or whose heaviest voter weighs most."""
    voters = [spot for spot in spots if spot.known >= 0]
    if not voters:
        return None
    if not summed:
        return first_best(voters, weight).known

    def total(answer: int) -> float:
        heavy = 0.0
        for spot in voters:
            heavy += weight(spot) if spot.known == answer else 0.0
        return heavy

    return first_best(list(dict.fromkeys(spot.known for spot in voters)), total)


def best_of_n(game: TreeGame, max_branches: int, aggregate: str, vote: bool) -> int | None:
    spots = game.sample((0,), max_branches)
    for spot in spots:
        game.score((1,), spot)
    return elect(spots, lambda spot: one_number(spot.scores, aggregate), summed=vote)


def beam_search(game: TreeGame, beams: int, width: int, aggregate: str, lookahead: int = 0) -> int | None:
    worth: dict[Spot, float] = {}

    def judge(step: int, spot: Spot) -> float:
        """By the end of a rollout, if there is one."""
        for ahead in game.fork((step, 1), spot, 1) if lookahead else ():
            if lookahead > 1:
                game.move((step, 2), ahead, lookahead - 1)
            value = one_number(game.score((step, 3), ahead), aggregate)
            game.drop((step, 4), [ahead])
            return value
        return worth[spot]

    def search(step: int, candidates: list[Spot], solutions: list[Spot]) -> list[Spot]:
        for spot in candidates:
            worth[spot] = one_number(game.score((step, 0), spot), aggregate)
        solutions = solutions + [spot for spot in candidates if spot.end]
        running = [spot for spot in candidates if not spot.end]
        if len(solutions) >= beams or not candidates:
            return solutions
        values = {spot: judge(step, spot) for spot in running}
        kept = []
        for _ in range(min(len(running), max(1, beams // width))):
            best = first_best([spot for spot in running if spot not in kept], values.get)
            kept.append(best)
        game.drop((step, 4), [spot for spot in running if spot not in kept])
        children = [child for spot in kept for child in game.fork((step, 4), spot, min(width, beams))]
        game.drop((step + 1, 0), kept)
        return search(step + 1, children, solutions)

    return elect(search(1, game.open((0,), beams), []), worth.get)


def dvts(game: TreeGame, subtrees: int, width: int, aggregate: str) -> int | None:
    worth: dict[Spot, float] = {}

    def descend(step: int, siblings: list[Spot]) -> list[tuple[int, Spot]]:
        """The voters of one subtree, each with the step at which it became one."""
        if not siblings:
            return []
        for spot in siblings:
            worth[spot] = one_number(game.score((step, 0), spot), aggregate)
        best = first_best(siblings, worth.get)
        game.drop((step, 1), [spot for spot in siblings if spot is not best])
        if best.end:
            return [(step, spot) for spot in siblings if spot.node.end]
        children = game.fork((step, 1), best, width)
        game.drop((step + 1, 0), [best])
        return descend(step + 1, children)

    roots = game.open((0,), subtrees * width)
    found = [voter for k in range(0, len(roots), width) for voter in descend(1, roots[k : k + width])]
    return elect([spot for _, spot in sorted(found, key=lambda voter: voter[0])], worth.get)


def rebase(game: TreeGame, samples: int, temperature: float, aggregate: str) -> int | None:
    worth: dict[Spot, float] = {}

    def widths(spots: list[Spot], budget: int) -> list[int]:
        """Shares of the budget to fifty digits, rounded down, then one more for the largest remainders."""
        powers = [(Decimal(worth[spot]) / Decimal(temperature)).exp() for spot in spots]
        exact = [budget * power / sum(powers) for power in powers]
        near = [share.quantize(Decimal("1e-20")) for share in exact]
        whole = [int(share) for share in near]
        while sum(whole) < budget:
            owed = [share - given for share, given in zip(near, whole, strict=True)]
            whole[owed.index(max(owed))] += 1
        return whole

    def search(step: int, candidates: list[Spot], budget: int) -> list[Spot]:
        for spot in candidates:
            worth[spot] = one_number(game.score((step, 0), spot), aggregate)
        ended = [spot for spot in candidates if spot.end]
        running = [spot for spot in candidates if not spot.end]
        budget -= len(ended)
        if budget <= 0 or not running:
            return ended
        children = []
        for spot, width in zip(running, widths(running, budget), strict=True):
            if width:
                children += game.fork((step, 1), spot, width)
            game.drop((step + 1, 0) if width else (step, 1), [spot])
        return ended + search(step + 1, children, budget)

    return elect(search(1, game.open((0,), samples), samples), worth.get)


def answer_convergence(game: TreeGame, patience: int) -> int | None:
    opened = game.open((0,), 1, ask=True)
    if not opened:
        return None
    (spot,) = opened
    shown = [spot.known]
    while not spot.end:
        latest = shown[-patience:]
        if len(latest) == patience and set(latest) == {shown[-1]} and shown[-1] >= 0:
            break
        game.move((len(shown),), spot, ask=True)
        shown.append(spot.known)
    return spot.known if spot.known >= 0 else None


def deepconf(
    game: TreeGame, max_branches: int, warm_up: int, keep: float, consensus: float, batch: int
) -> int | None:
    """Branch by branch; the moments put those of one batch in step."""

    def least(seen: list[float]) -> float:
        return min((c for c in seen if not math.isnan(c)), default=math.inf)

    lowest: dict[Spot, float] = {}
    threshold = -math.inf
    winner = None
    while len(lowest) < max_branches:
        begun = len(lowest)
        opened = game.open((begun, 0), min(batch if begun else warm_up, max_branches - begun))
        if not opened:
            break
        for spot in opened:
            seen, step = [spot.node.confidence], 0
            while not spot.end:
                if least(seen) < threshold:
                    game.drop((begun, step + 1), [spot])
                    break
                step += 1
                game.move((begun, step), spot)
                seen.append(spot.node.confidence)
            lowest[spot] = least(seen)
        judged = [spot for spot in lowest if lowest[spot] < math.inf]
        if threshold == -math.inf and judged:
            threshold = float(np.percentile([lowest[spot] for spot in judged], 100 * (1 - keep)))
        voters = [spot for spot in judged if lowest[spot] >= threshold and spot.known >= 0]
        winner = elect(voters, lowest.get)
        agreeing = sum(lowest[spot] for spot in voters if spot.known == winner)
        if voters and agreeing >= consensus * sum(lowest[spot] for spot in voters):
            break
    return winner


def lookahead(game: TreeGame, beams: int, width: int, lookahead: int, aggregate: str) -> int | None:
    return beam_search(game, beams, width, aggregate, lookahead)


def particle_filter(game: TreeGame, particles: int, aggregate: str) -> int | None:
    """Of the draws u in [0, 1), one a particle, each picks whoever it falls upon in the line of the odds."""
    worth: dict[Spot, float] = {}

    def odds(spot: Spot) -> float:
        likely = min(max(worth[spot], 2**-40), 1 - 2**-40)
        return likely / (1 - likely)

    def picked(swarm: list[Spot]) -> Spot:
        reach = game.rng.random() * sum(map(odds, swarm))
        for spot in swarm:
            reach -= odds(spot)
            if reach < 0:
                return spot
        return swarm[-1]

    def go_on(step: int, swarm: list[Spot]) -> list[Spot]:
        for spot in swarm:
            if spot not in worth:
                worth[spot] = one_number(game.score((step, 0), spot), aggregate)
        if all(spot.end for spot in swarm):
            return swarm
        heirs = [picked(swarm) for _ in range(particles)]
        finished, born = [], []
        for spot in dict.fromkeys(swarm):
            copies = heirs.count(spot)
            if spot.end:
                finished += [spot] * copies
            elif copies:
                born += game.fork((step, 1), spot, copies)
            game.drop((step + 1, 0) if copies else (step, 1), [spot])
        return go_on(step + 1, finished + born)

    return elect(go_on(1, game.open((0,), particles)), worth.get, summed=False)


def difficulty_adaptive(game: TreeGame, max_branches: int, first: int, threshold: float) -> int | None:
    spots: list[Spot] = []
    wanted = min(first, max_branches)
    while len(spots) < wanted:
        born = game.sample((len(spots),), wanted - len(spots))
        spots += born
        votes = [spot.known for spot in spots]
        if not born or len(set(votes)) == 1 or confidence(votes) > threshold:
            break
        counts = sorted((votes.count(vote) for vote in set(votes)), reverse=True)
        wanted = min(2 * len(votes), max_branches)
        for total in range(len(votes) + 1, wanted):
            leader, runner_up = (math.floor(Fraction(count, len(votes)) * total) for count in counts[:2])
            if lead(leader, runner_up) > threshold:
                wanted = total
                break
    winner = majority([spot.known for spot in spots])
    return winner if winner is not None and winner >= 0 else None


def cascade(game: TreeGame, small: int, large: int, threshold: float) -> int | None:
    first = game.sample((0,), small, arm=0)
    cheap = elect(first, lambda _: 1.0)
    agreeing = [spot for spot in first if cheap is not None and spot.known == cheap]
    if first and Fraction(len(agreeing), len(first)) >= Fraction(threshold):
        return cheap
    dear = elect(game.sample((1,), large, arm=1), lambda _: 1.0)
    return cheap if dear is None else dear


def two_sample_agreement(game: TreeGame, max_branches: int, threshold: float) -> int | None:
    def go_on(pair: int, spots: list[Spot]) -> list[Spot]:
        born = [spot for arm in (0, 1) for spot in game.sample((pair,), 1, arm=arm)]
        spots = spots + born
        votes = [spot.known for spot in spots if spot.known >= 0]
        safe = confidence(votes) > threshold or (pair == 0 and len(votes) == 2 and len(set(votes)) == 1)
        return spots if safe or not born or 2 * pair + 2 >= max_branches else go_on(pair + 1, spots)

    return elect(go_on(0, []), lambda _: 1.0)


class Place:
    """A node of the search tree of AB-MCTS: of the root on, or of what lies below a branch."""

    def __init__(self, spot: Spot | None, above: "Place | None", worth: float) -> None:
        self.spot, self.above, self.worth = spot, above, worth
        self.below: list[Place] = []
        self.dry = False

    @property
    def closed(self) -> bool:
        """Whether nothing more can come of it."""
        if self.spot is not None and self.spot.node.end:
            return True
        return self.dry and all(place.closed for place in self.below)

    @property
    def offspring(self) -> "list[Place]":
        """All below it."""
        return [found for place in self.below for found in (place, *place.offspring)]


def ab_mcts(game: TreeGame, generations: int, aggregate: str) -> int | None:
    """With no books kept: every posterior is read off the tree when it is drawn from."""

    def drawn(places: list[Place]) -> float:
        good = sum(Fraction(place.worth) for place in places)
        return game.rng.betavariate(float(good) + 0.5, float(len(places) - good) + 0.5)

    def descend(place: Place) -> Place:
        open_ones = [child for child in place.below if not child.closed]
        if not open_ones:
            return place
        if not place.dry:
            wider = drawn(place.below)
            deeper = drawn([found for child in place.below for found in child.offspring])
            if wider >= deeper:
                return place
        posteriors = {child: drawn([child, *child.offspring]) for child in open_ones}
        return descend(first_best(open_ones, posteriors.get))

    root = Place(None, None, 0.0)
    for turn in range(generations):
        if root.closed:
            break
        place = descend(root)
        born = game.fork((turn, 0), place.spot, 1) if place.spot else game.open((turn, 0), 1)
        place.dry = not born
        for spot in born:
            worth = one_number(game.score((turn, 1), spot), aggregate)
            place.below.append(Place(spot, place, min(max(worth, 0.0), 1.0)))
    places = sorted(root.offspring, key=lambda place: place.spot.number)
    ended = [place for place in places if place.spot.node.end]
    alive = [place for place in places if not place.dry]
    if not ended and alive:
        ended = [first_best(alive, lambda place: place.worth)]
        game.move((generations,), ended[0].spot, math.inf)
    worth = {place.spot: place.worth for place in ended}
    return elect(list(worth), worth.get, summed=False)
