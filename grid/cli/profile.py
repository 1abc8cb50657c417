"""`grid profile`: where the servers of a service spend their time.

Lives here: choosing, waiting, writing the file. Elsewhere: asking servers (`grids/profiles.py`), the file's contents
(`services/profile.py`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from grid.cli import exits
from grid.cli.choose import json_option, running
from grid.cli.show import echo, print_json, say

_LOOK_S = 0.1
_LATE_S = 20.0
"""After the time of the profile the grid has so long to tell."""


@click.command(epilog=exits.EPILOG, short_help="Sample the servers of a service: a flame graph of where time goes.")
@click.argument("service")
@click.argument("name", required=False)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 3600, min_open=True),
    default=10.0,
    show_default=True,
    help="How long to look.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="profile.html",
    show_default=True,
    help="File to write: a flame graph (.html), or JSON for speedscope (any other name).",
)
@json_option
def profile(service: str, name: str | None, seconds: float, output: Path, as_json: bool) -> None:
    """Look at the stacks of all servers of SERVICE a hundred times a second, and write down where their time goes.

    SERVICE is the id of a service (`grid status` lists them) of the running grid NAME, which may be left out where only
    one runs. It needs nothing on the hosts; calls go on meanwhile, and the last line says by how much they were slowed
    down.

    \b
    Examples:
      grid profile Energy.0
      grid profile Energy.0 fit.py --seconds 30 -o energy.json
      grid profile Energy.0 --json | jq '.servers[] | {server, busy_s}'

    The status is 1 if there is no such grid or service, or a server gave no profile: it ended meanwhile, is stopped, or
    kept the interpreter in C code. What the others gave is written nevertheless.
    """
    from grid.grids.register import ask
    from grid.kernel.sampler import lasts
    from grid.services.profile import Profile

    if not output.absolute().parent.is_dir():
        _fail(f"there is no directory {str(output.absolute().parent)!r} to write {output.name!r} to")
    record = running(name)
    deadline = time.monotonic() + lasts(seconds) + _LATE_S
    try:
        answer = ask(record, "profile", service=service, seconds=seconds)
        number = answer.get("profile")
        while number is not None:
            if time.monotonic() > deadline:
                _fail(f"grid {record['name']!r} gave no profile within {seconds + _LATE_S:g} s")
            time.sleep(_LOOK_S)
            if answer := ask(record, "profiled", number=number):
                break
    except TimeoutError as exc:
        _fail(f"{exc}. `grid status` tells whether it answers at all")
    if "profile" not in answer:
        _fail(answer.get("error", f"grid {record['name']!r} can't tell: its version is older"))
    found = Profile.from_plain(answer["profile"])
    missing = [one for one in found.servers if one.why]
    for one in missing:
        say(f"grid: no profile of {one.server} on {one.host}: {one.why}")
    if len(missing) < len(found.servers):
        try:
            found.write(output)
        except OSError as exc:
            _fail(f"can't write {str(output)!r}: {exc.strerror}")
        if as_json:
            print_json({"file": str(output), "slowed": found.slowed, "servers": [_facts(one) for one in found.servers]})
        else:
            echo(f"{output}: {found.summary()}")
    elif not found.servers:
        say(f"grid: service {service!r} has no servers")
    if missing or not found.servers:
        click.get_current_context().exit(exits.FAILED)


def _facts(one: Any) -> dict[str, Any]:
    return {
        **{key: getattr(one, key) for key in ("server", "host", "pid", "seconds", "slowed", "why")},
        "busy_s": one.busy_s,
    }


def _fail(text: str) -> None:
    say(f"grid: {text}")
    click.get_current_context().exit(exits.FAILED)
