"""How far a host can be used, step by step: the first step that fails is the one to mend.

Lives here: the steps, as plain results; nothing is printed and nothing on the host is changed.
Elsewhere:  looking at the host (`probe.py`), making its environment (`environment.py`), tables (`cli/`).
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Any

from grid.care.packages import examine as examine_packages
from grid.care.packages import word_of
from grid.care.probe import NEEDS, Facts, examine, lacking
from grid.errors import ConnectError, HostError, HostKeyError, LoginError, MissingExtra
from grid.hosts import Host
from grid.launch import Connection, connect
from grid.launch.limits import DEFAULT_LIMITS, ConnectLimits
from grid.launch.shell import MINIMUM
from grid.slots.resources import Resources

STEPS = (
    "name",
    "way",
    "port",
    "sshd",
    "host key",
    "log-in",
    "shell",
    "python",
    "environment",
    "packages",
    "temp disk",
    "clock",
    "load",
    "slots",
    "route",
    "batch",
)
"""In this order; up to `python` each needs all before it."""

LOW_SPACE_BYTES = 1 << 30
NO_SPACE_BYTES = 16 << 20
CLOCK_S = 2.0
_MINIMUM = ".".join(map(str, MINIMUM))


@dataclass(frozen=True)
class Step:
    """One question and its answer. An `ok` step may have a hint, too: it will do, but could be better."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The findings about one host. `facts` is None if we did not get in."""

    host: str
    steps: tuple[Step, ...]
    facts: Facts | None

    @property
    def ok(self) -> bool:
        """Whether every step is in order."""
        return all(step.ok for step in self.steps)

    @property
    def failed(self) -> Step | None:
        """The first step that is not in order."""
        return next((step for step in self.steps if not step.ok), None)


def diagnose(host: Host, limits: ConnectLimits = DEFAULT_LIMITS) -> Diagnosis:
    """Try everything that a launch needs, once; never raises for what is wrong with the host."""
    try:
        connection = connect(host, limits)
    except HostError as exc:
        return Diagnosis(host.label, _steps_before(host, exc), None)
    with connection:
        reached = [] if host.ssh == "local" else _steps_in(host, connection.server_address())
        try:
            facts = examine(connection)
            packages = _packages(host, connection) if word_of(host, None) is not None else None
        except ConnectError as exc:
            return Diagnosis(host.label, (*reached, Step("shell", False, exc.what, exc.hint)), None)
    steps = [*reached, *judge(host, facts)]
    if packages is not None:
        steps.append(packages)
        steps.sort(key=lambda step: STEPS.index(step.name))
    return Diagnosis(host.label, tuple(steps), facts)


def _packages(host: Host, connection: Connection) -> Step:
    """The environment that the entry of a host names: can it be had, and is it there?"""
    word = word_of(host, None) or ""
    if host.python_archive is not None:
        return Step("packages", True, f"environment {word or 'for kernels'}, on the Python of {host.python_archive}")
    try:
        fits, told = examine_packages(connection, word)
    except (HostError, MissingExtra) as exc:
        return Step("packages", False, exc.what, str(exc.facts.get("hint", "")))
    hint = "" if told == "is there" else f"The first grid brings it, or `grid hosts setup {host.label}` in advance"
    return Step("packages", fits, f"environment {word}: {told}", hint if fits else "")


def judge(host: Host, facts: Facts, client: tuple[int, int] = sys.version_info[:2]) -> list[Step]:
    """The meaning of the facts for a client of that Python version: the steps from `shell` on."""
    steps = [_shell(facts), _python(host, facts, client)]
    found = facts.python
    if not steps[-1].ok or found is None:
        return steps
    return [
        *steps,
        _environment(host, found),
        _temp_disk(found["temp"]),
        _clock(facts),
        _load(found),
        *([_slots(host, found)] if "slots" in found else []),
        _route(host, facts),
        _batch(found["batch"]),
    ]


