"""What a user names: hosts, groups, running grids. An unknown name is an error that says what exists.

Lives here: the options and arguments that several commands share, and their meaning.
Elsewhere:  hosts files (`hosts/inventory.py`), the register of grids (`grids/watch.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from grid.cli import exits
from grid.cli.show import say

if TYPE_CHECKING:
    from grid.hosts import Host

F = TypeVar("F", bound=Callable[..., Any])

hosts_option = click.option(
    "--hosts",
    "hosts_from",
    metavar="FILE|NAMES",
    envvar="GRID_HOSTS",
    help="A hosts file, or host names with commas. Default: $GRID_HOSTS, ./hosts.yaml, ~/.config/grid/hosts.yaml.",
)
group_option = click.option(
    "--group", metavar="G", envvar="GRID_GROUP", help="Only the hosts of this group of the hosts file."
)
environment_option = click.option(
    "--environment",
    "environment_of",
    metavar="here|FILE",
    help="The packages on hosts: `here` (as in this environment), requirements.txt, pylock.toml or uv.lock.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the data as JSON.")


def hosts_options(command: F) -> F:
    """`--hosts` and `--group`."""
    return hosts_option(group_option(command))


def find_hosts(hosts_from: str | None, group: str | None) -> list[Host] | None:
    """The hosts that the options stand for; None where there is no hosts file.

    Raises:
        InventoryError, UsageError: See `choose_hosts`.
    """
    from grid.hosts import choose_hosts, find_hosts_file

    context = click.get_current_context()
    source = context.get_parameter_source("group")
    if group and source is not None and source.name == "ENVIRONMENT" and not _is_file(hosts_from):
        group = None  # $GRID_GROUP goes with a file
    try:
        hosts = choose_hosts(hosts_from, group)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    if hosts is None and group:
        raise click.UsageError(f"there is no hosts file, so there is no group {group!r}. {NO_FILE}")
    if hosts is not None and not hosts_from:
        say(f"hosts of {find_hosts_file()}")  # a forgotten file must not send anybody to other hosts without a word
    return hosts


def named_environment(word: str) -> str:
    """What `--environment` says, with an absolute path.

    Raises:
        UsageError: There is no such file, or it is of another kind.
    """
    from grid.errors import PackagesError
    from grid.grids.packages import checked

    try:
        return checked(word)
    except PackagesError as exc:
        raise click.UsageError(str(exc)) from exc


NO_FILE = "Write ./hosts.yaml or ~/.config/grid/hosts.yaml, or name a file with --hosts"


def hosts_or_complain(hosts_from: str | None, group: str | None, names: Sequence[str] = ()) -> list[Host]:
    """The hosts of the options, or those of them that are named.

    Without a hosts file names are taken as ssh knows them.
    """
    hosts = find_hosts(hosts_from, group)
    if hosts is None:
        if not names:
            raise click.UsageError(f"there is no hosts file. {NO_FILE}")
        return [as_ssh_knows(name) for name in names]
    if not names:
        return hosts
    chosen = []
    for name in names:
        found = [host for host in hosts if name in (host.label, host.name)]
        if not found:
            _unknown("host", name, [host.label for host in hosts])
        chosen += [host for host in found if host not in chosen]
    return chosen


def host_or_any(hosts_from: str | None, name: str) -> Host:
    """The host of that name of the hosts file, else whatever ssh understands by it."""
    for host in find_hosts(hosts_from, None) or []:
        if name in (host.label, host.name):
            return host
    return as_ssh_knows(name)


def as_ssh_knows(name: str) -> Host:
    """`user@host:port`, an address, or a name of ~/.ssh/config."""
    from grid.hosts import Host

    try:
        return Host(name)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc


def running(name: str | None) -> dict[str, Any]:
    """The running grid of that name (its process id may be left out), id or process id; None: the only one.

    Ends the command where there is none or more than one.
    """
    from grid.grids.register import running_grids
    from grid.hosts.host import did_you_mean

    grids = [record for record in running_grids() if record["alive"]]
    listed = "\n".join(f"  {record['name']}  (process {record['pid']}, id {record['id']})" for record in grids)
    if name is None:
        if len(grids) == 1:
            return grids[0]
        if not grids:
            _end(exits.FAILED, "no grid of yours runs on this machine")
        _end(exits.USAGE, f"{len(grids)} grids run on this machine, name one of them:\n{listed}")
    found = [record for record in grids if is_called(record, name)]
    if len(found) == 1:
        return found[0]
    if found:
        _end(exits.USAGE, f"{len(found)} grids are called {name!r}, name one by its id:\n{listed}")
    if not grids:
        _end(exits.FAILED, f"no grid {name!r}: no grid of yours runs on this machine")
    hint = did_you_mean(name, [record["name"] for record in grids])
    return _end(exits.FAILED, f"no grid {name!r} runs on this machine{hint or '.'} Running:\n{listed}")


def is_called(record: dict[str, Any], name: str) -> bool:
    """Whether a user may mean this grid by `name`: `fit.py-4711`, its id, 4711, or `fit.py`."""
    short = record["name"].removesuffix(f"-{record['pid']}")
    return name in (record["name"], record["id"], str(record["pid"]), short)


def _unknown(what: str, name: str, known: Sequence[str]) -> NoReturn:
    from grid.hosts.host import did_you_mean

    hint = did_you_mean(name, known) or "."
    raise click.UsageError(f"no {what} {name!r}{hint} The file has: {', '.join(known)}")


def _is_file(hosts_from: str | None) -> bool:
    import os

    return not hosts_from or os.path.isfile(os.path.expanduser(hosts_from))


def _end(code: int, text: str) -> NoReturn:
    say(f"grid: {text}")
    raise click.exceptions.Exit(code)
