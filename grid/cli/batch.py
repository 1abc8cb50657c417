"""`grid qsub`, `grid sbatch`, `grid batch`: a script as a batch job, and what became of it.

Lives here: options, waiting for a job's end, tables.
Elsewhere:  the job's script (`batch/wrapper.py`), the systems' words (`batch/dialects.py`).
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grid.cli import exits
from grid.cli.choose import json_option
from grid.cli.show import print_json, print_table, say, span

if TYPE_CHECKING:
    from grid.batch import BatchSystem, JobStatus

_POLL_S = (0.5, 15.0)
"""Seconds between questions while waiting: at first, and after a while."""

_LATE_S = 12.0
"""A job that ended so long ago without our marker was killed; after SIGTERM it has some seconds to end well."""


def _job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("-N", "name", metavar="NAME", help="Name of the job; default: that of the script."),
        click.option("-q", "queue", metavar="QUEUE", help="Queue (Slurm: partition)."),
        click.option("-A", "account", metavar="ACCOUNT", help="Account to charge."),
        click.option("-o", "output", metavar="FILE", help="Where standard output goes."),
        click.option("-e", "error", metavar="FILE", help="Where standard error goes."),
        click.option("-v", "variables", multiple=True, metavar="NAME[=VALUE],...", help="Environment of the job."),
        click.option("-V", "export_all", is_flag=True, help="Hand over the whole environment."),
        click.option("--line", "lines", multiple=True, metavar="TEXT", help="A directive, put in verbatim."),
        click.option("--pe", "parallel_environment", metavar="NAME", help="SGE: its parallel environment."),
        click.option("--dialect", metavar="SYSTEM", help="torque, pbspro, slurm, slurm-torque or sge."),
        click.option("--dry-run", is_flag=True, help="Print the script and the command, submit nothing."),
        click.option("--wait", is_flag=True, help="Wait for the end; the status is then that of the script."),
        click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED),
    ]
    for option in reversed(options):
        command = option(command)
    return command


_SETTINGS = {"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]}


@click.command(context_settings=_SETTINGS, epilog=exits.EPILOG, short_help="Submit a script as a batch job.")
@click.option("-l", "resources", multiple=True, metavar="LIST", help="What it needs: nodes=2:ppn=4,walltime=1:00:00")
@click.option("-j", "join", type=click.Choice(["oe", "eo", "n"]), help="oe: both streams into the output file.")
@click.option("-W", "attributes", multiple=True, metavar="depend=TYPE:JOB", help="Start after other jobs.")
@_job_options
@click.pass_context
def qsub(
    ctx: click.Context, /, resources: tuple[str, ...], join: str | None, attributes: tuple[str, ...], **kw: Any
) -> None:
    """Submit COMMAND as a batch job; within it `Grid.auto()` is a grid over the job's nodes.

    All `-l` count. The job runs in this directory, with the interpreter that runs this command. Its id is printed.

    \b
    Examples:
      grid qsub -l nodes=2:ppn=4,walltime=1:00:00 -- python run.py --steps 100
      grid qsub -l nodes=1 --dry-run -- python run.py
      grid qsub -l nodes=3:ppn=2 -j oe -o run.log --wait -- python run.py

    The status is qsub's own; with --wait that of the script, or 1 if the job was killed.
    """
    from grid.batch.wrapper import parse_depend, parse_resources

    with _usage(ctx):
        asked = {**parse_resources(resources), "join": join in ("oe", "eo"), "depend": parse_depend(attributes)}
    _submit(ctx, "slurm-torque", asked, **kw)


@click.command(context_settings=_SETTINGS, epilog=exits.EPILOG, short_help="Submit a script as a batch job of Slurm.")
@click.option("-n", "--nodes", "nodes", type=click.IntRange(1), default=1, show_default=True, help="Nodes.")
@click.option("--ntasks-per-node", "ppn", type=click.IntRange(1), default=1, show_default=True, help="Slots on each.")
@click.option("-t", "--time", "walltime", metavar="HH:MM:SS", help="Walltime.")
@click.option("-d", "--dependency", "depend", metavar="TYPE:JOB", help="Start after other jobs.")
@_job_options
@click.pass_context
def sbatch(ctx: click.Context, /, nodes: int, ppn: int, walltime: str | None, depend: str | None, **kw: Any) -> None:
    """Submit COMMAND as a batch job of Slurm; within it `Grid.auto()` is a grid over the job's nodes.

    \b
    Examples:
      grid sbatch -n 2 --ntasks-per-node 4 -t 1:00:00 -- python run.py --steps 100
      grid sbatch -n 3 --wait --line '#SBATCH --constraint=ib' -- python run.py

    The status is sbatch's own; with --wait that of the script, or 1 if the job was killed.
    """
    from grid.batch import parse_walltime

    with _usage(ctx):
        walltime_s = parse_walltime(walltime) if walltime else None
    asked = {"nodes": nodes, "ppn": ppn, "walltime_s": walltime_s, "depend": depend}
    _submit(ctx, "slurm", asked, **kw)


def _submit(
    ctx: click.Context,
    prefer: str,
    asked: dict[str, Any],
    *,
    name: str | None,
    variables: tuple[str, ...],
    dialect: str | None,
    dry_run: bool,
    wait: bool,
    command: tuple[str, ...],
    **fields: Any,
) -> None:
    from grid.batch import DIALECTS, JobSpec
    from grid.batch.wrapper import Record, base_directory, check_command, job_body, parse_variables
    from grid.errors import SubmitError

    here = os.getcwd()
    place = base_directory() / f"wait-{secrets.token_hex(6)}" if wait and not dry_run else None
    for stream in ("output", "error"):
        if fields[stream]:
            fields[stream] = os.path.join(here, fields[stream])
    with _usage(ctx):
        check_command(command, here)
        spec = JobSpec(
            command=job_body(command, marker=str(place / "end") if place else None),
            name=name or _name_of(command),
            workdir=here,
            variables=parse_variables(variables, os.environ),
            **asked,
            **fields,
        )
    if dry_run and dialect is not None and dialect in DIALECTS:
        chosen = DIALECTS[dialect]
    else:
        system = _system(dialect, prefer)
        chosen = system.dialect
    if dry_run:
        click.echo(chosen.script(spec), nl=False)
        say("# " + " ".join(chosen.submit_command(spec, "SCRIPT")))
        return
    if place is not None:
        place.mkdir(mode=0o700)
    try:
        try:
            job = system.submit(spec)
        except SubmitError as exc:
            say(f"grid: {exc}")
            ctx.exit(exc.status or exits.FAILED)
        Record(job, spec.name, chosen.name, time.time(), " ".join(command)).keep()
        click.echo(job)
        if place is not None:
            ctx.exit(_wait_for_end(system, job, place / "end"))
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _usage(ctx: click.Context) -> Iterator[None]:
    """What is wrong before anything is submitted is the asker's to mend."""
    from grid.errors import AllocationError

    try:
        yield
    except AllocationError as exc:
        say(f"grid: {exc}")
        ctx.exit(exits.USAGE)


