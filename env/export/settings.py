"""How the model is asked: what decides the samples, besides the model and the controller."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Settings:
    r"""How a question is put, how a branch is drawn and cut, how it is probed and scored.

    Attributes:
        prompt: what the user says, with "{question}" in it.
        system: the system prompt; None = the chat template's own.
        chat_template_args: for the server's chat template, such as {"enable_thinking": False}.
        think_tags: the tokens around a model's thinking; a model without them does not think.
        temperature, top_p, top_k, min_p, presence_penalty, frequency_penalty, repetition_penalty: of each
            token. A branch that is continued is not punished for what it wrote before.
        max_tokens: of a branch; less where the model's context ends before.
        stop_token_ids: what ends a branch; none = what the server knows to end one.
        seed: of the branches; each has its own, which follows from this, the question and its place.
        segment_tokens: a segment's length, where segments are not steps.
        segment_steps: how many reasoning steps a segment has; None = segments have `segment_tokens`.
        separator: the text that ends a step.
        probe_text: what a probe writes, after closing the thinking, for the model to go on with its answer.
            Where it leaves a brace open, the answer ends with the brace that closes it, else with the line.
        probe_tokens: of a probe's answer, at most.
        max_branches: how many branches an episode may open at the root.
        run_ahead: tokens that a branch may be ahead of its controller before its request is cancelled.
        confidence_top: a token's confidence is that of so many alternatives (DeepConf).
        confidence_window: a segment's confidence is that of so many tokens before its end.
        prm_prompt: how a reward model reads a question, with "{question}" in it; None = as a chat in the
            format of Qwen2.5-Math-PRM.
        prm_step_tag: the token at which the reward model says how good a step is.
        prm_window: score only the steps that end in so many tokens of the reward model; None = all.
    """

    prompt: str = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    system: str | None = None
    chat_template_args: Mapping[str, Any] = field(default_factory=dict)
    think_tags: tuple[str, str] = ("<think>", "</think>")
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int = 32_768
    stop_token_ids: tuple[int, ...] = ()
    seed: int = 0
    segment_tokens: int = 500
    segment_steps: int | None = None
    separator: str = "\n\n"
    probe_text: str = "\n\nThe final answer is \\boxed{"
    probe_tokens: int = 32
    max_branches: int = 64
    run_ahead: int = 512
    confidence_top: int = 20
    confidence_window: int = 2048
    prm_prompt: str | None = None
    prm_step_tag: str = "<extra_0>"
    prm_window: int | None = None
