"""`grid exec`: a command for each argument, over the servers of a grid.

Lives here: options and what is printed. Elsewhere: running them (`grid/commands/each.py`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from grid.cli.choose import group_option, hosts_option
from grid.cli.run import grid_variables
from grid.cli.show import say


@click.command(
    "exec",
    context_settings={"allow_interspersed_args": False},
    short_help="Run a command for each argument, as GNU parallel does, over hosts.",
)
@hosts_option
@group_option
@click.option("--local", type=click.IntRange(1), metavar="N", help="This machine alone, N commands at once.")
@click.option(
    "--login", metavar="NAME", help="Submit batch jobs there and run over their nodes; a dot means this machine."
)
@click.option(
    "-l", "resources", metavar="LIST", help="With --login: what each job asks for, nodes=2:ppn=4,walltime=1:00:00"
)
@click.option("--return", "outs", multiple=True, metavar="PATTERN", help="Bring files that match from each run.")
@click.option("--to", type=click.Path(file_okay=False), default=".", help="Where to; default: the current directory.")
@click.option("--no-files", is_flag=True, help="Arguments that name files here are words, and no inputs.")
@click.option("--results", metavar="DIR", type=click.Path(file_okay=False), help="Keep stdout and stderr there.")
@click.option("--joblog", metavar="FILE", type=click.Path(dir_okay=False), help="A line for each, as GNU parallel's.")
@click.option("--resume", is_flag=True, help="Leave out those that the joblog has.")
@click.option("--resume-failed", is_flag=True, help="Leave out those that the joblog has with status 0.")
@click.option("--retries", type=click.IntRange(1), default=1, metavar="N", help="Run one that fails N times in all.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="S", help="End each after S seconds.")
@click.option("-k", "--keep-order", is_flag=True, help="Print in the order of the arguments.")
@click.option("--dry-run", is_flag=True, help="Print the commands, and run none.")
@click.option("--bar", is_flag=True, help="Show on stderr how many are done.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, required=True)
@click.pass_context
def exec_command(ctx: click.Context, /, words: tuple[str, ...], **given: Any) -> None:
    """Run a command for each argument: on this machine, or on the hosts that options name.

    Arguments follow ::: (several times: each combination), or stand in a file, one on each line, after :::: (a dash
    means standard input). An argument that names a file here is sent along as an input, once for each host.

    \b
    In the command:
      {}  the argument        {.}  without its ending    {/}  its last part
      {//} its folder         {/.} last part, no ending  {#}  number of the command
      {1} {2} {1.} ...        of the first, second source

    \b
    Examples:
      grid exec -- gzip -k9 {} ::: *.txt
      grid exec --hosts hosts.yaml --return '*.aln' --to out -- 'mafft {} > {/.}.aln' ::: *.fa
      grid exec --joblog log --resume --results out -- ./model --seed {1} --size {2} ::: 1 2 3 ::: 10 100
      grid exec --login cluster -l nodes=2:ppn=4 -- sim {} :::: inputs.txt

    Exit status: how many commands failed, up to 100; 101 for more; 2 for wrong usage; 255 for another error.
    """
    from grid.commands.replacing import combined, replaced, sources_of
    from grid.errors import GridError

    try:
        command, sources = sources_of(words, _lines)
        text = " ".join(command)
        replaced(text, ["x"] * len(sources), 1)
    except (ValueError, OSError) as exc:
        raise click.UsageError(str(exc)) from exc
    if (given["resume"] or given["resume_failed"]) and given["joblog"] is None:
        raise click.UsageError("--resume goes on from a joblog: name it with --joblog")
    if given["dry_run"]:
        for number, arguments in enumerate(combined(sources), 1):
            click.echo(replaced(text, arguments, number))
        return
    names = ("hosts_from", "group", "local", "login", "resources")
    os.environ.update(variables := grid_variables(ctx, *(given[name] for name in names)))
    for gone in set(os.environ) - set(variables):
        del os.environ[gone]
    try:
        failed = _run(text, list(combined(sources)), given)
    except GridError as exc:
        say(f"grid: {exc}")
        ctx.exit(255)
    from grid.commands.joblog import status_of

    ctx.exit(status_of(failed))


def _run(text: str, combinations: list[tuple[str, ...]], given: dict[str, Any]) -> int:
    from grid.commands.each import EachAsked, EachEnded, run_each
    from grid.grids.grid import Grid

    asked = EachAsked(
        results=_path(given["results"]),
        joblog=_path(given["joblog"]),
        resume=given["resume"],
        resume_failed=given["resume_failed"],
        tries=given["retries"],
        timeout_s=given["timeout"],
        outs=given["outs"],
        to=Path(given["to"]),
        ordered=given["keep_order"],
        files=not given["no_files"],
    )
    done = 0

    def show(ended: EachEnded) -> None:
        nonlocal done
        done += 1
        if ended.run is not None:
            for stream, data in ((sys.stdout, ended.run.stdout), (sys.stderr, ended.run.stderr)):
                stream.buffer.write(data)
                stream.flush()
            lost = ended.run.stdout_lost + ended.run.stderr_lost
            if lost:
                say(f"grid: {ended.command[:200]}: the first {lost:,} bytes of its output were dropped")
        if ended.run is None or ended.status == -1:
            say(f"grid: {ended.error}")
        if given["bar"]:
            say(f"{done} of {len(combinations)} done")

    with Grid.auto() as g:
        return run_each(g.commands, text, combinations, asked, show)


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def _lines(name: str) -> Iterable[str]:
    if name == "-":
        return list(sys.stdin)
    with open(name, encoding="utf-8", errors="surrogateescape") as file:
        return list(file)
