"""`grid sessions`, `grid attach`, `grid end`: grids of yours that wait for their clients.

Lives here: tables, the environment of a command that attaches.
Elsewhere:  sessions themselves (`keeping/`), taking one up again (`grids/resuming.py`).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from grid.cli import exits
from grid.cli.choose import json_option
from grid.cli.show import echo, print_json, print_table, say, span

_COLUMNS = ("session", "client", "hosts", "services", "servers", "results", "ends in")
_INTERPRETERS = ("python", "ipython", "bpython")


@click.command(epilog=exits.EPILOG, short_help="List grids of yours that wait for their clients.")
@json_option
def sessions(as_json: bool) -> None:
    """List the sessions of this account on this machine: grids made with `keep=`, whether their client lives or not.

    `results` are calls whose results nobody has fetched; `ends in` is the time until hosts end everything by
    themselves, unless a client comes: an estimate by the file, for hosts count from the client's last word.

    \b
    Examples:
      grid sessions
      grid sessions --json | jq '.[] | select(.client_alive | not) | .name'
    """
    from grid.keeping.places import names

    found = [_facts(name) for name in names()]
    if as_json:
        print_json(found)
    elif found:
        print_table(_COLUMNS, [_row(one) for one in found])
    else:
        say("no session of yours on this machine")


def _facts(name: str) -> dict[str, Any]:
    from grid.keeping.memory import SessionMemory
    from grid.keeping.places import SessionPlace
    from grid.keeping.records import Scan

    place = SessionPlace(name)
    memory = SessionMemory.of(Scan(place.log.read_bytes()))
    said = memory.facts.get("grid", {})
    keep_s = said.get("keep_s", 0.0)
    alive = place.is_used()
    left_s = keep_s if alive else place.used_at() + keep_s - time.time()
    servers = [one for one in memory.facts_of("server").values() if "ended" not in one]
    return {
        "name": name,
        "client": said.get("client", "?"),
        "client_alive": alive,
        "hosts": [fact["host"]["name"] for fact in memory.facts_of("home").values()],
        "services": sorted(memory.facts_of("service")),
        "servers": len(servers),
        "results": sum(len(past.calls) for past in memory.peers.values()),
        "keep_s": keep_s,
        "ends_in_s": round(left_s, 1),
        "damaged": not said,
    }


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    if one["damaged"]:
        return (one["name"], "its file is damaged", "", "", "", "", "")
    if one["client_alive"]:
        ends = f"{span(one['keep_s'])} after its client"
    else:
        ends = span(one["ends_in_s"]) if one["ends_in_s"] > 0 else f"{span(-one['ends_in_s'])} ago"
    client = one["client"] if one["client_alive"] else f"gone ({one['client']})"
    hosts, count = sorted(set(one["hosts"])), len(one["services"])
    shown = ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")
    return (one["name"], client, shown, str(count), str(one["servers"]), str(one["results"]), ends)


@click.command(
    epilog=exits.EPILOG,
    short_help="Run a command, or an interpreter, on a grid that waits.",
    context_settings={"ignore_unknown_options": True},
)
@click.option("--steal", is_flag=True, help="If its client lives, ask that one to hand over.")
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def attach(steal: bool, name: str, command: tuple[str, ...]) -> None:
    """Run COMMAND so that `Grid.auto()` in it is the session NAME; without one, a Python interpreter.

    An interpreter (python, ipython) has the grid as `g` at its beginning, and leaves it as it is at its end;
    `g.terminate()` ends it. The command takes the place of this process: its exit status is the command's.

    \b
    Examples:
      grid attach lab
      grid attach lab -- ipython
      grid attach --steal lab -- python collect.py

    A name that nobody has is an error with status 1.
    """
    from grid.grids.resuming import check_session

    check_session(name)
    environment = {**os.environ, "GRID_ATTACH": name}
    environment.pop("GRID_STEAL", None)
    if steal:
        environment["GRID_STEAL"] = "1"
    words = list(command) or [sys.executable]
    if os.path.basename(words[0]).startswith(_INTERPRETERS) and not [each for each in words[1:] if each[:1] != "-"]:
        environment["PYTHONSTARTUP"] = str(Path(__file__).with_name("attached.py"))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    try:
        os.execvpe(words[0], words, environment)
    except OSError as exc:
        raise click.UsageError(f"can't run {words[0]!r} ({exc.strerror})") from exc


@click.command(epilog=exits.EPILOG, short_help="End a grid that waits for its client, or a detached run.")
@click.argument("name")
@json_option
def end(name: str, as_json: bool) -> None:
    """End the session NAME, on all its hosts and here, or the run of `grid run --detach` of that name.

    Results of a session that nobody has fetched are lost, and so is the output of a run. A run gets Ctrl-C first, so
    that its `with` blocks end their grids; SIGTERM after 10 s, and 5 s later SIGKILL.

    One whose client lives is ended by `grid stop`. What runs on hosts that do not answer ends by itself when the time
    of the session has passed.

    \b
    Examples:
      grid end lab
    """
    from grid.errors import SessionError
    from grid.grids.grid import Grid
    from grid.grids.resuming import check_session
    from grid.keeping.places import SessionPlace

    if _end_run(name, as_json):
        return
    check_session(name)
    try:
        g = Grid.attach(name)
    except SessionError as exc:
        place = SessionPlace(name)
        if place.exists() and not place.is_used():  # it can't be read, and so nobody will ever attach to it
            place.remove()
            say(f"{exc}")
            if as_json:
                print_json({"ended": name, "unreachable": {}})
            else:
                echo(f"removed what was left of {name} here")
            return
        raise
    failed = dict(g.failures)
    g.terminate()
    for host, why in failed.items():
        say(f"{host}: {why}. What runs there ends by itself")
    if as_json:
        print_json({"ended": name, "unreachable": {host: str(why) for host, why in failed.items()}})
    else:
        echo(f"ended {name}")


def _end_run(name: str, as_json: bool) -> bool:
    """End a detached run, and remove it; False: there is none of that name."""
    from grid.errors import SessionError
    from grid.runs.detached import DetachedRun

    try:
        run = DetachedRun.called(name)
    except SessionError:
        return False
    if not run.stop():
        host = run.facts().get("host", "?")
        raise SessionError(f"the run {name!r} can't be ended from here", hint=f"It was started on {host}: end it there")
    run.remove()
    if as_json:
        print_json({"ended": name, "unreachable": {}})
    else:
        echo(f"ended {name}")
    return True
