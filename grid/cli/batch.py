"""`grid qsub`, `grid sbatch`, `grid batch`: a script as a batch job, and what became of it.

Lives here: options, waiting for a job's end, tables.
Elsewhere:  the job's script (`batch/wrapper.py`), what was submitted (`batch/records.py`), the systems' words
            (`batch_systems/`).
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grid.cli import exits
from grid.cli.choose import environment_option, json_option, named_environment
from grid.cli.show import print_json, print_table, say, span

if TYPE_CHECKING:
    from grid.batch import BatchSystem, JobStatus
    from grid.batch.records import End, Record

logger = logging.getLogger(__name__)

_POLL_S = (0.5, 15.0)
"""Seconds between questions while waiting: at first, and after a while."""

_REASON_S = 5.0
"""How long the command waits for the batch system's reason why a script had to end."""

_COPY_S = 12.0
"""How long an output file may be on its way after the end: TORQUE takes up to ten seconds."""

_LATE_S = 12.0
"""A job that ended this long ago without our marker was killed; after SIGTERM it has some seconds to end well."""


def _job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("-N", "name", metavar="NAME", help="Name of the job; default: that of the script."),
        click.option("-q", "queue", metavar="QUEUE", help="Queue (Slurm: partition)."),
        click.option("-A", "account", metavar="ACCOUNT", help="Account to charge."),
        click.option("-o", "output", metavar="FILE", help="Where standard output goes."),
        click.option("-e", "error", metavar="FILE", help="Where standard error goes."),
        click.option("-v", "variables", multiple=True, metavar="NAME[=VALUE],...", help="Environment of the job."),
        environment_option,
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
    environment_of: str | None,
    dialect: str | None,
    dry_run: bool,
    wait: bool,
    command: tuple[str, ...],
    **fields: Any,
) -> None:
    from grid.batch import DIALECTS, JobSpec
    from grid.batch.records import Record, marker
    from grid.batch.wrapper import check_command, check_outputs, is_array, job_body, parse_variables
    from grid.errors import SubmitError

    here = os.getcwd()
    token = secrets.token_hex(6)
    for stream in ("output", "error"):
        if fields[stream]:
            fields[stream] = os.path.join(here, fields[stream])
    outputs = [fields[stream] for stream in ("output", "error") if fields[stream]]
    given = {} if environment_of is None else {"GRID_ENVIRONMENT": named_environment(environment_of)}
    with _usage(ctx):
        check_command(command, here)
        check_outputs(outputs)
        many = is_array(fields["lines"])
        spec = JobSpec(
            command=job_body(command, marker=str(marker(token)), array=many),
            name=name or _name_of(command),
            workdir=here,
            variables={**parse_variables(variables, os.environ), **given},
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
    try:
        job = system.submit(spec)
    except SubmitError as exc:
        say(f"grid: {exc}")
        ctx.exit(exc.status or exits.FAILED)
    record = Record(
        job,
        spec.name,
        chosen.name,
        time.time(),
        " ".join(command),
        token=token,
        walltime_s=spec.walltime_s,
        restarts=chosen.restarts(spec),
        outputs=[path for path in outputs if "%" not in path and not many and path != "/dev/null"],
    )
    record.keep()
    click.echo(job)
    if wait:
        ctx.exit(_wait_for_end(system, record, many))


@contextmanager
def _usage(ctx: click.Context) -> Iterator[None]:
    """An error before anything is submitted is an error of usage."""
    from grid.errors import AllocationError

    try:
        yield
    except AllocationError as exc:
        say(f"grid: {exc}")
        ctx.exit(exits.USAGE)


def _wait_for_end(system: BatchSystem, record: Record, many: bool) -> int:
    """Exit status of the job's script, by its own word; 1 if it ended without one."""
    from grid.batch import Outcome
    from grid.errors import GridError

    ended: float | None = None  # since when the system says so
    shown = silent = ""
    pause, longest = _POLL_S
    first = True
    try:
        while True:
            end = record.end
            if end is not None and not (many or record.restarts):
                return _say_end(system, record, end, shown)
            try:
                found = system.status([record.job])[record.job]
            except GridError as exc:  # the server is down; the job may go on, and so do we
                if str(exc) != silent:  # said once, and not with each question
                    say(f"grid: {exc}; it is asked again")
                silent, shown = str(exc), ""
                ended = None  # how long a job has been over counts only while somebody says so
            else:
                silent = ""
                shown = _tell(found, shown, first)
                first = False
                end = record.end  # once more: what a task said before the system told that all have ended
                if found.state.value not in ("done", "unknown"):
                    ended = None
                elif end is not None and many and end.status == 0 and found.outcome not in (None, Outcome.DONE):
                    _say_silent_end(record, found)  # another task said nothing
                    return exits.FAILED
                elif end is not None:
                    return _say_end(system, record, end, shown)  # of the last run, and of all tasks
                elif ended is None:
                    ended = time.monotonic()
                elif time.monotonic() - ended > _LATE_S or _again(record).cancelled:
                    _say_silent_end(record, found)
                    return exits.FAILED
            time.sleep(pause)  # neither a queue nor a shared directory tells when something changes
            pause = min(longest, pause * 1.3) if ended is None else 1.0
    except KeyboardInterrupt:
        say(f"job {record.job} goes on; `grid batch cancel {record.job}` ends it")
        return exits.INTERRUPTED


def _say_silent_end(record: Record, found: JobStatus) -> None:
    """What there is to say of a job whose script has said nothing."""
    how = ", ".join(str(part) for part in (found.reason, found.exit_status) if part is not None)
    what = "never ran" if found.outcome is not None and found.nodes is None else "was killed"
    if _again(record).cancelled:
        what, how = "was cancelled", how or "by `grid batch cancel`"
    say(
        f"grid: job {record.job} {what}: it ended without a word from its script "
        f"({how or 'the batch system gives no reason'})"
    )
    _tell_outputs(record, found.nodes)


def _say_end(system: BatchSystem, record: Record, end: End, shown: str) -> int:
    """Print how a job ended, unless that is what was `shown` last, and return its exit status."""
    from grid.batch import JobState, JobStatus
    from grid.batch.records import outcome_of
    from grid.errors import GridError

    found = JobStatus(record.job, JobState.UNKNOWN)
    if end.status > 128:  # the system may know why
        limit = time.monotonic() + _REASON_S
        try:
            while (found := system.status([record.job])[record.job]).outcome is None and time.monotonic() < limit:
                if found.state is JobState.UNKNOWN:
                    break
                time.sleep(_POLL_S[0])
        except GridError as exc:
            logger.debug("why job %s ended: %s", record.job, exc)
    state, reason, _ = outcome_of(replace(found, state=JobState.DONE), _again(record), end)
    if state == "failed" and not reason:
        reason = f"exit status {end.status}"
    if state != shown:
        say(f"job {record.job}: {state}{f' ({reason})' if reason else ''}")
    _tell_outputs(record, found.nodes)
    return end.status


def _again(record: Record) -> Record:
    """The record as it is now: `grid batch cancel` may have changed it meanwhile."""
    from grid.batch.records import records

    return next((each for each in records() if each.job == record.job), record)


def _tell_outputs(record: Record, nodes: str | None) -> None:
    """Of output that did not arrive."""
    from grid.batch.records import lost_outputs

    if not record.outputs or not lost_outputs(record):
        return
    limit = time.monotonic() + _COPY_S
    while (lost := lost_outputs(record)) and time.monotonic() < limit:
        time.sleep(_POLL_S[0])  # a batch system may copy them when all else is done
    for path in lost:
        why = "its directory is not there" if not os.path.isdir(os.path.dirname(path)) else "it was not copied"
        where = f" Look on {nodes} in" if nodes else " Look on the job's first node in"
        say(
            f"grid: the output {path} is missing: {why}.{where} /var/spool/pbs/undelivered or "
            f"/var/spool/torque/undelivered and spool, or ask your administrator"
        )


def _tell(found: JobStatus, shown: str, first: bool) -> str:
    if found.state.value == "unknown" and not first:
        return shown  # it has ended, and the system has forgotten it
    why = f" ({found.reason})" if found.reason and found.state.value in ("queued", "held") else ""
    text = found.state.value + why
    if text != shown:
        say(f"job {found.id}: {text}")
        if (found.reason or "").startswith("Can Never Run"):
            say(f"grid: no node can ever serve job {found.id}; `grid batch cancel {found.id}` withdraws it")
    return text


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
@click.pass_context
def status(ctx: click.Context, jobs: tuple[str, ...], as_json: bool) -> None:
    """Show jobs: state and its reason, nodes, time left. Without JOBS those that were submitted from this account.

    A job that ended is done (status 0), failed, killed or cancelled, by its script's own word where there is one.

    \b
    Examples:
      grid batch status
      grid batch status 12.server --json
    """
    from grid.batch.records import lost_outputs, outcome_of
    from grid.errors import GridError

    known = _known(jobs)
    wanted = list(jobs) or list(known)
    rows: list[dict[str, Any]] = []
    failed = False
    for dialect in dict.fromkeys(known[job].dialect if job in known else None for job in wanted):
        ids = [job for job in wanted if (known[job].dialect if job in known else None) == dialect]
        try:
            answers = _system(dialect, "slurm").status(ids)
        except GridError as exc:
            say(f"grid: {exc}")
            failed = True
            continue
        for job, found in answers.items():
            record = known.get(job)
            state, reason, code = outcome_of(found, record, record.end if record else None)
            if record is not None and state in ("done", "failed") and (lost := lost_outputs(record)):
                reason = f"{reason + '; ' if reason else ''}its output {lost[0]} is not there (yet)"
            rows.append(
                {
                    "job": job,
                    "name": found.name or (record.name if record else None),
                    "state": state,
                    "exit_status": code,
                    "reason": reason,
                    "nodes": found.nodes,
                    "left_s": found.left_s,
                    "command": record.command if record else None,
                }
            )
    if as_json:
        print_json(rows)
    elif rows:
        columns = ("job", "name", "state", "exit", "reason", "nodes", "left", "command")
        print_table(columns, [_row(row) for row in rows])
    elif not failed:
        say("no job was submitted from this account")
    ctx.exit(exits.FAILED if failed else exits.OK)


def _known(jobs: tuple[str, ...]) -> dict[str, Record]:
    """Jobs that were submitted from this account, and those among `jobs` that are tasks of their arrays."""
    from grid.batch.records import of_task, records

    known = {record.job: record for record in records()}
    arrays = tuple(known.values())
    for job in set(jobs) - set(known):
        for record in arrays:
            task = _task_of(job, record)
            found = of_task(job, task, [record]) if task is not None else None
            if found is not None:
                known[job] = found
    return known


def _task_of(job: str, record: Record | None) -> int | None:
    """Which task of an array an id names, as the system has ids that took the array."""
    from grid.batch_systems.known import DIALECTS

    return DIALECTS[record.dialect].task_of(job) if record is not None and record.dialect in DIALECTS else None


def _keep_cancelled(task: Record, index: int) -> None:
    """Write down that one task was cancelled, with its array."""
    from dataclasses import replace

    from grid.batch.records import records

    for record in records():
        if f"{record.token}.{index}" == task.token:
            replace(record, tasks_cancelled=[*record.tasks_cancelled, index]).keep()


def _row(row: dict[str, Any]) -> list[str]:
    left = span(row["left_s"]) if row["left_s"] is not None else ""
    shown = [row[name] for name in ("job", "name", "state", "exit_status", "reason", "nodes")]
    shown += [left, row["command"]]
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
    from dataclasses import replace

    from grid.errors import GridError

    known = _known(jobs)
    failed: dict[str, str] = {}
    for job in jobs:
        record = known.get(job)
        before = None if record is None else record.end  # afterwards its script may have told how it was ended
        try:
            _system(record.dialect if record else None, "slurm").cancel(job)
        except GridError as exc:
            say(f"grid: {exc}")
            failed[job] = str(exc)
        else:
            task = _task_of(job, record)
            if record is None or (before is not None and not before.of_array):
                pass
            elif task is None:
                replace(record, cancelled=True).keep()
            else:
                _keep_cancelled(record, task)
    if as_json:
        print_json({"cancelled": [job for job in jobs if job not in failed], "failed": failed})
    ctx.exit(exits.FAILED if failed else exits.OK)
