"""The cut between the rooms, held by reading the imports: see README.md for what a room is."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

ROOMS = ("env", "collect", "controllers", "search_agent")
MAY_IMPORT = {
    "env": {"env"},
    "collect": {"collect", "env"},
    "controllers": {"controllers"},
    "search_agent": {"search_agent", "env"},
}
CONTROLLER_LANGUAGE = {
    "bisect",
    "collections",
    "controllers.voting",
    "functools",
    "heapq",
    "itertools",
    "math",
    "statistics",
}
HEAVY = ("vllm", "torch", "openai", "ray", "polars")

SOURCES = {room: sorted((ROOT / room).rglob("*.py")) for room in ROOMS}
EVERY_SOURCE = [file for files in SOURCES.values() for file in files]


def imports(file: Path) -> Iterator[tuple[int, str, bool]]:
    """(line, dotted module, is it a bare `import module`) of every import, also those inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, True) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or ""), False


def offences(files: list[Path], wrong) -> list[str]:
    return [
        f"{file.relative_to(ROOT)}:{line}: {module}"
        for file in files
        for line, module, bare in imports(file)
        if wrong(module, bare)
    ]


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after running `code`."""
    script = f"import contextlib, sys\nwith contextlib.suppress(SystemExit):\n    {code}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_it_may(room: str) -> None:
    assert SOURCES[room]
    forbidden = {*ROOMS, "autotts", "tests"} - MAY_IMPORT[room]
    assert not offences(SOURCES[room], lambda module, bare: module.split(".")[0] in forbidden)


def test_imports_are_absolute_and_never_of_a_bare_room() -> None:
    assert not offences(EVERY_SOURCE, lambda module, bare: module.startswith("."))
    assert not offences(EVERY_SOURCE, lambda module, bare: bare and module in ROOMS)


def test_controllers_keep_to_their_language() -> None:
    assert not offences(SOURCES["controllers"], lambda module, bare: module not in CONTROLLER_LANGUAGE)


def test_files_are_short() -> None:
    assert len((ROOT / "autotts.py").read_text(encoding="utf-8").splitlines()) < 150
    written = [ROOT / "autotts.py", *(ROOT / "tests").rglob("*.py")]
    written += [
        file
        for room in ROOMS
        for kind in ("py", "html", "css", "js")
        for file in (ROOT / room).rglob(f"*.{kind}")
    ]
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in written
    }
    assert not {name: length for name, length in lengths.items() if length > 400}


def test_every_package_is_marked_as_one() -> None:
    assert not [
        str(file.relative_to(ROOT)) for file in EVERY_SOURCE if not (file.parent / "__init__.py").is_file()
    ]


def test_importing_the_face_is_light() -> None:
    assert not modules_after("import autotts").intersection(HEAVY)


def test_help_loads_no_command() -> None:
    modules = modules_after("import autotts; autotts.main(['--help'])")
    assert not modules.intersection((*HEAVY, "pyarrow", "math_verify", "optuna"))
    assert not [name for name in modules if ".commands." in name]
    assert len(modules) < 600
