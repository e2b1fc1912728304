"""Puts chats to a live model: its own way of drawing for each, and whole conversations for questions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from collect.live.model import LiveModel, LiveSession
from collect.prompts import Prompt
from collect.sampler import Drawing
from env.errors import UserError
from env.live.model import Abilities
from env.serve.errors import ApiError
from env.serve.request import Chat, Message


@dataclass(frozen=True)
class LiveChats:
    """See `env.serve.model.ChatModel`."""

    model: LiveModel

    @property
    def abilities(self) -> Abilities:
        """What it can be asked."""
        return self.model.abilities

    def ask(self, chat: Chat, seed: int) -> LiveSession:
        """See `ChatModel`."""
        arms = [
            replace(arm, sampler=replace(arm.sampler, drawing=_drawing(arm.sampler.drawing, chat)))
            for arm in self.model.arms
        ]
        prompts = [self._prompt(number, chat.messages) for number in range(len(arms))]
        session = LiveSession(replace(self.model, arms=arms), chat.question, seed, prompts)
        for number, prompt in enumerate(prompts):
            if session.room(number) < 1:
                session.make_room()
                raise ApiError(
                    400,
                    f"the chat has {len(prompt.ids):,} tokens, which leaves no room for a reply in a context "
                    f"of {session.calls.streams[number].context:,}; make it shorter",
                    "context_length_exceeded",
                    "messages",
                )
        return session

    def _prompt(self, arm: int, messages: Sequence[Message]) -> Prompt:
        try:
            return self.model.arms[arm].sampler.prompter.chat([each._asdict() for each in messages])
        except UserError as error:
            raise ApiError(400, str(error), param="messages") from None


def _drawing(drawing: Drawing, chat: Chat) -> Drawing:
    """How an arm draws, with what the client asks for."""
    sampling = dict(chat.sampling)
    # vLLM takes both for all tokens, the engine's own protocol only 0.
    if sampling.get("top_k") == -1:
        sampling["top_k"] = 0
    return replace(
        drawing,
        sampling=replace(drawing.sampling, **sampling),
        max_tokens=min(drawing.max_tokens, chat.max_tokens or drawing.max_tokens),
    )
