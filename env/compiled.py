"""Loops over plain arrays, compiled to machine code by Numba when they are first called."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """A function of arrays and numbers, compiled; what was compiled is kept on disk where there is a place.

    Nothing in it checks the bounds of an array: whoever calls it does.
    """
    try:
        return cast(F, numba.njit(cache=True)(function))
    except RuntimeError:
        # Neither the folder of the code nor the user's own cache can be written to.
        return cast(F, numba.njit(function))


def own(values: NDArray[Any], kind: type = np.int64) -> NDArray[Any]:
    """An array of the one kind that functions are compiled for, copied where it must be."""
    # `np.require` takes longer to look than a small round to play.
    return values if values.dtype == kind and values.flags.carray else np.require(values, kind, ["C", "W"])
