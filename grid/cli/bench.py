"""`grid bench`: how fast a grid is on the hosts that are named."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import click

from grid.cli import exits
from grid.cli.choose import find_hosts, hosts_options, hosts_or_complain, json_option
from grid.cli.show import print_json, print_table, say


@click.command(epilog=exits.EPILOG, short_help="Measure latency, call rate and bandwidth to each host.")
@click.argument("names", nargs=-1)
@hosts_options
@click.option("--local", type=click.IntRange(1), metavar="N", help="This machine alone, with N servers.")
@click.option("--size", type=click.FloatRange(1, 4000), default=64, show_default=True, help="MB of the bulk data.")
@click.option("--calls", type=click.IntRange(10), default=1000, show_default=True, help="Calls one after the other.")
@json_option
@click.pass_context
def bench(
    ctx: click.Context,
    names: tuple[str, ...],
    hosts_from: str | None,
    group: str | None,
    local: int | None,
    size: float,
    calls: int,
    as_json: bool,
) -> None:
    """Start a grid on the hosts (all of the hosts file, or NAMES), measure each, end it.

    `call` is one small call from sending to its value (median and 99th percentile), `in flight` how many such calls a
    host answers per second when they need not wait for each other, `map` how many tiny ones packed together, `in` and
    `out` how fast large arrays go there and come back. The hosts are measured one after the other.

    \b
    Examples:
      grid bench --local 2
      grid bench --hosts hosts.yaml --group gpu
      grid bench node1 node2 --size 256 --json

    The status is 1 if a host could not be measured, 3 if none could.
    """
    from grid.errors import PublishError
    from grid.grids.bench import Figures, measure
    from grid.grids.grid import Grid
    from grid.grids.local import LocalGrid

    if local is not None and (names or hosts_from or group):
        raise click.UsageError("--local is this machine alone: leave out hosts")
    began = time.perf_counter()
    if local is not None or (not names and find_hosts(hosts_from, group) is None):
        g: Any = LocalGrid(local or 2, output=None)
    else:
        g = Grid(hosts_or_complain(hosts_from, group, names), output=None, wait="all")
    found: list[Figures] = []
    failed: dict[str, str] = {}
    with g:
        try:
            g.publish([])  # brings the hosts up
        except PublishError as exc:
            say(f"grid: {exc}")
            ctx.exit(exits.NOTHING_USABLE)
        started = time.perf_counter() - began
        for figures in measure(g, size=int(size * 1e6), calls=calls):
            if isinstance(figures, Figures):
                found.append(figures)
            else:
                failed[figures[0]] = str(figures[1])
        failed.update({label: str(error) for label, error in g.failures.items()})
    if as_json:
        print_json({"start_s": started, "hosts": [dataclasses.asdict(each) for each in found], "failed": failed})
    else:
        rates = ("in flight [1/s]", "map [1/s]", "in [MB/s]", "out [MB/s]")
        columns = ("host", "servers", "route", "call [us]", "p99 [us]", *rates)
        print_table(
            columns,
            [
                (
                    each.host,
                    str(each.servers),
                    each.transport,
                    f"{1e6 * each.latency_s:.0f}",
                    f"{1e6 * each.latency_p99_s:.0f}",
                    f"{each.calls:,.0f}",
                    f"{each.mapped:,.0f}",
                    f"{each.bytes_in / 1e6:.0f}",
                    f"{each.bytes_out / 1e6:.0f}",
                )
                for each in found
            ],
        )
        say(f"from nothing to servers on {len(found)} host(s): {started:.2f} s")
    for label, error in failed.items():
        say(f"{label}: {error}")
    ctx.exit(exits.NOTHING_USABLE if not found else exits.FAILED if failed else exits.OK)
