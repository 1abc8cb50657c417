"""`grid hosts list, check, setup, trust` and `grid doctor`: is this host of use, and what would make it so?

Lives here: options and tables.
Elsewhere:  looking (`care/doctor.py`), making ready (`care/environment.py`), keys (`care/trust.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grid.cli import exits
from grid.cli.choose import (
    environment_option,
    find_hosts,
    host_or_any,
    hosts_option,
    hosts_options,
    hosts_or_complain,
    json_option,
    named_environment,
)
from grid.cli.main import NearMisses
from grid.cli.show import ask, echo, print_json, print_table, progress, say, side_by_side
from grid.errors import GridError

if TYPE_CHECKING:
    from grid.care.doctor import Diagnosis
    from grid.care.environment import Setup
    from grid.hosts import Host


@click.group(cls=NearMisses)
def hosts() -> None:
    """List hosts, check them, make them ready, accept their keys."""


# ---- list --------------------------------------------------------------------------------------------------


@hosts.command("list", epilog=exits.EPILOG, short_help="Print what a hosts file says.")
@hosts_options
@json_option
def list_hosts(hosts_from: str | None, group: str | None, as_json: bool) -> None:
    """Print what a hosts file says, defaults filled in; talks to no host.

    \b
    Example:
      grid hosts list --group gpu
    """
    chosen = hosts_or_complain(hosts_from, group)
    if as_json:
        print_json([{**dataclasses.asdict(host), "label": host.label} for host in chosen])
        return
    rows = [
        (
            host.label,
            host.use_n_cpu if host.use_n_cpu == host.n_cpu else f"{host.use_n_cpu} of {host.n_cpu}",
            host.niceness,
            "(any that fits)" if host.python == "python" else host.python,
            host.temp_path or "",
            host.ssh + (f" by {host.jump}" if host.jump else ""),
            host.transport,
            ", ".join(host.groups),
        )
        for host in chosen
    ]
    print_table(("host", "servers", "nice", "python", "temp path", "ssh", "transport", "groups"), rows)


# ---- check -------------------------------------------------------------------------------------------------


@hosts.command(epilog=exits.EPILOG, short_help="Say in one table whether hosts can be used.")
@click.argument("names", metavar="[HOST]...", nargs=-1)
@hosts_options
@json_option
@click.pass_context
def check(ctx: click.Context, names: tuple[str, ...], hosts_from: str | None, group: str | None, as_json: bool) -> None:
    """Check hosts, all at the same time, and show in one table whether grid can use them. Changes nothing on them.

    HOST is a name of the hosts file; without such a file, any name that ssh knows. Without HOST: all of them.
    Below the table stands why a host can't be used, with a remedy.

    \b
    Examples:
      grid hosts check
      grid hosts check --group gpu
      grid hosts check --json | jq '.[] | select(.ok | not) | .host'

    The status is 0 only if every host is fine, and 3 if none is.
    """
    chosen = hosts_or_complain(hosts_from, group, names)
    found = _diagnose(chosen)
    if as_json:
        print_json([_facts_of(host, one) for host, one in zip(chosen, found, strict=True)])
    else:
        rows = [_row_of(host, one) for host, one in zip(chosen, found, strict=True)]
        print_table(
            ("host", "state", "key", "python", "found", "cores", "load", "memory", "disk", "clock", "route", "batch"),
            rows,
        )
        devices = [row for host, one in zip(chosen, found, strict=True) for row in _devices_of(host, one)]
        if devices:
            print_table(("host", "device", "name", "memory", "node", "used by"), devices)
        for one in found:
            _explain(one)
    ctx.exit(_verdict([one.ok for one in found]))


def _diagnose(chosen: Sequence[Host]) -> list[Diagnosis]:
    from grid.care.doctor import diagnose

    found = side_by_side("looking", chosen, diagnose, lambda host: host.label, quiet=_may_prompt(chosen))
    return [_no_error(one) for one in found]


def _no_error(one: Diagnosis | GridError) -> Diagnosis:
    if isinstance(one, GridError):
        raise one
    return one


def _may_prompt(chosen: Sequence[Host]) -> bool:
    """The user's ssh may ask for a second factor at the terminal: keep it free for that."""
    return any(host.ssh == "openssh" for host in chosen)


