"""qsub as TORQUE 6.1.3 and OpenPBS have it: options, directives, checks, and what becomes a job.

Lives here: the command, `Asked`; the process that submits later for a server that hangs.
Elsewhere:  what is shared with other commands (`pbs_server.py`).
"""

from __future__ import annotations

import contextlib
import getopt
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from grid.testing.standins.engine import TICK_S, Base, Job
from grid.testing.standins.pbs_server import indices_of, place_of, reach, seconds, split_outside, usage, version

TORQUE_QSUB_USAGE = """\
usage: qsub [-a date_time] [-A account_string] [-b secs]
    [-c [ none | { enabled | periodic | shutdown |
    depth=<int> | dir=<path> | interval=<minutes>}... ]
    [-C directive_prefix] [-d path] [-D path]
    [-e path] [-h] [-I] [-j oe|eo|n] [-k {oe}] [-K <kill delay seconds>]
    [-l resource_list] [-m n|{abe}] [-M user_list] [-N jobname] [-o path]
    [-p priority] [-P proxy_user [-J <jobid]] [-q queue] [-r y|n]
    [-S path] [-t number_to_submit] [-T type]  [-u user_list] [-w] path
    [-W additional_attributes] [-v variable_list] [-V ] [-x] [-X] [-z] [script]
"""
PBS_QSUB_USAGE = """\
usage: qsub [-a date_time] [-A account_string] [-c interval]
\t[-C directive_prefix] [-e path] [-f ] [-h ] [-I [-X]] [-j oe|eo] [-J X-Y[:Z]]
\t[-k keep] [-l resource_list] [-m mail_options] [-M user_list]
\t[-N jobname] [-o path] [-p priority] [-P project] [-q queue] [-r y|n]
\t[-R o|e|oe] [-S path] [-u user_list] [-W otherattributes=value...]
\t[-v variable_list] [-V ] [-z] [script | -- command [arg1 ...]]
       qsub --version
"""


def qsub(base: Base, args: list[str]) -> None:
    torque = base.config["system"] == "torque"
    options = "a:A:b:c:C:d:D:e:F:hIj:k:K:l:m:M:N:o:p:P:J:q:r:S:t:T:u:w:W:v:VxXzn" if torque else (
        "a:A:c:C:e:fhIj:J:k:l:m:M:N:o:p:P:q:r:R:S:u:W:v:VXzG"
    )  # fmt: skip
    text = TORQUE_QSUB_USAGE if torque else PBS_QSUB_USAGE
    if args == ["--version"]:
        print(version(base))
        return
    try:
        given, rest = getopt.gnu_getopt(args, options)
    except getopt.GetoptError as exc:
        head = f"qsub: invalid option -- '{exc.opt}'\n" + ("[exiting]\n\n" if torque else "")
        usage(base, head + text)
    if len(rest) > 1:
        usage(base, "[index issues]\n\n" + text if torque else text)
    if rest:
        try:
            script = Path(rest[0]).read_text()
        except OSError:
            why = (
                f"qsub: script file '{rest[0]}' cannot be loaded - No such file or directory\n"
                if torque
                else "qsub: script file:: No such file or directory\n"
            )
            usage(base, why, 1)
        name = os.path.basename(rest[0])[:15]
    else:
        script, name = sys.stdin.read(), "STDIN"
    if ("-I", "") in given:
        usage(base, "qsub:\tstandard input and output must be a terminal for\n\tinteractive job submission\n", 1)
    directives: list[tuple[str, str]] = []
    for line in script.splitlines():
        if line.startswith("#PBS "):
            with contextlib.suppress(getopt.GetoptError):
                directives += getopt.gnu_getopt(line[5:].split(), options)[0]
        elif line.strip() and not line.startswith("#"):
            break
    asked = Asked(base, name)
    for option, value in [*directives, *given]:
        asked.take(option, value, text)
    if not torque and not asked.foreground and base.mode() == "hung":
        hand_over(base, asked, script)
    reach(base, "qsub")
    asked.check()
    if not torque and os.uname().nodename in base.config["nodes"] and not base.config.get("flatuid"):
        usage(base, "qsub: Bad UID for job execution\n", 175)
    if torque and os.uname().nodename in base.config["nodes"]:
        usage(base, "qsub: submit error (Bad UID for job execution MSG=ruserok failed validating)\n", 177)
    number = base.submit(asked.job(), script)
    if not asked.quiet:
        print(f"{number}{'[]' if asked.indices else ''}.{base.config['server']}")