def _steps_before(host: Host, error: HostError) -> tuple[Step, ...]:
    if isinstance(error, HostKeyError):
        failed = "host key"
    elif isinstance(error, LoginError):
        failed = "log-in"
    else:
        failed = str(error.facts.get("stage", "sshd"))
    if "stage" in error.facts:
        failed = str(error.facts["stage"])  # of a jump host: the way, whatever went wrong there
    passed = STEPS[: STEPS.index(failed)]
    done = [Step(name, True, "") for name in passed if name != "way" or host.jump]
    return (*done, Step(failed, False, error.what, error.hint))


def _steps_in(host: Host, address: str | None) -> list[Step]:
    how = f"by {host.ssh}" + (f" to {address}" if address else " through others")
    passed = STEPS[: STEPS.index("log-in")]
    return [*(Step(name, True, "") for name in passed if name != "way" or host.jump), Step("log-in", True, how)]


def _shell(facts: Facts) -> Step:
    if not facts.shell:
        return Step(
            "shell",
            False,
            f"no shell ran our commands{': ' + facts.complaint if facts.complaint else ''}",
            "May this account run commands? Look at its login shell and at init_cmd"
            if facts.began
            else "A start-up file there (.bashrc, .cshrc, .zshenv) ends the shell: let it do so in interactive ones",
        )
    if facts.noise:
        shown = facts.noise.strip().splitlines()
        return Step(
            "shell",
            True,
            f"{facts.shell}, which prints {shown[0][:60]!r}{' and more' if len(shown) > 1 else ''}",
            "grid copes, but scp and rsync don't: let its start-up files print only in interactive shells",
        )
    return Step("shell", True, facts.shell)


def _python(host: Host, facts: Facts, client: tuple[int, int]) -> Step:
    by_version = {one.version: one.path for one in reversed(facts.pythons)}
    others = ", ".join(f"{'.'.join(map(str, version))} {path}" for version, path in sorted(by_version.items()))
    if facts.python is None and host.python_archive is not None:
        return Step("python", True, f"none there: it gets the one of {host.python_archive}")
    if facts.python is None:
        why = facts.complaint.splitlines()[-1] if facts.complaint else ""
        if host.python != "python":
            what = f"{host.python!r} did not run{': ' + why if why else ''}; found: {others or 'none'}"
            return Step("python", False, what, "Name one of those with python:, or leave python: out")
        what = f"none was found{': ' + why if why else ''}" if not others else f"none ran; found: {others}"
        return Step("python", False, what, f"Install Python {_MINIMUM} or newer, or name one with python:")
    version = tuple(facts.python["version"])
    shown = f"{'.'.join(map(str, version))} {facts.python['executable']}"
    if version[:2] < MINIMUM:
        hint = f"grid needs {_MINIMUM} or newer: name one with python:, or install it"
        return Step("python", False, f"{shown} is too old; found: {others}", hint)
    if version[:2] != client:
        return Step(
            "python",
            True,
            f"{shown}, and here is {client[0]}.{client[1]}",
            "Objects of importable modules will do; functions and classes of a script need the same version",
        )
    return Step("python", True, shown)


def _environment(host: Host, found: dict[str, Any]) -> Step:
    modules = found["modules"]
    if word_of(host, None) is not None:
        return Step("environment", True, "it has one of its own: see packages")
    if bad := lacking(modules):
        hint = f"`grid hosts setup {host.label}` installs what is missing"
        return Step("environment", False, "; ".join(bad), hint)
    good = [f"{package} {modules[name]['version']}" for name, (package, _) in NEEDS.items()]
    return Step("environment", True, ", ".join(good))


def _temp_disk(temp: dict[str, Any]) -> Step:
    path = temp["path"]
    if "error" in temp:
        return Step("temp disk", False, f"can't write to {path}: {temp['error']}", "Name another one with temp_path:")
    free, inodes = temp["free_bytes"], temp["free_inodes"]
    detail = f"{path}{'' if temp['exists'] else ' (will be made)'}, {size(free)} free"
    if inodes is not None and inodes < 1000:
        return Step("temp disk", False, f"{detail}, room for {inodes} files", "Clear it, or name another temp_path:")
    if free < NO_SPACE_BYTES:
        return Step("temp disk", False, detail, "Clear it, or name another temp_path:")
    return Step("temp disk", True, detail, "That is not much" if free < LOW_SPACE_BYTES else "")


