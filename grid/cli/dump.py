"""`grid dump`: where the calls of a running grid are just now, on all of its hosts.

Lives here: choosing and printing. Elsewhere: asking hosts and reading their answers (`grids/stacks.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from grid.cli import exits
from grid.cli.choose import json_option, running
from grid.cli.show import echo, print_json, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grid.services.stack import Stack

_ASK_S = 15.0
"""For the grid's answer: it asks all hosts side by side, and gives each of them 3 s."""


@click.command(epilog=exits.EPILOG, short_help="Show where calls are: the stacks of servers, also deep in C code.")
@click.argument("name", required=False)
@click.option("--host", metavar="HOST", help="Only the servers of this host.")
@click.option("--service", metavar="ID", help="Only the servers of this service, or the server of this name.")
@click.option("--slowest", type=click.IntRange(1), metavar="N", help="Only the N servers whose call began first.")
@click.option("--all", "every", is_flag=True, help="All threads and all frames, those of agents and idle servers, too.")
@json_option
def dump(
    name: str | None, host: str | None, service: str | None, slowest: int | None, every: bool, as_json: bool
) -> None:
    """Show the stack of each server of a running grid that has a call, and that of the script itself.

    NAME is a grid's name, id or process id; it may be left out where only one runs. A stack has the most recent call
    last, as a traceback does. It needs nothing on the hosts, no rights and no debugger, and works where a server sits
    in C code; calls go on meanwhile.

    \b
    Examples:
      grid dump
      grid dump fit.py-4711 --slowest 3
      grid dump --service Energy.0/2 --all
      grid dump --json | jq '.[] | select(.seconds > 60) | .server'

    The status is 1 if there is no such grid, host or server, or the grid does not answer.
    """
    from grid.grids.register import ask
    from grid.services.stack import Stack

    record = running(name)
    try:
        answer = ask(record, "stacks", _ASK_S)
    except TimeoutError as exc:
        _fail(f"{exc}. `grid status` tells whether it answers at all")
    if "stacks" not in answer:
        _fail(f"grid {record['name']!r} can't tell: {answer.get('error', 'its version is older')}")
    stacks = [Stack.from_dict(one) for one in answer["stacks"]]
    if host is not None:
        stacks = _only([one for one in stacks if one.host == host], "host", host, {one.host for one in stacks})
    if service is not None:
        servers = {one.server for one in stacks if "/" in one.server}
        known = servers | {server.rpartition("/")[0] for server in servers}
        stacks = _only([one for one in stacks if service in (one.server, one.server.rpartition("/")[0])],
                       "service or server", service, known)  # fmt: skip
    if slowest is not None:
        with_calls = [one for one in stacks if one.seconds is not None]
        stacks = sorted(with_calls, key=lambda one: -(one.seconds or 0.0))[:slowest]
    if as_json:
        print_json([one.as_dict() for one in stacks])
        return
    _print(stacks, every)


def _only(found: list[Stack], what: str, word: str, known: set[str]) -> list[Stack]:
    if not found:
        listed = ", ".join(sorted(filter(None, known))) or "none"
        _fail(f"the grid has no {what} {word!r}. It has: {listed}")
    return found


def _print(stacks: Sequence[Stack], every: bool) -> None:
    shown = [one for one in stacks if every or _tells(one)]
    for place, one in enumerate(shown):
        if place:
            echo("")
        echo(one.text(all_threads=every))
    idle = len(stacks) - len(shown)
    if not every and idle:
        say(f"{idle} more processes have no call and no trouble; --all shows them as well")


def _tells(one: Stack) -> bool:
    """Whether there is something to be seen: a call, frames of the user's code, or a reason why there are none."""
    return bool(one.why) or one.seconds is not None or any(thread.users for thread in one.threads)


def _fail(text: str) -> None:
    say(f"grid: {text}")
    click.get_current_context().exit(exits.FAILED)
