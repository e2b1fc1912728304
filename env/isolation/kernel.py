"""Confinement by the kernel: identity, resource limits, Landlock and seccomp, through ctypes alone.

System calls by number: Linux `asm/unistd_64.h` (x86_64) and `asm-generic/unistd.h` (aarch64). Filters: Linux
`Documentation/userspace-api/seccomp_filter.rst`; rule sets: `Documentation/userspace-api/landlock.rst`.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Container

from env.isolation.wire import LANDLOCK, LIMITS, SECCOMP

NOBODY = 65534
MAX_FILES = 64

_NO_NEW_PRIVS, _DUMPABLE, _PARENT_DEATH_SIGNAL, _SECCOMP_FILTER = 38, 4, 1, (22, 2)
_CREATE_RULESET, _RESTRICT_SELF = 444, 446

# `read` and `write` come first because the filter is walked in this order on every call.
_SYSTEM_CALLS = {
    "x86_64": {
        "read": 0, "write": 1, "mmap": 9, "mprotect": 10, "munmap": 11, "mremap": 25, "madvise": 28,
        "brk": 12, "futex": 202, "clock_gettime": 228, "rt_sigprocmask": 14, "rt_sigreturn": 15,
        "sched_yield": 24, "restart_syscall": 219, "exit": 60, "exit_group": 231,
    },
    "aarch64": {
        "read": 63, "write": 64, "mmap": 222, "mprotect": 226, "munmap": 215, "mremap": 216, "madvise": 233,
        "brk": 214, "futex": 98, "clock_gettime": 113, "rt_sigprocmask": 135, "rt_sigreturn": 139,
        "sched_yield": 124, "restart_syscall": 128, "exit": 93, "exit_group": 94,
    },
}  # fmt: skip
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000

_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_EXECUTABLE, _NO_FILE = 4, 0xFFFFFFFF

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def call(number: int, *arguments: object) -> int:
    """A raw system call.

    Raises:
        OSError: the kernel refused it.
    """
    words = (ctypes.c_long(word) if isinstance(word, int) else word for word in arguments)
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    return _checked(result)


def settle() -> None:
    """Give up, for good, what the process that forks the children does not need."""
    for stream in ("stdin", "stdout", "stderr"):
        # Python's own wrappers would let a `print` in a controller speak on the pipe of the frames.
        setattr(sys, stream, None)
        setattr(sys, f"__{stream}__", None)
    _lower(resource.RLIMIT_NOFILE, MAX_FILES)
    if sys.platform != "linux":
        return
    _prctl(_NO_NEW_PRIVS, 1)
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        except OSError:
            # A container may withhold this even from root; what is left must still pass the canaries.
            pass
    _prctl(_DUMPABLE, 0)


def confine(layers: Container[str], memory: int, cpu: int) -> None:
    """Lock down this process, of which only file descriptors 0 (to read) and 1 (to write) stay in use.

    Args:
        layers: which of LANDLOCK, LIMITS and SECCOMP to apply.
        memory: bytes of address space.
        cpu: seconds of processor time until SIGXCPU; SIGKILL follows a second later.

    Raises:
        OSError: the kernel has no such layer.
    """
    if LANDLOCK in layers:
        forbid_files()
    if LIMITS in layers:
        _limit(memory, cpu)
    if SECCOMP in layers:
        if not _FILTER:
            raise OSError(f"no table of system calls for {sys.platform} on {os.uname().machine}")
        _prctl(*_SECCOMP_FILTER, ctypes.c_char_p(_FILTER_HOLDER))


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    if sys.platform == "linux":
        _prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def forbid_files() -> None:
    """Landlock: no file, no TCP port, and no abstract socket or signal beyond this process and its children.

    Raises:
        OSError: this kernel has no Landlock.
    """
    version = call(_CREATE_RULESET, None, 0, 1)
    file_rights = 13 + (version >= 2) + (version >= 3) + (version >= 5)
    network = 0b11 if version >= 4 else 0
    scope = 0b11 if version >= 6 else 0
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = struct.pack("<QQQ", (1 << file_rights) - 1, network, scope)[:size]
    handle = call(_CREATE_RULESET, ctypes.c_char_p(rules), size, 0)
    try:
        call(_RESTRICT_SELF, handle, 0)
    finally:
        os.close(handle)


def _limit(memory: int, cpu: int) -> None:
    _lower(resource.RLIMIT_AS, memory)
    _lower(resource.RLIMIT_CPU, cpu, cpu + 1)
    for name in ("CORE", "FSIZE", "NOFILE", "NPROC", "MEMLOCK", "MSGQUEUE"):
        what = getattr(resource, f"RLIMIT_{name}", None)
        if what is not None:
            _lower(what, 0)


def _lower(what: int, soft: int, hard: int | None = None) -> None:
    ceiling = resource.getrlimit(what)[1]
    top = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        top = min(top, ceiling)
    resource.setrlimit(what, (min(soft, top), top))


def _filter(machine: str) -> bytes:
    """The seccomp program: an allow-list; the rest fails with EPERM, other calling conventions kill.

    Empty where there is no table for this machine.
    """
    numbers = _SYSTEM_CALLS.get(machine)
    if numbers is None or sys.platform != "linux" or struct.calcsize("P") != 8:
        return b""
    steps = [_step(_LOAD, _ARCHITECTURE_AT), _step(_IF_EQUAL, _ARCHITECTURES[machine], 1)]
    steps += [_step(_RETURN, _KILL), _step(_LOAD, _NUMBER_AT)]
    if machine == "x86_64":
        steps += [_step(_IF_AT_LEAST, _X32, 0, 1), _step(_RETURN, _KILL)]
    not_executable = [*_argument(2), _step(_IF_ANY_BIT, _EXECUTABLE, 0, 1), _step(_RETURN, _REFUSE)]
    conditions = {
        "read": [*_argument(0), _step(_IF_EQUAL, 0, 1, 0), _step(_RETURN, _REFUSE)],
        "write": [*_argument(0), _step(_IF_EQUAL, 1, 1, 0), _step(_RETURN, _REFUSE)],
        "mmap": [*not_executable, *_argument(4), _step(_IF_EQUAL, _NO_FILE, 1, 0), _step(_RETURN, _REFUSE)],
        "mprotect": not_executable,
    }
    for name, number in numbers.items():
        body = [*conditions.get(name, []), _step(_RETURN, _ALLOW)]
        steps += [_step(_IF_EQUAL, number, 0, len(body)), *body]
    steps.append(_step(_RETURN, _REFUSE))
    return b"".join(steps)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _argument(index: int) -> list[bytes]:
    # The low word alone: the kernel takes file descriptors and protection bits from there.
    return [_step(_LOAD, _ARGUMENTS_AT + 8 * index)]


def _prctl(*words: object) -> int:
    # Some options insist that the words they do not use are zero.
    five = (*words, 0, 0, 0, 0)[:5]
    result: int = _libc.prctl(*(ctypes.c_ulong(word) if isinstance(word, int) else word for word in five))
    return _checked(result)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


# Built once, before any fork: a child pays for every page of memory that it is the first to touch.
_FILTER = _filter(os.uname().machine)
_FILTER_BUFFER = ctypes.create_string_buffer(_FILTER, len(_FILTER))
_FILTER_HOLDER = struct.pack("@HP", len(_FILTER) // 8, ctypes.addressof(_FILTER_BUFFER))
