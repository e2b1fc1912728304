"""A wheel holds every file of the rooms that git tracks; `env` is the name that packaging tools drop."""

import shutil
import subprocess
import sys
import zipfile

import pytest
from checkout import ROOT

ROOMS = ("env", "collect", "controllers", "search_agent", "data")


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout, so nothing says which files belong in the wheel")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def wheel(tracked: set[str], tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    # A copy, because setuptools leaves a build/ folder behind and would reuse what is stale in it.
    source = tmp_path_factory.mktemp("source")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(source / done.stdout.splitlines()[-1]) as archive:
        yield archive


def test_the_wheel_holds_exactly_what_git_tracks(tracked: set[str], wheel: zipfile.ZipFile) -> None:
    expected = {name for name in tracked if name == "autotts.py" or name.split("/")[0] in ROOMS}
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == expected


def test_the_wheel_names_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    info = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")).rsplit("/", 1)[0]
    assert "autotts = autotts:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert "MIT License" in wheel.read(f"{info}/licenses/LICENSE").decode()


def test_the_base_install_is_lean(wheel: zipfile.ZipFile) -> None:
    info = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = wheel.read(info).decode()
    base = [
        line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line
    ]
    assert base and not [
        line for line in base if any(name in line for name in ("torch", "vllm", "ray", "sb3"))
    ]
    assert "Requires-Python: >=3.11" in metadata
