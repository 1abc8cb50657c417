"""`grid logs`: what the servers of a running grid print; chosen by server, host, time and pattern, and followed.

Lives here: choosing lines, following files.
Elsewhere:  who writes the logs, and when which part of one was written (`grids/output.py`).
"""

from __future__ import annotations

import os
import re
import sys
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import click

from grid.cli import exits
from grid.cli.choose import is_called, json_option, running
from grid.cli.running import LOOK_S, how_it_stands
from grid.cli.show import echo, print_json, say


class Since(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has none
    """A length of time before now (`10m`), or a moment (`2026-03-01T12:00`): seconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """What the option says."""
        from grid.keeping.places import span_s

        if isinstance(value, float):
            return value
        try:
            return time.time() - span_s(value)
        except ValueError:
            pass
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            self.fail(f"{value!r} is neither a length of time such as '10m' nor a moment such as '2026-03-01T12:00'")


class Pattern(click.ParamType):  # type: ignore[type-arg]  # as above
    """A regular expression."""

    name = "pattern"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> re.Pattern[str]:
        """What the option says."""
        try:
            return value if isinstance(value, re.Pattern) else re.compile(value)
        except (re.error, OverflowError, RecursionError) as exc:
            self.fail(f"{value!r} is no regular expression ({exc})")


@click.command(epilog=exits.EPILOG, short_help="Print what servers print; -f follows, --grep searches.")
@click.argument("name", required=False)
@click.argument("server", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what they print, new servers too, until the grid ends.")
@click.option(
    "-n",
    "lines",
    type=click.IntRange(0),
    metavar="LINES",
    help="The last LINES of each server. Default: all, and 10 with -f.",
)
@click.option("--grep", type=Pattern(), metavar="PATTERN", help="Only lines in which this regular expression is found.")
@click.option("--since", type=Since(), metavar="TIME", help="Only lines printed since: 10m, 2h, 2026-03-01T12:00.")
@click.option("--host", metavar="HOST", help="Only what servers printed on this host.")
@json_option
def logs(
    name: str | None,
    server: str | None,
    follow: bool,
    lines: int | None,
    grep: re.Pattern[str] | None,
    since: float | None,
    host: str | None,
    as_json: bool,
) -> None:
    """Print what the servers of a running grid have printed, each line with its server.

    NAME is a grid's name, id or process id; it may be left out where only one runs. SERVER is a server (`Energy.0/2`)
    or a service (`Energy.0`, all its servers). With --json each line is an object with `server`, `host`, `time` (when
    it arrived, to about a second) and `text`.

    \b
    Examples:
      grid logs -f
      grid logs fit.py-4711 Energy.0/2 -n 50
      grid logs --grep 'nan|inf' --since 10m --host node17
      grid logs -f --json | jq 'select(.text | test("error"; "i"))'

    The log of a server goes when the server does. The status is 1 if there is no such grid, server or host.
    """
    if name is not None and server is None and _names_server(name):
        name, server = None, name  # `grid logs Energy.0/2` where one grid runs
    record = running(name)
    directory = Path(record["socket"]).with_suffix(".logs")
    kept = lines if lines is not None else 10 if follow else None
    readers: dict[Path, _Reader] = {}
    known = _servers_of(directory)
    if server is not None and not follow and not _chosen(known, server):
        _no_such("output of a server", server, known)
    if host is not None and not follow:
        hosts = {mark.host for path in known.values() for mark in _Marks(path).all()}
        if hosts and host not in hosts:
            _no_such("output of a host", host, hosts)
    while True:
        alive = not follow or _is_running(record)
        for label, path in sorted(_chosen(_servers_of(directory), server).items()):
            new = path not in readers
            if new:
                readers[path] = _Reader(path)
            fitting = (
                line
                for line in readers[path].more()
                if (grep is None or grep.search(line.text))
                and (since is None or line.time >= since)
                and (host is None or line.host == host)
            )
            for line in deque(fitting, maxlen=kept) if new and kept is not None else fitting:
                if as_json:
                    about = {"server": label, "host": line.host, "time": _moment(line.time), "text": line.text}
                    print_json(about, indent=None)
                else:
                    echo(f"[{label}] {line.text}")
        kept = None  # a server that comes later is followed from its first line
        sys.stdout.flush()
        if not follow or not alive:
            break
        time.sleep(LOOK_S)
    for reader in readers.values():
        reader.close()
    if follow:
        say(f"grid {record['name']} has ended")
    elif not readers:
        say("no server has printed anything yet")


def _no_such(what: str, word: str, known: Any) -> None:
    from grid.hosts.host import did_you_mean

    listed = f"They are: {', '.join(sorted(known))}" if known else "No server has printed anything yet"
    say(f"grid: no {what} {word!r}{did_you_mean(word, known) or '.'} {listed}")
    click.get_current_context().exit(exits.FAILED)


def _moment(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds") if seconds else None


def _names_server(word: str) -> bool:
    """Whether a word can only name a server or service: one grid runs, and it is not that grid's name."""
    from grid.grids.register import running_grids

    grids = [record for record in running_grids() if record["alive"]]
    if len(grids) != 1 or is_called(grids[0], word):
        return False
    return bool(_chosen(_servers_of(Path(grids[0]["socket"]).with_suffix(".logs")), word))


def _servers_of(directory: Path) -> dict[str, Path]:
    """Server -> its log: `Energy.0/2` -> .../Energy.0.2.log"""
    found = {}
    for path in directory.glob("*.log"):
        service_id, _, number = path.stem.rpartition(".")
        found[f"{service_id}/{number}"] = path
    return found


def _chosen(servers: dict[str, Path], wanted: str | None) -> dict[str, Path]:
    if wanted is None:
        return servers
    return {label: path for label, path in servers.items() if wanted in (label, label.rpartition("/")[0])}


def _is_running(record: dict[str, Any]) -> bool:
    return not how_it_stands(record)["stopped"]


class _Line(NamedTuple):
    """A line, when it arrived (since 1970; 0: nobody knows), and from where."""

    text: str
    time: float
    host: str


class _Mark(NamedTuple):
    """From this byte of a log on: when it arrived, and from which host."""

    offset: int
    time: float
    host: str


class _Marks:
    """When the parts of a log were written. A damaged line of the file counts as not there."""

    def __init__(self, log: Path) -> None:
        self._path = log.with_suffix(".times")
        self._marks: list[_Mark] = []
        self._read_to = 0

    def all(self) -> list[_Mark]:
        """Until now."""
        try:
            with open(self._path, "rb") as file:
                if os.fstat(file.fileno()).st_size < self._read_to:  # the log was turned, and this began anew
                    self._marks, self._read_to = [], 0
                file.seek(self._read_to)
                data = file.read()
        except OSError:
            return self._marks
        whole = data[: data.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            offset, _, rest = line.partition(" ")
            moment, _, host = rest.partition(" ")
            try:
                self._marks.append(_Mark(int(offset), float(moment), host))
            except ValueError:
                continue
        return self._marks


class _Reader:
    """One log file, line by line. Its file stays open, so that last lines can be read after the log was removed."""

    def __init__(self, path: Path) -> None:
        self._marks = _Marks(path)
        self._partial = b""
        self._offset = 0  # of the partial line
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError:
            self._file = -1  # it went between being listed and being opened

    def more(self) -> Iterator[_Line]:
        """Whole lines that came since."""
        data = self._partial
        while self._file >= 0 and (chunk := os.read(self._file, 1 << 20)):
            data += chunk
        *lines, self._partial = data.split(b"\n")
        marks: Sequence[_Mark] = self._marks.all() if lines else ()
        offsets = [mark.offset for mark in marks]
        for line in lines:
            at = bisect_right(offsets, self._offset) - 1
            self._offset += len(line) + 1
            mark = marks[at] if at >= 0 else _Mark(0, 0.0, "")
            yield _Line(line.decode(errors="replace"), mark.time, mark.host)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
