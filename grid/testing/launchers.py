"""Stand-ins for the programs by which batch systems start tasks on the nodes of a job: pbsdsh and qrsh.

    with fake_job("pbs", directory, ["n1", "n2", "n2"]):
        Grid.from_allocation()

Every node is this machine. They behave as the real ones did when tried: pbsdsh (TORQUE 6.1.3) gives its tasks an empty
input, next to no environment and $HOME as directory, sends their output to the job's file, and ends with 0 whatever
they do; qrsh (gridengine 8.1.9) carries the streams and the exit status, and its words go through a shell.

Lives here: the programs' texts, the environment of a job of either system.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PBSDSH = """\
import os, subprocess, sys
args, chosen = sys.argv[1:], None
nodes = [line.strip() for line in open(os.environ["PBS_NODEFILE"]) if line.strip()]
unique = list(dict.fromkeys(nodes))
if args[0] == "-u":
    chosen, args = unique, args[1:]
elif args[0] == "-h":
    if args[1] not in nodes:
        sys.exit("pbsdsh(): %s not found" % args[1])
    chosen, args = [args[1]], args[2:]
else:
    chosen = nodes
tasks = []
for number, node in enumerate(chosen):
    env = {"PATH": "/bin:/usr/bin", "HOME": os.environ["HOME"], "PBS_JOBID": os.environ["PBS_JOBID"]}
    env.update((name, os.environ[name]) for name in ("GRID_TEST_SESSION",) if name in os.environ)  # known by it
    env.update(PBS_NODENUM=str(unique.index(node)), PBS_VNODENUM=str(number), PBS_TASKNUM=str(number + 2))
    with open(os.environ.get("FAKE_JOB_OUTPUT", os.devnull), "ab") as output:
        tasks.append(subprocess.Popen(args, env=env, cwd=env["HOME"], stdin=subprocess.DEVNULL, stdout=output,
                                      stderr=output, start_new_session=True))
if "FAKE_TASKS" in os.environ:  # who runs the job ends its tasks, too
    with open(os.environ["FAKE_TASKS"], "a") as file:
        file.write("".join("%d\\n" % task.pid for task in tasks))
for number, task in enumerate(tasks):
    if task.wait():
        print("pbsdsh(): task %d exit status %d" % (number, task.returncode), file=sys.stderr)
"""

QRSH = """\
import os, subprocess, sys
args = [word for word in sys.argv[1:] if word not in ("-inherit", "-V")]
hosts = [line.split()[0] for line in open(os.environ["PE_HOSTFILE"]) if line.split()]
if "-inherit" not in sys.argv or args[0] not in hosts:
    sys.exit("error: executing task of job %s failed: failed sending task" % os.environ["JOB_ID"])
sys.exit(subprocess.call(["/bin/sh", "-c", " ".join(args[1:])], cwd=os.environ["HOME"]))
"""


def write_launchers(directory: Path) -> None:
    """Put `pbsdsh` and `qrsh` into a directory for PATH."""
    for name, text in (("pbsdsh", PBSDSH), ("qrsh", QRSH)):
        path = directory / name
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(0o755)


@contextmanager
def fake_job(system: str, directory: Path, nodes: Sequence[str]) -> Iterator[dict[str, str]]:
    """The environment of a job of `pbs` or `sge` on these nodes (a name for each slot), with its launcher on PATH."""
    programs = directory / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    write_launchers(programs)
    listed = directory / "nodes"
    if system == "pbs":
        listed.write_text("".join(f"{node}\n" for node in nodes))
        ours = {"PBS_JOBID": "12.vm", "PBS_NODEFILE": str(listed), "PBS_NODENUM": "0", "PBS_ENVIRONMENT": "PBS_BATCH"}
    elif system == "sge":
        lines = [f"{node} {list(nodes).count(node)} all.q@{node} UNDEFINED\n" for node in dict.fromkeys(nodes)]
        listed.write_text("".join(lines))
        ours = {"JOB_ID": "3", "PE_HOSTFILE": str(listed)}
    else:
        raise ValueError(f"there is no stand-in for the launcher of {system!r}: use pbs or sge")
    ours["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield ours
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
