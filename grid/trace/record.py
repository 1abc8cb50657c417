"""The record that a grid makes while it runs, and its file.

A grid without a trace pays one look at an attribute per call. With one, a call costs one entry in a bounded list.

Lives here: `Trace`. Elsewhere: what is made of it (`timeline`, `chrome`, `picture`).
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from grid.hooks import Answered, Hook
from grid.trace.timeline import Call, Life, Timeline, lay_out

logger = logging.getLogger(__name__)

KEPT = 1_000_000
"""Calls that a trace holds, at most: of a longer run the last ones."""
_ENDINGS = (".json", ".html", ".svg")

_written: set[str] = set()
_naming = threading.Lock()


class Trace(Hook):
    """The record of one grid; from any thread.

    Args:
        path: Where `save` writes: .json (for Perfetto), .html or .svg. A second grid of this process that names the
            same file gets `name-2.json`, and so on.
        title: Its subject, for the head of the picture.
    Raises:
        ValueError: Another ending, or no such directory.
    """

    hears_calls = True

    def __init__(self, path: str | os.PathLike[str], title: str, kept: int = KEPT) -> None:
        self.path = _free_name(checked(path))
        self.title = title
        self.began, self._origin = time.time(), time.monotonic()
        self._calls: deque[Call] = deque(maxlen=kept)
        self._count = 0
        self._lives: dict[str, Life] = {}
        self._labels: dict[tuple[str, int], str] = {}
        self._ending = False

    # -- what a grid tells -----------------------------------------------------------------------------------------

    def came(self, server: str, host: str) -> None:
        """A server has come up: it has a line in the picture from now on."""
        if server not in self._lives:
            self._lives[server] = Life(server, host, time.monotonic())

    def went(self, server: str, end: str) -> None:
        """A server has ended, and how; one that went while the grid ends was terminated, and not lost."""
        life = self._lives.get(server)
        if life is not None and life.until is None:
            self._lives[server] = life._replace(until=time.monotonic(), end="terminated" if self._ending else end)

    def ending(self, grid: Any) -> None:
        """The grid ends: servers that go from now on were not lost."""
        self._ending = True  # servers that go from now on were not lost

    def ended(self) -> None:
        """The grid has ended: write the file."""
        self.save()

    def answered(self, call: Answered) -> None:
        """A call has its reply; the oldest is dropped when too many are kept."""
        now = time.monotonic()
        self._count += 1
        took = now - call.made if call.seconds is None else call.seconds  # until now, as far as anybody knows
        self._calls.append(Call(call.server, call.number, _plain(call.method), call.made, now, took, call.outcome))

    def label(self, server: str, number: int, text: str) -> None:
        """Words for a call, for the picture."""
        if len(self._labels) < (self._calls.maxlen or KEPT):
            self._labels[server, number] = text

    # -- what comes of it ------------------------------------------------------------------------------------------

    def timeline(self) -> Timeline:
        """All of it, up to now."""
        calls = self._calls.copy()
        return lay_out(
            self.title,
            self.began,
            self._origin,
            time.monotonic(),
            calls,
            list(self._lives.values()),
            dict(self._labels),
            max(0, self._count - len(calls)),
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write what there is so far; the ending says in which form. Nobody ever sees half a file.

        Raises:
            ValueError: Another ending than .json, .html or .svg, or no such directory. OSError: It can't be written.
        """
        target = checked(path)
        timeline = self.timeline()
        if target.suffix == ".json":
            from grid.trace.chrome import trace_events

            text = json.dumps(trace_events(timeline), separators=(",", ":"))
        else:
            from grid.trace.picture import page, svg

            text = page(timeline) if target.suffix == ".html" else svg(timeline)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def save(self) -> None:
        """Write `path`; called at the end of the grid, which a full disk must not keep from ending."""
        try:
            self.write(self.path)
        except (OSError, ValueError) as exc:
            logger.error("the trace %s could not be written: %s", self.path, exc)


def _plain(method: str) -> str:
    return {"@call": "__call__", "@map": "map", "@get": "get attribute", "@set": "set attribute"}.get(method, method)


def checked(path: str | os.PathLike[str]) -> Path:
    """The file of a trace, as an absolute path. Raises ValueError, see `Trace`."""
    target = Path(path).expanduser().absolute()
    if target.suffix not in _ENDINGS:
        raise ValueError(f"a trace is written as {', '.join(_ENDINGS)}: {os.fspath(path)!r} ends in none of them")
    if not target.parent.is_dir():
        raise ValueError(f"there is no directory {str(target.parent)!r} for the trace {target.name!r}")
    return target


def _free_name(path: Path) -> Path:
    with _naming:
        found, number = path, 1
        while str(found) in _written:
            number += 1
            found = path.with_name(f"{path.stem}-{number}{path.suffix}")
        _written.add(str(found))
    return found
