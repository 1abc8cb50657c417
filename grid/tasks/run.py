"""One call for a task system: on a grid, to its end, with a progress bar.

Lives here: `run_system`, the bar. Elsewhere: everything that it calls (`master`).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from grid.tasks.abstract import TaskScheduleStrategy, TaskSystem
from grid.tasks.limits import TaskLimits
from grid.tasks.master import Master
from grid.tasks.system import SystemHandle

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid

_REFRESH_S = 0.2


def run_system(
    system: TaskSystem | bytes,
    on: AbstractGrid | Master | None = None,
    *,
    strategy: TaskScheduleStrategy | None = None,
    limits: TaskLimits | None = None,
    progress: bool | None = None,
    timeout: float | None = None,
) -> Any:
    """Run a task system to its end and return what it gathered.

    Args:
        system: Its `needs` are those of the workers, unless there is a master.
        on: A grid, or a master that runs; None: the grid that this place offers (`Grid.auto()`), ended afterwards.
        strategy: It chooses the slave for the next task; default `LeastLoaded()`. limits: See `TaskLimits`. Not with a
            master.
        progress: Show a bar on standard error; None: if that is a terminal.
        timeout: Seconds for the system; then it is withdrawn.
    Raises:
        TimeoutError: Not complete in time.
        As `SystemHandle.get` and `Master.start_system`.
    """
    with ExitStack() as stack:
        if isinstance(on, Master):
            if strategy is not None or limits is not None:
                raise TypeError("strategy and limits belong to the master: give them to Master(...)")
            master = on
        else:
            if on is None:
                from grid.grids.grid import Grid

                on = stack.enter_context(Grid.auto())
            needs = getattr(system, "needs", None)
            master = stack.enter_context(Master(on, strategy, limits=limits, needs=needs))
        handle = master.start_system(system)
        shown = sys.stderr.isatty() if progress is None else progress
        try:
            with bar(handle, expected(system)) if shown else _nothing():
                return handle.get(timeout)
        except BaseException:
            handle.cancel()
            raise


def expected(system: TaskSystem | bytes) -> int | None:
    """How many tasks there will be, if the system says so."""
    return getattr(system, "expected_tasks", None)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def bar(handle: SystemHandle, total: int | None) -> Iterator[None]:
    """A progress bar on standard error: tasks finished, and failed; and what it waits for, if it has no host."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    over = threading.Event()
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as progress:
        row = progress.add_task(handle.name, total=total, note="")

        def show() -> None:
            note = f"{handle.failed_tasks} failed" if handle.failed_tasks else ""
            if "no active host" in (doing := handle.doing()):
                note = doing.partition("; ")[2]
            progress.update(row, completed=handle.finished_tasks, note=note)

        def follow() -> None:
            while not over.wait(_REFRESH_S):
                show()

        thread = threading.Thread(target=follow, name="grid-tasks-bar", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            show()
