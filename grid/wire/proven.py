"""cloudpickle's reducers, under a name of our own.

cloudpickle knows how code and other odd objects are taken apart, on every version of Python; others see to it that
this stays so. It is one file of pure Python. We load that file as `grid.wire._cloudpickle`, for two reasons: hosts get
it with the kernel, in the client's version, whatever cloudpickle they have for Dask or Ray themselves; and its tables
of classes that have come by value are ours alone.

Lives here: finding the file. Elsewhere: what we take from it (`byvalue`, `kinds`), sending it (`kernel/boot.py`).
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import lru_cache
from pathlib import Path
from types import ModuleType

NAME = "grid.wire._cloudpickle"


@lru_cache(maxsize=1)
def source() -> Path:
    """Where cloudpickle's one file lies on this machine.

    Raises:
        ImportError: It is not installed here.
    """
    found = importlib.util.find_spec("cloudpickle")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        file = Path(folder, "cloudpickle.py")
        if file.exists():
            return file
    raise ImportError("grid needs cloudpickle, which is not installed here: pip install cloudpickle")


@lru_cache(maxsize=1)
def load() -> ModuleType:
    """The module. Raises ImportError as `source` does."""
    return importlib.import_module(NAME)
