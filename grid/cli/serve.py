"""`grid serve`: a job server of this user on this machine.

Lives here: which services, grid and doors it has; waiting for a signal.
Elsewhere:  the server itself (`jobs/serving.py`), what clients do with it (`cli/jobs.py`).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grid.cli import exits
from grid.cli.choose import find_hosts, hosts_options, json_option
from grid.cli.mail import mail_options
from grid.cli.show import print_json, say

if TYPE_CHECKING:
    from grid.grids.grid import Grid
    from grid.jobs.serving import Door


@click.command(epilog=exits.EPILOG, short_help="Run a job server on this machine.")
@click.argument("modules", nargs=-1, metavar="[MODULE|FILE.py]...")
@click.option("--name", default="default", show_default=True, help="What clients call it.")
@click.option("--store", metavar="DIR|URL", help="Where jobs are kept; default: ~/.local/share/grid/jobs.")
@hosts_options
@click.option("--local", type=click.IntRange(1), metavar="N", help="Jobs run on this machine, with N servers.")
@click.option("--at-once", type=click.IntRange(1), default=4, show_default=True, help="Jobs at work, at least.")
@click.option("--checkpoint", "checkpoint_s", type=click.FloatRange(0), default=600.0, help="Seconds between them.")
@click.option("--grace", "grace_s", type=click.FloatRange(0), default=30.0, help="Seconds from an abort to force.")
@click.option("--tokens", is_flag=True, help="Clients must show a token ($GRID_JOBS_TOKEN).")
@click.option("--http", "http_at", metavar="ADDR:PORT", is_flag=False, flag_value="127.0.0.1", help="Serve HTTP, too.")
@click.option("--no-token", is_flag=True, help="With --http at 127.0.0.1: everybody on this machine may do all.")
@click.option("--cert", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="TLS certificate, PEM.")
@click.option("--key", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="Its private key, PEM.")
@click.option("--tls", type=click.Choice(["self"]), help="A certificate that it makes; clients pin its fingerprint.")
@click.option("--fetch-allow", multiple=True, metavar="NET", help="Private addresses to fetch from, like 10.0.0.0/8.")
@click.option("--add-user", metavar="USER", help="Print a new token of USER, and end.")
@mail_options
@json_option
@click.pass_context
def serve(
    ctx: click.Context,
    modules: tuple[str, ...],
    name: str,
    store: str | None,
    hosts_from: str | None,
    group: str | None,
    local: int | None,
    at_once: int,
    checkpoint_s: float,
    grace_s: float,
    tokens: bool,
    http_at: str | None,
    no_token: bool,
    cert: str | None,
    key: str | None,
    tls: str | None,
    fetch_allow: tuple[str, ...],
    add_user: str | None,
    as_json: bool,
    mail: dict[str, Any],
) -> None:
    """Serve jobs of the service classes in these modules, until Ctrl-C or SIGTERM; jobs at work then take a checkpoint.

    Clients reach it by its name, over a socket that only this user can open. With --http others reach it, too, over the
    network, by tokens of `grid token create`. With --json a line says when it is ready.

    \b
    Examples:
      grid serve fits.py --local 4
      grid serve mylab.fits mylab.scans --hosts hosts.yaml --name lab
      grid serve fits.py --store postgresql:///jobs
      grid serve --add-user mara
      grid serve fits.py --http 0.0.0.0:8440 --tls self
      grid serve fits.py --http --no-token
    """
    from grid.jobs.fetch.download import Policy
    from grid.jobs.serving import SocketDoor, new_token, open_server
    from grid.jobs.settings import Settings

    usable = [cls for module in modules for cls in _services(module)]
    try:  # who comes over the network may not have us look around in ours
        fetch = Policy(private=http_at is None or no_token, allow=fetch_allow)
    except ValueError as exc:
        raise click.UsageError(f"--fetch-allow: {exc}") from exc
    settings = Settings(checkpoint_s=checkpoint_s, abort_grace_s=grace_s, tokens=tokens, fetch=fetch, **mail)
    if add_user:
        token = new_token(store, add_user)
        print_json({"user": add_user, "token": token}) if as_json else click.echo(token)
        return
    doors: list[Door] = [SocketDoor(name), *_http(http_at, no_token, cert, key, tls)]
    if not usable:
        say("grid: no services yet; jobs that wait for one stay pending")
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    with open_server(
        store,
        lambda: _grid(local, hosts_from, group),
        settings=settings,
        at_once=at_once,
        services=usable,
        doors=doors,
    ) as server:
        about, n_servers = server.about, server.n_servers
        named = ", ".join(server.services) or "no services"
        say(f"job server {name!r} at {about['path']}: {named}; {n_servers} servers")
        if "url" in about:
            pin = f"  fingerprint {about['fingerprint']}" if about["fingerprint"] else ""
            say(f"on the network: {about['url']}{pin}")
        if as_json:
            click.echo(json.dumps({"name": name, **about, "services": server.services, "servers": n_servers}))
        while not told.wait(3600.0):
            pass
        say("stopping: jobs at work take a checkpoint")
    ctx.exit(exits.OK)


def _http(at: str | None, no_token: bool, cert: str | None, key: str | None, tls: str | None) -> list[Door]:
    """The door to the network, if one is wanted; all that can be wrong with the options is found here."""
    if at is None:
        if no_token or cert or key or tls:
            raise click.UsageError("--no-token, --cert, --key and --tls go with --http")
        return []
    if bool(cert) != bool(key) or (cert and tls):
        raise click.UsageError("give --cert and --key, or --tls self")
    try:
        from grid.jobs.host.errors import AccessError
        from grid.web.serving import HttpDoor
    except ImportError as exc:
        raise click.UsageError(f"--http needs the module {exc.name}. Run: pip install 'sshgrid[web]'") from exc

    certificate = (cert, key) if cert and key else None
    try:
        return [HttpDoor(at=at, tokens=not no_token, certificate=certificate, own_certificate=bool(tls))]
    except AccessError as exc:
        raise click.UsageError(str(exc)) from exc


def _grid(local: int | None, hosts_from: str | None, group: str | None) -> Grid:
    from grid.grids.grid import Grid
    from grid.grids.local import LocalGrid

    if local:
        return LocalGrid(local, workdir="staging")  # jobs leave nothing where the server was started
    hosts = find_hosts(hosts_from, group)
    return Grid(hosts, workdir="staging") if hosts is not None else Grid.auto(workdir="staging")


def _fault(exc: Exception) -> str:
    """The error, with its file and line."""
    if isinstance(exc, ImportError):
        return str(exc)
    if isinstance(exc, SyntaxError):
        return f"{type(exc).__name__}: {exc.msg} ({exc.filename}, line {exc.lineno})"
    last = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{type(exc).__name__}: {exc} ({last.filename}, line {last.lineno})"


def _services(module: str) -> list[Any]:
    """The service classes that a module defines; a file is imported from its folder."""
    from grid.jobs.host.service import Service

    name = module
    if module.endswith(".py"):
        path = Path(module).resolve()
        if not path.is_file():
            raise click.UsageError(f"there is no file {module!r}")
        sys.path.insert(0, str(path.parent))
        name = path.stem
    elif os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        loaded = importlib.import_module(name)
    except Exception as exc:  # it is the user's code, with faults of all kinds
        raise click.UsageError(f"the module {module!r} can't be imported: {_fault(exc)}") from exc
    found = [
        value
        for value in vars(loaded).values()
        if isinstance(value, type) and issubclass(value, Service) and value.__module__ == loaded.__name__
    ]
    usable = [cls for cls in found if cls.version is not None]
    if not usable:
        raise click.UsageError(f"the module {module!r} defines no service class with a version")
    return usable
