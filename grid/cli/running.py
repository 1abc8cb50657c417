"""`grid status`, `grid stop`: grids of this user that run on this machine.

Lives here: tables, rates.
Elsewhere:  the register of grids and what they answer (`grids/watch.py`), `grid logs` (`logs.py`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from grid.cli import costs, exits
from grid.cli.choose import is_called, json_option, running
from grid.cli.show import echo, print_json, print_table, rich_table, say, span

LOOK_S = 0.1
"""Between looks at things that announce themselves to nobody: files that grow, processes that end."""

_ASK_S = 5.0
"""A command of the batch system may take so long."""


# ---- status ------------------------------------------------------------------------------------------------


@click.command(epilog=exits.EPILOG, short_help="Show running grids: hosts, services, servers, calls.")
@click.argument("name", required=False)
@click.option("--watch", is_flag=True, help="Keep showing it until the grids end, or Ctrl-C.")
@click.option("--interval", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Seconds between looks.")
@click.option("--stats", is_flag=True, help="Durations of calls by server and of tasks by name, in a table of its own.")
@click.option("--costs", "spent", is_flag=True, help="What the calls of each service cost: CPU time, memory, bytes.")
@click.option("--metrics", is_flag=True, help="The same for Prometheus, as OpenMetrics; grids in your jobs left out.")
@json_option
@click.pass_context
def status(
    ctx: click.Context,
    name: str | None,
    watch: bool,
    interval: float,
    stats: bool,
    spent: bool,
    metrics: bool,
    as_json: bool,
) -> None:
    """Show the grids of yours that run on this machine: hosts, services, servers free, acquired and lost, calls.

    On the log-in host of a cluster it names the grids that run in your jobs as well, with job and node; how they do is
    told by `grid status` on that node.

    NAME is a grid's name, id or process id; without it all are shown. With --watch calls are counted per second; with
    --json as well, each look is one line.

    \b
    Examples:
      grid status
      grid status --watch
      grid status --stats
      grid status --costs
      grid status --metrics > /var/lib/node_exporter/grid.prom
      grid status fit.py-4711 --json | jq '.[0].status.services'

    The status is 1 if there is no grid of that name, or one of them does not answer.
    """
    if metrics:
        from grid import openmetrics
        from grid.grids.metrics import of_grids

        if watch or as_json or stats or spent:
            raise click.UsageError("--metrics goes alone: not with --watch, --json, --stats or --costs")
        found = look(name)
        click.echo(openmetrics.text(of_grids(found)), nl=False)
        ctx.exit(exits.FAILED if any(one["error"] for one in found) else exits.OK)
    rates = Rates()
    jobs = [] if watch else _in_jobs(name)
    first = [] if name is not None and jobs else look(name)
    if not watch:
        if as_json:
            print_json([*first, *jobs])
        elif first or jobs:
            if first:
                print_table(_COLUMNS, _rows(first, None))
            for one in jobs:
                up = span(time.time() - one["began"])
                echo(f"{one['name']}: in job {one['job']} on {one['node']}, process {one['pid']}, up {up}")
            for one in first:
                _tell_of_jobs(one)
                _complain(one)
            if stats:
                print_table(["grid", "what", "n", "mean", "least", "most"], _durations(first))
            if spent:
                print_table(costs.COLUMNS, costs.rows(first))
        else:
            say("no grid of yours runs on this machine")
        ctx.exit(exits.FAILED if any(one["error"] for one in first) else exits.OK)
    name = first[0]["id"] if name is not None else None  # its name may be taken again
    if as_json or not sys.stdout.isatty():
        watch_grids(first, name, interval, lambda found: _print_look(found, rates, as_json))
    else:
        from rich.live import Live

        with Live(auto_refresh=False) as live:
            watch_grids(first, name, interval, lambda found: live.update(_live_table(found, rates), refresh=True))
    say("no grid runs any more" if first else "no grid of yours runs on this machine")


def _durations(found: list[dict[str, Any]]) -> list[list[Any]]:
    """A row for each server that has answered calls, and for each name of a task."""
    rows: list[list[Any]] = []
    for one in found:
        told = one["status"] or {"services": {}}
        for service in told["services"].values():
            for server in service["servers"]:
                if server["calls"]:
                    rows.append([one["name"], server["name"], server["calls"], _took(server["mean_s"]), "", ""])
        for master in told.get("masters", ()):
            for task, t in sorted(master["tasks"].items()):
                rows.append([one["name"], f"task {task}", t["n"], *(_took(t[key]) for key in ("avg", "min", "max"))])
    return rows


def _took(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def look(name: str | None) -> list[dict[str, Any]]:
    """Each running grid with what it answers: `status`, or None and `error`."""
    from grid.grids.register import ask, running_grids

    records = [running(name)] if name is not None else [one for one in running_grids() if one["alive"]]
    found = []
    for record in records:
        one = {key: record[key] for key in ("id", "name", "pid", "began")}
        try:
            found.append({**one, "status": ask(record, "status"), "error": ""})
        except TimeoutError as exc:
            found.append({**one, "status": None, "error": str(exc)})
    return found


def _in_jobs(name: str | None) -> list[dict[str, Any]]:
    """The grids that run in jobs of this account, without those of this machine; each says in which job, where."""
    from grid.batch import BatchSystem
    from grid.batch.inside import grids_in_jobs
    from grid.errors import GridError
    from grid.grids.register import running_grids
    from grid.hosts import Host
    from grid.launch import connect

    def ask(ids: Sequence[str]) -> Any:
        return BatchSystem(connect(Host("localhost", ssh="local")), command_s=_ASK_S).status(ids)

    here = [record for record in running_grids() if record["alive"]]
    if name is not None and any(is_called(record, name) for record in here):
        return []
    try:
        found = grids_in_jobs(ask)
    except (GridError, OSError) as exc:
        say(f"grids in jobs are not shown: {exc}")
        return []
    known = {record["id"] for record in here}
    wanted = [one for one in found if one["id"] not in known and (name is None or is_called(one, name))]
    return [{**one, "status": None, "error": ""} for one in wanted]


def watch_grids(
    found: list[dict[str, Any]], grid_id: str | None, interval: float, show: Callable[[list[dict[str, Any]]], None]
) -> None:
    """Show what is found, again and again, until that grid (or, without an id, all) has ended."""
    from grid.grids.register import running_grids

    while found:
        show(found)
        time.sleep(interval)
        alive = {record["id"] for record in running_grids() if record["alive"]}
        if grid_id is not None and grid_id not in alive:
            return
        found = look(grid_id)


def _print_look(found: list[dict[str, Any]], rates: Rates, as_json: bool) -> None:
    measured = rates.of(found)
    if as_json:
        now = time.time()
        looks = [{**one, "time": now, "calls_per_s": measured.get(one["id"])} for one in found]
        print_json(looks, indent=None)
    else:
        print_table(_COLUMNS, _rows(found, measured))
        echo("")
    sys.stdout.flush()


def _live_table(found: list[dict[str, Any]], rates: Rates) -> Any:
    return rich_table(_COLUMNS, _rows(found, rates.of(found)))


_COLUMNS = (
    *("grid", "process", "up", "hosts", "service", "servers", "free", "acquired", "lost", "waiting", "calls"),
    "calls/s",
)


def _rows(found: Sequence[dict[str, Any]], rates: dict[str, dict[str, float]] | None) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for one in found:
        answer = one["status"]
        head = (one["name"], one["pid"], span(time.time() - one["began"]))
        if answer is None:
            rows.append((*head, "no answer", *[""] * 8))
            continue
        homes = answer.get("homes", [])
        up = sum(home["state"] == "up" for home in homes)
        hosts = str(up) if up == len(homes) else f"{up} of {len(homes)}"
        for service_id, service in answer["services"].items():
            rate = "" if rates is None else rates.get(one["id"], {}).get(service_id)
            rows.append(
                (
                    *head,
                    hosts,
                    service_id,
                    len(service["servers"]),
                    service["free"],
                    service["acquired"],
                    _lost(answer, service_id),
                    service["waiting"],
                    sum(server["calls"] for server in service["servers"]),
                    "" if rate is None or rate == "" else f"{rate:.0f}",
                )
            )
            head, hosts = ("", "", ""), ""  # once per grid
        if not answer["services"]:
            rows.append((*head, hosts, "none yet", *[""] * 7))
    return rows


def _lost(answer: dict[str, Any], service_id: str) -> int:
    return sum(name.startswith(f"{service_id}/") for name in answer["failures"])


def _tell_of_jobs(one: dict[str, Any]) -> None:
    """The batch jobs that a grid holds, how far each of their nodes has come, and the oldest unit of its job server."""
    for pilot in (one["status"] or {}).get("pilots", []):
        nodes = ", ".join(f"{node['node']} {node['state']}" for node in pilot["nodes"])
        left = "" if pilot["left_s"] is None else f", {span(pilot['left_s'])} left"
        why = f" ({pilot['reason']})" if pilot["reason"] else ""
        echo(f"{one['name']}: job {pilot['job']} {pilot['state']}{why}{left}: {nodes}")
    for unit in (one["status"] or {}).get("oldest_unit", []):
        if unit is not None:
            where = f"{unit['host']} ({unit['worker']})"
            echo(f"{one['name']}: oldest unit: {unit['unit']} of {unit['job']}, for {span(unit['age'])} on {where}")


def _complain(one: dict[str, Any]) -> None:
    if one["error"]:
        say(one["error"])
    for error in (one["status"] or {}).get("failures", {}).values():
        say(f"{one['name']}: {error}")


class Rates:
    """Calls per second of each service, between one look and the next."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, str], tuple[float, dict[str, int]]] = {}

    def of(self, found: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
        """Grid -> service -> rate; a service that is seen for the first time has none."""
        now = time.monotonic()
        rates: dict[str, dict[str, float]] = {}
        for one in found:
            for service_id, service in ((one["status"] or {}).get("services", {})).items():
                calls = {server["name"]: server["calls"] for server in service["servers"]}
                key = (one["id"], service_id)
                if key in self._before:
                    then, counted = self._before[key]
                    # Server by server: the calls of one that was lost do not count backwards.
                    made = sum(count - counted.get(name, 0) for name, count in calls.items())
                    rates.setdefault(one["id"], {})[service_id] = made / max(1e-6, now - then)
                self._before[key] = (now, calls)
        return rates


# ---- stop --------------------------------------------------------------------------------------------------


@click.command(epilog=exits.EPILOG, short_help="Ask running grids to stop, and wait for it.")
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="All grids of yours on this machine.")
@click.option(
    "--timeout", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds to wait for their end."
)
@json_option
@click.pass_context
def stop(ctx: click.Context, name: str | None, every: bool, timeout: float, as_json: bool) -> None:
    """Ask running grids to stop, as Ctrl-C in their terminal would, and wait until they have.

    NAME is a grid's name, id or process id; it may be left out where only one runs. The script's `with` and `finally`
    blocks run, servers end, hosts are left clean.

    \b
    Examples:
      grid stop
      grid stop fit.py-4711 --timeout 120
      grid stop --all

    The status is 1 if there is no such grid, or one has not stopped in time; it goes on stopping.
    """
    from grid.grids.register import ask, running_grids

    if every and name is not None:
        raise click.UsageError("name a grid or say --all, not both")
    records = [one for one in running_grids() if one["alive"]] if every else [running(name)]
    if not records:
        say("no grid of yours runs on this machine")
    deadline = time.monotonic() + timeout
    mute = []
    for record in records:
        try:
            ask(record, "stop", min(5.0, max(0.1, timeout)))
        except TimeoutError as exc:
            mute.append(record["id"])
            say(str(exc))
    outcomes = []
    for record in records:
        if record["id"] not in mute:
            _await_end(record, deadline)
        outcomes.append(how_it_stands(record))
    if as_json:
        print_json(outcomes)
    else:
        for one in outcomes:
            if one["stopped"] and one["process_gone"]:
                echo(f"{one['name']}: stopped")
            elif one["stopped"]:
                echo(f"{one['name']}: stopped; its process {one['pid']} goes on")
            else:
                say(f"{one['name']}: has not stopped after {timeout:g} s; `kill {one['pid']}` ends its process")
    ctx.exit(exits.OK if all(one["stopped"] for one in outcomes) else exits.FAILED)


def _await_end(record: dict[str, Any], deadline: float) -> None:
    """Until its process has ended; for a process that only closed its grid, 2 s more at most."""
    while time.monotonic() < deadline:
        one = how_it_stands(record)
        if one["process_gone"]:
            return
        if one["stopped"]:
            deadline = min(deadline, time.monotonic() + 2.0)
            while time.monotonic() < deadline and not how_it_stands(record)["process_gone"]:
                time.sleep(LOOK_S)
            return
        time.sleep(LOOK_S)


def how_it_stands(record: dict[str, Any]) -> dict[str, Any]:
    """Whether a grid has stopped, and whether its process has ended."""
    from grid.kernel.lease import start_ticks

    gone = start_ticks(record["pid"]) != record["started"]
    stopped = gone or not Path(record["socket"]).with_suffix(".json").exists()
    return {
        "id": record["id"],
        "name": record["name"],
        "pid": record["pid"],
        "stopped": stopped,
        "process_gone": gone,
    }
