"""Names of a package that are loaded when they are first used, so that importing the package is quick.

Lives here: the module's `__getattr__` and `__dir__` for `grid`, `grid.jobs` and `grid.tasks`.
Elsewhere:  which names they have (their `__init__`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def lazily(
    package: str, where: Mapping[str, Iterable[str]], on_host: str = ""
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Its names, sorted, and what it needs as its `__getattr__` and its `__dir__`.

    Args:
        where: Module -> the names that come from it.
        on_host: Why some are not on a host, where only a part of grid is. Then such a name can be imported there, so
            that a user's module can, and says this (ImportError) when it is called. Empty: it can't be imported.
    """
    home = {name: module for module, names in where.items() for name in names}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value = getattr(importlib.import_module(home[name]), name)
        except ModuleNotFoundError as exc:
            if not on_host or exc.name is None or not exc.name.startswith("grid."):
                raise
            value = _absent(name, f"{package}.{name} is not on this host: {on_host}")
        setattr(sys.modules[package], name, value)
        return value

    return sorted(home), get, lambda: sorted(home)


def _absent(name: str, why: str) -> Any:
    def complain(*_: Any, **__: Any) -> None:
        raise ImportError(why)

    return type(name, (), {"__init__": complain})