def _clock(facts: Facts) -> Step:
    if facts.skew_s is None:
        return Step("clock", True, "not compared")
    trip = f", answers in {(facts.round_trip_s or 0) * 1000:.0f} ms"
    if abs(facts.skew_s) < CLOCK_S:
        return Step("clock", True, f"agrees{trip}")
    way = "ahead" if facts.skew_s > 0 else "behind"
    hint = "Times in its logs and of staged files will mislead: is NTP running there?"
    return Step("clock", True, f"{abs(facts.skew_s):.1f} s {way}{trip}", hint)


def _load(found: dict[str, Any]) -> Step:
    cores, load, memory = found["cores"], found["load"], found["memory"]
    detail = f"{cores} cores, load {load:.1f}"
    if "MemTotal" in memory:
        detail += f", {size(memory.get('MemAvailable', 0))} of {size(memory['MemTotal'])} memory free"
    return Step("load", True, detail, "It is busy already" if load >= cores else "")


def resources_of(host: Host, found: dict[str, Any]) -> Resources | None:
    """What a host has for servers with needs, as its entry says or else as it was found; None: it can't be told."""
    told = found.get("slots") or {}
    return None if "cores" not in told else host.said.of(Resources.of(told))


def _slots(host: Host, found: dict[str, Any]) -> Step:
    resources = resources_of(host, found)
    if resources is None:
        return Step("slots", True, "not looked at", str((found.get("slots") or {}).get("error", "")))
    nodes, used = {node for _, node in resources.cores}, found["slots"]["used"]
    said = [f"{len(resources.cores)} cores" + (f" on {len(nodes)} NUMA nodes" if len(nodes) > 1 else "")]
    said += [f"{size(resources.memory)} of memory"] if resources.memory else []
    for device in resources.devices:
        said.append(f"{device}, {'used by ' + used[device.id] if used.get(device.id) else 'free'}")
    watched = found["slots"].get("limits", "")
    said.append(f"memory limits are {f'watched ({watched})' if watched else 'kept by the kernel'}")
    return Step("slots", True, "; ".join(said), "; ".join(resources.notes))


def _route(host: Host, facts: Facts) -> Step:
    if host.ssh == "local":
        return Step("route", True, "this machine")
    if facts.direct:
        return Step("route", True, f"direct to {facts.address}")
    if host.transport == "direct":
        hint = "Set transport: auto or tunnel"
        return Step("route", False, f"no TCP connection to {facts.address or 'its address'}", hint)
    if facts.tunnel is False:
        way = f"no direct connection to {facts.address}, and " if facts.address else ""
        hint = "Its sshd must allow forwarding (AllowTcpForwarding yes), or a firewall ports: ask its administrator"
        return Step("route", False, f"{way}sshd makes no tunnel for us", hint)
    if facts.address is None:
        return Step("route", True, "tunnel through ssh")
    return Step("route", True, f"tunnel through ssh: no direct connection to {facts.address}")


def _batch(batch: dict[str, Any]) -> Step:
    return Step("batch", True, batch_dialect(batch["found"], batch["said"]) or "none")


def batch_dialect(found: dict[str, str], said: dict[str, str]) -> str:
    """Which batch system the commands on a host belong to; empty if there are none."""
    if "sbatch" in found:
        match = re.match(r"slurm (\S+)", said.get("sbatch --version", ""))
        commands = " with Torque's commands" if "qsub" in found else ""
        return f"Slurm {match.group(1)}{commands}" if match else "Slurm, whose sbatch does not work here"
    if "qsub" not in found:
        return ""
    version = said.get("qsub --version", "")
    if match := re.search(r"pbs_version\s*=\s*(\S+)", version):
        return f"PBS {match.group(1)}"
    if match := re.search(r"Version:\s*(\S+)", version):
        return f"TORQUE {match.group(1)}"
    if match := re.search(r"\bS?GE (\S+)", said.get("qsub -help", "")):
        return f"Grid Engine {match.group(1)}"
    return "qsub of a kind that we don't know"


def size(count: float) -> str:
    """Bytes for people: `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
