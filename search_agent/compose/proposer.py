"""The `compose` proposer: an optimiser picks mechanisms and constants, guided by the feedback problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search_agent.compose.assemble import assemble, constants, title
from search_agent.compose.grammar import FIRST, SLOTS, Constant, Recipe
from search_agent.proposal import Proposal, ProposerError

if TYPE_CHECKING:
    import optuna

    from search_agent.workbench import Workbench

ATTEMPTS = 50
# Most rounds vary one of the best so far and keep most of what it is made of; the others are free.
VARIED, PARENTS, KEPT = 0.75, 8, 0.7
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

        Raises:
            ProposerError: the optimiser came up with nothing that has not been tried.
        """
        history = bench.history()
        recipes = {record["round"]: record["memo"]["recipe"] for record in history if record["memo"]}
        tried = {assemble(recipe) for recipe in recipes.values()}
        for recipe in FIRST:
            if assemble(recipe) not in tried:
                return _proposal(recipe, _nearest(recipe, history), recipes)
        study = _study(history, bench.rng.randrange(2**32))
        best = sorted(_evaluated(history), key=_area)[-PARENTS:]
        for _ in range(ATTEMPTS):
            parent = bench.rng.choice(best)["round"] if best and bench.rng.random() < VARIED else None
            if parent:
                # The optimiser sees what is kept as given, and fills in the rest.
                kept = choices(recipes[parent]).items()
                study.enqueue_trial({name: value for name, value in kept if bench.rng.random() < KEPT})
            recipe = draw(study.ask())
            if assemble(recipe) not in tried:
                return _proposal(recipe, parent or _nearest(recipe, history), recipes)
        raise ProposerError(f"the optimiser repeated itself {ATTEMPTS} times; a new --seed may help")

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


def _study(history: Sequence[Mapping[str, Any]], seed: int) -> optuna.Study:
    """The optimiser as the archive left it: built anew each round, so that a resumed run goes on the same.

    It maximises the frontier's area and how far up it reaches: the area alone rewards the cheap end most.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=len(FIRST))
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
    for record in history:
        if record["memo"]:
            params = choices(record["memo"]["recipe"])
            made = optuna.trial.FixedTrial(params)
            draw(made)
            reached = record["feedback"]["points"][-1]["accuracy"] if record["feedback"] else 0.0
            study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions=made.distributions, values=[_area(record), reached]
                )
            )
    return study


def _area(record: Mapping[str, Any]) -> float:
    return record["feedback"]["hypervolume"] if record["feedback"] else 0.0


def _evaluated(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [record for record in history if record["feedback"] and record["memo"]]


def _nearest(recipe: Recipe, history: Sequence[Mapping[str, Any]]) -> int | None:
    """The evaluated round that shares the most mechanisms; among equals the one with the largest area."""

    def rank(record: Mapping[str, Any]) -> tuple[int, float]:
        other = record["memo"]["recipe"]
        return sum(recipe[slot] == other[slot] for slot in SLOTS), _area(record)

    return max(_evaluated(history), key=rank, default={"round": None})["round"]


def _proposal(recipe: Recipe, parent: int | None, recipes: Mapping[int, Recipe]) -> Proposal:
    summary = f"{title(recipe)}."
    if parent:
        old = recipes[parent]
        swapped = [f"{slot} {old[slot]} -> {recipe[slot]}" for slot in SLOTS if recipe[slot] != old[slot]]
        summary += f" Changes {', '.join(swapped)}." if swapped else " Other constants."
    return Proposal(assemble(recipe), summary, parent, memo={"recipe": recipe})
