"""Who listens to a grid: a trace, kept failures, a capsule, a master of tasks; and whoever else wants to.

    class Count(Hook):
        hears_calls = True

        def answered(self, call): ...

    g.hooks.append(Count())        # or to `of_all_grids`, before the grids are made

Each method is called where something happens, in whichever thread that is: it must neither wait nor raise.

Lives here: `Hook`, `Answered`, `Reporter`.
Elsewhere:  who tells (`services/`, `grids/ending.py`), who listens (`trace/`, `failures/`, `capsule/`, `tasks/`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol


class Sent(Protocol):
    """The future of a call."""

    method: str

    def add_done_callback(self, fn: Callable[[Future[Any]], Any]) -> None:
        """As of a future."""


class Answered(NamedTuple):
    """A call that has ended."""

    server: str
    number: int
    method: str
    made: float
    """When, monotonic."""
    seconds: float | None
    """As its server measured it; None: nobody knows."""
    outcome: str
    """ok, error, or lost."""


class Hook:
    """See the module. What is not overridden does nothing."""

    hears_calls = False
    """Whether it wants to hear of servers and calls. A grid where none does pays a look at an attribute per call."""

    def came(self, server: str, host: str) -> None:
        """A server is up, or has moved to another host."""

    def went(self, server: str, end: str) -> None:
        """A server has ended: "terminated", or why it was lost."""

    def sent(self, call: Sent, instance: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A call is under way. `instance`: the published object."""

    def answered(self, call: Answered) -> None:
        """A call has ended."""

    def label(self, server: str, number: int, text: str) -> None:
        """A call has a better name than its method."""

    def failed(
        self, target: Any, method: str | None, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: BaseException
    ) -> None:
        """One item of a map, or a function, failed: `target.method(*args)`; `target(...)` where `method` is None."""

    def hint(self) -> str:
        """A sentence for the traceback of a call that failed; may be empty."""
        return ""

    def report(self) -> Mapping[str, Any]:
        """What `status()` of the grid tells of it: a list under each key, with what each hook says."""
        return {}

    def ending(self, grid: Any) -> None:
        """The grid ends; its tables are still there."""

    def ended(self) -> None:
        """The grid has ended."""


class Reporter(Hook):
    """What stands on a grid tells of itself in `status()`, in the list under `key`."""

    def __init__(self, key: str, tell: Callable[[], Any]) -> None:
        self._key, self._tell = key, tell

    def report(self) -> Mapping[str, Any]:
        """What `tell` says now, under its key."""
        return {self._key: self._tell()}


of_all_grids: list[Hook] = []
"""Hooks of every grid that is made from now on in this process."""