def _facts_of(host: Host, one: Diagnosis) -> dict[str, Any]:
    facts: dict[str, Any] = {"host": one.host, "ok": one.ok, "failed": one.failed.name if one.failed else None}
    facts["steps"] = [dataclasses.asdict(step) for step in one.steps]
    told = {} if one.facts is None or one.facts.python is None else one.facts.python
    memory = told.get("memory", {})
    temp = told.get("temp", {})
    facts.update(
        key=_key_state(host, one),
        python=".".join(map(str, told["version"])) if told else None,
        executable=told.get("executable"),
        pythons=[
            {"version": ".".join(map(str, each.version)), "path": each.path}
            for each in (one.facts.pythons if one.facts else [])
        ],
        cores=told.get("cores"),
        load=told.get("load"),
        slots=_slots_of(host, one),
        memory_bytes=memory.get("MemTotal"),
        memory_free_bytes=memory.get("MemAvailable"),
        temp_path=temp.get("path"),
        temp_free_bytes=temp.get("free_bytes"),
        clock_skew_s=one.facts.skew_s if one.facts else None,
        round_trip_s=one.facts.round_trip_s if one.facts else None,
        route=_route(host, one) or None,
        batch=_detail(one, "batch") if told else None,
    )
    return facts


def _slots_of(host: Host, one: Diagnosis) -> dict[str, Any] | None:
    """Cores with their NUMA nodes, memory and devices as servers with needs would find them; None: it can't be told."""
    from grid.care.doctor import resources_of

    told = {} if one.facts is None or one.facts.python is None else one.facts.python
    resources = resources_of(host, told)
    return None if resources is None else {**resources.plain(), "used": told["slots"]["used"]}


def _devices_of(host: Host, one: Diagnosis) -> list[tuple[str, ...]]:
    from grid.care.doctor import size

    slots = _slots_of(host, one) or {"devices": []}
    return [
        (
            one.host,
            each["id"],
            each["name"],
            size(each["memory"]) if each["memory"] else "",
            "" if each["node"] < 0 else str(each["node"]),
            slots["used"].get(each["id"]) or "nobody",
        )
        for each in slots["devices"]
    ]


def _cores_of(facts: dict[str, Any]) -> str:
    nodes = {node for _, node in (facts["slots"] or {"cores": []})["cores"]}
    return f"{facts['cores'] or ''}" + (f" on {len(nodes)} nodes" if len(nodes) > 1 else "")


def _row_of(host: Host, one: Diagnosis) -> tuple[str, ...]:
    from grid.care.doctor import size

    facts = _facts_of(host, one)
    others = sorted({each["version"].rpartition(".")[0] for each in facts["pythons"]}, key=_version_key)
    skew = facts["clock_skew_s"]
    return (
        one.host,
        "fine" if one.ok else facts["failed"],
        facts["key"],
        facts["python"] or "",
        " ".join(others),
        _cores_of(facts),
        "" if facts["load"] is None else f"{facts['load']:.1f}",
        "" if facts["memory_free_bytes"] is None else size(facts["memory_free_bytes"]),
        "" if facts["temp_free_bytes"] is None else size(facts["temp_free_bytes"]),
        "" if skew is None else "agrees" if abs(skew) < 2.0 else f"{skew:+.1f} s",
        facts["route"] or "",
        facts["batch"] or "",
    )


