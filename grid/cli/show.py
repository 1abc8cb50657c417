"""How things look: tables, JSON, progress, spans of time.

Lives here: data to standard output, talk to standard error; rich only where a person watches.
Elsewhere:  what is shown (the commands).
"""

from __future__ import annotations

import json
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from grid.errors import GridError
from grid.text import TURNING, clean

if TYPE_CHECKING:
    from rich.table import Table

AT_ONCE = 64
"""Hosts that are talked to side by side: a table of dozens takes the time of the slowest."""

T = TypeVar("T")
R = TypeVar("R")


_LENGTH = 10_000_000
"""Longest text that a command prints at once."""

_NOT_IN_JSON = re.compile(rf"[\x7f-\x9f\u2028\u2029\ud800-\udfff{TURNING}]")


def say(text: str) -> None:
    """Talk: to standard error."""
    click.echo(clean(text, _LENGTH), err=True)


def echo(text: str) -> None:
    """Data for people: to standard output, without control characters, which may be anybody's."""
    click.echo(clean(text, _LENGTH))


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Data for programs, and what can't be JSON as text; with `indent=None` in one line."""
    text = json.dumps(value, indent=indent, default=str, ensure_ascii=False)
    click.echo(_NOT_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text))  # JSON itself escapes the others


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Data for people: fitted to the terminal, or, where it goes elsewhere, a line per row and no line cut."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(rich_table(header, rows))
        return
    for line in plain_table(header, rows):
        echo(line)


def _cell(value: Any) -> str:
    return clean(value, _LENGTH).replace("\n", "\\n").replace("\t", " ") or "-"


def plain_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Columns of equal width, two blanks apart; an empty cell is shown as `-`, so that columns can be counted."""
    cells = [[_cell(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def rich_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """The same for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*(Text(_cell(cell)) for cell in row))
    return table


def side_by_side(
    doing: str, items: Sequence[T], work: Callable[[T], R], name: Callable[[T], str], *, quiet: bool = False
) -> list[R | GridError]:
    """Work on all items at once, and show on a terminal how far it is; `quiet` where the work itself talks to it.

    Returns:
        In the order of the items: what `work` returned, or the GridError that it raised.
    """
    # Threads of our own and daemons, not an executor: after Ctrl-C nobody waits for a host that hangs.
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, R | GridError | BaseException]] = queue.SimpleQueue()
    for place in range(len(items)):
        waiting.put(place)

    def worker() -> None:
        while True:
            try:
                place = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((place, work(items[place])))
            except BaseException as exc:
                done.put((place, exc))

    threads = [threading.Thread(target=worker, daemon=True) for _ in range(min(AT_ONCE, len(items)))]
    for thread in threads:
        thread.start()
    results: dict[int, R | GridError] = {}
    with progress(quiet=quiet) as show:
        while len(results) < len(items):
            missing = [name(item) for place, item in enumerate(items) if place not in results]
            named = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
            show(f"{doing}: {len(results)} of {len(items)}, waiting for {named}")
            place, outcome = done.get()
            if isinstance(outcome, BaseException) and not isinstance(outcome, GridError):
                raise outcome
            results[place] = outcome
    for thread in threads:
        thread.join()
    return [results[place] for place in range(len(items))]


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """A line on the terminal that changes and goes; nothing where standard error is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("") as status:
        yield lambda text: status.update(escape(clean(text)))


def ask(question: str) -> bool:
    """Whether the user says yes; the end of standard input is a no."""
    click.echo(clean(f"{question} [y/N] "), err=True, nl=False)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        click.echo(err=True)
    return answer.strip().lower() in ("y", "yes")


def span(seconds: float) -> str:
    """Time for people: `45 s`, `12 min`, `3.5 h`, `4.2 d`."""
    if abs(seconds) < 100:
        return f"{seconds:.0f} s"
    if abs(seconds) < 6000:
        return f"{seconds / 60:.0f} min"
    if abs(seconds) < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} d"
