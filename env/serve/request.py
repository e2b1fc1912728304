"""What a client asks for: the body of a chat completion, checked."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from env.serve.errors import ApiError

# How a reply is drawn: the values that make sense, and the name under which they are asked for.
SAMPLING = {
    "temperature": (0.0, 100.0),
    # At 0 there is no token to draw.
    "top_p": (1e-9, 1.0),
    "top_k": (-1, 2**31),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (0.01, 100.0),
}
LENGTHS = ("max_completion_tokens", "max_tokens")
# What is read here, and what says nothing about the reply.
_READ = {*SAMPLING, *LENGTHS, "model", "messages", "stream", "stream_options", "seed", "beta"}
_IDLE = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
# Where there are no tools.
_ABOUT_TOOLS = {"parallel_tool_calls", "tool_choice", "function_call"}
# Values with which a field asks for nothing.
_NOTHING: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
}
_ROLES = {"system", "developer", "user", "assistant"}
AT = "@"


@dataclass(frozen=True)
class Offer:
    """What clients may ask for.

    Attributes:
        name: of the model that is served; with "@0.25" behind it, at that beta.
        beta: where they do not say.
        max_tokens: of a branch.
        max_choices: replies to one request.
    """

    name: str
    beta: float
    max_tokens: int
    max_choices: int


class Message(NamedTuple):
    """A turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Chat:
    """A request.

    Attributes:
        messages: the chat so far; empty where it has other things in it than texts.
        beta: from 0, cheap, to 1, thorough.
        sampling: the fields of `SAMPLING` that the client has set.
        max_tokens: of a branch; None = as many as there may be.
        seed: decides what is drawn; None = chance does.
        stream: whether the reply comes as events.
        wants_usage: whether they end with what it took.
        votes: whether a controller can work at it. It cannot where the request has anything in it besides
            texts and the fields above, such as tools, a response format, images or several choices.
        body: as it came.
    """

    messages: list[Message]
    beta: float
    sampling: Mapping[str, float]
    max_tokens: int | None
    seed: int | None
    stream: bool
    wants_usage: bool
    votes: bool
    body: dict[str, Any]

    @property
    def model(self) -> str:
        """What the client calls the model."""
        return str(self.body["model"])

    @property
    def question(self) -> str:
        """What the user said last."""
        return next((each.content for each in reversed(self.messages) if each.role == "user"), "")


def read(data: bytes, offer: Offer) -> Chat:
    """The request in a body. Raises ApiError if it makes no sense or asks for more than there is."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise ApiError(400, "messages must be a list of at least one message", param="messages")
    stream, options = _flag(body, "stream"), body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise ApiError(400, "stream_options must be an object", param="stream_options")
    tokens = [_number(body, name, 1, offer.max_tokens, whole=True) for name in LENGTHS]
    _number(body, "n", 1, offer.max_choices, whole=True)
    seed = _number(body, "seed", -(2**63), 2**63 - 1, whole=True)
    drawn = {name: _number(body, name, *bounds, whole=name == "top_k") for name, bounds in SAMPLING.items()}
    texts = [_text(message) for message in messages]
    plain = [text for text in texts if text is not None]
    votes = len(plain) == len(texts) and not any(map(_asks_more, body.items()))
    return Chat(
        messages=plain if votes else [],
        beta=_beta(body, offer),
        sampling={name: value for name, value in drawn.items() if value is not None},
        max_tokens=next((int(value) for value in tokens if value is not None), None),
        seed=None if seed is None else int(seed),
        stream=stream,
        wants_usage=_flag(options, "include_usage"),
        votes=votes,
        body=body,
    )


def beta_of(model: str, offer: Offer) -> float | None:
    """The beta in a model's name, None if there is none. Raises ApiError if there is no such model."""
    name, at, beta = model.rpartition(AT)
    if model == offer.name:
        return None
    try:
        if at and name == offer.name and 0 <= float(beta) <= 1:
            return float(beta)
    except ValueError:
        pass
    raise ApiError(
        404,
        f"there is no model {model[:200]!r}; ask for {offer.name!r}, or for {offer.name + AT}B with a beta B "
        "from 0, cheap, to 1, thorough",
        "model_not_found",
        "model",
    )


def _beta(body: dict[str, Any], offer: Offer) -> float:
    model = body.get("model")
    if not isinstance(model, str):
        raise ApiError(400, f"model must be {offer.name!r}", param="model")
    named, told = beta_of(model, offer), _number(body, "beta", 0.0, 1.0)
    return next(value for value in (told, named, offer.beta) if value is not None)


def _asks_more(item: tuple[str, Any]) -> bool:
    """Whether a field asks for what a vote cannot give."""
    name, value = item
    if name in _READ or name in _IDLE or name in _ABOUT_TOOLS:
        return False
    empty = value is None or value in ([], {}, "")
    return not empty and value not in _NOTHING.get(name, ())


def _text(message: dict[str, Any]) -> Message | None:
    """A message of text alone; None if it is none."""
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise ApiError(400, "a message's role must be a string, such as 'user'", param="messages")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        content = "".join(texts) if len(texts) == len(parts) else None
    if role not in _ROLES or not isinstance(content, str):
        return None
    if any(message.get(name) for name in ("tool_calls", "function_call", "refusal", "audio")):
        return None
    try:
        content.encode()
    except UnicodeEncodeError:
        raise ApiError(400, "a message has half of a surrogate pair in it", param="messages") from None
    return Message("system" if role == "developer" else role, content)


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value not in (None, True, False):
        raise ApiError(400, f"{name} must be true or false", param=name)
    return bool(value)


def _number(
    body: dict[str, Any], name: str, low: float, high: float, whole: bool = False
) -> float | int | None:
    """A field's number; None if it is not set."""
    value = body.get(name)
    if value is None:
        return None
    kinds = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise ApiError(400, f"{name} must be {kind} from {low:,} to {high:,}", param=name)
    return value if whole or math.isfinite(value) else None
