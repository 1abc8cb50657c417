"""A module `mpi4py` whose `MPI.COMM_WORLD` is that of our ranks: put in place on servers of `grid run --ranks` alone.

Lives here: making it, taking it away. Elsewhere: the communicator (`comm`), the script (`scripts`).
"""

from __future__ import annotations

import os
import sys
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from grid.errors import RankError
from grid.ranks import words
from grid.ranks.arrays import IN_PLACE
from grid.ranks.comm import Comm
from grid.ranks.requests import RankRequest

_SIZES = {
    **dict.fromkeys(("BYTE", "CHAR", "SIGNED_CHAR", "UNSIGNED_CHAR", "BOOL", "C_BOOL", "INT8_T", "UINT8_T"), 1),
    **dict.fromkeys(("SHORT", "UNSIGNED_SHORT", "INT16_T", "UINT16_T"), 2),
    **dict.fromkeys(("INT", "UNSIGNED", "FLOAT", "INT32_T", "UINT32_T", "REAL", "INTEGER"), 4),
    **dict.fromkeys(("LONG", "UNSIGNED_LONG", "LONG_LONG", "DOUBLE", "INT64_T", "UINT64_T", "COMPLEX"), 8),
    **dict.fromkeys(("DOUBLE_PRECISION", "C_FLOAT_COMPLEX", "FLOAT_COMPLEX"), 8),
    **dict.fromkeys(("C_DOUBLE_COMPLEX", "DOUBLE_COMPLEX"), 16),
}
_WORDS = (
    *("ANY_SOURCE", "ANY_TAG", "PROC_NULL", "UNDEFINED", "TAG_UB", "Status", "Op", "SUM", "PROD", "MAX", "MIN"),
    *("LAND", "LOR", "LXOR", "BAND", "BOR", "BXOR", "MAXLOC", "MINLOC"),
)


class Datatype:
    """A type of elements. Arrays say theirs themselves; of this the length counts, in `Status.Get_count`."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size

    def Get_size(self) -> int:
        """Bytes of an element."""
        return self.size

    Get_extent = Get_size

    def __repr__(self) -> str:
        return f"<Datatype {self.name}>"


class _Pickle:
    """`MPI.pickle`: how objects are pickled from now on, once it was called as mpi4py documents it."""

    def __init__(self, comm: Comm) -> None:
        object.__setattr__(self, "_comm", comm)

    def __getattribute__(self, name: str) -> Any:
        if name == "__init__":  # `MPI.pickle.__init__(dumps, loads, protocol)`
            pickler = object.__getattribute__(self, "_comm")._post.pickler

            def use(dumps: Any = None, loads: Any = None, protocol: Any = None) -> None:
                pickler.dumps, pickler.loads, pickler.protocol = dumps, loads, protocol

            return use
        return object.__getattribute__(self, name)


class _MPI(types.ModuleType):
    """What is not there is named."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"grid's MPI has no {name!r}: docs/ranks.md lists what it has")


def make(comm: Comm) -> dict[str, types.ModuleType]:
    """The modules, by name."""
    package, mpi = types.ModuleType("mpi4py", __doc__), _MPI("mpi4py.MPI", __doc__)
    package.__path__ = []
    package.__version__ = "4.0.0"  # type: ignore[attr-defined]  # whose interface this follows
    package.MPI = mpi  # type: ignore[attr-defined]
    package.rc = types.SimpleNamespace(initialize=True, finalize=True, threads=True)  # type: ignore[attr-defined]
    state = {"finalized": False}

    def finalize() -> None:
        state["finalized"] = True

    began = time.time()
    facts: dict[str, Any] = {
        **{name: getattr(words, name) for name in _WORDS},
        **{name: Datatype(name, size) for name, size in _SIZES.items()},
        "COMM_WORLD": comm,
        "COMM_SELF": Comm(comm._post, [comm._post.rank], b"self"),
        "COMM_NULL": None,
        "Comm": Comm,
        "Intracomm": Comm,
        "Request": RankRequest,
        "Datatype": Datatype,
        "Exception": RankError,
        "IN_PLACE": IN_PLACE,
        "BOTTOM": None,
        "SUCCESS": 0,
        "THREAD_SINGLE": 0,
        "THREAD_FUNNELED": 1,
        "THREAD_SERIALIZED": 2,
        "THREAD_MULTIPLE": 3,
        "pickle": _Pickle(comm),
        "Init": lambda: None,
        "Init_thread": lambda required=3: 2,
        "Query_thread": lambda: 2,
        "Is_initialized": lambda: True,
        "Finalize": finalize,
        "Is_finalized": lambda: state["finalized"],
        "Get_processor_name": lambda: os.uname().nodename,
        "Get_version": lambda: (3, 1),
        "Get_library_version": lambda: "grid: ranks without MPI",
        "Wtime": lambda: time.time() - began,
        "Wtick": lambda: 1e-6,
    }
    vars(mpi).update(facts)
    return {"mpi4py": package, "mpi4py.MPI": mpi}


@contextmanager
def in_place(comm: Comm) -> Iterator[None]:
    """Within the block `from mpi4py import MPI` gives ours, whatever is installed."""
    before = {name: sys.modules.get(name) for name in ("mpi4py", "mpi4py.MPI")}
    sys.modules.update(make(comm))
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