def _version_key(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _key_state(host: Host, one: Diagnosis) -> str:
    from grid.care.doctor import STEPS

    if host.ssh == "local":
        return "not needed"
    if one.failed is None or STEPS.index(one.failed.name) > STEPS.index("host key"):
        return "known"
    return "refused" if one.failed.name == "host key" else ""


def _route(host: Host, one: Diagnosis) -> str:
    if host.ssh == "local":
        return "local"
    said = _detail(one, "route")
    return said.split(" ")[0] if said else ""


def _detail(one: Diagnosis, name: str) -> str:
    return next((step.detail for step in one.steps if step.name == name), "")


def _explain(one: Diagnosis) -> None:
    for step in one.steps:
        if not step.ok:
            say(f"{one.host}: {step.name}: {step.detail}\n  {step.hint}")


def _verdict(fine: Sequence[bool]) -> int:
    if all(fine):
        return exits.OK
    return exits.FAILED if any(fine) else exits.NOTHING_USABLE


# ---- setup -------------------------------------------------------------------------------------------------


@hosts.command(epilog=exits.EPILOG, short_help="Install on hosts what they lack; safe to repeat.")
@click.argument("names", metavar="[HOST]...", nargs=-1)
@click.option("--check", "only_check", is_flag=True, help="Only say which hosts need it; change nothing.")
@click.option(
    "--wheels",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Install all the wheels in this directory; for hosts and places without a package index.",
)
@click.option("--with", "packages", metavar="PKG", multiple=True, help="A package that hosts shall have, too.")
@environment_option
@hosts_options
@json_option
@click.pass_context
def setup(
    ctx: click.Context,
    names: tuple[str, ...],
    only_check: bool,
    wheels: Path | None,
    packages: tuple[str, ...],
    environment_of: str | None,
    hosts_from: str | None,
    group: str | None,
    as_json: bool,
) -> None:
    """Make hosts ready, all at the same time: an interpreter with pyzmq and dill, and the temp directory.

    If a host has both, it stays as it is; you can repeat the command. grid installs into ~/.grid/env on the host, and
    changes no other environment. Packages come from this machine over ssh, or from the host's index.
    With --with PKG (again for more) hosts get packages that your objects need, as they are installed here.
    With --environment, and where the entry of a host names one, that environment is brought to it in advance.

    \b
    Examples:
      grid hosts setup
      grid hosts setup --with numpy --with scipy
      grid hosts setup --check --json
      grid hosts setup --environment here
      grid hosts setup node17 --wheels ./wheels

    The status is 0 only if every host is ready, and 3 if none is.
    """
    chosen = hosts_or_complain(hosts_from, group, names)
    if only_check:
        outcomes = [_would_do(one) for one in _diagnose(chosen)]
    else:
        quiet = _may_prompt(chosen)
        word = None if environment_of is None else named_environment(environment_of)
        work = partial(_set_up, wheels=wheels, packages=packages, word=word)
        done = side_by_side("setting up", chosen, work, lambda host: host.label, quiet=quiet)
        outcomes = [_was_done(host, one) for host, one in zip(chosen, done, strict=True)]
    if as_json:
        print_json(outcomes)
    else:
        rows = [
            (
                one["host"],
                "ready" if one["ok"] else "needs it" if one["actions"] else "failed",
                one["python"] or "",
                ", ".join(f"{name} {version}" for name, version in one["packages"].items()),
                "; ".join(one["actions"]) or ("nothing" if one["ok"] else ""),
            )
            for one in outcomes
        ]
        print_table(("host", "state", "python", "packages", "would do" if only_check else "done"), rows)
        for one in outcomes:
            for warning in one["warnings"]:
                say(f"{one['host']}: {warning}")
            if one["error"]:
                say(one["error"] if one["error"].startswith("host ") else f"{one['host']}: {one['error']}")
    ctx.exit(_verdict([one["ok"] for one in outcomes]))


def _set_up(host: Host, wheels: Path | None, packages: tuple[str, ...], word: str | None) -> Setup:
    from grid.care import packages as environments
    from grid.care.environment import Setup, setup_host
    from grid.launch import connect

    named = environments.word_of(host, word)
    if named is not None and wheels is None and not packages:
        brought = environments.bring(host, named)
        sent = f"sent {len(brought.sent)} packages ({brought.sent_bytes / 1e6:.0f} MB), made ~/.grid/env/{brought.name}"
        return Setup(host.label, brought.python, actions=[sent] if brought.built else [])
    with connect(host) as connection:
        return setup_host(connection, wheels=wheels, packages=packages)


def _was_done(host: Host, done: Setup | GridError) -> dict[str, Any]:
    empty: dict[str, Any] = {"host": host.label, "ok": False, "python": None, "packages": {}, "actions": []}
    if isinstance(done, GridError):
        return {**empty, "warnings": [], "error": str(done)}
    return {
        **empty,
        "ok": True,
        "python": ".".join(map(str, done.version)) or done.python,
        "packages": {_PACKAGE.get(name, name): version for name, version in done.packages.items()},
        "actions": done.actions,
        "warnings": done.warnings,
        "error": "",
    }


_PACKAGE = {"zmq": "pyzmq"}  # the module's name -> the package's


def _would_do(one: Diagnosis) -> dict[str, Any]:
    told = {} if one.facts is None or one.facts.python is None else one.facts.python
    modules = {
        _PACKAGE.get(name, name): found["version"]
        for name, found in told.get("modules", {}).items()
        if "version" in found
    }
    failed = one.failed
    todo = [f"install what is missing ({failed.detail})"] if failed and failed.name == "environment" else []
    return {
        "host": one.host,
        "ok": one.ok,
        "python": ".".join(map(str, told["version"])) if told else None,
        "packages": modules,
        "actions": todo,
        "warnings": [],
        "error": f"{failed.name}: {failed.detail}. {failed.hint}" if failed and not todo else "",
    }


# ---- trust -------------------------------------------------------------------------------------------------


@hosts.command(epilog=exits.EPILOG, short_help="Show a host's key, and record it in known_hosts.")
@click.argument("name", metavar="HOST")
@click.option("--yes", is_flag=True, help="Accept without asking; compare the fingerprint by other means first.")
@hosts_option
@json_option
@click.pass_context
def trust(ctx: click.Context, name: str, yes: bool, hosts_from: str | None, as_json: bool) -> None:
    """Show the key of a host, and on agreement record it in known_hosts, as ssh does.

    Compare the fingerprint with the one that the host's administrator gives you: a machine between you and the host
    could show its own key. grid never accepts a key that differs from the recorded one.

    \b
    Example:
      grid hosts trust node17
    """
    from grid.care.trust import fetch_key
    from grid.care.trust import trust as record
    from grid.launch.known_hosts import Verdict

    host = host_or_any(hosts_from, name)
    with progress(quiet=_may_prompt([host])) as show:
        show(f"asking {host.label} for its key")
        shown = fetch_key(host)
    agreed = shown.verdict is Verdict.KNOWN
    if not as_json:
        echo(f"{shown.host} ({shown.name})  {shown.key_type}  {shown.fingerprint}")
    if shown.verdict is Verdict.KNOWN:
        say(f"is on record in {shown.file}")
    elif shown.verdict is Verdict.UNKNOWN:
        if as_json and not yes:
            say(f"{shown.host}  {shown.fingerprint}")
        agreed = yes or ask(f"Record it in {shown.file}?")
        if agreed:
            record(shown)
            say(f"recorded in {shown.file}")
        else:
            say("not recorded")
    else:
        record(shown)  # refuses, and says what to do
    if as_json:
        facts = dataclasses.asdict(shown)
        print_json({**facts, "verdict": shown.verdict.value, "recorded": agreed})
    ctx.exit(exits.OK if agreed else exits.FAILED)


# ---- doctor ------------------------------------------------------------------------------------------------


@click.command(epilog=exits.EPILOG, short_help="Walk all that a host needs; a remedy for what fails.")
@click.argument("name", metavar="HOST")
@hosts_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, name: str, hosts_from: str | None, as_json: bool) -> None:
    """Walk all that has to work before a server runs on HOST, and give a remedy for the first step that fails.

    Before that it says whether something here hides this grid from scripts: another project named grid, or a file or
    folder of that name.

    The steps: name, way there, port, sshd, host key, log-in, shell, Python, environment, temp disk, clock, load,
    route of the calls, batch system. HOST is a name of the hosts file, or anything that ssh understands. Nothing on the
    host is changed.

    \b
    Examples:
      grid doctor node17
      grid doctor mara@desk2:2222

    The status is 1 if a step fails.
    """
    from grid.care.doctor import diagnose
    from grid.care.ourselves import look_here

    host = host_or_any(hosts_from, name)
    with progress(quiet=_may_prompt([host])) as show:
        show(f"looking at {host.label}")
        found = diagnose(host)
    if (hidden := look_here()) is not None:
        found = dataclasses.replace(found, steps=(hidden, *found.steps))
    if as_json:
        print_json(_facts_of(host, found))
    else:
        echo(host.label)
        for step in found.steps:
            mark = click.style("ok  ", fg="green") if step.ok else click.style("FAIL", fg="red", bold=True)
            click.echo(f"  {mark}", nl=False)  # colours are ours, what follows is a host's
            echo(f"  {step.name:<11}  {step.detail}".rstrip())
            if step.hint:
                echo(f"        {'note' if step.ok else 'remedy'}: {step.hint}")
        if found.failed and found.failed.name == "name":
            _near_hosts(name, hosts_from)
    ctx.exit(exits.OK if found.ok else exits.FAILED)


def _near_hosts(name: str, hosts_from: str | None) -> None:
    from grid.hosts.host import did_you_mean

    known = [host.label for host in find_hosts(hosts_from, None) or []]
    if name not in known and (hint := did_you_mean(name, known)):
        say(f"The hosts file has no {name!r}{hint}")
