"""How the CPU loops are compiled: by numba on first use, kept compiled between runs.

A loop serves the rows `begin` to `end`, which are one part of all rows. Where it sums over rows,
each part adds to a row of its own and the caller adds those up, so that no result depends on the
timing of threads. Arrays are C-contiguous.
"""

import logging

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Rows = NDArray[np.float32] | NDArray[np.uint16]
"""float32, or the bits of bfloat16."""

ZERO, ONE = np.float32(0), np.float32(1)

_log = logging.getLogger(__name__)


def _nothing() -> None:
    pass


def _is_kept() -> bool:
    """Whether there is a folder to keep compiled functions in: this one or the user's cache."""
    try:
        njit(cache=True)(_nothing)
    except RuntimeError as error:
        _log.warning(
            "CPU kernels are compiled anew in every process (%s); set NUMBA_CACHE_DIR to a folder "
            "that can be written to",
            error,
        )
        return False
    return True


_KEPT = _is_kept()

# multiplications may be fused into sums, but sums are not reordered, so that both compiled forms of
# a loop give the same numbers; and numbers are not promised to be finite, as a NaN has to reach the
# loss, where training notices it
loop = njit(cache=_KEPT, nogil=True, fastmath={"contract", "nsz"})

# the same loop over all rows, its parts at the same time; each loop has such a twin written out
# because numba cannot keep a compiled function that a function made
in_parts = njit(cache=_KEPT, nogil=True, parallel=True)
