"""Makes a model for live episodes of a collection's plan and whatever serves its models."""

from collections.abc import Mapping, Sequence

from collect.live.calls import Log
from collect.live.model import RUN_AHEAD, LiveArm, LiveModel, NoLog
from collect.live.scoring import StepScores
from collect.live.streams import Streams
from collect.plan import Plan
from collect.tokens import Tokens
from env.tasks import Task


def live_model(
    plan: Plan,
    task: Task,
    places: Mapping[str, Sequence[Streams]],
    scores: StepScores | None = None,
    *,
    run_ahead: int = RUN_AHEAD,
    confidence: bool = True,
    log: Log | None = None,
) -> LiveModel:
    """A model that is asked as a plan says.

    Args:
        plan: of a collection; its shape and source do not matter here.
        task: reads answers.
        places: for the model of each arm, at least one that has it.
        scores: see `LiveModel`, as for all others.

    Raises:
        UserError: a tokenizer cannot be loaded, or a model cannot be asked as the plan says.
    """
    tokens = {arm.model: Tokens(arm.model, plan.engine_arguments) for arm in plan.arms}
    arms = [
        LiveArm(plan.sampler(number, tokens[arm.model], task), places[arm.model])
        for number, arm in enumerate(plan.arms)
    ]
    return LiveModel(arms, scores, run_ahead, confidence, log or NoLog())
