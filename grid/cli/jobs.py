"""`grid jobs`, `grid graph`, `grid credits`: jobs of a running job server.

Lives here: tables, bars, lines of messages, JSON.
Elsewhere:  the server (`cli/serve.py`), what a client can do (`grid/jobs/client/proxy.py`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from grid.cli import exits
from grid.cli.choose import json_option
from grid.cli.main import NearMisses
from grid.cli.show import echo, print_json, print_table, rich_table, say, span

if TYPE_CHECKING:
    from grid.jobs.client.proxy import ServerProxy
    from grid.jobs.host.messages import Message

_STATES = ("waiting", "pending", "active", "complete", "error", "aborted", "cancelled")
_COLUMNS = ("job", "state", "service", "progress", "best", "age", "tags", "reason")


def _server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("--server", default="default", envvar="GRID_JOBS", show_default=True, help="Its name or address."),
        click.option("--user", metavar="USER", help="Who is asking; default: as the tag of new jobs."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def _connected(server: str, user: str | None) -> Iterator[ServerProxy]:
    from grid.jobs.client.context import remote_service

    service = remote_service(server, user)
    try:
        yield service
    finally:
        service.close()


@click.group(cls=NearMisses, epilog=exits.EPILOG, short_help="Jobs of a job server: list, watch, steer, end.")
def jobs() -> None:
    """Jobs of a running job server (`grid serve`).

    \b
    Examples:
      grid jobs list --watch
      grid jobs tail job-12
      grid jobs abort job-12
    """


@jobs.command("list", epilog=exits.EPILOG, short_help="Show jobs, also as they change.")
@click.argument("text", required=False)
@click.option("--state", multiple=True, type=click.Choice(_STATES), help="Only of this state; may be repeated.")
@click.option("--tag", "tags", multiple=True, help="Only with this tag; all of several must be there.")
@click.option("--service", "service_name", metavar="NAME", help="Only of this service.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the newest N.")
@click.option("--archived", is_flag=True, help="Archived ones instead.")
@click.option("--watch", is_flag=True, help="Follow the list until Ctrl-C; with --json a line per change.")
@json_option
@_server_options
def list_jobs(
    text: str | None,
    state: tuple[str, ...],
    tags: tuple[str, ...],
    service_name: str | None,
    last: int | None,
    archived: bool,
    watch: bool,
    as_json: bool,
    server: str,
    user: str | None,
) -> None:
    """Show jobs that are not archived, oldest first; with TEXT those that have it somewhere.

    \b
    Examples:
      grid jobs list
      grid jobs list --state active --tag project=nist
      grid jobs list --watch
      grid jobs list --json | jq '.[].state'
    """
    wanted: dict[str, Any] = {"archived": archived, "text": text, "last": last, "service": service_name}
    wanted |= {"state": list(state) or None, "tags": list(tags)}
    with _connected(server, user) as service:
        if watch:
            _watch(service, wanted, as_json)
            return
        found = service.summaries(**wanted)
    if as_json:
        print_json(found)
    elif found:
        print_table(_COLUMNS, [_row(job) for job in found])
    else:
        say("no such jobs")


def _watch(service: ServerProxy, wanted: dict[str, Any], as_json: bool) -> None:
    from grid.jobs.client.joblist import JobList

    def print_change(_: JobList, message: Message) -> None:
        for summary in message.jobs if message.kind == "Jobs" else [message.summary]:
            change = "listed" if message.kind == "Jobs" else message.change
            print_json({"change": change, **summary}, indent=None)

    if as_json or not sys.stdout.isatty():
        with JobList(service, print_change) as following:
            while True:
                following.wait_for(lambda _: False, None)
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        while True:
            table = rich_table(_COLUMNS, [_row(job) for job in service.summaries(**wanted)])
            live.update(table, refresh=True)
            time.sleep(0.5)  # a person looks at it: no need to draw each change


def _row(job: dict[str, Any]) -> list[str]:
    began = job["started"] or job["created"]
    age = span((job["ended"] or time.time()) - began)
    best = "" if job["best"] is None else json.dumps(job["best"], ensure_ascii=False)
    service = job["service"].rpartition(".")[2]
    reason = job["reason"].splitlines()[0] if job["reason"] else ""
    state = "paused" if job["paused"] else job["state"]
    shown = [_cut(best, 30), age, _cut(",".join(job["tags"]), 30), _cut(reason, 60)]
    return [job["id"], state, service, _progress(job), *shown]


def _progress(job: dict[str, Any]) -> str:
    if not job["progress"]:
        return ""
    k, n, units = job["progress"]
    return f"{k:g} of {n:g} {units}{_eta(job)}"


def _eta(job: dict[str, Any]) -> str:
    k, n, _ = job["progress"]
    if job["state"] != "active" or not k or not job["started"] or k >= n:
        return ""
    return f", {span((time.time() - job['started']) * (n - k) / k)} left at its mean pace"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most or not sys.stdout.isatty() else f"{text[: most - 1]}…"


@jobs.command(epilog=exits.EPILOG, short_help="Show all about one job.")
@click.argument("job")
@json_option
@_server_options
def show(job: str, as_json: bool, server: str, user: str | None) -> None:
    """Show a job's request, state, times, result or error, what it waits for, and its files.

    \b
    Example:
      grid jobs show job-12 --json
    """
    with _connected(server, user) as service:
        handle = service.job(job)
        detail = {**service.calls.fetch(job), **handle.status, "explain": handle.explain(), "files": handle.files()}
    if as_json:
        print_json(detail)
        return
    for name, value in detail.items():
        if value not in (None, "", [], {}, False) and name != "data":
            if name == "oldest_unit":
                value = f"unit {value['unit']}, for {span(value['age'])} on {value['host']} ({value['worker']})"
            if name in ("created", "started", "ended", "improved"):
                value = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            echo(f"{name:11} {shown}")


@jobs.command(epilog=exits.EPILOG, short_help="Follow what a job says.")
@click.argument("job")
@json_option
@_server_options
@click.pass_context
def tail(ctx: click.Context, job: str, as_json: bool, server: str, user: str | None) -> None:
    """Print a job's messages as they come, improvements among them, until it ends.

    The status is 1 if the job did not complete.

    \b
    Examples:
      grid jobs tail job-12
      grid jobs tail job-12 --json | jq -c 'select(.kind == "Improved") | .partial'
    """
    kind = ""
    with _connected(server, user) as service:
        for message in service.job(job).messages():
            kind = message.kind
            if as_json:
                print_json(message.to_plain(), indent=None)
            else:
                fields = "  ".join(f"{name}={_short(value)}" for name, value in message.fields.items() if value != "")
                echo(f"{time.strftime('%H:%M:%S', time.localtime(message.time))}  {kind:10} {fields}")
    ctx.exit(exits.OK if kind == "Completed" else exits.FAILED)


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


@jobs.command(epilog=exits.EPILOG, short_help="Print what a job has logged.")
@click.argument("job")
@json_option
@_server_options
def log(job: str, as_json: bool, server: str, user: str | None) -> None:
    """Print the last lines of a job's log, also after its end.

    \b
    Example:
      grid jobs log job-12
    """
    with _connected(server, user) as service:
        found = service.calls.history(job, "Log")
    if as_json:
        print_json(found)
        return
    for line in found:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line["time"]))
        echo(f"{at}  {line['level']:7} {line['text']}")


@jobs.command(epilog=exits.EPILOG, short_help="Wait for jobs, with bars.")
@click.argument("ids", nargs=-1, required=True, metavar="JOB...")
@click.option("--timeout", type=click.FloatRange(0), metavar="S", help="Seconds for all of them.")
@json_option
@_server_options
@click.pass_context
def wait(
    ctx: click.Context, ids: tuple[str, ...], timeout: float | None, as_json: bool, server: str, user: str | None
) -> None:
    """Wait until jobs have ended, and print their results as JSON. On a terminal with a bar for each.

    The status is 1 if one did not complete, or not in time.

    \b
    Example:
      grid jobs wait job-12 job-13 --timeout 3600
    """
    from grid.jobs.host.errors import JobError
    from grid.jobs.host.plain import to_plain

    results: dict[str, Any] = {}
    failed = False
    end = None if timeout is None else time.monotonic() + timeout
    with _connected(server, user) as service, _bars(service, ids) as look:
        for job in ids:
            handle = service.job(job)
            while job not in results:
                left = None if end is None else max(0.0, end - time.monotonic())
                turn = 0.3 if look else 3600.0
                try:
                    results[job] = to_plain(handle.wait(turn if left is None else min(turn, left)))
                except TimeoutError:
                    if left is not None and left <= turn:
                        say(f"grid: job {job} is {handle.state} after {timeout:g} s. It goes on; wait again")
                        failed, results[job] = True, None
                except JobError as exc:
                    say(f"grid: {exc}")
                    failed, results[job] = True, None
                if look:
                    look()
    if as_json:
        print_json(results)
    else:
        for value in results.values():
            print_json(value, indent=None)
    ctx.exit(exits.FAILED if failed else exits.OK)


@contextmanager
def _bars(service: ServerProxy, ids: Sequence[str]) -> Iterator[Callable[[], None] | None]:
    """Draws a bar for each job when it is called; None where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars = {job: progress.add_task(job, total=None, text="") for job in ids}

        def look() -> None:
            for job, bar in bars.items():
                status = service.status(job)
                k, n, _ = status["progress"] or (None, None, "")
                done = status["state"] == "complete"
                text = f"{status['state']} {_progress(status)}"
                progress.update(bar, total=n or (1 if done else None), completed=n if done and n else k or 0, text=text)

        look()
        yield look


