"""Mistakes on the command line are told before anything is asked of a model, and by the right name."""

import argparse

import pytest
from checkout import ROOT
from collecting import write_problems
from test_collect_extend import imported

from autotts import main
from collect import endpoint, local
from collect.commands import collect, serve
from env.program import Program, ProgramError

NOWHERE = "http://127.0.0.1:9"
BETA = ["--beta", "0.5", "--controller"]
TINY = str(ROOT / "data" / "stores" / "tiny-search")


@pytest.fixture
def failure(capsys):
    def failure(*given) -> str:
        assert main([str(each) for each in given]) == 2
        return capsys.readouterr().err.splitlines()[-1].removeprefix("autotts: ")

    return failure


@pytest.fixture
def no_vllm(monkeypatch):
    def missing(name):
        raise local.PackageNotFoundError(name)

    monkeypatch.setattr(local, "distribution", missing)


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "syntax.py"
    path.write_text("def schedule(beta):\n    return {}\n\n\nasync def solve(ep)\n    return 0\n")
    return path


def problems_missing(folder):
    return ["--problems", folder / "nope.jsonl"], "nope.jsonl cannot be read"


def problems_left_out(folder):
    return [], "--problems is missing"


def problems_that_are_none(folder):
    (folder / "bad.jsonl").write_text("{")
    return ["--problems", folder / "bad.jsonl"], "bad.jsonl: line 1: not valid JSON"


def no_store_to_extend(folder):
    return ["--extend", folder / "nope", "--branches", "8"], "nope"


def no_store_to_read(folder):
    return ["--from-samples", folder / "nope"], "nope"


def a_store_that_says_too_little(folder):
    imported(folder / "s")
    return ["--extend", folder / "s", "--branches", "8"], "extend collected stores only"


def two_jobs(folder):
    return ["--extend", folder / "s", "--rescore", folder / "s"], "are two jobs"


@pytest.mark.parametrize(
    "mistake",
    [
        *(problems_missing, problems_left_out, problems_that_are_none),
        *(no_store_to_extend, no_store_to_read, a_store_that_says_too_little, two_jobs),
    ],
)
def test_a_missing_vllm_does_not_hide_another_mistake(mistake, no_vllm, tmp_path, failure):
    options, said = mistake(tmp_path)
    told = failure("collect", "--model", "m", "--out", tmp_path / "out", "--dry-run", *options)
    assert said in told and "vLLM" not in told


def test_nor_does_it_when_steps_are_scored_again(no_vllm, tmp_path, failure):
    command = ["collect", "--rescore", tmp_path / "nope", "--out", tmp_path / "out"]
    assert "--rescore needs --prm" in failure(*command)
    told = failure(*command, "--prm", "m")
    assert "nope" in told and "vLLM" not in told


def test_then_it_is_vllm_that_is_missing(no_vllm, tmp_path, failure):
    given = ["--model", "m", "--problems", write_problems(tmp_path / "problems.jsonl", 1), "--task", "exact"]
    told = "sampling needs vLLM: run `pip install 'autotts[gpu]'`"
    assert failure("collect", *given, "--out", tmp_path / "out", "--dry-run").startswith(told)
    live = ["live", *BETA, "self_consistency", "--out", tmp_path / "run"]
    assert failure(*live, *given).startswith(told)
    assert "nope.jsonl" in failure(*live, "--model", "m", "--problems", "nope.jsonl")
    assert not (tmp_path / "run").exists() and not (tmp_path / "out").exists()


def test_a_store_that_says_too_little_is_to_be_left_out(tmp_path, failure):
    imported(tmp_path / "s")
    given = [*BETA, "self_consistency", "--store", tmp_path / "s"]
    said = failure("live", *given, "--server", NOWHERE, "--out", tmp_path / "run")
    assert "it does not say how its branches were asked for; leave out --store, and give --model, " in said
    assert said.endswith("--model, --problems, --prompt, --temperature and so on")
    pytest.importorskip("aiohttp", reason="`pip install 'autotts[serve]'` to test serving")
    said = failure("serve", *given, "--upstream", NOWHERE)
    assert said.endswith("leave out --store, and give --model, --prompt, --temperature and so on")


def test_what_is_wrong_with_a_controller_is_told_with_its_file(broken, tmp_path, failure):
    expected = f"{broken}: line 5: not Python: expected ':'"
    assert failure("export", *BETA, broken, "--out", tmp_path / "ask.py") == expected
    live = ["live", *BETA, broken, "--server", NOWHERE, "--out", tmp_path / "run", "--model", "m"]
    problems = write_problems(tmp_path / "problems.jsonl", 1)
    assert failure(*live, "--problems", problems, "--task", "exact") == expected
    certify = ["certify", *BETA, "self_consistency", "--baseline", broken, "--store", TINY, "--dry-run"]
    assert failure(*certify) == expected
    with pytest.raises(ProgramError, match=r"^anonymous: no `def schedule"):
        Program("anonymous", "").check()


def test_nothing_was_finished_before_a_server_was_there(monkeypatch, failure):
    pytest.importorskip("aiohttp", reason="`pip install 'autotts[serve]'` to test serving")
    monkeypatch.setattr(endpoint, "RETRIES_AT_START", 0)
    told = failure("serve", *BETA, "self_consistency", "--upstream", NOWHERE)
    assert told.startswith(f"there is no connection to the server {NOWHERE}, 1 times: ")
    assert told.endswith("see whether it is up; mend it and start again")


def test_help_says_which_server_may_be_left_out():
    for command, said in ((serve, "required"), (collect, "default: vLLM in this process")):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        (server,) = (action for action in parser._actions if action.dest == "server")
        assert server.help.endswith(f"may be repeated; {said}")
