"""`command`: any coding agent's command line, or a person, in a folder that holds everything it needs."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env.errors import UserError
from search_agent.proposal import Proposal, ProposerError, Usage
from search_agent.proposers.briefing import proposal
from search_agent.proposers.bubblewrap import Bubblewrap, Mount
from search_agent.proposers.process import Ended, run
from search_agent.proposers.text import clean, hide
from search_agent.proposers.workspace import furnish, take_back

if TYPE_CHECKING:
    from search_agent.workbench import Workbench

MANUAL = "manual"
USAGE = Usage(calls=1, cost_usd=None)  # what an agent spends, it alone knows
PASSED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TERM", "TZ")


class CommandProposer:
    """Has a command write `controller.py`.

    It runs behind bubblewrap where that works, so that it cannot read stores, gold answers or the hold-out;
    else every round is stamped. The command `manual` waits for a person instead.

    Args:
        command: a command line, split as a shell would (it is not run by one).
        hidden: stores, hold-outs and the run: never visible to the command.
        mounts: files and folders that it may see.
        pass_env: names of environment variables that it gets besides a few harmless ones.
        seconds: time it may take, a round.

    Raises:
        UserError: there is no such command, the sandbox hides it, or a variable is not set.
    """

    name = "command"
    estimate = USAGE

    def __init__(
        self,
        command: str,
        hidden: Sequence[Path] = (),
        mounts: Sequence[Mount] = (),
        pass_env: Sequence[str] = (),
        seconds: float = 1800.0,
    ) -> None:
        try:
            self._argv = shlex.split(command)
        except ValueError as error:
            raise UserError(f"--command {command!r} is not a command line: {error}") from None
        if not self._argv:
            raise UserError("--command is empty: give a command line such as \"claude -p 'Read PROMPT.md'\"")
        self._manual = self._argv == [MANUAL]
        self._seconds = seconds
        self._secrets = {name: _variable(name) for name in pass_env}
        self._environment = {name: os.environ[name] for name in PASSED if name in os.environ} | self._secrets
        self._sandbox = None if self._manual else _sandbox(mounts, hidden)
        self.stamps: tuple[str, ...] = () if self._sandbox else ("proposer not isolated",)
        self.settings: dict[str, object] = {"command": command}
        self._look_for_program()

    def vouches(self, source: str, memo: Mapping[str, Any]) -> bool:
        """Never: somebody else wrote it."""
        return False

    def propose(self, bench: Workbench) -> Proposal:
        """Furnish a workspace, run the command in it, take back what it wrote.

        Raises:
            ProposerError: it left no usable `controller.py`.
        """
        workspace = Path(tempfile.mkdtemp(prefix="autotts-"))
        try:
            furnish(workspace, bench)
            start = time.monotonic()
            ended = _wait_for_person(workspace) if self._manual else self._run(workspace)
            how = "time is up" if ended.status is None else f"exit status {ended.status}"
            output = hide(ended.output, self._secrets)
            bench.record_call(_call(how, time.monotonic() - start, output))
            try:
                source, said = take_back(workspace, [record["round"] for record in bench.history()])
            except ProposerError as error:
                last = f"; its last output: {clean(output[-300:], 300)}" if output else ""
                raise ProposerError(f"{error} ({how}){last}", USAGE) from None
            hidden = {name: hide(getattr(said, name), self._secrets) for name in ("summary", "hypothesis")}
            return proposal(hide(source, self._secrets), said._replace(**hidden), bench, USAGE)
        finally:
            shutil.rmtree(workspace, ignore_errors=True)

    def _run(self, workspace: Path) -> Ended:
        argv = self._sandbox.wrap(self._argv, workspace) if self._sandbox else self._argv
        try:
            return run(argv, workspace, self._environment, self._seconds)
        except OSError as error:
            raise ProposerError(f"{self._argv[0]} cannot be started: {error.strerror}", fatal=True) from None

    def _look_for_program(self) -> None:
        program = self._argv[0]
        if self._manual:
            return
        if shutil.which(program) is None:
            raise UserError(
                f"--command: there is no program {program!r} on the PATH; install it, or give its full path"
            )
        if self._sandbox and not self._sandbox.shows(program):
            place = Path(str(shutil.which(program))).resolve().parent
            raise UserError(
                f"{program} lies in {place}, which the proposer's sandbox hides: add --allow-path for that "
                "folder and for whatever else the program needs"
            )


def _call(outcome: str, seconds: float, output: str) -> dict[str, object]:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    call = {"at": at, "outcome": outcome, "seconds": round(seconds, 3), "output": output}
    return call | {key: value for key, value in asdict(USAGE).items() if key != "calls"}


def _variable(name: str) -> str:
    if not os.environ.get(name):
        raise UserError(f"--pass-env {name}: no such environment variable is set; export it first")
    return os.environ[name]


def _sandbox(mounts: Sequence[Mount], hidden: Sequence[Path]) -> Bubblewrap | None:
    sandbox = Bubblewrap(mounts, hidden, Path.home())
    with tempfile.TemporaryDirectory(prefix="autotts-") as empty:
        return sandbox if sandbox.works(Path(empty)) else None


def _wait_for_person(workspace: Path) -> Ended:
    print(
        f"Write controller.py in {workspace} (PROMPT.md says how), then press Enter.",
        file=sys.stderr,
        flush=True,
    )
    try:
        input()
    except EOFError:
        raise ProposerError("nobody is there to write a controller: run in a terminal", fatal=True) from None
    return Ended(0, "")
