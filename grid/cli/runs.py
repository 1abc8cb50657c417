"""`grid follow`, `grid runs`: scripts that run on without their shell.

Lives here: the commands.
Elsewhere:  starting one (`run.py`), ending one (`sessions.py`), runs themselves (`grid/runs/`).
"""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from grid.cli import exits
from grid.cli.choose import json_option
from grid.cli.show import print_json, print_table, say, span

_LOOK_S = 0.1
_COLUMNS = ("run", "state", "script", "since", "output")


@click.command(epilog=exits.EPILOG, short_help="Show what a detached run prints, and how it ends.")
@click.option("--now", is_flag=True, help="Begin with the last lines, not at the beginning.")
@click.argument("name")
@click.pass_context
def follow(ctx: click.Context, now: bool, name: str) -> None:
    """Show what the run NAME has printed and prints, until it ends; then exit with the script's status.

    Ctrl-C ends the looking alone: the script runs on.

    \b
    Examples:
      grid run --detach --name fit fit.py
      grid follow fit
      grid follow --now fit

    A name that nobody has is an error with status 1.
    """
    from grid.runs.detached import DetachedRun, output_of

    run = DetachedRun.called(name)
    out = sys.stdout.buffer
    try:
        for piece in output_of(run, now=now):
            if piece:
                out.write(piece)
                out.flush()
            else:
                time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        say(f"{name} runs on: grid follow {name}" if run.is_running() else f"{name} has ended")
        ctx.exit(exits.INTERRUPTED)
    end = run.end() or {}
    say(f"{name}: {_how(end)}")
    ctx.exit(exits.FAILED if end.get("status") is None else end["status"])


@click.command(epilog=exits.EPILOG, short_help="List detached runs of yours.")
@json_option
def runs(as_json: bool) -> None:
    """List the runs of `grid run --detach` on this machine. One that has ended stays until `grid end` removes it.

    \b
    Examples:
      grid runs
      grid runs --json | jq '.[] | select(.running) | .name'
    """
    from grid.runs.detached import DetachedRun

    found = [_facts(run) for run in DetachedRun.all()]
    if as_json:
        print_json(found)
    elif found:
        print_table(_COLUMNS, [_row(one) for one in found])
    else:
        say("no run of yours on this machine: grid run --detach SCRIPT starts one")


def _facts(run: Any) -> dict[str, Any]:
    facts, end = run.facts(), run.end()
    return {
        "name": run.name,
        "running": end is None,
        "status": None if end is None else end["status"],
        "script": facts.get("script", "?"),
        "words": facts.get("words", []),
        "host": facts.get("host", "?"),
        "began": facts.get("began"),
        "ended": None if end is None else end["ended"],
        "output_bytes": sum(run.part(number).stat().st_size for number in run.parts()),
    }


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    state = "runs" if one["running"] else _how(one)
    since = span(time.time() - one["began"]) if one["began"] else "?"
    return (one["name"], state, one["script"], f"{since} ago", f"{one['output_bytes'] / 1e6:.1f} MB")


def _how(end: dict[str, Any]) -> str:
    status = end.get("status")
    if status is None:
        return "was killed with the one who watched it"
    if status > 128:
        return f"ended by signal {status - 128}"
    return "done" if status == 0 else f"failed (exit status {status})"
