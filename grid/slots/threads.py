"""How many threads the numeric libraries of a server start: variables, and who said them first.

Lives here: which variables, and which of them are ours to say. Pure.
Elsewhere:  libraries that were loaded before the fork (`kernel/`), the number (`choose`).
"""

from __future__ import annotations

from collections.abc import Container

LEADING = "OMP_NUM_THREADS"
VARIABLES = (
    LEADING,
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def ours_to_say(said: Container[str]) -> tuple[str, ...]:
    """Those variables that nobody has set. `said`: the environment.

    Each library asks for its own first and then for that of OpenMP: where somebody set this one, our word for a single
    library would overrule him.
    """
    return () if LEADING in said else tuple(name for name in VARIABLES if name not in said)
