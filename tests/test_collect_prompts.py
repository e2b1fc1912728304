"""Chat templates, thinking, probes: what a model is told and how its tokens are read; no model is asked."""

import numpy as np
import pytest
from vllm_models import CHAT, make_tokenizer

from collect.engine import Sample, Spliced
from collect.probes import Prefix, Prober, Probing
from collect.prompts import Prompter, Prompting
from collect.segments import EverySteps, cuts
from collect.tokens import Tokens
from env.errors import UserError
from env.tasks import load_task

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

# As Qwen3's: the model opens its thinking itself, unless the template has closed it already.
HYBRID = CHAT.replace("<think>\n{%", "<think>\n\n</think>\n\n{%").replace("if think", "if not think")


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    made = make_tokenizer()

    def load(template=CHAT):
        folder = tmp_path_factory.mktemp("tokenizer")
        made.chat_template = template
        made.save_pretrained(folder)
        return Tokens(str(folder))

    return load


def test_a_prompt_is_what_the_template_says(load):
    tokens = load()
    prompt = Prompter(tokens, Prompting("Q: {question}", system="Be brief.")).encode("1 + 1?")
    said = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nQ: 1 + 1?<|im_end|>\n"
    assert tokens.encode(said + "<|im_start|>assistant\n") == prompt.ids
    assert not prompt.thinking
    with pytest.raises(UserError, match=r"the chat template of .* refuses the prompt"):
        Prompter(load("{{ raise_exception('no') }}"), Prompting()).encode("?")


def test_where_a_model_thinks(load):
    opens = Prompter(load(), Prompting(arguments={"think": True}))
    prompt = opens.encode("?")
    think, close = (load().only(tag) for tag in ("<think>", "</think>"))
    assert prompt.thinking and opens.close_text == "</think>"
    assert opens.is_thinking(prompt, [50, 51]) and not opens.is_thinking(prompt, [50, close, 51])
    assert opens.close_of([50, close, 51]) == 1 and opens.close_of([50]) is None
    hybrid = Prompter(load(HYBRID), Prompting(arguments={"think": True}))
    prompt = hybrid.encode("?")
    assert not prompt.thinking and not hybrid.is_thinking(prompt, [50])
    assert hybrid.is_thinking(prompt, [think, 50]) and not hybrid.is_thinking(prompt, [think, 50, close])
    closed = Prompter(load(HYBRID), Prompting(arguments={"think": False})).encode("?")
    assert close in closed.ids and not closed.thinking


def test_a_model_without_a_template_or_tags(load):
    tokens = load(None)
    assert Prompter(tokens, Prompting("{question} =")).encode("1 + 1").ids == tokens.encode("1 + 1 =")
    with pytest.raises(UserError, match="has no chat template, so no system prompt"):
        Prompter(tokens, Prompting(system="Be brief."))
    with pytest.raises(UserError, match=r"\[THINK\] and \[/THINK\] are not tokens of"):
        Prompter(tokens, Prompting(tags=("[THINK]", "[/THINK]")))


def test_texts_of_pieces_are_the_text_of_the_whole(load):
    tokens = load()
    text = "So 3 ≤ π ≤ 4; é, 🙂🙂 and 数学.\n\nThe final answer is \\boxed{1}.<|im_end|>"
    ids = tokens.encode(text)
    assert tokens.decode(ids) == text.removesuffix("<|im_end|>")
    for size in (1, 2, 3, 5, 11):
        ends = [*range(size, len(ids), size), len(ids)]
        pieces = [tokens.decode(ids[:end], start) for start, end in zip([0, *ends], ends, strict=False)]
        # A character whose bytes are cut shows as broken in the first part, and whole in the next.
        assert "".join(piece.rstrip("\N{REPLACEMENT CHARACTER}") for piece in pieces) == tokens.decode(ids)


def test_steps_end_with_the_token_that_completes_a_separator(load):
    tokens = load()
    parts = ["First.\n\n", "Then that.\n\n", "\n\nThree line breaks before.\n\n", "Rest"]
    ids = tokens.encode("".join(parts))
    ends = cuts(EverySteps(tokens, 1, "\n\n"), ids)
    texts = [
        tokens.decode(ids[:end], start) for start, end in zip([0, *ends], [*ends, len(ids)], strict=True)
    ]
    assert "".join(texts) == "".join(parts) and [text.strip() for text in texts] == [p.strip() for p in parts]
    assert cuts(EverySteps(tokens, 2, "\n\n"), ids) == ends[1::2]
    # A fork is cut like the branch that it continues.
    for cut in range(len(ids)):
        assert cuts(EverySteps(tokens, 1, "\n\n"), ids[:cut]) == [end for end in ends if end <= cut]


def answer(load, said, probing=None, task="exact"):
    """What a prober makes of a model that says this, token by token until a stop."""
    tokens = load()
    prober = Prober(tokens, "</think>", probing or Probing(), load_task(task))
    ids, spoken = tokens.encode(said), 0
    asking = prober.ask([Prefix(Spliced(([70, 71], 2)), True)])
    requests, asked = next(asking), 0
    while True:
        (request,) = requests
        asked += 1
        assert list(request.prompt) == [70, 71, *prober.suffixes[True], *ids[:spoken]]
        assert request.sampling.temperature == 0
        end = spoken
        while end < len(ids) and end - spoken < request.max_tokens:
            end += 1
            if ids[end - 1] in request.stop_token_ids:
                break
        nothing = np.zeros(end - spoken, np.float32)
        sample = Sample(ids[spoken:end], nothing, None, "stop", 0)
        spoken = end
        try:
            requests = asking.send([sample])
        except StopIteration as stop:
            (probe,) = stop.value
            assert probe.tokens == spoken
            return probe.answer, asked, tokens.decode(ids[:spoken])


def test_an_answer_ends_with_the_brace_that_closes_it(load):
    assert answer(load, "42} and more") == ("42", 1, "42}")
    assert answer(load, "\\frac{1}{2}} and more") == ("\\frac{1}{2}", 3, "\\frac{1}{2}}")
    assert answer(load, " {1, 2} }3") == ("{1, 2}", 2, " {1, 2} }")
    assert answer(load, "}") == (None, 1, "}")
    assert answer(load, "42<|im_end|>") == (None, 1, "42")
    assert answer(load, "1{2}<|im_end|>3}") == (None, 2, "1{2}")
    assert answer(load, "1" * 60 + "}", Probing(max_tokens=9))[:2] == (None, 1)
    assert answer(load, "(b)} is it", task="choice")[0] == "B"


def test_an_opening_without_a_brace_is_answered_to_the_end_of_the_line(load):
    line = Probing("\n\nAnswer:")
    assert answer(load, " 42\nBecause", line)[0] == "42"
    assert answer(load, "\n\n42\nBecause", line)[0] == "42"
    assert answer(load, " \\boxed{42} it is<|im_end|>", line)[0] == "42"
    assert answer(load, " 42 " * 40, line)[0] is None
