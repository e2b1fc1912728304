"""One model behind an OpenAI-compatible server: a call, its accounting, and what can go wrong with it.

The openai package retries what is worth retrying (429, 5xx, time-outs, dropped connections; Retry-After is
obeyed). Here the rest is told apart: what the conversation can do without (tools, a long reply, a long
prompt), what ends a round, and what would end every round.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from search_agent.proposal import ProposerError
from search_agent.proposers.meter import LEAST_REPLY, Meter
from search_agent.proposers.text import clean, hide

RETRIES = 4
CHARACTERS_A_TOKEN = 3  # on the safe side: English and code run at 3.5 to 4
TOOLS_REFUSED = re.compile(r"\btools?\b|function.?call", re.IGNORECASE)
TOO_LONG = re.compile(r"context|too (long|large|many)|maximum", re.IGNORECASE)
FATAL = {
    401: "the key was refused",
    402: "the account has no credit",
    403: "access was refused",
    404: "no such model",
}


class NoTools(Exception):
    """The server or the model does not take tools."""


class PromptTooLong(Exception):
    """The prompt does not fit the model's context."""


class ToolCall(NamedTuple):
    """A tool the model wants to use; `arguments` is what it wrote, JSON or not."""

    id: str
    name: str
    arguments: str


class Reply(NamedTuple):
    """What the model said.

    Attributes:
        text: its prose, "" if none.
        calls: the tools it wants to use.
        message: the assistant message to put into the conversation; None where there was no usable reply.
        cut: the reply ended at the token limit.
        refusal: why the model or its filter refused, "" if it did not.
    """

    text: str
    calls: Sequence[ToolCall]
    message: dict[str, Any] | None
    cut: bool
    refusal: str


