"""What a live branch asks of a language model: a request's tokens as they come, cancelled by not waiting."""

from collections.abc import AsyncGenerator
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from collect.engine import Request
from env.live.model import ModelError


class Piece(NamedTuple):
    """Some tokens of a request.

    Attributes:
        ids: none or more.
        confidence: float32 for each, as in `collect.engine.Sample`; None where not asked.
        finish: why there are no more after these; only the last piece of a request says so.
        cached: prompt tokens that were in the prefix cache, with the piece that tells; else 0.
    """

    ids: list[int]
    confidence: NDArray[np.float32] | None = None
    finish: Literal["stop", "length"] | None = None
    cached: int = 0


class Dropped(Exception):
    """A request that came to nothing, or to some tokens only, and may be made again.

    Attributes:
        final: what to raise when it has been made often enough.
        after: seconds that the model asks to wait, None = it does not say.
    """

    def __init__(self, final: ModelError, after: float | None = None) -> None:
        super().__init__(str(final))
        self.final, self.after = final, after


class Streams(Protocol):
    """A language model at one place, in the event loop that first uses it.

    Attributes:
        where: for people: an address, or the name of the model.
        context: the most tokens that a prompt and its continuation can have together.
        sessions: how many stay here.
    """

    where: str
    context: int
    sessions: int

    def stream(self, request: Request) -> AsyncGenerator[Piece, None]:
        """The tokens of a request; whoever closes the generator before its end cancels the request.

        Raises:
            Dropped: what came is right, and the rest may be asked for.
            ModelError: it is no use to ask again.
        """
        ...

    async def capacity(self) -> int | None:
        """How many tokens the key-value cache holds; None = unknown."""
        ...

    async def preemptions(self) -> int | None:
        """How often the model has put requests back for want of memory so far; None = unknown."""
        ...

    async def close(self) -> None:
        """Give up what is under way, and let go of the model."""
        ...
