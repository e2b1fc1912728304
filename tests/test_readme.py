"""The --help texts in README.md are the program's own; AUTOTTS_UPDATE_README=1 rewrites them."""

import json
import os
import re

import pytest
from checkout import ROOT

import autotts

README = ROOT / "README.md"
HELP = re.compile(r"(```\w*\n\$ autotts (\w+) --help\n)(.*?)(```)", re.DOTALL)
COMMAND = re.compile(r"^\s*autotts (\w+)", re.MULTILINE)


def help_of(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", "110")
    with pytest.raises(SystemExit):
        autotts.main([name, "--help"])
    return capsys.readouterr().out.strip()


def test_help_texts_are_the_programs_own(monkeypatch, capsys) -> None:
    readme = README.read_text(encoding="utf-8")
    shown = {name: text for _, name, text, _ in HELP.findall(readme)}
    assert shown
    actual = {name: help_of(name, monkeypatch, capsys) for name in shown}
    if os.environ.get("AUTOTTS_UPDATE_README"):
        README.write_text(HELP.sub(lambda m: f"{m[1]}{actual[m[2]]}\n{m[4]}", readme), encoding="utf-8")
        return
    # Python's versions break lines differently.
    assert {name: text.split() for name, text in shown.items()} == {
        name: text.split() for name, text in actual.items()
    }


def test_every_command_shown_exists() -> None:
    shown = set(COMMAND.findall(README.read_text(encoding="utf-8")))
    assert shown == set(autotts.COMMANDS)


def test_every_file_linked_exists() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README.read_text(encoding="utf-8"))
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_controller_shown_plays_and_the_api_is_told(tmp_path, capsys) -> None:
    readme = README.read_text(encoding="utf-8")
    (source,) = re.findall(r'```python\n("""Adaptive self-consistency.*?)```', readme, re.DOTALL)
    (tmp_path / "mine.py").write_text(source)
    store = str(ROOT / "data" / "stores" / "tiny-search")
    command = ["evaluate", store, "--controller", str(tmp_path / "mine.py"), "--beta", "1", "--seeds", "1"]
    assert autotts.main([*command, "--isolation", "none", "--json", str(tmp_path / "rows.json")]) == 0
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert row["errors"] == 0
    assert autotts.main(["controllers", "--api"]) == 0
    assert "await ep.branch(n, probe=True, arm=0)" in capsys.readouterr().out