class Endpoint:
    """Calls one model for one round. A context manager: leaving it closes the connections.

    Args:
        model: name as the server knows it.
        key: sent to the server, and cut out of every text that comes back.
        base_url: None = the openai package's default (OPENAI_BASE_URL, else OpenAI).
        timeout: seconds a request may take, each attempt.
        meter: counts and records every call.
    """

    def __init__(self, model: str, key: str, base_url: str | None, timeout: float, meter: Meter) -> None:
        from openai import OpenAI, Timeout

        patience = Timeout(timeout, connect=min(timeout, 10.0))
        self._client = OpenAI(api_key=key, base_url=base_url, timeout=patience, max_retries=RETRIES)
        self._model, self._key, self._timeout, self._meter = model, key, timeout, meter
        self._reply_tokens = meter.limits.reply_tokens
        self._length_parameter = "max_completion_tokens"

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> Reply:
        """The model's next message.

        Raises:
            NoTools: the request had tools and the server says that it cannot serve them.
            PromptTooLong: no reply fits behind this prompt.
            ProposerError: the server could not be reached, refused the request, or a limit is reached.
        """
        from openai import APIStatusError, OpenAIError

        prompt = len(json.dumps([list(messages), list(tools)])) // CHARACTERS_A_TOKEN
        while True:
            limit = min(self._reply_tokens, self._meter.room(prompt))
            request: dict[str, Any] = {
                "model": self._model,
                "messages": messages,
                self._length_parameter: limit,
            }
            if tools:
                request["tools"] = tools
            start = time.monotonic()
            try:
                raw = self._client.chat.completions.with_raw_response.create(**request)
                completion = raw.parse()
            except APIStatusError as error:
                self._note(start, f"http {error.status_code}")
                text = error.message
                if tools and error.status_code != 429 and TOOLS_REFUSED.search(text):
                    raise NoTools from None
                if error.status_code in (400, 413, 422) and TOO_LONG.search(text):
                    if limit <= 2 * LEAST_REPLY:
                        raise PromptTooLong from None
                    self._reply_tokens = limit // 2
                elif error.status_code in (400, 422) and self._length_parameter in text:
                    if self._length_parameter == "max_tokens":
                        raise self._failure(error) from None
                    self._length_parameter = "max_tokens"
                else:
                    raise self._failure(error) from None
            except (OpenAIError, ValueError) as error:
                timed_out = type(error).__name__ == "APITimeoutError"
                # An attempt that timed out may have been billed all the same: its prompt goes on the books.
                self._note(start, type(error).__name__, prompt=prompt if timed_out else 0)
                raise self._failure(error) from None
            else:
                return self._read(completion, start, raw.retries_taken, prompt)

    def _read(self, completion: Any, start: float, retries: int, prompt: int) -> Reply:
        choices = getattr(completion, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        content = getattr(message, "content", None)
        text = self._hide(content) if isinstance(content, str) else ""
        calls = self._tool_calls(message)
        finish = getattr(choice, "finish_reason", None) or ""
        refusal = getattr(message, "refusal", None) or (
            "content filter" if finish == "content_filter" else ""
        )
        outcome = (
            "refused" if refusal else "cut" if finish == "length" else "ok" if text or calls else "empty"
        )
        self._note(start, outcome, retries, getattr(completion, "usage", None), prompt, text, calls)
        echo = _echo(message, text, calls) if text or calls else None
        return Reply(text, calls, echo, finish == "length", clean(self._hide(str(refusal)), 300))

    def _note(
        self,
        start: float,
        outcome: str,
        retries: int = 0,
        usage: Any = None,
        prompt: int = 0,
        text: str = "",
        calls: Sequence[ToolCall] = (),
    ) -> None:
        read, written = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        told = read is not None and written is not None
        if read is None or written is None:  # some servers report no usage; a budget must hold there too
            characters = len(text) + sum(len(call.arguments) for call in calls)
            read, written = prompt, -(-characters // CHARACTERS_A_TOKEN)
        cached = _count(getattr(usage, "prompt_tokens_details", None), "cached_tokens") or 0
        call = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": self._model,
            "outcome": outcome,
            "seconds": round(time.monotonic() - start, 3),
            "retries": retries,
            "estimated": not told and read + written > 0,
        }
        self._meter.add(call, read, written, min(cached, read))

    def _failure(self, error: Exception) -> ProposerError:
        status = getattr(error, "status_code", None)
        said = clean(self._hide(getattr(error, "message", "") or str(error)), 300)
        fatal = status in FATAL or "insufficient_quota" in str(getattr(error, "code", ""))
        if type(error).__name__ == "APITimeoutError":
            what = f"no reply within {self._timeout:g} seconds, {RETRIES + 1} times: see --request-timeout"
        elif status is not None:
            what = f"{FATAL.get(status, 'the request failed')} (HTTP {status}): {said}"
        elif type(error).__name__ == "APIConnectionError":
            server = public_url(str(self._client.base_url))
            what = f"no connection to {server}, {RETRIES + 1} times: is the server up?"
        else:
            what = f"the server's reply is not a chat completion: {said}"
        return ProposerError(f"model {self._model}: {what}", self._meter.usage, fatal=fatal)

    def _tool_calls(self, message: Any) -> list[ToolCall]:
        listed = getattr(message, "tool_calls", None)
        calls = []
        for index, call in enumerate(listed if isinstance(listed, list) else []):
            function = getattr(call, "function", None)
            arguments = getattr(function, "arguments", None) or ""
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            if function is not None:
                calls.append(ToolCall(call.id or f"call_{index}", str(function.name), self._hide(text)))
        return calls

    def _hide(self, text: str) -> str:
        return hide(text, {"key": self._key})


def _count(usage: Any, name: str) -> int | None:
    count = getattr(usage, name, None)
    return count if isinstance(count, int) and count >= 0 else None


def public_url(url: str) -> str:
    """A URL without what may be secret in it: user, password, query, fragment."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def _echo(message: Any, text: str, calls: Sequence[ToolCall]) -> dict[str, Any]:
    """The assistant message as the next request repeats it.

    What a server added of its own (reasoning, signatures) goes back, since some servers insist on it.
    Arguments that are no JSON do not: chat templates parse them, and every later call would fail.
    """
    kept = message.model_dump(exclude_none=True, exclude={"tool_calls", "annotations", "refusal", "audio"})
    echo = {**kept, "role": "assistant", "content": text}
    if calls:
        echo["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": call.arguments if is_object(call.arguments) else "{}",
                },
            }
            for call in calls
        ]
    return echo


def is_object(text: str) -> bool:
    """Whether a text is a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
