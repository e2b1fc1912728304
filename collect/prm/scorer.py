"""What a collection asks of a process reward model: a question with its steps in, a score a step out."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from collect.prm.registry import JUDGE
from env.errors import UserError

Item = tuple[str, Sequence[str]]

# What every scorer is checked on before a job relies on it.
KNOWN: Item = ("What is 1 + 1?", ("1 + 1 = 2.", "So the answer is 2."))


class Scorer(Protocol):
    """A process reward model that is ready to score, checked on a known input.

    Attributes:
        name: name or folder of the model.
        kind: one of `collect.prm.registry.KINDS`, or "judge".
        context: the most tokens of a path, question included, that it can read; None = only its server knows.
        steps: steps it was asked about so far.
        unscored: how many of them got no score.
        tokens: tokens that it has read so far; less than the sum of all paths where they share prefixes.
    """

    name: str
    kind: str
    context: int | None
    steps: int
    unscored: int
    tokens: int

    def score(self, items: Sequence[Item]) -> list[list[float | None]]:
        """Scores in [0, 1], one a step, in the order of the items.

        A step that ends beyond the model's context, or beyond the window, gets None; the steps before it are
        scored as if the path ended there, which changes nothing in what they get. Steps that several paths
        begin with get the same score in each.
        """
        ...

    def close(self) -> None:
        """Free the model's memory."""
        ...


def open_scorer(
    model: str,
    kind: str | None = None,
    engine_args: Mapping[str, Any] | None = None,
    window: int | None = None,
    step_tag: str | None = None,
) -> Scorer:
    """Loads a PRM and checks it on a known input.

    Args:
        model: name or folder of a checkpoint; for a judge, its name at the endpoint.
        kind: None = by the checkpoint's architecture. A judge must be named as one.
        engine_args: passed on to vLLM; for a judge see `collect.prm.judge.Judge`.
        window: score only the steps that end within the first `window` tokens of a path.
        step_tag: the text that ends a step where it is not the kind's usual one.

    Raises:
        UserError: there is no such model, it is no PRM, or it does not know its step tag.
    """
    if window is not None and window < 1:
        raise UserError(f"--prm-window is {window}: give a number of tokens, 1 or more")
    if kind == JUDGE:
        from collect.prm.judge import Judge

        try:
            return Judge(model, window, **(engine_args or {}))
        except TypeError as error:
            raise UserError(f"a judge takes other options: {error}; see --prm-engine-arg") from None
    from collect.prm.local import LocalScorer

    return LocalScorer(model, kind, engine_args or {}, window, step_tag)


def check_context(context: int | None, expected_tokens: int, window: int | None) -> None:
    """Compares what a PRM can read with how long paths are expected to be.

    Args:
        context: of the scorer (tokens), None = unknown.
        expected_tokens: of a long path with its question.
        window: what the user chose to score, None = everything.

    Raises:
        UserError: paths would be longer than the PRM reads and the user did not say what to do.
    """
    if window is None and context is not None and expected_tokens > context:
        raise UserError(
            f"the PRM reads {context:,} tokens and paths are expected to have {expected_tokens:,}: "
            f"--prm-window {context} scores the steps in the first {context:,} tokens of each path and "
            "leaves null beyond; or choose a PRM with a longer context"
        )
