"""What a live episode asks of a model. `collect.live` implements it; nothing here knows of tokens or servers.

A model is put a question, once for each episode, and grows branches of its reasoning, a segment at a time. A
branch is asked for its next segment only when the program wants it; what a model decodes before that, and
whether it stops in between, is its own affair, as long as it says so in the episode's `Usage`.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from env.errors import UserError

# A branch's name: its number among the roots of its arm, and for every fork on the way the segments before it
# and the number among the children there, from 1 (0 is the branch that was forked). It decides the seed.
Name = tuple[int, ...]


class ModelError(UserError):
    """A model did not do what was asked, however often: the outcome of that episode, not of its program."""


class RefusedError(ModelError):
    """What was asked makes no sense to the model, so that asking again is no use.

    Attributes:
        said: by the model, for whoever asked.
    """

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said


@dataclass(frozen=True)
class Abilities:
    """What a model can be asked, as a store has capabilities.

    Attributes:
        arms: models and prompts to choose from.
        probes: whether it answers before a branch has ended.
        prm: whether there is a process reward model.
        confidence: whether segments have a confidence.
    """

    arms: int = 1
    probes: bool = True
    prm: bool = False
    confidence: bool = False


class Segment(NamedTuple):
    """A piece of a branch up to the next boundary.

    Attributes:
        tokens: decoded in it, at least 1.
        end: as in `env.forest`: whether the branch ended here, and why.
        answer: the final answer of a branch that ended; None = nothing could be parsed, or it has not ended.
        confidence: group confidence at its end, NaN = unknown.
    """

    tokens: int
    end: int
    answer: str | None
    confidence: float


class Probe(NamedTuple):
    """What a branch would answer now (None = nothing could be parsed), and the tokens decoded to say so."""

    answer: str | None
    tokens: int


@dataclass
class Usage:
    """What an episode used besides what its program was charged for; tokens but for the first two.

    Attributes:
        requests: answered by the language model, whole or in part.
        retries: attempts that failed and were made again.
        prompt: sent along with requests.
        cached: of them, those that the model had in its prefix cache, as far as it tells.
        recomputed: of them, those that the model had read or decoded for this episode before, and not kept.
        run_ahead: decoded before the program asked for them.
        cancelled: of them, those that it never asked for.
    """

    requests: int = 0
    retries: int = 0
    prompt: int = 0
    cached: int = 0
    recomputed: int = 0
    run_ahead: int = 0
    cancelled: int = 0


class Branch(Protocol):
    """A path of reasoning that grows. One call at a time; other branches go on meanwhile.

    All calls raise ModelError where the model fails for good.
    """

    async def advance(self, name: Name) -> Segment:
        """The next segment of a branch that has not ended.

        Args:
            name: of the branch that goes on from here. Where that is another than so far, the path is
                continued anew from its exact prefix, as a fork of that name is.
        """
        ...

    async def probe(self) -> Probe:
        """What the model would answer at the end of the last segment."""
        ...

    async def score(self) -> list[float]:
        """Step scores of the path up to the end of the last segment, as far as the reward model can read."""
        ...

    def fork(self, name: Name) -> "Branch":
        """Another branch from the end of the last segment on."""
        ...

    def text(self) -> str:
        """What it says up to the end of the last segment."""
        ...

    def close(self) -> None:
        """Give it up: what is decoded for it is cancelled at once."""
        ...


class Session(Protocol):
    """A question, put to a model for one episode.

    Attributes:
        usage: so far.
    """

    usage: Usage

    def open(self, name: Name, arm: int) -> Branch:
        """A branch without segments yet."""
        ...

    async def close(self) -> None:
        """Give up all branches, and wait until nothing is under way."""
        ...


class Model(Protocol):
    """A language model, with whatever reads its answers and scores its steps.

    Attributes:
        abilities: what it can be asked.
    """

    abilities: Abilities

    def ask(self, question: str, seed: int) -> Session:
        """Put a question for one episode; `seed` and the branches' names decide what is drawn."""
        ...
