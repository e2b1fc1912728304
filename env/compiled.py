"""Loops over plain arrays, compiled to machine code by Numba when they are first called."""

import hashlib
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

# vLLM's CPU build asks all that is in any module for its attributes, and this one gives nonsense for answers.
sys.modules.pop("llvmlite.binding.ffi", None)

F = TypeVar("F", bound=Callable[..., Any])

# The modules whose numbers, tuples and functions are compiled in.
SOURCES = (
    "compiled",
    "engine",
    "episode",
    "frames",
    "gym_show",
    "gym_table",
    "playback",
    "siblings",
    "stand",
)


def compiled(function: F) -> F:
    """A function of arrays and numbers, compiled; what was compiled is kept on disk where there is a place.

    Nothing in it checks the bounds of an array: whoever calls it does.
    """
    settings: Any = numba.config
    kept, settings.CACHE_DIR = settings.CACHE_DIR, str(_place(settings.CACHE_DIR))
    # Nobody calls these from C, and a wrapper for that takes as long to compile as a small function.
    options: Any = {"no_cfunc_wrapper": True}
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except RuntimeError:
        # There is no such place.
        return cast(F, numba.njit(**options)(function))
    finally:
        settings.CACHE_DIR = kept


def is_kept() -> bool:
    """Whether something has been compiled of these sources before, and is still there."""
    settings: Any = numba.config
    return any(_place(settings.CACHE_DIR).rglob("*.nbi"))


def own(values: NDArray[Any], kind: type = np.int64) -> NDArray[Any]:
    """An array of the one kind that functions are compiled for, copied where it must be."""
    return values if values.dtype == kind and values.flags.carray else np.array(values, kind, order="C")


@cache
def _place(chosen: str) -> Path:
    """Where to keep what is compiled of these sources: Numba itself looks at a function's own file alone."""
    here = Path(__file__).resolve().parent
    digest = hashlib.sha256(b"".join((here / f"{name}.py").read_bytes() for name in SOURCES)).hexdigest()[:16]
    if chosen:
        return Path(chosen) / digest
    local = here / "__pycache__"
    if os.access(local if local.exists() else here, os.W_OK):
        return local / digest
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "autotts" / digest
