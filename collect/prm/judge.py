"""A PRM that is none: a language model behind an OpenAI-compatible endpoint says whether a step is good."""

import hashlib
import math
import os
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from collect.prm.registry import JUDGE
from collect.prm.scorer import KNOWN, Item
from env.errors import UserError

KEY = "OPENAI_API_KEY"
RETRIES = 4
SYSTEM = (
    "You check the solution of a problem one step at a time. A step is good if it is correct and follows "
    "from the problem and the steps before it; it is bad if it has a mistake or builds on one. Answer with "
    "one word: good or bad."
)
VERDICT = re.compile(r"\b(good|bad)\b", re.IGNORECASE)
TOO_LONG = re.compile(r"context|too (long|large|many)|maximum", re.IGNORECASE)


class Verdict(NamedTuple):
    """What came of one request: the score, None if there is none in the reply, and the tokens it took."""

    score: float | None
    tokens: int


class Judge:
    """Asks about every step in a request of its own; see `collect.prm.scorer.Scorer`.

    The score is the probability of "good" against "bad" where the server gives log probabilities, else 1 or 0
    for the word itself. A step gets None where the path does not fit the model's context, or where the reply
    has neither word. The key is read from the environment (OPENAI_API_KEY) and is sent nowhere else.

    Args:
        model: its name at the endpoint.
        window: must be None: only the server can count this model's tokens.
        base_url: of the server; None = OPENAI_BASE_URL, else OpenAI.
        concurrency: requests at a time.
        timeout: seconds a request may take, each attempt.
        max_tokens: of a reply; a model that thinks first needs many.

    Raises:
        UserError: there is no key, no server, no such model, or it does not answer as asked.
    """

    context: int | None = None
    kind = JUDGE

    def __init__(
        self,
        model: str,
        window: int | None = None,
        *,
        base_url: str | None = None,
        concurrency: int = 16,
        timeout: float = 120.0,
        max_tokens: int = 2048,
    ) -> None:
        from openai import OpenAI

        if window is not None:
            raise UserError("--prm-window counts tokens, and only a judge's server can: leave it out")
        server = base_url or os.environ.get("OPENAI_BASE_URL")
        # A local server asks for no key, and the openai package insists on one.
        self._key = os.environ.get(KEY) or ("none" if server else "")
        if not self._key:
            raise UserError(f"the judge {model} needs a key: set {KEY}, or name a server (base_url)")
        self.name = model
        self.steps = self.unscored = self.tokens = 0
        self._concurrency = concurrency
        self._client = OpenAI(api_key=self._key, base_url=server, timeout=timeout, max_retries=RETRIES)
        self._lock = threading.Lock()
        self._options: dict[str, Any] = {
            "temperature": 0,
            "max_completion_tokens": max_tokens,
            "logprobs": True,
            "top_logprobs": 20,
        }
        try:
            self._check(max_tokens)
        except BaseException:
            self.close()
            raise

    def score(self, items: Sequence[Item]) -> list[list[float | None]]:
        """See `collect.prm.scorer.Scorer.score`."""
        names = [_prefixes(question, steps) for question, steps in items]
        asked: dict[bytes, Item] = {}
        for (question, steps), own in zip(items, names, strict=True):
            for count, name in enumerate(own, 1):
                asked.setdefault(name, (question, steps[:count]))
        with ThreadPoolExecutor(self._concurrency) as pool:
            verdicts = dict(zip(asked, pool.map(lambda item: self._ask(*item), asked.values()), strict=True))
        scores = [[verdicts[name].score for name in own] for own in names]
        self.tokens += sum(verdict.tokens for verdict in verdicts.values())
        self.steps += sum(map(len, scores))
        self.unscored += sum(own.count(None) for own in scores)
        return scores

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _check(self, max_tokens: int) -> None:
        question, steps = KNOWN
        if self._ask(question, steps[:1]).score is None:
            raise UserError(
                f"the judge {self.name} does not say good or bad of a known step; choose another model, or "
                f"give it more than max_tokens={max_tokens} to think"
            )

    def _ask(self, question: str, steps: Sequence[str]) -> Verdict:
        """What the model says of the last of these steps."""
        from openai import APIStatusError, OpenAIError

        listed = "\n\n".join(f"Step {number}: {step}" for number, step in enumerate(steps, 1))
        messages: Any = [
            {"role": "system", "content": SYSTEM},
            {
                "role": "user",
                "content": f"Problem: {question}\n\n{listed}\n\nIs step {len(steps)} good or bad?",
            },
        ]
        while True:
            options = self._options
            try:
                reply = self._client.chat.completions.create(model=self.name, messages=messages, **options)
                return _read(reply)
            except APIStatusError as error:
                if error.status_code not in (400, 413, 422):
                    raise self._failure(error) from None
                if not self._give_way(options, error.message):
                    if TOO_LONG.search(error.message):
                        return Verdict(None, 0)
                    raise self._failure(error) from None
            except (OpenAIError, ValueError, LookupError, AttributeError, TypeError) as error:
                raise self._failure(error) from None

    def _give_way(self, options: Mapping[str, Any], complaint: str) -> bool:
        """Does without the option that a server complains about; False if it complains about none."""
        for names, instead in (
            (("logprobs", "top_logprobs"), {}),
            (("temperature",), {}),
            (("max_completion_tokens",), {"max_tokens": options.get("max_completion_tokens")}),
        ):
            if names[0] in options and any(name in complaint for name in names):
                with self._lock:
                    kept = {name: value for name, value in self._options.items() if name not in names}
                    self._options = kept | instead
                return True
        return False

    def _failure(self, error: Exception) -> UserError:
        status = getattr(error, "status_code", 0)
        said = (getattr(error, "message", "") or str(error)).replace(self._key, "[key]")
        what = {
            401: "the key was refused",
            403: "access was refused",
            404: "there is no such model or route",
        }.get(status, "the request failed" if status else "there was no usable reply")
        return UserError(
            f"the judge {self.name} at {self._client.base_url.host}: {what}: {' '.join(said.split())[:300]}; "
            "mend it and run the same command again"
        )


def _read(reply: Any) -> Verdict:
    (choice,) = reply.choices
    usage = reply.usage
    tokens = usage.prompt_tokens + usage.completion_tokens if usage else 0
    content = choice.logprobs.content if choice.logprobs else None
    for position in reversed(content or []):
        if _word(position.token) is not None:
            mass = {"good": 0.0, "bad": 0.0}
            others = {each.token: each.logprob for each in position.top_logprobs}
            for token, logprob in ({position.token: position.logprob} | others).items():
                if (word := _word(token)) is not None:
                    mass[word] += math.exp(logprob)
            return Verdict(mass["good"] / (mass["good"] + mass["bad"]), tokens)
    words = VERDICT.findall(choice.message.content or "")
    return Verdict(float(words[-1].lower() == "good") if words else None, tokens)


def _word(token: str) -> str | None:
    """Which of the two words a token is, whatever stands around it."""
    bare = token.strip(" \n\t.,:;!*'\"_Ġ▁").lower()
    return bare if bare in ("good", "bad") else None


def _prefixes(question: str, steps: Sequence[str]) -> list[bytes]:
    """A name for the path up to each step."""
    digest, names = hashlib.blake2b(digest_size=16), []
    for text in (question, *steps):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
        names.append(digest.digest())
    return names[1:]
