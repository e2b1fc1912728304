"""Finds the reply to a chat: a controller plays it, and the branch that wins is what the client is told.

A chat need not have anything to vote on. So the first branch goes ahead alone through its first segment, and
if the reply ends there without an answer that the task can read, this is the reply. The controller plays all
others, with that branch as its first. If then the first branch to end by itself has no answer, its text is
the reply and the rest is given up.
"""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from env.episode import Spent
from env.forest import END_LENGTH, END_NONE, END_STOP
from env.live.answers import Answers
from env.live.episode import LiveEpisode
from env.live.model import Name, Probe, RefusedError, Segment
from env.live.names import MAX_BRANCHES, Fresh
from env.live.player import Player
from env.serve.errors import ApiError
from env.serve.model import ChatBranch, ChatModel, ChatSession, Said
from env.serve.request import Chat
from env.tasks import Task

# Seeds that an array of int64 can hold.
SEEDS = 2**63
_FINISH = {END_STOP: "stop", END_LENGTH: "length"}


@dataclass(frozen=True)
class Reply:
    """What a chat came to.

    Attributes:
        said: by the branch that won.
        finish: "stop", or "length" where it was cut off.
        usage: what it really took, as OpenAI counts it, with an account of our own under "autotts".
    """

    said: Said
    finish: str
    usage: dict[str, Any]


@dataclass(frozen=True)
class Chats:
    """Plays chats, any number at a time.

    Args:
        model: is asked.
        player: the controller, at whichever beta.
        task: says which answers are the same.
        max_branches: ceiling on branches opened at the root.
    """

    model: ChatModel
    player: Player
    task: Task
    max_branches: int = MAX_BRANCHES

    async def reply(self, chat: Chat) -> Reply:
        """The reply to a chat.

        Raises:
            ApiError: the chat cannot be put, or the model, the task or the controller failed.
        """
        seed = secrets.randbelow(SEEDS) if chat.seed is None else chat.seed % SEEDS
        table = _Table(self.model.ask(chat, seed))
        player = self.player.at(chat.beta)
        episode = LiveEpisode(
            table, self.model.abilities, Fresh(self.max_branches), Answers(self.task), seed, player.columns
        )
        try:
            played = await player.play(episode)
        except _NothingToVoteOn as settled:
            said, finish = settled.branch.inner.said(None), _FINISH[settled.end]
            return Reply(said, finish, table.account(episode.ledger, chat, None))
        if played.error:
            raise ApiError(502 if played.model_failed else 500, played.error, "episode_failed")
        if not table.branches:
            raise ApiError(500, f"the controller {player.program.name} opened no branch", "episode_failed")
        answer = episode.answers.text(played.answer)
        won, says_so = _winner(episode)
        said = table.branches[won].inner.said(None if says_so else answer)
        finish = _FINISH.get(episode.branches[won].end, "stop")
        return Reply(said, finish, table.account(episode.ledger, chat, answer))


class _NothingToVoteOn(Exception):
    """A branch that has ended without an answer is the reply."""

    def __init__(self, branch: "_Seat", end: int) -> None:
        super().__init__("nothing to vote on")
        self.branch, self.end = branch, end


class _Table:
    """A session, watched: it sees the first branch to end, and counts tokens as they are shown."""

    def __init__(self, session: ChatSession) -> None:
        self.usage, self.branches = session.usage, list[_Seat]()
        self.decode = self.probe = 0
        self.has_ended = False
        self.opened = asyncio.Event()
        self._session = session

    def open(self, name: Name, arm: int) -> "_Seat":
        """See `Session`."""
        return self.sit(self._session.open(name, arm))

    def sit(self, branch: ChatBranch) -> "_Seat":
        """Watch one more branch."""
        self.branches.append(_Seat(self, branch, not self.branches))
        return self.branches[-1]

    async def close(self) -> None:
        """See `Session`."""
        await self._session.close()

    def account(self, ledger: Spent, chat: Chat, answer: str | None) -> dict[str, Any]:
        """What it took; call it when the session is closed."""
        used = asdict(self.usage)
        prompt, cached = used.pop("prompt"), used.pop("cached")
        completion = self.decode + self.probe + self.usage.cancelled
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
            "autotts": {
                "beta": chat.beta,
                "answer": answer,
                "branches": sum(branch.has_begun for branch in self.branches),
                "decode": self.decode,
                "probe": self.probe,
                "prm": ledger.prm,
                # A round that was broken off is in no ledger.
                "sequential": max(ledger.sequential, *(branch.tokens for branch in self.branches)),
                **used,
            },
        }


class _Seat:
    """A branch, watched; all but the first wait until that one has been seen to go on."""

    def __init__(self, table: _Table, inner: ChatBranch, is_first: bool, tokens: int = 0) -> None:
        self.inner, self.tokens = inner, tokens
        self.has_begun = False
        self._table, self._is_first = table, is_first

    async def advance(self, name: Name) -> Segment:
        """See `Branch`."""
        table = self._table
        opens = not table.opened.is_set()
        if opens and not self._is_first:
            await table.opened.wait()
        self.has_begun = True
        with _refusals():
            segment = await self.inner.advance(name)
        table.decode += segment.tokens
        self.tokens += segment.tokens
        if segment.end != END_NONE and not table.has_ended:
            table.has_ended = True
            if segment.answer is None and (segment.end == END_STOP or (opens and self._is_first)):
                raise _NothingToVoteOn(self, segment.end)
        table.opened.set()
        return segment

    async def probe(self) -> Probe:
        """See `Branch`."""
        with _refusals():
            probe = await self.inner.probe()
        self._table.probe += probe.tokens
        return probe

    async def score(self) -> list[float]:
        """See `Branch`."""
        return await self.inner.score()

    def fork(self, name: Name) -> "_Seat":
        """See `Branch`."""
        fork = self._table.sit(self.inner.fork(name))
        fork.tokens = self.tokens
        return fork

    def text(self) -> str:
        """See `Branch`."""
        return self.inner.text()

    def close(self) -> None:
        """See `Branch`."""
        self.inner.close()


@contextmanager
def _refusals() -> Iterator[None]:
    """What the model refuses of a chat is the client's to mend: an ApiError."""
    try:
        yield
    except RefusedError as refused:
        raise ApiError(400, refused.said, "upstream_refused") from None


def _winner(episode: LiveEpisode) -> tuple[int, bool]:
    """The branch whose text is the reply, and whether it ends with the answer.

    Without an answer, the first that has ended, if one has.
    """
    ended = [number for number, each in enumerate(episode.branches) if each.end in _FINISH]
    won = episode.winner
    if won is None:
        return next(iter(ended), 0), bool(ended)
    return won, won in ended and episode.branches[won].told == episode.final
