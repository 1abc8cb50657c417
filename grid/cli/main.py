"""`grid`: the group of all commands, what an error looks like, and `grid version`.

Lives here: names of commands and where they are, errors into messages and exit codes.
Elsewhere:  the commands (one module per subject), the codes (`exits.py`).

Nothing here or at the top of a command's module imports more than click: `grid --help` must be there at once.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Sequence
from typing import Any

import click

from grid._version import __version__
from grid.cli import exits
from grid.cli.choose import json_option
from grid.cli.show import print_json, print_table, say
from grid.errors import GridError, InventoryError

_COMMANDS = {
    "run": "grid.cli.run:run",
    "exec": "grid.cli.exec:exec_command",
    "bumps": "grid.cli.bumps:bumps",
    "rerun": "grid.cli.rerun:rerun",
    "debug": "grid.cli.debug:debug",
    "qsub": "grid.cli.batch:qsub",
    "sbatch": "grid.cli.batch:sbatch",
    "batch": "grid.cli.batch:batch",
    "serve": "grid.cli.serve:serve",
    "token": "grid.cli.web:token",
    "login": "grid.cli.web:login",
    "logout": "grid.cli.web:logout",
    "jobs": "grid.cli.jobs:jobs",
    "graph": "grid.cli.jobs:graph",
    "credits": "grid.cli.jobs:credits",
    "mails": "grid.cli.mails:mails",
    "hosts": "grid.cli.hosts:hosts",
    "env": "grid.cli.env:env",
    "doctor": "grid.cli.hosts:doctor",
    "status": "grid.cli.running:status",
    "top": "grid.cli.top:top",
    "logs": "grid.cli.logs:logs",
    "dump": "grid.cli.dump:dump",
    "profile": "grid.cli.profile:profile",
    "stop": "grid.cli.running:stop",
    "runs": "grid.cli.runs:runs",
    "follow": "grid.cli.runs:follow",
    "sessions": "grid.cli.sessions:sessions",
    "attach": "grid.cli.sessions:attach",
    "end": "grid.cli.sessions:end",
    "ps": "grid.cli.remains:ps",
    "clean": "grid.cli.remains:clean",
    "bench": "grid.cli.bench:bench",
    "version": "grid.cli.main:version",
}
"""In the order of the help."""


class NearMisses(click.Group):
    """A group that guesses the right name of a mistyped command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            close = difflib.get_close_matches(args[0], known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}."
            raise click.UsageError(f"no command {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)


class Commands(NearMisses):
    """Commands that are imported when they are asked for, and errors as a user sees them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InventoryError as exc:
            say(f"grid: {exc}")
            ctx.exit(exits.USAGE)
        except GridError as exc:
            if os.environ.get("GRID_TRACEBACK"):
                raise
            say(f"grid: {exc}")
            ctx.exit(exits.FAILED)
        except (KeyboardInterrupt, click.Abort):
            say("interrupted")
            ctx.exit(exits.INTERRUPTED)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=exits.EPILOG,
)
@click.version_option(__version__, "--version", prog_name="grid")
def main() -> None:
    """Run your Python objects on hosts that you can reach by SSH or qsub.

    \b
    A first session:
      grid hosts check                  can the hosts of hosts.yaml be used?
      grid hosts setup                  install what they lack
      grid run script.py                run a script over them
      grid qsub -l nodes=2 -- python script.py    or within a batch job, on its nodes
      grid status                       see what it does, from another terminal
      grid logs -f                      see what its servers print
      grid dump                         see where its calls are
      grid profile Energy.0             see where its servers spend their time
      grid clean                        after a crash

    `grid COMMAND --help` explains a command.
    """


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the versions of grid and of what it stands on.

    \b
    Example:
      grid version --json
    """
    import platform
    from importlib import metadata

    found: dict[str, str] = {"grid": __version__, "python": platform.python_version()}
    for name in ("pyzmq", "dill", "paramiko", "click", "rich", "PyYAML"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    if as_json:
        print_json(found)
    else:
        rows: Sequence[Sequence[str]] = list(found.items())
        print_table(("part", "version"), rows)
