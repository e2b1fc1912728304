import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stub_bench import HYPOTHESIS, PROGRAM, StubBench, arguments

from env.errors import UserError
from search_agent import proposers
from search_agent.proposal import ProposerError
from search_agent.proposers.bubblewrap import Bubblewrap, Mount
from search_agent.proposers.command import CommandProposer
from search_agent.proposers.process import HEAD, TAIL, run
from search_agent.proposers.workspace import MAX_PROGRAM, checker, furnish, take_back


def bubblewrap_works():
    return Bubblewrap([], [], Path.home()).works(Path("/tmp"))


needs_bubblewrap = pytest.mark.skipif(
    not bubblewrap_works(),
    reason="bubblewrap does not run here: apt-get install bubblewrap (and user namespaces)",
)
WRITE = f"cat > controller.py <<'END'\n{PROGRAM}END\n"


@pytest.fixture(params=["isolated", "bare"])
def anywhere(request, monkeypatch):
    """Run a test with and without the sandbox."""
    if request.param == "bare":
        monkeypatch.setattr(Bubblewrap, "works", lambda *_: False)
    elif not bubblewrap_works():
        pytest.skip("bubblewrap does not run here: apt-get install bubblewrap (and user namespaces)")
    return request.param


def propose(script, bench=None, **options):
    proposer = CommandProposer(f"sh -c {sh_quote(script)}", **options)
    return proposer.propose(bench or StubBench(past=False))


def sh_quote(text):
    return "'" + text.replace("'", "'\\''") + "'"


def test_a_command_finds_its_folder_and_leaves_a_program(anywhere):
    bench = StubBench()
    script = (
        "set -e; ls; ls examples history/0001 history/0002; grep -q 'controller API' API.md; "
        "grep -q 'shipped self_consistency' PROMPT.md; "
        + WRITE
        + "grep -q 'Verdict: did not hold' FEEDBACK.md; python3 check.py controller.py; env; "
        + f"printf 'Opens fewer.\\nParent: 1\\nHypothesis: {HYPOTHESIS.replace('%', '%%')}\\n' > summary.txt"
    )
    proposal = propose(script, bench)
    assert (proposal.source, proposal.summary, proposal.parent) == (PROGRAM, "Opens fewer.", 1)
    assert str(proposal.hypothesis) == HYPOTHESIS
    (call,) = bench.calls
    assert call["outcome"] == "exit status 0" and call["round"] == 3 and call["cost_usd"] is None
    assert "a valid controller" in call["output"]
    for name in ("PROMPT.md", "self_consistency.py", "results.csv", "traces.jsonl", "round.json"):
        assert name in call["output"]


def test_stamps_and_settings(anywhere):
    proposer = CommandProposer("true")
    assert proposer.stamps == (() if anywhere == "isolated" else ("proposer not isolated",))
    assert (
        proposer.settings == {"command": "true"}
        and not proposer.vouches("", {})
        and proposer.name == "command"
    )


