"""`grid debug`: a kept failure made again here, in a debugger."""

from __future__ import annotations

import sys
import time
import traceback

import click

from grid.cli import exits
from grid.cli.show import echo, say


@click.command(epilog=exits.EPILOG, short_help="Make a failed call again, in the debugger.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--no-pdb", is_flag=True, help="Only make the call, and print what it returns or raises.")
@click.pass_context
def debug(ctx: click.Context, file: str, no_pdb: bool) -> None:
    """Make a failed call again, in this process: one that `grid run --keep-failures` has kept.

    If it fails again, Python's debugger opens where it was raised, except without a terminal or with --no-pdb.
    The object is as it was published, without the changes of earlier calls. FILE is a pickle and may run
    any code, so files of other users are refused.

    \b
    Examples:
      grid run --keep-failures failed fit.py
      grid debug failed/0001-energy-ValueError.call

    The status is 1 if the call fails again, 0 if it does not.
    """
    from grid.failures.reopen import Failure

    failure = Failure(file)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(failure.when))
    say(f"{failure.name!r} of {failure.script or 'a session'}, {when}: {failure.error}")
    if failure.traceback:
        say(failure.traceback)
    target, method, args, kwargs = failure.open()
    try:
        value = (target if method is None else getattr(target, method))(*args, **kwargs)
    except Exception as exc:
        frames = exc.__traceback__.tb_next if exc.__traceback__ is not None else None
        say("here it fails again:\n" + "".join(traceback.format_exception(type(exc), exc, frames)).rstrip())
        if not no_pdb and sys.stdin.isatty() and frames is not None:
            import pdb

            pdb.post_mortem(frames)
        ctx.exit(exits.FAILED)
    say("here it does not fail; it returns:")
    echo(repr(value))
