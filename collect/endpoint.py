"""A vLLM server's address, its key, what it serves, and in one sentence what is wrong with it.

The openai package retries what passes (429, 5xx, time-outs, dropped connections; Retry-After is obeyed).
"""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from collect.engine import EngineError
from env.errors import UserError

# The name under which a server itself takes the key that it asks for.
KEY = "VLLM_API_KEY"
# With the package's waits, at most 8 seconds each, long enough for a server to be started again.
RETRIES = 20
# At the start a server is there or it is not.
RETRIES_AT_START = 2
SECONDS_AT_START = 30.0
# A reply comes whole, after its last token: long branches on a busy server take a while.
SECONDS = 3600.0
CONNECT_SECONDS = 10.0
GO_ON = "what is finished is kept, so mend it and run the same command again"


@dataclass(frozen=True)
class Served:
    """A model at a server that is up.

    Attributes:
        url: of the server, without /v1.
        name: by which the server knows the model.
        context: in tokens.
        version: of the server's vLLM; None = it does not say.
    """

    url: str
    name: str
    context: int
    version: str | None


def key() -> str:
    """The key from the environment; the openai package insists on one, and a server without ignores it."""
    return os.environ.get(KEY) or "none"


def survey(urls: Sequence[str], models: Collection[str]) -> dict[str, list[Served]]:
    """Which of these models the servers have: for each, at least one server.

    Args:
        urls: of vLLM servers, with or without /v1 at the end.
        models: as the user names them; a server may know one by its path or by another name.

    Raises:
        UserError: a URL is none, or a model has no server.
        EngineError: a server is down, refuses the key, is not vLLM's, or has none of the models.
    """
    found: dict[str, list[Served]] = {model: [] for model in models}
    for url in dict.fromkeys(map(root, urls)):
        for model, served in _look(url, models).items():
            found[model].append(served)
    if without := [model for model, servers in found.items() if not servers]:
        raise UserError(f"no server has the model {without[0]!r}; add one that has to --server")
    return found


def root(url: str) -> str:
    """A server's address as given, without /v1. Raises UserError if it is none, or holds a password."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        raise UserError(
            f"the server {_without_secrets(url)} is given with a password or a query; leave them out, and "
            f"set {KEY} in the environment if the server asks for a key"
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(f"{url!r} is no address of a server; give one such as http://localhost:8000")
    return url.rstrip("/").removesuffix("/v1")


def failure(url: str, error: Exception, retries: int = RETRIES, next_step: str = GO_ON) -> EngineError:
    """What the openai package reports and what to do next, in one sentence and without the key."""
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    said = " ".join((getattr(error, "message", "") or str(error)).replace(key(), "[key]").split())[:300]
    where = f"the server {url}"
    if isinstance(error, APITimeoutError):
        what = f"{where} did not answer in time, {retries + 1} times; give it longer with --server-timeout"
    elif isinstance(error, APIStatusError) and error.status_code in (401, 403):
        what = f"{where} refuses the key; set {KEY} in the environment to the one that it was started with"
    elif isinstance(error, APIStatusError):
        what = f"{where} refuses a request (HTTP {error.status_code}): {said}"
    elif isinstance(error, APIConnectionError):
        reason = " ".join(str(error.__cause__ or error).split())[:200].replace(key(), "[key]")
        what = f"there is no connection to {where}, {retries + 1} times: {reason}; see whether it is up"
    else:
        what = f"{where} does not answer as vLLM does: {said or type(error).__name__}"
    return EngineError(f"{what}; {next_step}")


def _look(url: str, models: Collection[str]) -> dict[str, Served]:
    """What one server has of some models, at least one."""
    cards, version = _ask(url)
    found = {}
    for model in models:
        for card in cards:
            if any(_is(model, name) for name in (card.id, getattr(card, "root", None))):
                context = getattr(card, "max_model_len", None)
                if not isinstance(context, int):
                    raise EngineError(
                        f"the server {url} does not say how long a context it has, so it is not vLLM's; "
                        "start one with `vllm serve`"
                    )
                found[model] = Served(url, card.id, context, version)
                break
    if not found:
        has = ", ".join(repr(card.id) for card in cards) or "nothing"
        wanted = " or ".join(map(repr, models))
        raise EngineError(
            f"the server {url} serves {has}, not {wanted}; correct --server or the model's name, or start "
            "the server with --served-model-name"
        )
    return found


def _is(model: str, name: str | None) -> bool:
    """Whether a server that calls a model so has it; folders have many names."""
    if name is None or model == name:
        return model == name
    return os.path.isdir(model) and os.path.isdir(name) and os.path.samefile(model, name)


def only_model(url: str) -> str:
    """The first model of a server, by the name or folder that it was started with. Raises like `survey`."""
    cards, _ = _ask(root(url))
    if not cards:
        raise EngineError(f"the server {root(url)} serves no model")
    return str(getattr(cards[0], "root", None) or cards[0].id)


def _ask(url: str) -> tuple[list[Any], str | None]:
    """What a server lists of its models, and its version."""
    from openai import OpenAI, OpenAIError

    with OpenAI(
        api_key=key(), base_url=f"{url}/v1", max_retries=RETRIES_AT_START, timeout=SECONDS_AT_START
    ) as client:
        try:
            cards = list(client.models.list().data)
        except (OpenAIError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise failure(url, error, RETRIES_AT_START, "mend it and start again") from None
        return cards, _version(client, url)


def _version(client: Any, url: str) -> str | None:
    from openai import OpenAIError

    try:
        told = client.get(f"{url}/version", cast_to=object)
    # A gateway in front of a server need not pass this on.
    except (OpenAIError, ValueError):
        return None
    version = told.get("version") if isinstance(told, dict) else None
    return version if isinstance(version, str) else None


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