def hand_over(base: Base, asked: Asked, script: str) -> NoReturn:
    """To a process in the background, as the real one does: it submits the job when a hung server goes on, whatever

    has become of us by then. We hang.
    """
    code = f"import sys; sys.path[:0] = {sys.path[:1]!r}; from grid.testing.standins import pbs_qsub; pbs_qsub.later()"
    handed = json.dumps([asked.job(), script])
    null = subprocess.DEVNULL
    subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "GRID_STANDIN": str(base.path), "GRID_STANDIN_LATER": handed},
        stdin=null,
        stdout=null,
        stderr=null,
        start_new_session=True,
    )
    while True:
        time.sleep(60)


def later() -> None:
    """The process in the background."""
    base = Base()
    job, script = json.loads(os.environ["GRID_STANDIN_LATER"])
    end = time.time() + 60
    while base.mode() == "hung":
        if time.time() > end:
            return
        time.sleep(TICK_S)
    base.submit(job, script)


class Asked:
    """What a job asks for, as the options and directives say."""

    def __init__(self, base: Base, name: str) -> None:
        self.base, self.torque = base, base.config["system"] == "torque"
        self.name, self.queue, self.output, self.error = name, base.config["queue"], "", ""
        self.join = self.foreground = self.quiet = self.hold = False
        self.rerunable = True
        self.everything = False
        self.variables: dict[str, str] = {}
        self.depend: list[tuple[str, int]] = []
        self.resources: dict[str, str] = {}
        self.indices: list[int] = []

    def take(self, option: str, value: str, text: str) -> None:
        letter = option[1]
        if letter == "N":
            if not re.fullmatch(r"[^\s]+", value):
                usage(self.base, ("[qsub: illegal -N value]\n\n" if self.torque else "qsub: illegal -N value\n") + text)
            self.name = value
        elif letter == "l":
            for part in split_outside(value):
                key, _, rest = part.partition("=")
                self.resources[key] = rest
        elif letter == "q":
            self.queue = value
        elif letter in "oe":
            setattr(self, "output" if letter == "o" else "error", value.rpartition(":")[2])
        elif letter == "j":
            if value not in ("oe", "eo", "n"):
                usage(self.base, ("[qsub: illegal -j value]\n\n" if self.torque else "qsub: illegal -j value\n") + text)
            self.join = value != "n"
        elif letter == "W":
            self._attribute(value, text)
        elif letter == "v":
            for part in value.split(","):
                key, equals, rest = part.partition("=")
                if equals:
                    self.variables[key] = rest
                elif key in os.environ:
                    self.variables[key] = os.environ[key]
                elif not self.torque:
                    usage(self.base, "qsub: cannot send environment with the job\n", 1)
        elif letter == "V":
            self.everything = True
        elif letter == "f":
            self.foreground = True
        elif letter == "h":
            self.hold = True
        elif letter == "z":
            self.quiet = True
        elif letter == "r":
            self.rerunable = value == "y"
        elif letter == ("t" if self.torque else "J"):
            self.indices = indices_of(value)

    def _attribute(self, value: str, text: str) -> None:
        key, _, rest = value.partition("=")
        if key == "depend":
            kind = rest.partition(":")[0]
            if kind not in ("after", "afterok", "afternotok", "afterany", "before", "beforeok"):
                usage(self.base, "qsub: illegal -W value\n" + text)
            self.depend = [(kind, int(job.partition(".")[0].rstrip("[]"))) for job in rest.split(":")[1:]]
        elif self.torque and key not in ("depend", "group_list", "umask", "stagein", "stageout", "x"):
            usage(
                self.base,
                "qsub: submit error (Undefined attribute  MSG=detected presence of an unknown attribute)\n",
                154,
            )

    def check(self) -> None:
        refuse = self._torque_checks if self.torque else self._pbs_checks
        refuse()

    def _torque_checks(self) -> None:
        def refuse(status: int, why: str) -> NoReturn:
            usage(self.base, f"qsub: submit error ({why})\n", status)

        if self.queue != self.base.config["queue"]:
            refuse(172, "Unknown queue MSG=requested queue not found")
        for key, value in self.resources.items():
            if key not in ("nodes", "walltime", "mem", "pmem", "vmem", "ncpus", "procs", "select", "cput", "place"):
                refuse(189, f"Unknown resource type  Resource_List.{key}")
            if key == "walltime" and not re.fullmatch(r"[\d:]+", value):
                refuse(168, "Illegal attribute or resource value for Resource_List.walltime")
        sizes = self.base.config["nodes"]
        want = self.want()
        if len(want) > len(sizes) or any(
            each["cpus"] > max(sizes.values()) or each.get("host") not in (None, *sizes) for each in want
        ):
            refuse(
                190,
                "Job exceeds queue resource limits MSG=cannot locate feasible nodes (nodes file is empty, all systems "
                "are busy, or no nodes have the requested feature)",
            )
        for kind, other in self.depend:
            before = self.base.load(other)
            if before is None or (kind == "afterok" and before["state"] == "C"):
                refuse(208, "Invalid Job Dependency")

    def _pbs_checks(self) -> None:
        def refuse(status: int, why: str) -> NoReturn:
            usage(self.base, f"qsub: {why}\n", status)

        if self.indices and not self.rerunable:
            refuse(255, "cannot submit non-rerunable Array Job\nqsub: directive error: -r n ")
        if self.queue != self.base.config["queue"]:
            refuse(170, "Unknown queue")
        chunked = "select" in self.resources or "place" in self.resources
        for key, value in self.resources.items():
            if key not in ("nodes", "walltime", "mem", "pmem", "vmem", "ncpus", "select", "place", "cput", "mpiprocs"):
                refuse(187, f"Unknown resource Resource_List.{key}")
            if key == "walltime" and not re.fullmatch(r"[\d:]+", value):
                refuse(166, "Illegal attribute or resource value Resource_List.walltime")
            if key == "nodes" and chunked:
                refuse(6, "Cannot be used with select or place: nodes")
            if key in ("mem", "ncpus", "vmem", "mpiprocs") and chunked:
                refuse(5, f'"-lresource=" cannot be used with "select" or "place", resource is: {key}')
        for chunk in self.resources.get("select", "").split("+"):
            for part in chunk.split(":")[1:]:
                if part.partition("=")[0] not in ("ncpus", "mpiprocs", "ompthreads", "mem", "host", "vnode"):
                    refuse(187, f"Unknown resource: {part.partition('=')[0]}")
        if self.resources.get("nodes", "1").partition(":")[0] == "0":
            refuse(241, "node(s) specification error")
        if self.resources.get("select", "1").partition(":")[0] == "0":
            refuse(166, "Illegal attribute or resource value")

    def want(self) -> list[dict[str, Any]]:
        """Nodes, or chunks: cpus, lines of the node file, and more, of each."""
        if "select" in self.resources and not self.torque:
            return [each for chunk in self.resources["select"].split("+") for each in self._chunk(chunk)]
        found: list[dict[str, Any]] = []
        for part in self.resources.get("nodes", "1").split("+"):
            first, *more = part.split(":")
            ppn = next((int(each[4:]) for each in more if each.startswith("ppn=")), 1)
            host = None if first.isdigit() else first
            found += [{"cpus": ppn, "lines": ppn, "host": host}] * (int(first) if first.isdigit() else 1)
        if not self.torque and "nodes" not in self.resources and "ncpus" in self.resources:
            return [{"cpus": int(self.resources["ncpus"]), "lines": 1}]
        return found

    def _chunk(self, chunk: str) -> list[dict[str, Any]]:
        first, *more = chunk.split(":") if chunk[:1].isdigit() else ["1", *chunk.split(":")]
        given = dict(each.partition("=")[::2] for each in more)
        cpus = int(given.get("ncpus", 1))
        made = {"cpus": cpus, "lines": int(given.get("mpiprocs", 1)), "host": given.get("host")}
        if "ompthreads" in given:
            made["threads"] = int(given["ompthreads"])
        return [made] * int(first)

    def job(self) -> Job:
        here = os.getcwd()
        variables = {**(dict(os.environ) if self.everything else {}), **self.variables}
        variables = {key: value for key, value in variables.items() if not key.startswith("PBS_")}
        want = self.want()
        scatter = self.torque or "select" not in self.resources or self.resources.get("place", "").startswith("scatter")
        server_number = "%d"  # known when it is submitted
        return {
            "name": self.name,
            "queue": self.queue,
            "want": want,
            "scatter": scatter,
            "walltime": seconds(self.resources.get("walltime", "1:00:00")),
            "resources": self.resources,
            "output": place_of(here, self.output, f"{self.name}.o{server_number}"),
            "error": place_of(here, self.error, f"{self.name}.e{server_number}"),
            "join": self.join,
            "rerunable": self.rerunable,
            "variables": variables,
            "depend": self.depend,
            "user_hold": self.hold,
            "state": "H" if self.hold or self.depend else "Q",
            "cwd": here,
            "path": os.environ.get("PATH", ""),
            **({"indices": self.indices, "mark": "-" if self.torque else "."} if self.indices else {}),
        }
