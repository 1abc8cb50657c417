"""`grid ps` and `grid clean`: what grids hold on all machines, and what crashed ones left there.

Lives here: options and tables.
Elsewhere:  looking, choosing and clearing (`care/remains.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from grid.cli import exits
from grid.cli.choose import find_hosts, hosts_options, json_option
from grid.cli.show import ask, print_json, print_table, say, side_by_side, span
from grid.errors import GridError

if TYPE_CHECKING:
    from grid.care.remains import Choice
    from grid.hosts import Host

HERE = "(this machine)"
_COLUMNS = ("grid", "owner", "host", "agent", "servers", "age", "expires in", "kept for", "orphan")
_SHOWN = 3
"""Kinds of slots that a line of `grid ps` shows."""


@dataclass
class _Machine:
    """This machine (`host` is None) or a host, and what was found there."""

    name: str
    host: Host | None
    temp_paths: list[str]
    facts: dict[str, Any]


# ---- ps ----------------------------------------------------------------------------------------------------


@click.command(epilog=exits.EPILOG, short_help="List all that grids of yours hold, on all hosts.")
@hosts_options
@json_option
@click.pass_context
def ps(ctx: click.Context, hosts_from: str | None, group: str | None, as_json: bool) -> None:
    """List what your grids hold on this machine and on all hosts of the hosts file, from wherever you started them.

    Each line is one lease: a grid's agent on a host, with its servers. The column `orphan` says why nobody uses it any
    more: `agent dead`; `expired` (not renewed in time); or `client gone` (the client, on this machine, has ended, and
    the lease will end by itself). `grid clean` removes the first two. `kept for`: of a grid made with keep=, how long
    it waits for its client yet. `slots`, where servers have needs: the cores, devices and memory of each.

    \b
    Examples:
      grid ps
      grid ps --group cluster --json | jq '.leases[] | select(.orphan)'

    The status is 1 if a host could not be checked; the reason is printed.
    """
    machines, failed = _look(hosts_from, group)
    leases = [_lease_facts(machine, lease, machines) for machine in machines for lease in machine.facts["leases"]]
    if as_json:
        print_json({"leases": leases, "unreachable": _reasons(failed)})
    else:
        rows = [
            (
                lease["grid"],
                lease["owner"],
                lease["machine"],
                f"{lease['agent']} {'runs' if lease['agent_alive'] else 'gone'}",
                f"{lease['servers_alive']} of {len(lease['servers'])}",
                span(lease["age_s"]),
                span(lease["expires_s"]) if lease["expires_s"] > 0 else f"{span(-lease['expires_s'])} ago",
                "no" if lease["kept_s"] is None else span(lease["kept_s"]),
                lease["orphan"] or "no",
            )
            for lease in leases
        ]
        if rows:
            if any(lease["slots"] for lease in leases):  # only where somebody has said what servers need
                shown = [(*row, _slots_in_words(lease["slots"])) for row, lease in zip(rows, leases, strict=True)]
                print_table((*_COLUMNS, "slots"), shown)
            else:
                print_table(_COLUMNS, rows)
        else:
            say(f"no grid of yours on {_count(machines)}")
        _tell(failed)
    ctx.exit(exits.FAILED if failed else exits.OK)


def _slots_in_words(slots: Mapping[str, str]) -> str:
    """What its servers have for themselves: the same of several servers once."""
    counts = Counter(slots.values())
    told = [f"{count} x {slot}" if count > 1 else slot for slot, count in counts.most_common(_SHOWN)]
    return "; ".join(told) + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")


def _lease_facts(machine: _Machine, lease: Mapping[str, Any], machines: list[_Machine]) -> dict[str, Any]:
    now = machine.facts["now"]  # its own clock: ours may differ
    state = lease["state"]
    orphan = {"dead": "agent dead", "expired": "expired", "alive": ""}[state]
    client_here = lease["owner"].partition("@")[2] == machines[0].facts["host"]
    kept_until = lease.get("kept_until")
    if not orphan and not kept_until and client_here and lease["grid"] not in machines[0].facts["clients"]:
        orphan = "client gone"
    return {
        "grid": lease["grid"],
        "owner": lease["owner"],
        "machine": machine.name,
        "host": lease["host"],
        "agent": lease["agent"],
        "agent_alive": state != "dead",
        "servers": sorted(lease["servers"]),
        "servers_alive": sum(pid in lease["alive"] for pid, _ in lease["servers"].values()),
        "slots": lease.get("slots", {}),
        "processes": [{"pid": pid, "name": name} for pid, _, name in lease["processes"]],
        "age_s": round(now - lease["began"], 1),
        "expires_s": round(lease["expires"] - now, 1),
        "kept_s": None if kept_until is None else round(kept_until - now, 1),
        "orphan": orphan or None,
    }


# ---- clean -------------------------------------------------------------------------------------------------


@click.command(epilog=exits.EPILOG, short_help="Remove what crashed runs left, on all hosts.")
@hosts_options
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@json_option
@click.pass_context
def clean(
    ctx: click.Context, hosts_from: str | None, group: str | None, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Remove what your crashed runs left, on this machine and on all hosts of the hosts file.

    It removes: leases that expired or whose agent has ended, with their processes that still live, their directories,
    sockets and shared memory; directories of runs that belong to no lease and are older than 10 minutes;
    registrations of grids whose process has ended. It never touches anything in a living lease. It lists its findings,
    and asks unless --yes is given.

    \b
    Examples:
      grid clean --dry-run
      grid clean --group cluster --yes

    The status is 1 if a host could not be checked, or something could not be removed.
    """
    from grid.care.remains import choose

    machines, failed = _look(hosts_from, group)
    choices = choose({machine.name: machine.facts for machine in machines}, complete=not failed)
    todo = [(machine, choices[machine.name]) for machine in machines if not choices[machine.name].empty]
    if not as_json or not (yes or dry_run):
        _show(todo, to_stderr=as_json)
    if not todo:
        say(f"nothing left behind on {_count(machines)}")
    wanted = bool(todo) and not dry_run
    if wanted and not yes and not ask("Remove all that?"):
        say("nothing was removed")
        wanted = False
    reports = []
    troubled = bool(failed)
    for (machine, choice), outcome in zip(todo, _clear(todo) if wanted else [None] * len(todo), strict=True):
        report = _report(machine, choice, outcome)
        reports.append(report)
        troubled = troubled or bool(report["kept"])
        if wanted and not as_json:
            _tell_report(report)
    if as_json:
        print_json({"machines": reports, "unreachable": _reasons(failed), "dry_run": dry_run})
    _tell(failed)
    ctx.exit(exits.FAILED if troubled else exits.OK)


