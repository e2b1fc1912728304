"""`openai`: a model behind any OpenAI-compatible endpoint, as an agent with tools or in one reply.

The agent looks at the history, results and traces, tries drafts and submits. A model without tool calling
gets everything in one prompt; the last Python code block of its reply is the program. Both are one
conversation: a reply without a program is answered with what was missing, until the limits are reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search_agent.proposal import Proposal, ProposerError, Usage
from search_agent.proposers.briefing import TASK, opening, packet, proposal
from search_agent.proposers.endpoint import (
    CHARACTERS_A_TOKEN,
    Endpoint,
    NoTools,
    PromptTooLong,
    Reply,
    public_url,
)
from search_agent.proposers.meter import Limits, Meter
from search_agent.proposers.prices import Price
from search_agent.proposers.text import program_in, said_in
from search_agent.proposers.tools import SPECS, Submission, Toolbox

if TYPE_CHECKING:
    from search_agent.workbench import Workbench

STRIKES = 3  # replies in a row without a program or a tool call
PACKET = 48_000  # characters of the opening; halved until the model's context takes it
LEAST_PACKET = 1_500
REPLY = 2_000  # tokens of a usual reply
DROPPED = "[dropped to save room; call the tool again if you need it]"
WITH_TOOLS = """\
Use the tools to read programs, feedback, results and traces and to try drafts. You have {turns} replies;
a reply may call several tools. Finish with `submit`: the whole controller file, a summary, your hypothesis,
and the round it was derived from, if any.
"""
ONE_REPLY = """\
Reply with one or two sentences (what your controller does differently, and why), a line "Parent: N" if
it was derived from round N ("Parents: N and M" if it crosses two), a line "Hypothesis: ..." in the form
above, and then the whole controller file in one ```python code block.
"""


class OpenAIProposer:
    """Writes controllers through an OpenAI-compatible endpoint.

    Args:
        model: name as the server knows it.
        key: sent to the server and nowhere else.
        base_url: of the server; None = the openai package's default.
        tools: False = one reply, for models without tool calling (also found out from the server's error).
        limits: turns, tokens and money.
        price: of the model; None = unknown, then `limits.cost_usd` must be None.
        timeout: seconds a request may take.
    """

    name = "openai"
    stamps: tuple[str, ...] = ()

    def __init__(
        self,
        model: str,
        key: str,
        base_url: str | None = None,
        *,
        tools: bool = True,
        limits: Limits | None = None,
        price: Price | None = None,
        timeout: float = 600.0,
    ) -> None:
        self._model, self._key, self._base_url, self._tools = model, key, base_url, tools
        self._limits, self._price, self._timeout = limits or Limits(), price, timeout
        self.settings: dict[str, object] = {
            "model": model,
            "base_url": public_url(base_url) if base_url else None,
            "tools": tools,
        }

    def __repr__(self) -> str:
        return f"OpenAIProposer({self._model!r})"

    @property
    def estimate(self) -> Usage:
        """What a proposal may be expected to use, before there is any experience: half of what it may."""
        limits = self._limits
        prompt = limits.tokens // 2 if self._tools else PACKET // CHARACTERS_A_TOKEN
        calls = max(1, limits.turns // 2) if self._tools else 1
        completion = min(limits.reply_tokens // 2, REPLY) * calls
        cost = self._price and self._price.cost(prompt, completion)
        return Usage(calls, prompt, completion, 0, cost)

    def vouches(self, source: str, memo: Mapping[str, Any]) -> bool:
        """Never: somebody else wrote it."""
        return False

    def propose(self, bench: Workbench) -> Proposal:
        """One conversation, one controller.

        Raises:
            ProposerError: the model gave none within the limits, refused, or its server failed.
        """
        meter = Meter(self._limits, self._price, bench.spent, bench.record_call)
        with Endpoint(self._model, self._key, self._base_url, self._timeout, meter) as endpoint:
            return Conversation(bench, endpoint, meter, SPECS if self._tools else []).run()


class Conversation:
    """One round with the model."""

    def __init__(
        self, bench: Workbench, endpoint: Endpoint, meter: Meter, tools: Sequence[dict[str, Any]]
    ) -> None:
        self._bench, self._endpoint, self._meter, self._tools = bench, endpoint, meter, tools
        self._toolbox = Toolbox(bench)
        self._room = PACKET
        self._strikes = 0
        self._messages: list[dict[str, Any]] = [self._opening()]

    def run(self) -> Proposal:
        """Talk until a program is accepted.

        A conversation that breaks off hands in the last program that could be: it is paid for.
        """
        turns = self._meter.limits.turns
        try:
            for left in reversed(range(turns)):
                self._turn(left)
            raise ProposerError(f"no program submitted within {turns} replies: see --max-turns")
        except Submission as done:
            return proposal(done.source, done.said, self._bench, self._meter.usage)
        except ProposerError as error:
            if draft := self._toolbox.draft:
                summary = f"{draft.said.summary} The conversation broke off: {error}"
                said = draft.said._replace(summary=summary)
                return proposal(draft.source, said, self._bench, self._meter.usage)
            error.usage = self._meter.usage
            raise

    def _opening(self) -> dict[str, Any]:
        if self._tools:
            how, state = WITH_TOOLS.format(turns=self._meter.limits.turns), opening(self._bench, self._room)
        else:
            how, state = ONE_REPLY, packet(self._bench, self._room)
        return {"role": "user", "content": "\n\n".join([TASK, self._bench.api, state, how])}

    def _turn(self, left: int) -> None:
        reply = self._ask()
        if reply.refusal:
            raise ProposerError(f"the model refused: {reply.refusal}")
        # Chat templates want the roles to alternate, even where there was nothing to repeat.
        self._messages.append(reply.message or {"role": "assistant", "content": "(no answer)"})
        hurry = f"\n[replies left: {left}; submit now]" if left <= 2 else ""
        if reply.calls:
            self._strikes = 0
            for call in reply.calls:
                answer = self._toolbox.use(call.name, call.arguments)
                if reply.cut:
                    answer += "\n[your reply was cut off at the token limit: be shorter]"
                self._messages.append({"role": "tool", "tool_call_id": call.id, "content": answer + hurry})
        else:
            self._messages.append({"role": "user", "content": self._missing(reply) + hurry})

    def _missing(self, reply: Reply) -> str:
        """What keeps a reply without tool calls from being the answer."""
        source = None if reply.cut else program_in(reply.text)
        if source is not None:
            known = [record["round"] for record in self._bench.history()]
            return self._toolbox.accept(source, said_in(reply.text, known))
        self._strikes += 1
        what = "was cut off at the token limit" if reply.cut else "has no program in it"
        if self._strikes == STRIKES:
            raise ProposerError(f"{STRIKES} replies in a row without a program (the last one {what})")
        return f"Your reply {what}. " + ("Call a tool; finish with `submit`." if self._tools else ONE_REPLY)

    def _ask(self) -> Reply:
        while True:
            try:
                return self._endpoint.ask(self._messages, self._tools)
            except NoTools:
                self._tools = []
                self._messages = [self._opening()]
            except PromptTooLong:
                self._shorten()

    def _shorten(self) -> None:
        old = [m for m in self._messages[:-2] if m["role"] == "tool" and len(m["content"]) > len(DROPPED)]
        for message in old:
            message["content"] = DROPPED
        if not old:
            self._room //= 2
            if self._room < LEAST_PACKET:
                raise ProposerError(
                    "the model's context is too small for the task; use a larger one", fatal=True
                )
            self._messages[0] = self._opening()
