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
# Whole solutions are read burst by burst; there is nothing to prune or to look at on the way.
IMPLIED = {"finish": {"widening": "bursts", "pruning": "keep"}}


class ComposeProposer:
    """Assembles programs from the grammar; the same archive and seed always lead to the same program."""

    name = "compose"
    trusted = True
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
        planned = [recipe for recipe in FIRST if assemble(recipe) not in tried]
        study = None if planned else _study(history, bench.rng.randrange(2**32))
        for _ in range(ATTEMPTS):
            recipe = draw(study.ask()) if study else planned[0]
            source = assemble(recipe)
            if source not in tried:
                parent = _nearest(recipe, history)
                summary = _summary(recipe, recipes[parent] if parent else None)
                return Proposal(source, summary, parent, memo={"recipe": recipe})
        raise ProposerError(f"the optimiser repeated itself {ATTEMPTS} times; a new --seed may help")


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
    """The optimiser as the archive left it: built anew each round, so that a resumed run goes on the same."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=len(FIRST))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for record in history:
        if record["memo"]:
            params = choices(record["memo"]["recipe"])
            made = optuna.trial.FixedTrial(params)
            draw(made)
            value = record["feedback"]["hypervolume"] if record["feedback"] else 0.0
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=made.distributions, value=value)
            )
    return study


def _nearest(recipe: Recipe, history: Sequence[Mapping[str, Any]]) -> int | None:
    """The evaluated round that shares the most mechanisms; among equals the one with the largest area."""

    def rank(record: Mapping[str, Any]) -> tuple[int, float]:
        other = record["memo"]["recipe"]
        return sum(recipe[slot] == other[slot] for slot in SLOTS), record["feedback"]["hypervolume"]

    evaluated = [record for record in history if record["feedback"]]
    return max(evaluated, key=rank)["round"] if evaluated else None


def _summary(recipe: Recipe, parent: Recipe | None) -> str:
    if parent is None:
        return f"{title(recipe)}."
    swapped = [f"{slot} {parent[slot]} -> {recipe[slot]}" for slot in SLOTS if recipe[slot] != parent[slot]]
    return (
        f"{title(recipe)}. Changes {', '.join(swapped)}." if swapped else f"{title(recipe)}. Other constants."
    )
