"""`grid bumps`: the command line of bumps, its web page included, with the points of a fit on a grid.

Lives here: the command. Elsewhere: options and the environment of a run (`run.py`), the mapper (`compat/bumps.py`).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from grid.cli import exits
from grid.cli.run import run

_SCRIPT = Path(__file__).with_name("bumps_script.py")


def _with_options_of_run(command: Any) -> Any:
    """The options of `grid run`, which choose the grid."""
    command.params[:0] = [param for param in run.params if isinstance(param, click.Option) and param.name != "ranks"]
    return command


@_with_options_of_run
@click.command(
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
    epilog=exits.EPILOG,
    short_help="Fit with bumps or refl1d, with the points on a grid.",
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED, metavar="MODEL [BUMPS OPTIONS]...", required=True)
def bumps(args: tuple[str, ...], **options: Any) -> None:
    """Run bumps' own command line; the points of its parallel fits are evaluated by a grid's servers.

    Options of grid stand before MODEL; MODEL and all that follows are bumps' own: its web page opens as ever, `--batch`
    runs without it. A host that is lost takes no point with it.

    \b
    Examples:
      grid bumps --hosts node1,node2 model.py --fit=dream
      grid bumps --login mara@cluster -l nodes=3:ppn=4,walltime=2:00:00 model.py --fit=dream --batch
      grid bumps --environment here --hosts node1 model.py --fit=de --batch --export=out

    Hosts need bumps and what the model imports; `--environment here` brings them. `--parallel=1` of bumps keeps all
    points here. The status is that of bumps, or 2 where bumps is not installed.
    """
    if find_spec("bumps") is None:
        raise click.UsageError("bumps is not installed here. Run: pip install bumps")
    if options["detach"] and options["name"] is None:
        from grid.runs.detached import free_name

        options["name"] = free_name(args[0])  # not as the script of ours
    click.get_current_context().invoke(run, script=str(_SCRIPT), args=args, **options)