def _show(todo: list[tuple[_Machine, Choice]], *, to_stderr: bool) -> None:
    rows = []
    for machine, choice in todo:
        leases = {lease["path"]: lease for lease in machine.facts["leases"]}
        for path in choice.leases:
            lease = leases[path]
            rows.append((machine.name, f"lease of grid {lease['grid']}", choice.reasons[path]))
            rows += [(machine.name, f"process {pid} ({name})", "of that lease") for pid, _, name in lease["processes"]]
            listed = [place for place in lease.get("directories", ()) if place not in choice.spare]
            rows += [(machine.name, place, "of that lease") for place in listed]
        rows += [(machine.name, path, choice.reasons[path]) for path in choice.paths]
    if to_stderr:
        for row in rows:
            say("  ".join(row))
    elif rows:
        print_table(("host", "what", "why"), rows)


def _clear(todo: list[tuple[_Machine, Choice]]) -> list[Any]:
    from grid.care.remains import clear

    return side_by_side("clearing", todo, lambda one: clear(one[0].host, one[1]), lambda one: one[0].name)


def _report(machine: _Machine, choice: Choice, outcome: dict[str, Any] | GridError | None) -> dict[str, Any]:
    report: dict[str, Any] = {
        "machine": machine.name,
        "leases": choice.leases,
        "paths": choice.paths,
        "killed": [],
        "removed": [],
        "kept": [],
    }
    if isinstance(outcome, GridError):
        report["kept"] = [{"path": path, "why": str(outcome)} for path in (*choice.leases, *choice.paths)]
    elif outcome is not None:
        report["killed"] = [{"pid": pid, "name": name} for pid, name in outcome["killed"]]
        report["removed"] = outcome["removed"]
        report["kept"] = [{"path": path, "why": why} for path, why in outcome["kept"]]
    return report


def _tell_report(report: dict[str, Any]) -> None:
    processes = f"{len(report['killed'])} process{'' if len(report['killed']) == 1 else 'es'}"
    say(f"{report['machine']}: ended {processes}, removed {len(report['removed'])} files and directories")
    for one in report["kept"]:
        say(f"{report['machine']}: kept {one['path']}: {one['why']}")


# ---- both --------------------------------------------------------------------------------------------------


def _look(hosts_from: str | None, group: str | None) -> tuple[list[_Machine], list[tuple[str, GridError]]]:
    """This machine first, then each host once; and the hosts that could not be checked."""
    from grid.care.remains import look

    hosts = find_hosts(hosts_from, group) or []
    wanted: dict[str, tuple[Host | None, list[str]]] = {HERE: (None, [])}
    for host in hosts:
        _, temp_paths = wanted.setdefault(HERE if host.ssh == "local" else host.label, (host, []))
        if host.temp_path and host.temp_path not in temp_paths:
            temp_paths.append(host.temp_path)
    looks = side_by_side(
        "looking",
        list(wanted.items()),
        lambda one: look(one[1][0], one[1][1]),
        lambda one: one[0],
        quiet=any(host.ssh == "openssh" for host in hosts),
    )
    machines: list[_Machine] = []
    failed: list[tuple[str, GridError]] = []
    seen = set()
    for (name, (entry, temp_paths)), facts in zip(wanted.items(), looks, strict=True):
        if isinstance(facts, GridError):
            failed.append((name, facts))
        elif facts["machine"] not in seen:  # one machine may have two names
            seen.add(facts["machine"])
            machines.append(_Machine(name, entry, temp_paths, facts))
    if not machines or machines[0].name != HERE:
        raise failed[0][1]  # this machine itself: its message says what to do
    return machines, failed


def _reasons(failed: list[tuple[str, GridError]]) -> list[dict[str, str]]:
    return [{"machine": name, "reason": str(error)} for name, error in failed]


def _tell(failed: list[tuple[str, GridError]]) -> None:
    for _, error in failed:
        say(str(error))


def _count(machines: list[_Machine]) -> str:
    others = len(machines) - 1
    return "this machine" + (f" and {others} host{'' if others == 1 else 's'}" if others else "")
