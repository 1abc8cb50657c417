"""Heavy libraries that the zygote loads once, before it forks the servers that need them: time and memory, for each.

NumPy takes 0.1 to 0.2 s of CPU to import. It may be loaded before a fork: its BLAS ends its threads then and starts new
ones in the child (OpenBLAS and MKL do so by `pthread_atfork`), as everybody's `multiprocessing` relies upon. Two things
are seen to: it is loaded in the environment of the servers, where numbers of threads may stand; and a child gets random
numbers of its own, because the global generator was seeded with the library.

Lives here: which libraries, when, and what a child does about them. Elsewhere: forking (`zygote`).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from grid.kernel.born import threads_in_force

LIBRARIES = ("numpy",)
_loaded_with: dict[str, str] | None = None


def to_warm(modules: Iterable[str]) -> list[str]:
    """At the client: the libraries that these modules use, themselves or by an import at their top."""
    found = set()
    for name in modules:
        found.add(name.split(".")[0])
        for value in list(vars(sys.modules.get(name, ModuleType(name))).values()):
            if isinstance(value, ModuleType):
                found.add(value.__name__.split(".")[0])
    return [library for library in LIBRARIES if library in found]


def loaded_with() -> dict[str, str] | None:
    """The variables of threads under which a library was loaded; None: none was."""
    return _loaded_with


def warm(spec: dict[str, Any]) -> None:
    """In the zygote: load what a server will need; what can't be loaded is the server's affair."""
    global _loaded_with
    wanted = [name for name in spec["warm"] if name not in sys.modules]
    if not wanted or os.path.exists(os.path.join(spec["root"], "numpy")):  # a staged one comes first
        return
    os.environ.update(spec["env"])
    threads_in_force(spec["birth"])
    _loaded_with = spec["birth"].threads
    before = list(sys.path)
    sys.path += [entry for entry in spec["path"] if entry not in before]
    try:
        for name in wanted:
            importlib.import_module(name)
    except Exception:
        for name in [name for name in sys.modules if name.split(".")[0] in wanted]:
            del sys.modules[name]  # half of it is worse than nothing
    finally:
        sys.path[:] = before


def part() -> None:
    """In a server, after the fork: nothing random is shared with its siblings. (`random` sees to itself.)"""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()
