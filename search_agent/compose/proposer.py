"""The `compose` proposer: an optimiser picks mechanisms and constants, guided by the feedback problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search_agent.compose.assemble import assemble, constants, title
from search_agent.compose.grammar import FIRST, SLOTS, Constant, Recipe
from search_agent.pareto import area, parents
from search_agent.proposal import NothingToPropose, Proposal

if TYPE_CHECKING:
    import random

    import optuna

    from search_agent.workbench import Workbench

ATTEMPTS = 50
# Most rounds vary a parent, or cross two, and keep most of what they are made of; the others are free.
FREE, CROSSED, KEPT = 0.2, 0.3, 0.7
# The optimiser takes as long as it has trials to think about; these are the best ones and the latest.
REMEMBERED = 200
# Whole solutions are read burst by burst; there is nothing to prune or to look at on the way.
IMPLIED = {"finish": {"widening": "bursts", "pruning": "keep", "voting": "plain"}}


class ComposeProposer:
    """Assembles programs from the grammar; the same archive and seed always lead to the same program."""

    name = "compose"
    stamps: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.settings: dict[str, object] = {}

    def propose(self, bench: Workbench) -> Proposal:
        """The next program: those of `FIRST` one after the other, then what the optimiser asks for.

        Where the search does without feedback it is a random one.

        Raises:
            NothingToPropose: the optimiser came up with nothing that has not been tried.
        """
        import optuna

        seed = bench.rng.randrange(2**32)
        if "feedback" in bench.ablated:
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            blind = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
            return _proposal(self._fit(draw(blind.ask()), bench), [], {})
        ours = [record for record in bench.history() if "recipe" in record["memo"]]
        recipes = {record["round"]: record["memo"]["recipe"] for record in ours}
        tried = {assemble(recipe) for recipe in recipes.values()}
        for first in FIRST:
            if assemble(recipe := self._fit(first, bench)) not in tried:
                return _proposal(recipe, [], recipes)
        study = _study(ours, seed)
        for _ in range(ATTEMPTS):
            chance = bench.rng.random()
            origin = [] if chance < FREE else parents(ours, bench.rng)[: 2 if chance < FREE + CROSSED else 1]
            if origin:
                # The optimiser sees what is kept as given, and fills in the rest.
                study.enqueue_trial(_kept([choices(recipes[number]) for number in origin], bench.rng))
            recipe = self._fit(draw(study.ask()), bench)
            if assemble(recipe) not in tried:
                return _proposal(recipe, origin, recipes)
        raise NothingToPropose

    def _fit(self, recipe: Recipe, bench: Workbench) -> Recipe:
        """The recipe itself, or with one end for both where beta is ablated."""
        if "beta" not in bench.ablated:
            return recipe
        return {
            name: value[-1:] * len(value) if isinstance(value, list) else value
            for name, value in recipe.items()
        }

    def vouches(self, source: str, memo: Mapping[str, Any]) -> bool:
        """Whether the recipe in the memo leads to this very program."""
        try:
            return assemble(memo["recipe"]) == source
        except (KeyError, IndexError, TypeError, ValueError):
            return False


def draw(trial: Any) -> Recipe:
    """A recipe from an Optuna trial."""
    recipe: Recipe = {"depth": trial.suggest_categorical("depth", list(SLOTS["depth"]))}
    implied = IMPLIED.get(recipe["depth"], {})
    for slot, mechanisms in SLOTS.items():
        if slot != "depth":
            recipe[slot] = implied.get(slot) or trial.suggest_categorical(slot, list(mechanisms))
    for constant in constants(recipe):
        suggest = trial.suggest_int if constant.whole else trial.suggest_float
        values = [
            suggest(name, constant.low, constant.high, log=constant.low > 0) for name in _ends(constant)
        ]
        # Of two free ends half would ask for less at beta = 1; the larger one is meant.
        values[-1] = max(values)
        recipe[constant.name] = values if constant.whole else [round(value, 2) for value in values]
    return recipe


def choices(recipe: Recipe) -> dict[str, Any]:
    """What an Optuna trial must suggest for `draw` to come to this recipe."""
    implied = IMPLIED.get(recipe["depth"], {})
    found = {slot: recipe[slot] for slot in SLOTS if slot not in implied}
    for constant in constants(recipe):
        found |= zip(_ends(constant), recipe[constant.name], strict=True)
    return found


def _ends(constant: Constant) -> list[str]:
    return [f"{constant.name} at 0", f"{constant.name} at 1"] if constant.ramp else [constant.name]


def _kept(origin: Sequence[Mapping[str, Any]], rng: random.Random) -> dict[str, Any]:
    """Choices to start from: most of one parent's, or each slot from either of two, with its constants."""
    if len(origin) == 1:
        return {name: value for name, value in origin[0].items() if rng.random() < KEPT}
    crossed = {slot: rng.choice(origin).get(slot) for slot in SLOTS}
    kept = {slot: mechanism for slot, mechanism in crossed.items() if mechanism}
    for constants_of in rng.sample(list(origin), 2):
        kept = {name: value for name, value in constants_of.items() if name not in SLOTS} | kept
    return kept


def _study(history: Sequence[Mapping[str, Any]], seed: int) -> optuna.Study:
    """The optimiser as the archive left it: built anew each round, so that a resumed run goes on the same.

    It maximises the frontier's area and how far up it reaches: the area alone rewards the cheap end most.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=len(FIRST))
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
    best = {record["round"] for record in sorted(history, key=area)[-REMEMBERED // 2 :]}
    for k, record in enumerate(history):
        if record["round"] in best or k >= len(history) - REMEMBERED // 2:
            params = choices(record["memo"]["recipe"])
            made = optuna.trial.FixedTrial(params)
            draw(made)
            reached = record["feedback"]["points"][-1]["accuracy"] if record["feedback"] else 0.0
            study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions=made.distributions, values=[area(record), reached]
                )
            )
    return study


def _proposal(recipe: Recipe, origin: Sequence[int], recipes: Mapping[int, Recipe]) -> Proposal:
    summary = f"{title(recipe)}."
    parent, partner = [*origin, None, None][:2]
    if parent is not None:
        old = recipes[parent]
        swapped = [f"{slot} {old[slot]} -> {recipe[slot]}" for slot in SLOTS if recipe[slot] != old[slot]]
        summary += f" Changes {', '.join(swapped)}." if swapped else " Other constants."
    if partner is not None:
        summary += f" Crossed with round {partner}."
    return Proposal(assemble(recipe), summary, parent, memo={"recipe": recipe}, partner=partner)
