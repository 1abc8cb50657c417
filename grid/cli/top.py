"""`grid top`: a full screen of what running grids do, redrawn until Ctrl-C.

Lives here: what is on the screen. Elsewhere: looking, rates (`running.py`), what a grid answers (`grids/watch.py`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from grid.cli import exits
from grid.cli.costs import size
from grid.cli.running import Rates, look, watch_grids
from grid.cli.show import say, span

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

_BUSY = "acquired"


@click.command(epilog=exits.EPILOG, short_help="Watch running grids on the whole screen.")
@click.argument("name", required=False)
@click.option("--interval", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Seconds between looks.")
@click.pass_context
def top(ctx: click.Context, name: str | None, interval: float) -> None:
    """Show what the grids of yours on this machine do, on the whole screen, until they end or Ctrl-C.

    Hosts, services with their calls per second, and servers, the busy ones first, as many as there is room for. NAME
    is a grid's name, id or process id; without it all are shown. Where there is no terminal: `grid status --watch`.

    \b
    Examples:
      grid top
      grid top fit.py-4711 --interval 0.5

    The status is 1 if there is no grid of that name.
    """
    if not sys.stdout.isatty():
        raise click.UsageError("grid top needs a terminal; elsewhere: grid status --watch")
    first = look(name)
    if first:
        from rich.live import Live

        rates = Rates()
        with Live(auto_refresh=False, screen=True) as live:
            chosen = first[0]["id"] if name is not None else None

            def show(found: list[dict[str, Any]]) -> None:
                live.update(screen(found, rates.of(found), live.console.height), refresh=True)

            watch_grids(first, chosen, interval, show)
    say("no grid runs any more" if first else "no grid of yours runs on this machine")


def screen(found: Sequence[Mapping[str, Any]], rates: Mapping[str, Mapping[str, float]], height: int) -> Group:
    """The whole screen, in `height` lines: all grids, and as many of their servers as there is room for."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(time.strftime("%H:%M:%S") + f"  {len(found)} grids of yours run here", "bold")]
    left = height - 2
    for one in found:
        answer = one["status"]
        head = f"{one['name']}  process {one['pid']}, up {span(time.time() - one['began'])}"
        parts += [Text(), Text(head, "bold cyan")]
        if answer is None:
            parts.append(Text(one["error"] or "no answer", "red"))
            left -= 3
            continue
        homes = answer.get("homes", [])
        bad = [f"{home['host']} {home['state']}" for home in homes if home["state"] != "up"]
        parts.append(Text(f"{len(homes) - len(bad)} of {len(homes)} hosts up" + (f": {', '.join(bad)}" if bad else "")))
        parts.append(_services(answer["services"], rates.get(one["id"], {})))
        parts += [Text(f"{where}: {why}", "red", no_wrap=True) for where, why in list(answer["failures"].items())[:3]]
        left -= 6 + len(answer["services"]) + min(3, len(answer["failures"]))
    for one in found:
        if one["status"] is not None and left > 3:
            rows = sum(len(service["servers"]) for service in one["status"]["services"].values())
            shown = max(0, min(rows, left - 3))
            parts += [Text(), _servers(one["status"]["services"], shown)]
            if shown < rows:
                parts.append(Text(f"and {rows - shown} servers more", "dim"))
            left -= shown + 4
    return Group(*parts)


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    return table


def _services(services: Mapping[str, Any], rates: Mapping[str, float]) -> Table:
    from rich.text import Text

    table = _table("service", "servers", "busy", "free", "acquired", "waiting", "calls", "calls/s")
    for service_id, service in services.items():
        count, acquired = len(service["servers"]), service[_BUSY]
        filled = round(10 * acquired / count) if count else 0
        rate = rates.get(service_id)
        table.add_row(
            Text(service_id),
            str(count),
            Text("█" * filled, "green") + Text("░" * (10 - filled), "dim"),
            *(str(service["free"]), str(acquired)),
            Text(str(service["waiting"]), "yellow" if service["waiting"] else ""),
            str(sum(server["calls"] for server in service["servers"])),
            "" if rate is None else f"{rate:.0f}",
        )
    return table


def _servers(services: Mapping[str, Any], most: int) -> Table:
    from rich.text import Text

    servers = [server for service in services.values() for server in service["servers"]]
    slots = any(server.get("slot") for server in servers)  # none where nothing needs one
    more = ["slot", "CPU", "peak memory"] if slots else []
    table = _table("server", "host", "state", "calls", "mean", *more, "doing")
    for server in sorted(servers, key=lambda server: server["state"] != _BUSY)[:most]:
        style = "green" if server["state"] == _BUSY else "dim"
        table.add_row(
            Text(server["name"]),
            Text(server["host"]),
            Text(server["state"], style),
            str(server["calls"]),
            f"{server['mean_s'] * 1e3:.3g} ms",
            *(_load(server) if slots else ()),
            Text(server["doing"]),
        )
    return table


def _load(server: Mapping[str, Any]) -> tuple[Text, str, str]:
    """Its slot, the CPU seconds of its calls, and the most memory that one of them had."""
    from rich.text import Text

    costs = server.get("costs") or {"cpu_s": 0.0, "peak_memory": None}
    return Text(server.get("slot", "")), span(costs["cpu_s"]), size(costs["peak_memory"])
