"""`grid rerun`: a run again as its capsule says, and whether it comes out the same."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import click

from grid.cli import exits
from grid.cli.choose import json_option
from grid.cli.show import print_json, say


@click.command(epilog=exits.EPILOG, short_help="Run again what a capsule describes, and compare.")
@click.argument("capsule", type=click.Path(exists=True, dir_okay=False))
@click.option("--anyway", is_flag=True, help="Run although sources or versions have changed.")
@click.option("--check", is_flag=True, help="Only say what has changed; run nothing.")
@json_option
@click.pass_context
def rerun(ctx: click.Context, capsule: str, anyway: bool, check: bool, as_json: bool) -> None:
    """Run again what `grid run --capsule` has written down, and say whether the same comes out.

    First the files, the Python and the packages of the run are compared with those of now; where they differ, nothing
    is run unless --anyway says so. Then the script runs with the same arguments, directory, hosts and seeds. Its output
    goes to standard output (with --json: to standard error), and is compared with that of the capsule, line by line.

    \b
    Examples:
      grid rerun fit.capsule.json
      grid rerun --check fit.capsule.json

    The status is 0 if the same came out, 1 if not, or if something has changed.
    """
    from grid.capsule.compare import changes, outcome
    from grid.capsule.record import VARIABLES, facts, load

    then = load(capsule)
    changed = changes(then, facts(then["sources"], then["packages"]))
    differs: list[str] = []
    runs = not check and (anyway or not changed)
    for line in changed:
        say(line)
    if runs:
        environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        environment.update(then["environment"])
        command = then["command"]
        with tempfile.TemporaryDirectory(prefix="grid-rerun-") as place:
            fresh = os.path.join(place, "capsule.json")
            words = [sys.executable, "-m", "grid.capsule", fresh, command["script"], *command["args"]]
            try:
                stdout = sys.stderr if as_json else None
                subprocess.run(words, cwd=command["directory"], env=environment, stdout=stdout, check=False)
            except OSError as exc:
                say(f"grid: it can't run in {command['directory']!r} ({exc.strerror})")
                ctx.exit(exits.FAILED)
            differs = outcome(then, load(fresh)) if os.path.exists(fresh) else ["it ended before it had begun"]
    elif changed and not check:
        say("nothing was run; --anyway runs it all the same")
    if as_json:
        print_json({"changed": changed, "ran": runs, "differs": differs, "same": runs and not differs})
    elif runs:
        for line in differs:
            say(line)
        say("the same came out" if not differs else "something else came out")
    ctx.exit(exits.FAILED if differs or (changed and not runs) else exits.OK)
