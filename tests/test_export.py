"""What `autotts export` writes: the controller as it was, what it needs, and words on what is missing."""

import ast
import json
import py_compile
import subprocess
import sys
from dataclasses import fields

import pytest
from checkout import ROOT
from programs import CONTROLLERS, shipped, written
from test_export_runtime import VOTING, load

from autotts import main
from collect.engine import Sampling
from collect.plan import Segments
from collect.prm.registry import QwenPrm
from collect.probes import Probing
from collect.prompts import Prompting
from collect.sampler import Drawing, Shape
from env.errors import UserError
from env.export.answers import boxed
from env.export.assemble import PARTS, assemble
from env.export.recorded import recorded, with_prm
from env.export.scoring import PRM_SYSTEM
from env.export.settings import Settings
from env.nodes import Nodes
from env.program import Program, needs
from env.store import Store
from env.store_writer import StoreWriter


def exported(program: Program) -> str:
    return assemble(program, 0.5, Settings(), VOTING)


@pytest.mark.parametrize("path", sorted(CONTROLLERS.glob("*.py")), ids=lambda path: path.stem)
def test_what_is_shipped_can_be_exported(path):
    if path.stem in ("__init__", "voting"):
        return
    program = shipped(path.stem)
    if "arms" in needs(program.source):
        with pytest.raises(UserError, match=rf"{path.stem} chooses between arms.* does not name `arm`"):
            exported(program)
        return
    text = exported(program)
    compile(text, "exported", "exec")
    assert "It is one that AutoTTS ships" in text and "mathematics" in text.split("import")[0]
    used = [name for name in ("majority", "path_score", "weigh") if f"def {name}(" in text]
    assert all(name in program.source or name == "weigh" for name in used)