def test_only_chosen_variables_reach_the_command(anywhere, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-you-123")
    monkeypatch.setenv("AGENT_TOKEN", "token-for-agent-456")
    bench = StubBench()
    script = (
        WRITE
        + "env; cat /proc/*/environ; tr '\\0' '\\n' < /proc/self/environ; "
        + "echo $AGENT_TOKEN >> controller.py; echo Hypothesis: $AGENT_TOKEN > summary.txt"
    )
    if anywhere == "bare":
        script = script.replace("cat /proc/*/environ; ", "")
    proposal = propose(script, bench, pass_env=["AGENT_TOKEN"])
    everything = repr([proposal, bench.calls])
    assert str(proposal.hypothesis) == "[AGENT_TOKEN]"
    assert "sk-not-for-you-123" not in everything and "OPENAI_API_KEY" not in everything
    assert "AGENT_TOKEN=[AGENT_TOKEN]" in everything
    assert "token-for-agent-456" not in everything


@needs_bubblewrap
def test_the_sandbox_hides_stores_run_and_home(tmp_path, monkeypatch):
    home, store = tmp_path / "home", tmp_path / "home" / "project" / "store"
    for folder in (store, home / ".agent", tmp_path / "run"):
        folder.mkdir(parents=True)
        (folder / "gold").write_text("the gold answers")
    (home / "project" / "code").write_text("readable")
    (home / "link").symlink_to(home / "project")
    monkeypatch.setenv("HOME", str(home))
    bench = StubBench()
    script = (
        f"cat {store}/gold {tmp_path}/run/gold {home}/link/store/gold; cat {home}/link/code; "
        f"ls -a {home} {tmp_path}; echo kept > {home}/.agent/state; echo no > {home}/project/new; "
        f"touch /usr/x /etc/x /x; cat /etc/shadow; ls {Path.cwd()}; " + WRITE
    )
    mounts = [Mount.parse(f"{home}/link"), Mount.parse("~/.agent:rw")]
    assert propose(script, bench, hidden=[store, tmp_path / "run"], mounts=mounts).source == PROGRAM
    output = bench.calls[0]["output"]
    assert "the gold answers" not in output and "readable" in output
    assert "run" not in output.split("readable")[1].split("cat: /etc/shadow")[0].split()
    assert (home / ".agent" / "state").read_text() == "kept\n"
    assert not (home / "project" / "new").exists() and not Path("/usr/x").exists()
    assert "Read-only file system" in output and "/etc/shadow: No such file" in output
    assert f"{Path.cwd()}': No such file" in output


@needs_bubblewrap
def test_a_path_inside_a_hidden_folder_cannot_be_allowed(tmp_path):
    store = tmp_path / "store"
    (store / "nodes").mkdir(parents=True)
    (tmp_path / "alias").symlink_to(store / "nodes")
    for path in (store, store / "nodes", tmp_path / "alias"):
        with pytest.raises(UserError, match="a proposer must not see"):
            CommandProposer("true", [store], [Mount.parse(str(path))])


@needs_bubblewrap
def test_a_program_that_the_sandbox_hides_is_named(tmp_path):
    agent = tmp_path / "agent"
    agent.write_text(f"#!/bin/sh\n{WRITE}")
    agent.chmod(0o755)
    with pytest.raises(UserError, match="add --allow-path"):
        CommandProposer(str(agent))
    assert CommandProposer(str(agent), mounts=[Mount(tmp_path)]).propose(StubBench()).source == PROGRAM


@needs_bubblewrap
def test_no_process_of_the_command_survives(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    linger = f"(setsid sh -c 'while true; do date > {shared}/alive; sleep 0.05; done' &) ; sleep 0.2;"
    propose(linger + WRITE, mounts=[Mount(shared, writable=True)])
    assert (shared / "alive").exists()
    (shared / "alive").unlink()
    time.sleep(0.2)
    assert not (shared / "alive").exists()


def test_time_is_limited_and_what_was_written_counts(anywhere):
    start = time.monotonic()
    bench = StubBench()
    with pytest.raises(
        ProposerError, match=r"left no controller.py \(time is up\); its last output: thinking"
    ):
        propose("echo thinking; sleep 60 & sleep 60", bench, seconds=0.5)
    assert propose(WRITE + "sleep 60", seconds=0.5).source == PROGRAM
    assert time.monotonic() - start < 10
    assert bench.calls[0]["outcome"] == "time is up"


def test_a_command_that_fails(anywhere):
    with pytest.raises(
        ProposerError, match=r"left no controller.py \(exit status 7\); its last output: out of .x1b"
    ) as caught:
        propose("printf 'out of \\033 credit'; exit 7")
    assert not caught.value.fatal and caught.value.usage.calls == 1


@pytest.mark.parametrize(
    ("leave", "said"),
    [
        ("ln -s /etc/passwd controller.py", "leave a plain file"),
        ("mkfifo controller.py", "not a plain file"),
        ("mkdir controller.py", "not a plain file"),
        (f"head -c {MAX_PROGRAM + 1} /dev/zero > controller.py", "larger than"),
        ("printf '\\377' > controller.py", "not UTF-8"),
        ("touch controller.py; ln -s /etc/passwd summary.txt", "summary.txt cannot be read"),
    ],
)
def test_what_is_left_is_read_with_care(leave, said, tmp_path):
    subprocess.run(["sh", "-c", leave], cwd=tmp_path, check=True)
    with pytest.raises(ProposerError, match=said):
        take_back(tmp_path, [])


def test_output_is_bounded_and_read_while_it_runs(tmp_path):
    script = "echo first; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last"
    ended = run(["sh", "-c", script], tmp_path, {"PATH": os.environ["PATH"]}, 30)
    assert ended.status == 0
    assert ended.output.startswith("first\nxxx") and ended.output.endswith("x\nlast\n")
    assert HEAD + TAIL < len(ended.output) < HEAD + TAIL + 60 and "bytes left out]" in ended.output


def test_an_escaped_process_does_not_hold_up_the_search(tmp_path):
    start = time.monotonic()
    ended = run(["sh", "-c", "echo hi; setsid sleep 4 & exit 3"], tmp_path, {"PATH": os.environ["PATH"]}, 30)
    assert (ended.status, ended.output) == (3, "hi\n")
    assert time.monotonic() - start < 3.5


def test_the_folder(tmp_path):
    furnish(tmp_path, StubBench())
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {
        "PROMPT.md",
        "API.md",
        "FEEDBACK.md",
        "check.py",
        "examples/self_consistency.py",
        "history/0001/controller.py",
        "history/0001/results.csv",
        "history/0001/round.json",
        "history/0001/traces.jsonl",
        "history/0002/round.json",
    }
    traces = [json.loads(line) for line in (tmp_path / "history/0001/traces.jsonl").read_text().splitlines()]
    assert traces[0]["problem"] == "p02" and traces[0]["trace"][-1]["correct"] is True


def test_the_checker_needs_nothing_of_ours(tmp_path):
    (tmp_path / "check.py").write_text(checker())
    (tmp_path / "good.py").write_text(PROGRAM)
    (tmp_path / "bad.py").write_text("import os\n" + PROGRAM)
    for argument, status in (("good.py", 0), ("bad.py", 1), ("absent.py", 1)):
        line = [sys.executable, "-I", "-S", "check.py", argument]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert ("not a controller: " in done.stderr) == bool(status) and "Traceback" not in done.stderr


def test_a_person_is_waited_for(monkeypatch, tmp_path):
    places = []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def work():
        (place,) = tmp_path.iterdir()
        places.append(place)
        shutil.copy(place / "examples" / "self_consistency.py", place / "controller.py")

    monkeypatch.setattr("builtins.input", work)
    proposer = CommandProposer("manual")
    assert "Self-consistency" in proposer.propose(StubBench()).source
    assert proposer.stamps == ("proposer not isolated",) and not places[0].exists()
    monkeypatch.setattr("builtins.input", lambda: (_ for _ in ()).throw(EOFError))
    with pytest.raises(ProposerError, match="run in a terminal") as caught:
        proposer.propose(StubBench())
    assert caught.value.fatal


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs --command"),
        (["--command", "no-such-agent-at-all -p x"], "no program 'no-such-agent-at-all'"),
        (["--command", "sh 'unclosed"], "not a command line"),
        (["--command", " "], "is empty"),
        (["--command", "true", "--pass-env", "NO_SUCH_VARIABLE"], "export it first"),
        (["--command", "true", "--allow-path", "/no/such/path"], "nothing there"),
        (["--command", "true", "--command-minutes", "0"], "expected a number above 0"),
    ],
)
def test_options_that_cannot_work_are_refused(words, said):
    with pytest.raises(UserError, match=said):
        proposers.make("command", arguments(*words))


def test_the_command_option_chooses_the_proposer():
    assert proposers.default(arguments("--command", "true")) == "command"
    assert proposers.make("command", arguments("--command", "true")).name == "command"
    with pytest.raises(UserError, match="there are openai, command, compose"):
        proposers.make("oracle", arguments())
