"""Hosts and servers of a grid that take no part: each is told of once, on the log that stands on stderr by itself.

Lives here: what is still to be told, the lines.
Elsewhere:  which errors have one cause (`causes.py`), when it is told and who goes on (`grid.py`).

A host that fails after another for the same reason is told in the same line, so failures are collected until somebody
tells them: `publish` when it returns, the watch at its next beat, the end of the grid.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from grid.causes import cause, listed


@dataclass(frozen=True)
class Missing:
    """A host, or one server of it (`server` is its name), that does not take part, and why."""

    host: str
    error: object
    server: str | None = None
    service_id: str | None = None

    @property
    def cause(self) -> str:
        """Equal for those that fail for the same reason."""
        return cause(self.first_line, self.server or "", self.host)

    @property
    def first_line(self) -> str:
        """What and why; tracebacks and last lines of output are in `g.failures`."""
        what = getattr(self.error, "what", None)
        if what is None:
            return str(self.error).split("\n", 1)[0]
        hint = getattr(self.error, "facts", {}).get("hint", "")
        first, more, _ = str(what).partition("\n")
        said = first.rstrip(" .:")
        return f"{said}. g.failures has all of it" if more else f"{said}. {hint}" if hint else said


@dataclass(frozen=True)
class Rest:
    """The hosts that take part: those with servers, of how many, and those that are still on their way."""

    hosts: int
    of_hosts: int
    servers: int
    of_servers: int
    starting: int = 0

    def __str__(self) -> str:
        if self.of_hosts == 1:
            who = f"{self.servers} of {self.of_servers} servers"
        else:
            who = f"{self.hosts} of {self.of_hosts} hosts ({self.servers} of {self.of_servers} servers)"
        more = f", {self.starting} of the hosts still starting" if self.starting else ""
        return f"the grid goes on with {who}{more}"


class Absent:
    """What is still to be told, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._untold: list[Missing] = []
        self._told: dict[str, str] = {}  # host -> the cause that was told of it: each publication meets it again

    def add(self, missing: Missing) -> None:
        """Somebody takes no part."""
        with self._lock:
            if missing.server is not None or self._told.get(missing.host) != missing.cause:
                self._untold.append(missing)

    def came(self, host: str) -> None:
        """A host takes part: if it is missing again, that is news."""
        self._told.pop(host, None)

    def take(self) -> list[Missing]:
        """All that nobody has told yet; the caller tells it."""
        with self._lock:
            untold, self._untold = self._untold, []
            self._told |= {one.host: one.cause for one in untold if one.server is None}
        return untold

    def drop(self) -> None:
        """An error has named them: a caller that goes on in spite of it hears of them at the next turn."""
        with self._lock:
            self._untold = []

    def __bool__(self) -> bool:
        return bool(self._untold)


def lines(missing: Sequence[Missing], rest: Rest | None) -> list[str]:
    """One line for each cause. `rest`: the hosts that take part, None at the end of all."""
    groups: dict[tuple[bool, str], list[Missing]] = {}
    for one in missing:
        groups.setdefault((one.server is None, one.cause), []).append(one)
    tail = "" if rest is None else f" ({rest})"
    told = []
    for (whole, _), group in groups.items():
        hosts = list(dict.fromkeys(one.host for one in group))
        first = group[0].first_line
        if len(group) == 1:
            told.append(f"host {hosts[0]!r}: {first}{tail}")
        elif whole:
            told.append(f"{len(hosts)} hosts take no part, with one cause: {listed(hosts)}. {first}{tail}")
        else:
            where = f"host {hosts[0]!r}" if len(hosts) == 1 else f"{len(hosts)} hosts ({listed(hosts)})"
            told.append(f"{where}: {len(group)} servers did not start, with one cause. {first}{tail}")
    return told
