import errno
import subprocess
import sys
import types
from pathlib import Path

import pytest
from checkout import ROOT

import autotts
from env.errors import UserError


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch):
    """Installs a sub-command `stub` that does whatever the test gives it."""

    def install(run) -> None:
        module = types.ModuleType("stub_command", "What the stub does.")
        module.add_arguments = lambda parser: parser.add_argument("--times", type=int, default=1)
        module.run = run
        monkeypatch.setitem(sys.modules, "stub_command", module)
        monkeypatch.setitem(autotts.COMMANDS, "stub", ("stub_command", "a stub"))

    return install


def fails_with(error: BaseException):
    def run(args, rooms):
        raise error

    return run


def test_a_command_gets_its_arguments_and_the_rooms(command) -> None:
    seen = []
    command(lambda args, rooms: seen.append((args.times, rooms)) or 7)
    assert autotts.main(["stub", "--times", "3"]) == 7
    assert seen == [(3, autotts.ROOMS)]


@pytest.mark.parametrize("argv", [["--help"], []])
def test_help_names_every_command(argv, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        autotts.main(argv)
    assert end.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {line}" in out for name, (_, line) in autotts.COMMANDS.items())


@pytest.mark.parametrize("name", autotts.COMMANDS)
def test_every_command_explains_itself(name, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        autotts.main([name, "--help"])
    assert end.value.code == 0
    usage, description, *_ = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"usage: autotts {name}")
    assert len(description) > 40 and not description.startswith(("positional", "options"))


def test_a_misspelt_command_gets_the_nearest(capsys) -> None:
    assert autotts.main(["evalute", "store"]) == 2
    assert "Did you mean 'evaluate'?" in capsys.readouterr().err
    assert autotts.main(["xyzzy"]) == 2
    assert "Did you mean" not in (err := capsys.readouterr().err) and "--help" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--tmes", "2"], "unrecognized arguments: --tmes 2; did you mean --times?"),
        (["--tmes=2"], "unrecognized arguments: --tmes=2; did you mean --times?"),
        (["--xyzzy"], "unrecognized arguments: --xyzzy\n"),
        (["time"], "unrecognized arguments: time\n"),
    ],
)
def test_a_misspelt_option_gets_the_nearest_and_the_usage_of_its_command(
    command, capsys, words, says
) -> None:
    command(lambda args, rooms: 0)
    with pytest.raises(SystemExit) as end:
        autotts.main(["stub", *words])
    told = capsys.readouterr().err
    assert end.value.code == 2 and says in told and told.startswith("usage: autotts stub [-h] [--times")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("no such store"), 2, "autotts: no such store\n"),
        (KeyboardInterrupt(), 130, "autotts: interrupted\n"),
        (OSError(errno.ENOSPC, "x", "out.parquet"), 2, "autotts: No space left on device: out.parquet\n"),
        (PermissionError(errno.EACCES, "x", "run"), 2, "autotts: Permission denied: run\n"),
    ],
)
def test_what_the_user_can_mend_is_one_line(command, capsys, error, status, message) -> None:
    command(fails_with(error))
    assert autotts.main(["stub"]) == status
    assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize("error", [ValueError("ours"), BrokenPipeError(), OSError(errno.EBADF, "ours")])
def test_a_bug_of_ours_keeps_its_traceback(command, error) -> None:
    command(fails_with(error))
    with pytest.raises(type(error)):
        autotts.main(["stub"])


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_no_error(unbuffered, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    run = subprocess.Popen(
        [sys.executable, "-m", "autotts", "controllers"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    run.stdout.close()
    assert run.wait(timeout=60) == 141
    assert run.stderr.read() == b""
    run.stderr.close()


@pytest.mark.parametrize("name", autotts.API)
def test_the_public_api_is_there(name) -> None:
    assert getattr(autotts, name).__name__ == name
    assert name in dir(autotts)


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Stoer'"):
        _ = autotts.Stoer


def test_controllers_are_found_by_name() -> None:
    names = autotts.controllers()
    assert {
        "self_consistency",
        "adaptive_consistency",
        "early_stopping_consistency",
        "parallel_probe",
        "confidence_momentum",
    } <= set(names)
    assert not {"voting", "__init__"} & set(names)
    shipped = autotts.program("self_consistency")
    assert (shipped.name, shipped.trusted, shipped.path) == (
        "self_consistency",
        True,
        names["self_consistency"],
    )


def test_a_controller_file_is_not_trusted(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(autotts.program("self_consistency").source, encoding="utf-8")
    mine = autotts.program(file)
    assert (mine.name, mine.trusted, mine.path) == ("mine", False, file)
    assert mine.source == autotts.program("self_consistency").source


def test_a_misspelt_controller_gets_the_nearest_and_the_list() -> None:
    with pytest.raises(UserError, match=r"Did you mean 'self_consistency'.*parallel_probe"):
        autotts.program("self_consistancy")
    with pytest.raises(UserError, match=r"no controller file mine/gone\.py"):
        autotts.program("mine/gone.py")


def test_a_controller_that_is_not_text_is_a_user_error(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        autotts.program(file)


def test_controllers_lists_all_with_their_summaries(capsys) -> None:
    assert autotts.main(["controllers"]) == 0
    entries = iter(capsys.readouterr().out.splitlines())
    listed = {name: (next(entries).strip(), next(entries).strip()) for name in entries}
    assert {name: Path(path) for name, (_, path) in listed.items()} == autotts.controllers()
    assert all(len(summary) > 20 for summary, _ in listed.values())


def test_controllers_prints_one(capsys) -> None:
    assert autotts.main(["controllers", "self_consistency"]) == 0
    assert capsys.readouterr().out == autotts.program("self_consistency").source


@pytest.mark.parametrize("order", ["autotts, gymnasium", "gymnasium, autotts", "gymnasium"])
def test_gymnasium_finds_the_environment_in_any_order_of_imports(order: str) -> None:
    code = f"import {order}\ngymnasium.make('autotts:AutoTTS/Replay-v0', store='nowhere/at-all')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "nowhere/at-all" in done.stderr.splitlines()[-1]
