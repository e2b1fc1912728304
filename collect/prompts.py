"""From a question to the token ids that a model continues; and where, in what it wrote, its thinking ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collect.tokens import Tokens
from env.errors import UserError

QUESTION = "{question}"
DEFAULT = QUESTION + "\n\nPlease reason step by step, and put your final answer within \\boxed{}."
THINK = ("<think>", "</think>")


@dataclass(frozen=True)
class Prompting:
    """How a question is put.

    Attributes:
        text: what the user says, with "{question}" in it.
        system: the system prompt; None = the chat template's own.
        arguments: for the chat template, such as {"enable_thinking": False}.
        tags: the tokens that open and close a model's thinking; models without them do not think.
    """

    text: str = DEFAULT
    system: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, str] = THINK


@dataclass(frozen=True)
class Prompt:
    """A question as token ids; `thinking` if they end inside the model's thinking, as some templates do."""

    ids: list[int]
    thinking: bool


class Prompter:
    """Puts questions to one model.

    Attributes:
        open_text, close_text: open and close the thinking of a model that thinks, empty for others.

    Raises:
        UserError: the prompt has no place for the question, or the model does not have the tags asked for.
    """

    def __init__(self, tokens: Tokens, prompting: Prompting) -> None:
        self._tokens, self._prompting = tokens, prompting
        if QUESTION not in prompting.text:
            raise UserError(f"the prompt {prompting.text!r} has no {QUESTION}, where the question would go")
        if prompting.system is not None and not tokens.has_template:
            raise UserError(f"{tokens.model!r} has no chat template, so no system prompt: put it in --prompt")
        opening, closing = (tokens.only(tag) for tag in prompting.tags)
        if (opening is None or closing is None) and prompting.tags != THINK:
            raise UserError(
                f"{' and '.join(prompting.tags)} are not tokens of {tokens.model!r}; correct --think-tags"
            )
        thinks = opening is not None and closing is not None
        self._opening, self._closing = (opening, closing) if thinks else (None, None)
        self.open_text, self.close_text = prompting.tags if thinks else ("", "")

    def encode(self, question: str) -> Prompt:
        """The ids that ask this question. Raises UserError if the chat template refuses them."""
        return self.chat([{"role": "user", "content": question}])

    def chat(self, messages: Sequence[Mapping[str, str]]) -> Prompt:
        """The same for a chat: what the user said last is put as a question. Raises like `encode`."""
        messages = [dict(message) for message in messages]
        asked = next((each for each in reversed(messages) if each["role"] == "user"), None)
        if asked is not None:
            asked["content"] = self._prompting.text.replace(QUESTION, asked["content"])
        if self._prompting.system is not None and all(each["role"] != "system" for each in messages):
            messages.insert(0, {"role": "system", "content": self._prompting.system})
        text = self._tokens.chat(messages, dict(self._prompting.arguments))
        # A template writes the tokens that begin a text itself.
        ids = self._tokens.encode(text, special=not self._tokens.has_template)
        return Prompt(ids, _last(ids, self._opening) > _last(ids, self._closing))

    def close_of(self, ids: Sequence[int]) -> int | None:
        """Where, in what a model wrote, the token is that closes its thinking; None = nowhere."""
        return None if self._closing not in ids else ids.index(self._closing)

    def is_thinking(self, prompt: Prompt, ids: Sequence[int]) -> bool:
        """Whether a model that was asked `prompt` and wrote `ids` is still thinking."""
        return (prompt.thinking or self._opening in ids) and self._closing not in ids


def _last(ids: Sequence[int], token: int | None) -> int:
    return max((place for place, each in enumerate(ids) if each == token), default=-1)
