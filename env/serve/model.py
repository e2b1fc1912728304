"""What serving asks of a model besides what live episodes do. `collect.live` implements it."""

from typing import NamedTuple, Protocol

from env.live.model import Abilities, Branch, Name, Session
from env.serve.request import Chat


class Said(NamedTuple):
    """A branch as a reply: what it thought ("" = nothing) and what it said after that."""

    reasoning: str
    content: str


class ChatBranch(Branch, Protocol):
    """See `env.live.model.Branch`."""

    def said(self, answer: str | None) -> Said:
        """What it says up to the end of the last segment.

        Args:
            answer: of a branch that has not ended, what it said when it was asked; closes the reply.
        """
        ...

    def fork(self, name: Name) -> "ChatBranch":
        """See `Branch`."""
        ...


class ChatSession(Session, Protocol):
    """See `env.live.model.Session`."""

    def open(self, name: Name, arm: int) -> ChatBranch:
        """See `Session`."""
        ...


class ChatModel(Protocol):
    """A model that chats.

    Attributes:
        abilities: what it can be asked.
    """

    abilities: Abilities

    def ask(self, chat: Chat, seed: int) -> ChatSession:
        """Put a chat for one episode.

        Raises:
            ApiError: it cannot be put, or leaves no room for a reply.
        """
        ...