@jobs.command(epilog=exits.EPILOG, short_help="Submit a job.")
@click.argument("name", required=False, metavar="[SERVICE]")
@click.argument("fields", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--request", metavar="FILE", help="A saved request instead, as `grid jobs fetch` writes it.")
@click.option("--version", metavar="V", help="Of the service; needed where the server has several.")
@click.option("--after", multiple=True, metavar="JOB", help="Only once this job is complete; may be repeated.")
@click.option("--tag", "tags", multiple=True, help="May be repeated.")
@click.option("--priority", type=click.IntRange(0), default=0, show_default=True, help="0 is free.")
@json_option
@_server_options
def submit(
    name: str | None,
    fields: tuple[str, ...],
    request: str | None,
    version: str | None,
    after: tuple[str, ...],
    tags: tuple[str, ...],
    priority: int,
    as_json: bool,
    server: str,
    user: str | None,
) -> None:
    """Submit a request for SERVICE and print the job's id. Values are JSON, or text. Its class will do for a name,
    where only one service of the server has it.

    \b
    Examples:
      grid jobs submit Squares values=[1,2,3]
      grid jobs submit fits.Anneal kelvin=300 --after job-12 --tag project=nist
      grid jobs fetch job-12 -o again.json && grid jobs submit --request again.json
      grid jobs wait $(grid jobs submit Squares values=[4])
    """
    from grid.jobs.host.request import Request

    if (name is None) == (request is None) or (request is not None and version is not None):
        raise click.UsageError("name a SERVICE with values, or --request FILE with a saved request")
    made = Request(**_values(fields)) if request is None else Request.read(request)
    with _connected(server, user) as service:
        if name is not None:
            made.service, made.version = _one_service(name, version, service.services())
        job = service.submit(made, after=list(after) or None, tags=tags, priority=priority)
    if as_json:
        print_json({"job": job.id, "service": made.service, "version": made.version})
    else:
        echo(job.id)


def _one_service(name: str, version: str | None, known: dict[str, list[str]]) -> tuple[str, str]:
    """Full name and version of the service with this name."""
    found = [each for each in known if each == name] or [each for each in known if each.endswith(f".{name}")]
    if len(found) != 1:
        what = f"several services are named {name!r}" if found else f"the server has no service {name!r}"
        raise click.UsageError(f"{what}. There are: {', '.join(found or known) or 'none'}")
    (full,) = found
    versions = known[full]
    if version is None and len(versions) > 1:
        raise click.UsageError(f"{full} is there in several versions ({', '.join(versions)}): say --version")
    return full, version or versions[0]


def _values(fields: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in fields:
        name, equals, text = field.partition("=")
        if not equals or not name.isidentifier():
            raise click.UsageError(f"{field!r} is not NAME=VALUE")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


@jobs.command(epilog=exits.EPILOG, short_help="Print a job's request.")
@click.argument("job")
@click.option("-o", "--output", metavar="FILE", help="Save it there.")
@json_option
@_server_options
def fetch(job: str, output: str | None, as_json: bool, server: str, user: str | None) -> None:
    """Print a job's request, always as JSON, with what was filled in when it was queued. `Request.read` reads the file.

    \b
    Example:
      grid jobs fetch job-12 -o request.json
    """
    with _connected(server, user) as service:
        request = service.fetch(job)
    if output:
        request.save(output)
    if as_json or not output:
        print_json(request.to_plain())


@jobs.command(epilog=exits.EPILOG, short_help="End jobs.")
@click.argument("ids", nargs=-1, required=True, metavar="JOB...")
@click.option("--reason", default="", help="For the record.")
@click.option("--grace", "grace_s", type=click.FloatRange(0), metavar="S", help="Seconds until it is ended by force.")
@json_option
@_server_options
@click.pass_context
def abort(
    ctx: click.Context,
    ids: tuple[str, ...],
    reason: str,
    grace_s: float | None,
    as_json: bool,
    server: str,
    user: str | None,
) -> None:
    """Ask jobs to end at their next safe point, by force after the grace time; those that have ended are no error.

    \b
    Examples:
      grid jobs abort job-12 --reason "wrong data"
      grid jobs abort job-12 --grace 0
    """
    _each(ctx, ids, server, user, as_json, "aborted", lambda service, job: service.abort(job, reason, grace_s))


@jobs.command(epilog=exits.EPILOG, short_help="Send a job a message.")
@click.argument("job")
@click.argument("kind")
@click.argument("fields", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--ask", is_flag=True, help="Wait for the job's answer and print it.")
@click.option("--timeout", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds for the answer.")
@json_option
@_server_options
def control(
    job: str,
    kind: str,
    fields: tuple[str, ...],
    ask: bool,
    timeout: float,
    as_json: bool,
    server: str,
    user: str | None,
) -> None:
    """Send a message of class KIND to a job. Pause, Resume and Checkpoint every job knows. Values are JSON, or text.

    \b
    Examples:
      grid jobs control job-12 Pause
      grid jobs control job-12 SetTemperature kelvin=300
      grid jobs control job-12 GetState --ask
    """
    values = _values(fields)
    with _connected(server, user) as service:
        if ask:
            print_json(service.ask(job, kind, timeout, **values))
        else:
            service.control(job, kind, **values)
            if as_json:
                print_json({"job": job, "kind": kind, "fields": values})


@jobs.command(epilog=exits.EPILOG, short_help="Take jobs that have ended off the list.")
@click.argument("ids", nargs=-1, required=True, metavar="JOB...")
@json_option
@_server_options
@click.pass_context
def archive(ctx: click.Context, ids: tuple[str, ...], as_json: bool, server: str, user: str | None) -> None:
    """Take jobs that have ended off the list; they and their results stay.

    \b
    Example:
      grid jobs archive job-12 job-13
    """
    _each(ctx, ids, server, user, as_json, "archived", lambda service, job: service.archive([job]))


@jobs.command(epilog=exits.EPILOG, short_help="Remove jobs that have ended, and their data.")
@click.argument("ids", nargs=-1, required=True, metavar="JOB...")
@json_option
@_server_options
@click.pass_context
def delete(ctx: click.Context, ids: tuple[str, ...], as_json: bool, server: str, user: str | None) -> None:
    """Remove jobs that have ended, with results and files.

    \b
    Example:
      grid jobs delete job-12
    """
    _each(ctx, ids, server, user, as_json, "deleted", lambda service, job: service.delete([job]))


def _each(
    ctx: click.Context,
    ids: tuple[str, ...],
    server: str,
    user: str | None,
    as_json: bool,
    done: str,
    work: Callable[[ServerProxy, str], None],
) -> None:
    from grid.jobs.host.errors import JobError

    failed: dict[str, str] = {}
    with _connected(server, user) as service:
        for job in ids:
            try:
                work(service, job)
            except JobError as exc:
                say(f"grid: {exc}")
                failed[job] = str(exc)
    if as_json:
        print_json({done: [job for job in ids if job not in failed], "failed": failed})
    ctx.exit(exits.FAILED if failed else exits.OK)


@click.command(epilog=exits.EPILOG, short_help="Show which job waits for which.")
@click.option("--dot", is_flag=True, help="For Graphviz.")
@json_option
@_server_options
def graph(dot: bool, as_json: bool, server: str, user: str | None) -> None:
    """Show jobs that are not archived as a tree: below each those that wait for it.

    \b
    Examples:
      grid graph
      grid graph --dot | dot -Tsvg > jobs.svg
    """
    with _connected(server, user) as service:
        nodes = service.graph()
    if as_json:
        print_json(nodes)
    elif dot:
        echo("digraph jobs {")
        for node in nodes:
            label = f"{node['id']}\\n{node['service'].rpartition('.')[2]}\\n{node['state']}"
            echo(f'  "{node["id"]}" [label="{label}"];')
            for before in node["after"]:
                echo(f'  "{before}" -> "{node["id"]}";')
        echo("}")
    else:
        for line in tree_lines(nodes):
            echo(line)


def tree_lines(nodes: Sequence[dict[str, Any]]) -> list[str]:
    """Jobs below the last one that they wait for; each once, with its condition."""
    known = {node["id"]: node for node in nodes}
    below: dict[str | None, list[str]] = {}
    for node in nodes:
        parents = [job for job in node["after"] if job in known]
        below.setdefault(parents[-1] if parents else None, []).append(node["id"])
    lines: list[str] = []
    waiting: list[tuple[int, str]] = [(0, job) for job in reversed(below.get(None, []))]
    while waiting:
        depth, job = waiting.pop()
        node = known[job]
        when = f"  when {node['condition']}" if node["condition"] else ""
        lines.append(f"{'  ' * depth}{job}  {node['service'].rpartition('.')[2]}  {node['state']}{when}")
        waiting += [(depth + 1, other) for other in reversed(below.get(job, []))]
    return lines


@click.command(epilog=exits.EPILOG, short_help="Show your credits.")
@json_option
@_server_options
def credits(as_json: bool, server: str, user: str | None) -> None:
    """Show what you used for work above priority 0, and what is left.

    \b
    Example:
      grid credits --json
    """
    with _connected(server, user) as service:
        found = service.credits()
    if as_json:
        print_json(found)
    else:
        row = [found["user"], *(f"{found[name]:.0f}" for name in ("used", "balance", "allowance"))]
        print_table(("user", "used", "left", "allowance"), [row])
