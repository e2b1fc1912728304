"""A model's tokenizer: chats to ids, ids to text, and which text is in which token."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from env.errors import UserError

# Tokens that are decoded before a piece of text, so that it comes out as it does in its context.
_CONTEXT = 8
_BROKEN = "\N{REPLACEMENT CHARACTER}"


class Tokens:
    """The tokenizer of a model, by transformers.

    Args:
        model: name or folder of the model.
        arguments: for vLLM; `tokenizer`, `tokenizer_revision`, `revision`, `trust_remote_code` matter here.

    Raises:
        UserError: there is none, or transformers is not installed.
    """

    def __init__(self, model: str, arguments: Mapping[str, Any] | None = None) -> None:
        try:
            from transformers import AutoTokenizer, GenerationConfig
        except ImportError:
            raise UserError(
                "collecting needs vLLM: run `pip install 'autotts[gpu]'`, or `autotts[cpu]` without a GPU; "
                "where servers do all the work, `pip install transformers` is enough"
            ) from None
        given = dict(arguments or {})
        revision = given.get("revision")
        name, trusted = given.get("tokenizer") or model, bool(given.get("trust_remote_code"))
        self.model = model
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                name, revision=given.get("tokenizer_revision", revision), trust_remote_code=trusted
            )
        # The hub, the network, the files: whatever is in the way.
        except Exception as error:
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise UserError(
                f"the tokenizer of the model {model!r} cannot be loaded: {reason}; "
                "check --model: a folder, or a name on Hugging Face"
            ) from error
        try:
            listed = GenerationConfig.from_pretrained(model, revision=revision).eos_token_id
        # Many models have no such file; then the tokenizer alone says what ends a text.
        except Exception:
            listed = None
        ends = [listed] if isinstance(listed, int) else list(listed or ())
        if self._tokenizer.eos_token_id is not None:
            ends.append(self._tokenizer.eos_token_id)
        if not ends:
            raise UserError(
                f"the tokenizer of {model!r} names no token that ends a text; give it an eos_token"
            )
        self.ends: tuple[int, ...] = tuple(dict.fromkeys(ends))
        self._pieces: dict[int, str] = {}

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of a text, with the tokens that begin every text only if `special`."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=special).input_ids
        return ids

    def decode(self, ids: Sequence[int], start: int = 0) -> str:
        """The text of ``ids[start:]`` as it stands in the text of all `ids`, without special tokens.

        A character whose bytes are cut by `start` belongs to the later part.
        """
        context = ids[max(0, start - _CONTEXT) : start]
        whole = self._decode([*context, *ids[start:]])
        return whole[len(self._decode(context).rstrip(_BROKEN)) :]

    def piece(self, token: int) -> str:
        """What one token adds to a text, special tokens included."""
        if (text := self._pieces.get(token)) is None:
            before = self._tokenizer.decode([self._anchor], skip_special_tokens=False)
            both = self._tokenizer.decode([self._anchor, token], skip_special_tokens=False)
            text = self._pieces[token] = both[len(before) :]
        return text

    def with_text(self, text: str) -> tuple[int, ...]:
        """All tokens whose own text has `text` in it."""
        found = self._tokenizer.batch_decode([[token] for token in range(len(self._tokenizer))])
        return tuple(token for token, piece in enumerate(found) if text in piece)

    def chat(self, messages: Sequence[dict[str, str]], arguments: dict[str, Any]) -> str:
        """The messages and the beginning of a reply, as the model's chat template writes them.

        Without a template: the messages' contents, a blank line between two.

        Raises:
            UserError: the template refuses them.
        """
        if not self._tokenizer.chat_template:
            return "\n\n".join(message["content"] for message in messages)
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **arguments
            )
        except Exception as error:
            raise UserError(
                f"the chat template of {self.model!r} refuses the prompt: {error}; "
                "check --system and --chat-template-arg"
            ) from error
        return text

    @property
    def has_template(self) -> bool:
        """Whether the model is made for chats."""
        return bool(self._tokenizer.chat_template)

    def only(self, text: str) -> int | None:
        """The token that is just this text, None if the model has none."""
        ids = self.encode(text)
        return ids[0] if len(ids) == 1 else None

    @cached_property
    def _anchor(self) -> int:
        return self.encode("a")[-1]

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
