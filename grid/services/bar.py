"""A progress bar for what is iterated over: maps, and lists of results as they come.

    for energy in progress_bar(g.map(sid, "energy", range(100_000))): ...
    values = [result.get() for result in progress_bar(results)]

tqdm does, too: `tqdm(g.map(...), total=n)`.

Lives here: `progress_bar`. Elsewhere: bars of task systems (`tasks/run.py`), of jobs (`cli/jobs.py`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TextIO, TypeVar

from grid.services.mapping import MapResult

T = TypeVar("T")

_REFRESH_S = 0.1


def progress_bar(
    values: Iterable[T], total: int | None = None, *, label: str = "", file: TextIO | None = None, always: bool = False
) -> Iterator[T]:
    """The same values, one by one, with a bar that shows how many there were, how many there will be, the time left.

    Args:
        total: How many there will be; by default what the values say (`len`, or a map's own `progress`).
        label: What stands before the bar; by default the name of a map's method.
        file: Where to; standard error by default.
        always: Whether to show it where nobody looks, too: by default it is shown on terminals and in notebooks only.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=file or sys.stderr)
    if not (always or console.is_terminal or console.is_jupyter):
        yield from values
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    mapped = values if isinstance(values, MapResult) else None
    name = label or (mapped.method if mapped is not None else "")
    if total is None and isinstance(values, Sized):
        total = len(values)
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        row = progress.add_task(name, total=total)
        shown = float("-inf")
        done = 0

        def show() -> None:
            known = mapped.progress[1] if mapped is not None and total is None else total
            progress.update(row, completed=done, total=known, refresh=True)

        try:
            for value in values:
                done += 1
                if time.monotonic() - shown >= _REFRESH_S:
                    shown = time.monotonic()
                    show()
                yield value
        finally:
            show()