def _wait_for_end(system: BatchSystem, job: str, marker: Path) -> int:
    """Exit status of the job's script, by its own marker; 1 if it ended without one."""
    from grid.errors import GridError

    ended: float | None = None  # since when the system says so
    shown = ""
    pause, longest = _POLL_S
    try:
        while True:
            if (status := _read(marker)) is not None:
                return status
            try:
                found = system.status([job])[job]
            except GridError as exc:
                say(f"grid: {exc}")  # the server is down; the job may go on, and so do we
            else:
                shown = _tell(found, shown)
                if found.state.value not in ("done", "unknown"):
                    ended = None
                elif ended is None:
                    ended = time.monotonic()
                elif time.monotonic() - ended > _LATE_S:
                    how = ", ".join(str(part) for part in (found.reason, found.exit_status) if part is not None)
                    say(f"grid: job {job} was killed: it ended without a word from its script ({how or 'no reason'})")
                    return exits.FAILED
            time.sleep(pause)  # neither a queue nor a shared directory tells when something changes
            pause = min(longest, pause * 1.3) if ended is None else 1.0
    except KeyboardInterrupt:
        say(f"job {job} goes on; `grid batch cancel {job}` ends it")
        return exits.INTERRUPTED


def _tell(found: JobStatus, shown: str) -> str:
    why = f" ({found.reason})" if found.reason and found.state.value in ("queued", "held") else ""
    text = found.state.value + why
    if text != shown:
        say(f"job {found.id}: {text}")
    return text


