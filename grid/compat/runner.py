"""What is published so that servers can run functions: it keeps those that were shipped to it, by name.

A host has grid's kernel and nothing else of ours, so the class travels as its source, which every version of Python
understands; where it can be imported it is not used.

Lives here: `Runner`, and how it gets to a host. Needs the standard library alone.
Elsewhere:  which function is where, and under what name (`crew`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class Runner:
    """The published instance. A shipped function is an attribute: a map over it calls it without a detour."""

    _runs_functions = True

    def install(self, name: str, function: Callable[..., Any]) -> None:
        """Keep `function` under `name`."""
        self.__dict__[name] = function

    def forget(self, names: Iterable[str]) -> None:
        """Drop what was kept under these names."""
        for name in names:
            self.__dict__.pop(name, None)

    def prepare(self, token: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Run an initializer, once."""
        function(*args)

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function that is needed once."""
        return function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        if not SOURCE:
            SOURCE.append(Path(__file__).read_text(encoding="utf-8"))
        return carried("grid.compat.runner", "Runner", SOURCE[0], dict(self.__dict__))


SOURCE: list[str] = []
"""The text of this module; filled when it is first needed, on a host by `arrive`."""

_PROGRAM = """
def arrive(name, made_by, source, state):
    import importlib, sys, types
    try:
        module = importlib.import_module(name)
    except ImportError:
        module = sys.modules.get(name)
        if module is None:
            module = types.ModuleType(name)
            module.__package__ = name.rpartition(".")[0]
            sys.modules[name] = module
            exec(compile(source, "<" + name + ">", "exec", dont_inherit=True), module.__dict__)
            module.SOURCE[:] = [source]
    made = getattr(module, made_by)()
    made.__dict__.update(state)
    return made
"""


def carried(module: str, made_by: str, source: str, state: dict[str, Any]) -> tuple[Any, ...]:
    """What `__reduce__` of an object of ours returns whose class travels as the source of its module.

    Args:
        module, made_by: Its name, and that of the class in it.
        source: The text of the module; it has a list `SOURCE`, which keeps that text on a host.
        state: Attributes of the object.
    """
    space = {"program": _PROGRAM, "space": {}, "name": module, "made_by": made_by, "source": source, "state": state}
    return eval, ("exec(program, space) or space['arrive'](name, made_by, source, state)", space)
