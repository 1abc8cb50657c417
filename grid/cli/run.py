"""`grid run`: a script over a grid that is chosen here and not in the script."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from grid.cli import exits
from grid.cli.choose import environment_option, find_hosts, group_option, hosts_option, named_environment
from grid.cli.show import echo, say

_RANKS = Path(__file__).with_name("ranks_script.py")


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog=exits.EPILOG,
    short_help="Run a Python script over the hosts that options name.",
)
@hosts_option
@group_option
@click.option(
    "--local", type=click.IntRange(1), metavar="N", help="This machine alone, with N servers for each service."
)
@click.option(
    "--login", metavar="NAME", help="Submit batch jobs there and run over their nodes; a dot means this machine."
)
@click.option(
    "-l", "resources", metavar="LIST", help="With --login: what each job asks for, nodes=2:ppn=4,walltime=1:00:00"
)
@click.option(
    "--trace", metavar="FILE", help="Write a timeline of all calls: FILE.html, FILE.svg, or FILE.json for Perfetto."
)
@environment_option
@click.option(
    "--ranks",
    type=click.IntRange(1),
    metavar="N",
    help="Run N copies of the script, on servers; `from mpi4py import MPI` in it works without MPI.",
)
@click.option("--capsule", metavar="FILE", help="Write down what this run was made of, for `grid rerun FILE`.")
@click.option(
    "--keep-failures", metavar="DIR", type=click.Path(file_okay=False), help="Keep calls that fail, for `grid debug`."
)
@click.option("--detach", is_flag=True, help="Have the script run on without this shell: see grid follow, grid end.")
@click.option("--name", metavar="NAME", help="With --detach: what the run is called. Default: as the script.")
@click.argument("script", type=click.Path(exists=True, dir_okay=False))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(
    ctx: click.Context,
    hosts_from: str | None,
    group: str | None,
    local: int | None,
    login: str | None,
    resources: str | None,
    trace: str | None,
    environment_of: str | None,
    ranks: int | None,
    capsule: str | None,
    keep_failures: str | None,
    detach: bool,
    name: str | None,
    script: str,
    args: tuple[str, ...],
) -> None:
    """Run a Python script with this interpreter; `Grid.auto()` in it gives the grid that the options name.

    Options of grid stand before SCRIPT; all that follows it is the script's own. The script takes the place of this
    process: it gets the signals, and its exit status is the command's. Without options it gets what `Grid.auto()`
    finds by itself: $GRID_HOSTS, a hosts.yaml, or this machine.

    With --detach the script goes on when you log out: `grid follow NAME` shows what it prints, `grid runs` lists such
    runs, and `grid end NAME` ends one.

    With --ranks the script runs on N servers and not here. Each copy finds its rank and the others by
    `MPI.COMM_WORLD` of mpi4py, which need not be installed, nor any MPI.

    \b
    Examples:
      grid run --hosts hosts.yaml --group gpu fit.py --steps 100
      grid run --hosts node1,mara@node2 fit.py
      grid run --local 2 --trace fit.html fit.py
      grid run --environment here --hosts node1,node2 fit.py
      grid run --hosts node1,node2 --ranks 8 sample.py
      grid run --capsule fit.capsule.json fit.py --steps 100
      grid run --detach --name fit --hosts node1,node2 fit.py
      grid run --login mara@cluster -l nodes=3:ppn=4,walltime=2:00:00 fit.py

    Before the script starts, a missing script, hosts file or group is an error with status 2.
    """
    if name is not None and not detach:
        raise click.UsageError("--name is of a run that goes on by itself: say --detach as well")
    environment = grid_variables(ctx, hosts_from, group, local, login, resources)
    if trace is not None:
        environment["GRID_TRACE"] = _trace_file(trace)
    if environment_of is not None:
        environment["GRID_ENVIRONMENT"] = named_environment(environment_of)
    if keep_failures is not None:
        environment["GRID_KEEP_FAILURES"] = os.path.abspath(keep_failures)
    words = [script, *args]
    if ranks is not None:
        if capsule is not None:
            raise click.UsageError(
                "--ranks runs the script on servers, of which --capsule knows nothing: leave out one"
            )
        words = [os.fspath(_RANKS), str(ranks), *words]
    if capsule is not None:
        if not os.path.isdir(os.path.dirname(os.path.abspath(capsule))):
            raise click.UsageError(f"--capsule: there is no directory for {capsule!r}")
        for variable in ("GRID_SEED", "PYTHONHASHSEED"):
            environment.setdefault(variable, str(int.from_bytes(os.urandom(4), "little")))
        words = ["-m", "grid.capsule", os.path.abspath(capsule), *words]
    if detach:
        _detach(name, script, words, environment)
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execve(sys.executable, [sys.executable, *words], environment)


def _detach(name: str | None, script: str, words: list[str], environment: dict[str, str]) -> None:
    from grid.keeping.places import check_name
    from grid.runs.detached import detach, free_name

    try:
        name = free_name(script) if name is None else check_name(name)
    except ValueError as exc:
        raise click.UsageError(f"--name: {exc}") from exc
    detach(name, script, words, environment)
    echo(name)
    say(f"it runs on by itself: grid follow {name} shows what it prints, grid end {name} ends it")


def grid_variables(
    ctx: click.Context,
    hosts_from: str | None,
    group: str | None,
    local: int | None,
    login: str | None,
    resources: str | None,
) -> dict[str, str]:
    """The variables of a process whose `Grid.auto()` gives the grid that the options name.

    Raises:
        UsageError: Options that exclude each other.
    """
    named = [name for name in ("hosts_from", "group") if _on_command_line(ctx, name)]
    environment = dict(os.environ)
    for variable in ("GRID_LOGIN", "GRID_RESOURCES"):
        if login is not None or local is not None or named:
            environment.pop(variable, None)
    if resources is not None and login is None:
        raise click.UsageError("-l says what batch jobs ask for: name the machine that takes them with --login")
    if login is not None:
        if named or local is not None:
            raise click.UsageError("--login gets nodes from a batch system: leave out --hosts, --group and --local")
        environment.update(GRID_LOGIN=login, GRID_RESOURCES=resources or "")
    elif local is not None:
        if named:
            raise click.UsageError("--local is this machine alone: leave out --hosts and --group")
        environment["GRID_LOCAL"] = str(local)
        for variable in ("GRID_HOSTS", "GRID_GROUP"):
            environment.pop(variable, None)
    elif named or "GRID_LOCAL" not in environment:
        _choose(environment, hosts_from, group)
    return environment


def _trace_file(name: str) -> str:
    from grid.trace.record import checked

    try:
        return os.fspath(checked(name))
    except ValueError as exc:
        raise click.UsageError(f"--trace: {exc}") from exc


def _choose(environment: dict[str, str], hosts_from: str | None, group: str | None) -> None:
    from grid.hosts import find_hosts_file

    if find_hosts(hosts_from, group) is None:
        return  # nothing named and no file: this machine
    environment.pop("GRID_LOCAL", None)
    named = os.path.expanduser(hosts_from) if hosts_from else os.fspath(find_hosts_file() or "")
    is_file = os.path.isfile(named)
    # A script may change its directory before it asks for the grid.
    environment["GRID_HOSTS"] = os.path.abspath(named) if is_file else named
    if group and is_file:
        environment["GRID_GROUP"] = group
    else:
        environment.pop("GRID_GROUP", None)


def _on_command_line(ctx: click.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
