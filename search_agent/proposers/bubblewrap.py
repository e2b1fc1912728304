"""A proposer's command behind bubblewrap: it sees its workspace, the system's programs and what is allowed.

Not covered: the network is on (hosted models need it), so whatever listens on this machine's loopback or on
an abstract socket can be spoken to.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from env.errors import UserError

WORKSPACE = "/workspace"
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix")
# Names, certificates and the loader's configuration; not all of /etc, where secrets live too.
CONFIGURATION = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "group",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "nsswitch.conf",
    "passwd",
    "pki/ca-trust",
    "pki/tls/certs",
    "protocols",
    "resolv.conf",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
)
UNSHARE = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
CANARY = 'for path; do test -z "$(ls -A "$path" 2>/dev/null)" || exit 9; done'


@dataclass(frozen=True)
class Mount:
    """A folder or file that the command may see where it is on this machine."""

    path: Path
    writable: bool = False

    @classmethod
    def parse(cls, text: str) -> Mount:
        """`PATH` (read-only) or `PATH:rw`.

        Raises:
            UserError: there is nothing at that path.
        """
        name, _, mode = text.rpartition(":")
        path = Path(name if mode == "rw" else text).expanduser().absolute()
        if not path.exists():
            raise UserError(f"--allow-path {text}: nothing there; give an existing folder or file")
        return cls(path, mode == "rw")


@dataclass(frozen=True)
class Bubblewrap:
    """How to start a command that cannot see `hidden`.

    Attributes:
        mounts: what it may see besides its workspace and the system's programs.
        hidden: never visible, whatever the mounts say.
        home: of the user; an empty folder inside.
    """

    mounts: Sequence[Mount]
    hidden: Sequence[Path]
    home: Path

    def __post_init__(self) -> None:
        for mount in self.mounts:
            for secret in self.hidden:
                if mount.path.resolve().is_relative_to(secret.resolve()):
                    raise UserError(
                        f"--allow-path {mount.path} lies in {secret}, which a proposer must not see (a "
                        "store, a hold-out or the run): allow another folder, or move it elsewhere"
                    )

    def wrap(self, argv: Sequence[str], workspace: Path) -> list[str]:
        """The command line that runs `argv` in `workspace`: writable, and called /workspace inside."""
        return [
            "bwrap",
            *self._arguments(),
            "--bind",
            str(workspace),
            WORKSPACE,
            "--chdir",
            WORKSPACE,
            "--",
            *argv,
        ]

    def shows(self, program: str) -> bool:
        """Whether a program of this machine can be started inside."""
        found = shutil.which(program)
        shown = [*map(Path, SYSTEM), *(mount.path.resolve() for mount in self.mounts)]
        places = [Path(found).absolute(), Path(found).resolve()] if found else []
        return bool(places) and all(
            any(place.is_relative_to(root) or place.is_relative_to(root.resolve()) for root in shown)
            for place in places
        )

    def works(self, workspace: Path) -> bool:
        """Whether bubblewrap runs here and hides what it must: tried, not assumed."""
        if shutil.which("bwrap") is None:
            return False
        canary = self.wrap(["sh", "-c", CANARY, "sh", *map(str, self.hidden)], workspace)
        tried = subprocess.run(canary, capture_output=True, stdin=subprocess.DEVNULL, timeout=30, check=False)
        return tried.returncode == 0

    def _arguments(self) -> Iterator[str]:
        yield from ("--die-with-parent", "--new-session", *UNSHARE)
        yield from ("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--dir", str(self.home))
        system = [Mount(Path(path)) for path in SYSTEM if Path(path).exists()]
        etc = [Mount(Path("/etc", name)) for name in CONFIGURATION if Path("/etc", name).exists()]
        for mount in [*system, *etc, *self.mounts]:
            yield from self._bind(mount, mount.path)
            if mount.path.resolve() != mount.path and mount.path not in map(Path, SYSTEM):
                yield from self._bind(mount, mount.path.resolve())

    def _bind(self, mount: Mount, place: Path) -> Iterator[str]:
        yield from ("--bind" if mount.writable else "--ro-bind", str(mount.path.resolve()), str(place))
        for secret in self.hidden:
            if secret.exists() and secret.resolve().is_relative_to(mount.path.resolve()):
                inside = place / secret.resolve().relative_to(mount.path.resolve())
                # What lies over a hidden folder is empty; over a hidden file, nothing to read.
                yield from (
                    ("--tmpfs", str(inside)) if secret.is_dir() else ("--ro-bind", "/dev/null", str(inside))
                )
