"""Stand-ins for batch systems: their commands, strict, made from records of the real ones.

    with stand_in("openpbs", directory, history=False) as system:   # qsub, qstat, qdel, ... are first on PATH
        BatchSystem(connect(Host("here", ssh="local")))
        system.mode("hung")

    KINDS: torque, openpbs (23.06, history on), openpbs-off (23.06 as it is installed), openpbs-git, sge, slurm,
           slurm-torque

All nodes are this machine, under names of their own. A lab of hosts starts the parts itself: see `write_base`.

Lives here: the kinds, starting and ending one. Elsewhere: queue and nodes (`engine.py`), the commands
(`pbs_commands.py` and the `pbs_*.py` that it names, `sge_commands.py`, `slurm_commands.py`), what each must do
(`testing/batch.py`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS: dict[str, dict[str, Any]] = {
    # TORQUE sends SIGKILL within milliseconds of SIGTERM, and copies output up to ten seconds late.
    "torque": {"system": "torque", "queue": "batch", "kill_delay_s": 0.02, "copy_late_s": 1.0, "history": True},
    "openpbs": {"system": "openpbs", "queue": "workq", "kill_delay_s": 10.0, "copy_late_s": 0.5, "history": True},
    "openpbs-off": {"system": "openpbs", "queue": "workq", "kill_delay_s": 10.0, "copy_late_s": 0.5, "history": False},
    "openpbs-git": {
        "system": "openpbs-git",
        "queue": "workq",
        "kill_delay_s": 10.0,
        "copy_late_s": 0.5,
        "history": True,
    },
    # SGE kills by a group id of the job's own, which no session of its own escapes.
    "sge": {
        "system": "sge",
        "queue": "batch",
        "kill_delay_s": 60.0,
        "copy_late_s": 0.0,
        "history": True,
        "freezer": True,
    },
    "slurm": {"system": "slurm", "queue": "batch", "kill_delay_s": 5.0, "copy_late_s": 0.1, "freezer": True},
    "slurm-torque": {
        "system": "slurm-torque",
        "queue": "batch",
        "kill_delay_s": 5.0,
        "copy_late_s": 0.1,
        "freezer": True,
    },
}
"""Kind -> how it is set up. Times are those of the records."""

DIALECT = {kind: "pbspro" if kind.startswith("openpbs") else kind for kind in KINDS}
"""Kind -> the name of its dialect."""

ROOT = str(Path(__file__).parents[3])


def commands_of(system: str) -> Any:
    """What the server has to know of a system."""
    if system == "sge":
        from grid.testing.standins import sge_commands

        return sge_commands.SgeWords()
    if system.startswith("slurm"):
        from grid.testing.standins import slurm_commands

        return slurm_commands.SlurmWords(system == "slurm-torque")
    from grid.testing.standins import pbs_server

    return pbs_server.PbsWords(system)


def run(command: str, args: list[str]) -> None:
    """One of the commands, as its script calls it."""
    from grid.testing.standins.engine import Base

    base = Base()
    system = base.config["system"]
    if system == "sge":
        from grid.testing.standins.sge_commands import COMMANDS
    elif system.startswith("slurm"):
        from grid.testing.standins.slurm_commands import COMMANDS
    else:
        from grid.testing.standins.pbs_commands import COMMANDS
    COMMANDS[command](base, args)


def command_names(system: str) -> list[str]:
    """The commands that a system has."""
    if system == "sge":
        return ["qsub", "qstat", "qdel", "qconf", "qrsh", "qacct"]
    if system.startswith("slurm"):
        return ["sbatch", "squeue", "scancel", "scontrol", "srun", *(["qsub"] if system == "slurm-torque" else [])]
    return ["qsub", "qstat", "qdel", "pbsdsh", *(["pbs_tmrsh"] if system != "torque" else [])]


def command_text(base: str, command: str, *, python: str = sys.executable, root: str = ROOT) -> str:
    """A program for PATH."""
    code = (
        f"import sys; sys.path[:0] = [{root!r}]; from grid.testing.standins import run; run({command!r}, sys.argv[1:])"
    )
    return f"#!/bin/sh\nGRID_STANDIN={base} exec {python} -c '{code.replace(chr(39), chr(34))}' \"$@\"\n"


def part_text(base: str, *words: str, python: str = sys.executable, root: str = ROOT) -> str:
    """A program that is the server, or a node."""
    code = f'import sys; sys.path[:0] = ["{root}"]; from grid.testing.standins.engine import main; main()'
    return f"#!/bin/sh\nGRID_STANDIN={base} exec {python} -c '{code}' {' '.join(words)}\n"


def write_base(path: Path, kind: str, nodes: Mapping[str, int], **changes: Any) -> dict[str, Any]:
    """Make the directory that all parts share. Returns how it is set up."""
    config: dict[str, Any] = {**KINDS[kind], "server": "head", "nodes": dict(nodes), "kind": kind, **changes}
    for name in ("jobs", "aux", "streams", *(f"tasks/{node}" for node in nodes)):
        (path / name).mkdir(parents=True, exist_ok=True)
        (path / name).chmod(0o777)
    for name, text in (("config.json", json.dumps(config)), ("lock", ""), ("number", "12"), ("mode", "up")):
        (path / name).write_text(text)
        (path / name).chmod(0o666)
    path.chmod(0o777)
    return config


@dataclass
class StandIn:
    """A stand-in that runs."""

    kind: str
    path: Path

    def mode(self, mode: str) -> None:
        """`up`, `down` or `hung`."""
        from grid.testing.standins.engine import write

        write(self.path / "mode", mode)

    def next_number(self) -> int:
        """The number that the next job gets: it says how many have come, also of those that are forgotten."""
        return int((self.path / "number").read_text())

    def job(self, number: str) -> dict[str, Any]:
        """What it knows of a job."""
        found: dict[str, Any] = json.loads((self.path / "jobs" / f"{number.partition('.')[0]}.json").read_text())
        return found

    def change(self, **config: Any) -> None:
        """Set it up otherwise, for commands that start from now on."""
        from grid.testing.standins.engine import write

        whole = json.loads((self.path / "config.json").read_text())
        write(self.path / "config.json", json.dumps({**whole, **config}))


@contextmanager
def stand_in(kind: str, directory: Path, nodes: Mapping[str, int] | None = None, **changes: Any) -> Iterator[StandIn]:
    """A batch system on this machine, as one user; its commands are first on PATH. Its jobs end with it."""
    nodes = nodes or {f"node{number}": 4 for number in range(1, 5)}
    programs, base = directory / "bin", directory / "batch"
    programs.mkdir(parents=True)
    base.mkdir(exist_ok=True)
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    config = write_base(base, kind, nodes, programs=str(programs), environment=kept, flatuid=True, **changes)
    for name in command_names(config["system"]):
        (programs / name).write_text(command_text(str(base), name))
        (programs / name).chmod(0o755)
    ours = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "GRID_DIALECT": DIALECT[kind]}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    parts = [_start(base, "server"), *(_start(base, "mom", node) for node in nodes)]
    try:
        yield StandIn(kind, base)
    finally:
        _end_jobs(base)
        for part in parts:
            part.kill()
            part.wait()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


KEPT = ("GRID_TEST_SESSION", "GRID_RUNTIME_DIR")
"""Variables of ours that a job has as well: by them tests find what it started."""


def _start(base: Path, *words: str) -> subprocess.Popen[bytes]:
    code = f"import sys; sys.path[:0] = [{ROOT!r}]; from grid.testing.standins.engine import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "GRID_STANDIN": str(base)},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def _end_jobs(base: Path) -> None:
    """Nothing of a job outlives its batch system: all are cancelled, and what hangs then is killed."""
    from grid.testing.standins.engine import ENDED, Base, family_of, write

    system = Base(str(base))
    write(base / "mode", "up")
    for job in system.jobs():
        system.cancel(job)
    limit = time.monotonic() + _END_S
    while any(job["state"] not in ENDED for job in system.jobs()) and time.monotonic() < limit:
        time.sleep(0.02)
    for path in base.glob("tasks/*/*.pid"):
        if not path.with_suffix(".exit").exists():
            for pid in family_of(int(path.read_text())):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


_END_S = 20.0
"""Longer than any kind waits for what ends by its warning."""
