"""`grid env list, show, prune`: the environments of packages on this machine and on hosts.

Lives here: options and tables. Elsewhere: asking machines (`care/packages.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from grid.cli import exits
from grid.cli.choose import find_hosts, hosts_options, json_option
from grid.cli.main import NearMisses
from grid.cli.show import ask, echo, print_json, print_table, say, side_by_side, span
from grid.errors import GridError

if TYPE_CHECKING:
    from grid.hosts import Host

HERE = "(this machine)"
DAYS = 30.0
"""Unused for so long, an environment is not expected to be used again."""


@click.group(cls=NearMisses, epilog=exits.EPILOG)
def env() -> None:
    """Environments of packages that grid has brought to hosts: list them, look into one, remove them.

    \b
    Examples:
      grid env list
      grid env prune --unused 7
    """


@env.command("list", epilog=exits.EPILOG, short_help="List the environments on this machine and on hosts.")
@hosts_options
@json_option
@click.pass_context
def list_environments(ctx: click.Context, hosts_from: str | None, group: str | None, as_json: bool) -> None:
    """List the environments on this machine and on the hosts of the hosts file; of hosts that share a home once.

    \b
    Examples:
      grid env list
      grid env list --group cluster --json

    The status is 1 if a host could not be checked; the reason is printed.
    """
    found, failed = _look(hosts_from, group)
    if as_json:
        print_json({"environments": found, "unreachable": [str(error) for error in failed]})
    else:
        rows = [
            (
                ", ".join(one["hosts"]),
                one["name"],
                one["word"] or "(for kernels)",
                one["base"],
                len(one["wheels"]),
                f"{one['bytes'] / 1e6:.0f} MB",
                f"{span(one['age_s'])} ago",
            )
            for one in found
        ]
        if rows:
            print_table(("hosts", "hash", "of", "python", "packages", "size", "last used"), rows)
        else:
            say("no environments there")
        for error in failed:
            say(str(error))
    ctx.exit(exits.FAILED if failed else exits.OK)


@env.command(epilog=exits.EPILOG, short_help="Show what an environment has.")
@click.argument("name", metavar="HASH")
@hosts_options
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, hosts_from: str | None, group: str | None, as_json: bool) -> None:
    """Show the packages of one environment, where it is, and what was noticed when it was built.

    HASH may be the beginning of it, as `grid env list` shows it.

    \b
    Example:
      grid env show 56c223
    """
    found, failed = _look(hosts_from, group)
    chosen = [one for one in found if one["name"].startswith(name)]
    if len({one["name"] for one in chosen}) != 1:
        known = ", ".join(dict.fromkeys(one["name"] for one in chosen or found))
        say(f"grid: {'more than one' if chosen else 'no'} environment {name!r}. There are: {known or 'none'}")
        ctx.exit(exits.FAILED)
    if as_json:
        print_json(chosen)
    else:
        for one in chosen:
            echo(f"{one['name']}  {one['word'] or '(for kernels)'}  on {', '.join(one['hosts'])}: {one['path']}")
            echo(f"python {one['base']}, {one['bytes'] / 1e6:.0f} MB, last used {span(one['age_s'])} ago")
            for doubt in one["doubts"]:
                say(f"when it was built: {doubt}")
        print_table(("package", "version", "wheel"), [(*_named(each[0]), each[0]) for each in chosen[0]["wheels"]])
    for error in failed:
        say(str(error))
    ctx.exit(exits.FAILED if failed else exits.OK)


def _named(filename: str) -> tuple[str, str]:
    name, version = filename.split("-")[:2]
    return name, version


@env.command(epilog=exits.EPILOG, short_help="Remove environments that nobody uses.")
@click.argument("names", metavar="[HASH]...", nargs=-1)
@click.option("--unused", "days", type=click.FloatRange(0), metavar="DAYS", help=f"Only those; default: {DAYS:g}.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@hosts_options
@json_option
@click.pass_context
def prune(
    ctx: click.Context,
    names: tuple[str, ...],
    days: float | None,
    yes: bool,
    hosts_from: str | None,
    group: str | None,
    as_json: bool,
) -> None:
    """Remove environments that were not used for some days, or those that are named; and wheels that none of them has.

    An environment in which a kernel ran within the last two hours stays. One that is needed later is sent again.

    \b
    Examples:
      grid env prune --unused 7
      grid env prune 56c223bde2f23b77 --yes

    The status is 1 if a host could not be checked.
    """
    unused_s = 86400 * (days if days is not None else 0 if names else DAYS)
    found, failed = _look(hosts_from, group)
    chosen = [one for one in found if not names or any(one["name"].startswith(name) for name in names)]
    chosen = [one for one in chosen if one["age_s"] >= unused_s]
    for one in chosen:
        say(f"{', '.join(one['hosts'])}: {one['name']} ({one['bytes'] / 1e6:.0f} MB, used {span(one['age_s'])} ago)")
    reports = []
    if not chosen:
        say("nothing to remove")
    elif yes or ask("Remove them?"):
        reports = _remove(chosen, unused_s)
    for report in reports:
        for name in report.get("kept", ()):
            say(f"{report['host']}: {name} is in use")
        if not as_json:
            echo(f"{report['host']}: removed {len(report['removed'])}, {report['bytes'] / 1e6:.0f} MB")
    if as_json:
        print_json(reports)
    for error in failed:
        say(str(error))
    ctx.exit(exits.FAILED if failed else exits.OK)


def _remove(chosen: list[dict[str, Any]], unused_s: float) -> list[dict[str, Any]]:
    from grid.care.packages import prune

    by_machine: dict[str, tuple[Host | None, list[str]]] = {}
    for one in chosen:
        by_machine.setdefault(one["hosts"][0], (one["entry"], []))[1].append(one["name"])
    machines = list(by_machine.items())
    work: Callable[[Any], dict[str, Any]] = lambda one: prune(one[1][0], one[1][1], unused_s)  # noqa: E731
    done = side_by_side("removing", machines, work, lambda one: one[0])
    reports = []
    for (name, _), outcome in zip(machines, done, strict=True):
        if isinstance(outcome, GridError):
            raise outcome
        reports.append({"host": name, **outcome})
    return reports


def _look(hosts_from: str | None, group: str | None) -> tuple[list[dict[str, Any]], list[GridError]]:
    """Each environment once for each home directory; and the errors of hosts that could not be checked."""
    from grid.care.packages import look

    hosts: dict[str, Host | None] = {HERE: None}
    for host in find_hosts(hosts_from, group) or []:
        if host.ssh != "local":
            hosts.setdefault(host.label, host)
    quiet = any(host is not None and host.ssh == "openssh" for host in hosts.values())
    looks = side_by_side("looking", list(hosts.items()), lambda one: look(one[1]), lambda one: one[0], quiet=quiet)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    failed = []
    for (name, entry), seen in zip(hosts.items(), looks, strict=True):
        if isinstance(seen, GridError):
            failed.append(seen)
            continue
        for one in seen["environments"]:
            known = found.setdefault((seen["place"], one["name"]), {**one, "hosts": [], "entry": entry})
            known["hosts"].append(name)
    return list(found.values()), failed