def test_python_alone_can_compile_it(tmp_path):
    path = tmp_path / "alone.py"
    path.write_text(exported(written("odd", "return None")))
    done = subprocess.run([sys.executable, "-I", "-m", "py_compile", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "AutoTTS does not ship it: a model or a stranger" in path.read_text()


def test_a_controller_keeps_its_names_and_its_texts(tmp_path):
    source = '''"""Names that the runtime has too."""
from collections import Counter as Branch, deque
import math as json, controllers.voting
import controllers.voting as votes
from controllers.voting import (
    majority as most,
    top_two,
)
import statistics; from controllers.voting import lead_confidence

WORDS = """one
  two
three"""
boxed, answer, asyncio = 1, [2], {"x": 3}
top_two = [top_two]
TUNABLE = {"n": (1, 2)}


def main(beta):
    if beta:
        from controllers.voting import majority
        return majority([4, 4, 5])
    return None


def schedule(beta):
    return {"n": (most([1, 1]), top_two[0]([3]), votes.majority is most, controllers.voting.majority is most,
                  lead_confidence(1, 1), WORDS, f"""{boxed}
  {answer}""", main(beta), Branch("aab").total(), json.floor(1.5), len(deque(asyncio)))}


async def solve(ep, n):
    """It does
    nothing."""
    return None
'''
    module = load(Program("names", source), tmp_path)
    told = module.controller().schedule(0.5)["n"]
    assert told == (1, (1, 0), True, True, 0.5, "one\n  two\nthree", "1\n  [2]", 4, 3, 1, 1)
    assert callable(module.boxed) and callable(module.answer) and callable(module.main)


def test_only_the_helpers_that_are_needed_come_along():
    text = exported(shipped("early_stopping_consistency"))
    assert "def majority(" in text and "def tally(" in text
    assert "def top_two(" not in text and "from math import" not in text
    assert "SimpleNamespace" not in exported(written("none", "return None"))


@pytest.mark.parametrize(
    ("above", "message"),
    [
        ("import os", "line 1: import os: a controller may import"),
        ("from controllers.voting import nothing", "controllers.voting has no 'nothing'; it has best_scored"),
        ("from math import *", r"wrong cannot be exported, import \* only allowed at module level"),
        ("X = [" + "1," * 99 + "]", "a table of 99 entries"),
    ],
)
def test_what_cannot_be_exported(above, message):
    with pytest.raises(UserError, match=message):
        exported(written("wrong", "return None", above=above))


def test_the_parts_have_no_name_twice():
    """They are one module in the end."""
    names = load_names()
    assert not {name for name in names if names.count(name) > 1}


def load_names() -> list[str]:
    trees = [ast.parse((ROOT / "env" / "export" / f"{part}.py").read_text()) for part in PARTS]
    trees.append(ast.parse(VOTING))
    return [
        getattr(node, "name", None) or node.targets[0].id
        for tree in trees
        for node in tree.body
        if hasattr(node, "name") or hasattr(node, "targets")
    ]


def test_defaults_are_those_of_a_collection():
    found = Settings()
    prompting, probing, segments = Prompting(), Probing(), Segments()
    drawing = Drawing(Sampling(), 32_768)
    assert (found.prompt, found.system, found.think_tags) == (
        prompting.text,
        prompting.system,
        prompting.tags,
    )
    assert (found.probe_text, found.probe_tokens) == (probing.opening, probing.max_tokens)
    assert (found.segment_tokens, found.separator) == (segments.tokens, segments.separator)
    assert (found.confidence_top, found.confidence_window) == (drawing.top_logprobs, drawing.window)
    assert {name: getattr(found, name) for name in vars(drawing.sampling)} == vars(drawing.sampling)
    assert (found.prm_step_tag, PRM_SYSTEM) == (QwenPrm.default_tag, QwenPrm.system)
    assert found.max_branches == Shape().branches


MEANT = Settings(
    prompt="{question}!",
    system="Be brief.",
    chat_template_args={"enable_thinking": False},
    think_tags=("<a>", "<b>"),
    temperature=0.6,
    top_p=0.9,
    top_k=20,
    min_p=0.1,
    repetition_penalty=1.1,
    max_tokens=99,
    stop_token_ids=(3, 4),
    seed=7,
    segment_steps=2,
    separator="\n",
    probe_text="So \\boxed{",
    probe_tokens=9,
    max_branches=3,
    confidence_top=5,
    confidence_window=64,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store that says of itself what a collection says."""
    path = tmp_path_factory.mktemp("store") / "made"
    said = {field.name: getattr(MEANT, field.name) for field in fields(Settings)}
    prompt = {"text": MEANT.prompt, "system": MEANT.system, "arguments": MEANT.chat_template_args}
    sampling = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed")
    with StoreWriter(
        path,
        model="m",
        dataset="d",
        task="exact",
        segment_tokens=None,
        sampling={name: said[name] for name in sampling},
        arms=[
            {"model": "m", "prompt": prompt | {"tags": list(MEANT.think_tags)}, "stop_token_ids": [3, 4]},
        ],
        provenance={
            "format": "collect",
            "recipe": {
                "segments": {"tokens": None, "steps": 2, "separator": "\n"},
                "probing": {"opening": MEANT.probe_text, "max_tokens": 9},
                "drawing": {"top_logprobs": 5, "window": 64},
            },
            "prm": {"model": "Qwen/Qwen2.5-Math-PRM-7B", "kind": None, "window": 500, "separator": "\n"},
        },
    ) as writer:
        for question, n in (("more", 9), ("q", 7)):
            writer.add_problem(question, "1", Nodes([-1] * n, [5] * n, ["1"] * n, [True] * n, end=[1] * n))
    return path


def test_a_store_says_how_it_was_collected(store, tmp_path, capsys):
    assert recorded(Store.open(store)) == MEANT
    out = tmp_path / "new" / "ask.py"
    command = ["export", "--beta", "0.25", "--store", str(store), "--out", str(out), "--controller"]
    assert main([*command, "best_of_n", "--temperature", "0", "--segment-tokens", "50", "--system", ""]) == 0
    told = capsys.readouterr().out
    assert "does not say" not in told
    assert f"{out}: best_of_n at beta 0.25" in told and "--prm-url URL --prm-model MODEL" in told
    py_compile.compile(str(out), doraise=True)
    text = out.read_text()
    for line in (
        "BETA = 0.25",
        "NEEDS: frozenset[str] = frozenset(['prm'])",
        "    temperature=0.0,",
        "    segment_steps=None,",
        "    system='',",
        "    prm_window=500,",
        "    prm_step_tag='<extra_0>',",
    ):
        assert f"\n{line}\n" in text
    assert "those of the collection d of m" in " ".join(text.split())
    # Made again, it may be written over; another file may not.
    assert main([*command, "self_consistency"]) == 0
    out.write_text("print('mine')")
    assert main([*command, "self_consistency"]) == 2
    assert (
        "no exported file; give another --out" in capsys.readouterr().err
        and out.read_text() == "print('mine')"
    )


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A store that does not say how its branches were asked for."""
    path = tmp_path_factory.mktemp("imported") / "s"
    with StoreWriter(path, model="m", dataset="d", task="exact") as writer:
        writer.add_problem("q", "1", Nodes([-1] * 6, [5] * 6, ["1"] * 6, [True] * 6, end=[1] * 6))
    return path


def test_what_a_store_does_not_say_has_its_default_and_is_named(imported, tmp_path, capsys):
    out = tmp_path / "ask.py"
    command = ["export", "--controller", "adaptive_consistency", "--beta", "0.5", "--store", str(imported)]
    assert main([*command, "--out", str(out), "--top-k", "20", "--segment-steps", "2"]) == 0
    said = f"{imported} does not say these, so they have their defaults unless you give them: "
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(said))
    assert line.removeprefix(said).split(", ") == [
        *("--prompt", "--system", "--temperature", "--top-p", "--min-p", "--max-tokens", "--probe-text"),
        *("--chat-template-arg", "--think-tags"),
    ]
    text = " ".join(out.read_text().split())
    assert "the collection d of m, which does not say --prompt, --system, " in text
    assert "temperature=1.0, top_p=1.0, top_k=20," in text and "segment_steps=2," in text
    assert recorded(Store.open(imported)) == Settings(max_branches=3)
    assert main([*command, "--out", str(out)]) == 0
    assert "--max-tokens, --segment-tokens, --probe-text" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beta", "2"], "no number in [0, 1]"),
        (["--beta", "0,1"], "no number in [0, 1]"),
        (["--controller", "README.md"], "not Python"),
        (["--prompt", "no place"], "has no {question}"),
        (["--segment-tokens", "5", "--segment-steps", "1"], "not both"),
        (["--controller", "beam_search"], "name its reward model with --prm"),
        (
            ["--controller", "beam_search", "--prm", "other/model"],
            "must be a qwen-prm, or a token-classifier",
        ),
    ],
)
def test_options_that_contradict(tmp_path, capsys, options, message):
    command = ["export", "--controller", "self_consistency", "--beta", "0", "--out", str(tmp_path / "x.py")]
    try:
        status = main([*command, *options])
    except SystemExit as stop:
        status = stop.code
    assert status == 2 and message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_reward_model_in_a_folder(tmp_path):
    config = {"architectures": ["Qwen3ForTokenClassification"], "prompt_template": "Q: {question}\n"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "<s>"}}))
    found = with_prm(Settings(), str(tmp_path), None)
    assert (found.prm_prompt, found.prm_step_tag) == ("<s>Q: {question}\n", "\n")
    with pytest.raises(UserError, match="steps end with"):
        with_prm(Settings(segment_steps=1), str(tmp_path), None, {"separator": "##"})


@pytest.mark.parametrize(
    "same",
    [
        ["\\boxed{073}", "So \\boxed{ 73 }.", "first \\boxed{5}, no: $\\boxed{73.0}$", "\\boxed{\\text{73}}"],
        ["\\boxed{\\dfrac{1}{2}}", "\\boxed{1/2}", "\\boxed{1 / 2}"],
        ["\\boxed{(b)}", "\\boxed{B}", "\\boxed{\\textbf{B.}}"],
        ["\\boxed{1,234}", "\\boxed{1234}", "\\boxed{1\\,234}"],
        ["\\boxed{\\{1\\}}", "\\boxed{ \\{ 1 \\} }", "\\boxed{\\left\\{1\\right\\}} \\boxed{never closed"],
    ],
)
def test_answers_that_are_the_same(same):
    (one,) = {boxed(text) for text in same}
    assert one


def test_answers_that_are_not():
    texts = ["\\boxed{2^3}", "\\boxed{8}", "\\boxed{-8}", "\\boxed{(1,2)}", "\\boxed{12}", "\\boxed{x}"]
    assert len({boxed(text) for text in texts}) == 6
    assert [boxed(text) for text in ("8", "\\boxed{}", "\\boxed{$}", "\\boxed{8")] == [None] * 4