def _read(marker: Path) -> int | None:
    try:
        os.listdir(marker.parent)  # makes NFS look anew
        text = marker.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _name_of(command: tuple[str, ...]) -> str:
    script = next((word for word in command if word.endswith(".py")), command[0])
    stem = Path(script).stem
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._+-") else "_" for c in stem)[:15]
    return name if name[:1].isalpha() else f"job-{name}"


def _system(dialect: str | None, prefer: str) -> BatchSystem:
    from grid.batch import BatchSystem
    from grid.hosts import Host
    from grid.launch import connect

    return BatchSystem(connect(Host("localhost", ssh="local")), dialect, prefer=prefer)


@click.group(epilog=exits.EPILOG, short_help="Batch jobs that were submitted by grid.")
def batch() -> None:
    """Batch jobs that `grid qsub` and `grid sbatch` submitted. Pilots of a running grid are in `grid status`.

    \b
    Examples:
      grid batch status
      grid batch cancel 12.server
    """


@batch.command(epilog=exits.EPILOG, short_help="Show jobs: state and reason, nodes, time left.")
@click.argument("jobs", nargs=-1)
@json_option
def status(jobs: tuple[str, ...], as_json: bool) -> None:
    """Show jobs: state and its reason, nodes, time left. Without JOBS those that were submitted from this account.

    \b
    Examples:
      grid batch status
      grid batch status 12.server --json
    """
    from grid.batch.wrapper import records

    known = {record.job: record for record in records()}
    wanted = list(jobs) or list(known)
    rows: list[dict[str, Any]] = []
    for dialect in dict.fromkeys(known[job].dialect if job in known else None for job in wanted):
        ids = [job for job in wanted if (known[job].dialect if job in known else None) == dialect]
        for job, found in _system(dialect, "slurm").status(ids).items():
            record = known.get(job)
            rows.append(
                {
                    "job": job,
                    "name": found.name or (record.name if record else None),
                    "state": found.state.value,
                    "reason": found.reason,
                    "nodes": found.nodes,
                    "left_s": found.left_s,
                    "exit_status": found.exit_status,
                    "command": record.command if record else None,
                }
            )
            if record is not None and found.state.value == "unknown":
                record.forget()
    if as_json:
        print_json(rows)
    elif rows:
        columns = ("job", "name", "state", "reason", "nodes", "left", "command")
        print_table(columns, [_row(row) for row in rows])
    else:
        say("no job was submitted from this account")


def _row(row: dict[str, Any]) -> list[str]:
    left = span(row["left_s"]) if row["left_s"] is not None else ""
    shown = [row["job"], row["name"], row["state"], row["reason"], row["nodes"], left, row["command"]]
    return [str(value) if value is not None else "" for value in shown]


@batch.command(epilog=exits.EPILOG, short_help="End jobs.")
@click.argument("jobs", nargs=-1, required=True)
@json_option
@click.pass_context
def cancel(ctx: click.Context, jobs: tuple[str, ...], as_json: bool) -> None:
    """End jobs; those that have ended already are no error.

    \b
    Example:
      grid batch cancel 12.server 13.server
    """
    from grid.batch.wrapper import records
    from grid.errors import GridError

    known = {record.job: record.dialect for record in records()}
    failed: dict[str, str] = {}
    for job in jobs:
        try:
            _system(known.get(job), "slurm").cancel(job)
        except GridError as exc:
            say(f"grid: {exc}")
            failed[job] = str(exc)
    if as_json:
        print_json({"cancelled": [job for job in jobs if job not in failed], "failed": failed})
    ctx.exit(exits.FAILED if failed else exits.OK)
