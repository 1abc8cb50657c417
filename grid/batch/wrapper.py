"""The batch script of `grid qsub` and `grid sbatch`: the user's command, its environment, and a marker of its end.

What the batch system says of a job's end can't be trusted: a job whose first node crashed may end with status 0, and
one that has ended is soon forgotten (seen with TORQUE 6.1.3). So the script itself writes how it ended into a file, and
that counts.

Lives here: the script's body, options of the command line into a `JobSpec`.
Elsewhere:  directives (`batch_systems/`), what was submitted and how it ended (`records.py`), the command line
            (`cli/batch.py`).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from grid.batch_systems import parse_walltime
from grid.batch_systems.sge import SPARED, WARNING
from grid.errors import AllocationError
from grid.launch.shell import follow_child

_INDEX = "${SLURM_ARRAY_TASK_ID:-${PBS_ARRAY_INDEX:-${PBS_ARRAYID:-$SGE_TASK_ID}}}"
"""Which task of an array this is."""

_LET_KERNELS_END = """\
# A job's end kills its remaining processes on all nodes. Kernels of a script that died get the moment to clear up.
if [ -n "$told" ] || [ "$status" -gt 128 ]; then
    sid=$(ps -o sid= -p $$ 2>/dev/null) && sid=${sid##* } || sid=
    kernels() { ps -s "$sid" -o args= 2>/dev/null | grep -q -e "^grid agent " -e "[i]=getattr(sys.stdin"; }
    left=50
    while [ -n "$sid" ] && [ "$left" -gt 0 ] && kernels; do
        left=$((left - 1)); sleep 0.1
    done
fi"""


def job_body(
    command: Sequence[str], *, marker: str | None = None, array: bool = False, executable: str = sys.executable
) -> str:
    """The shell's part of a job: runs `command`, passes SIGTERM on to it, ends with its status.

    Args:
        marker: File that gets that status and when it began and ended, written whole or not at all.
        array: Whether the job has many tasks: each has a file of its own, with its index behind a dot.
        executable: The interpreter whose directory comes first on PATH: the one that submits.
    """
    words = list(command)
    if words[0] in ("python", "python3") or words[0].endswith(".py"):
        # the interpreter that submits, by its path: a job's profile may put others first
        words = [executable, *(words if words[0].endswith(".py") else words[1:])]
    lines = [
        "began=$(date +%s)",
        f'export PATH={shlex.quote(os.path.dirname(executable))}:"$PATH"',
        SPARED,
        f"{shlex.join(words)} &",
        follow_child(f"TERM INT {WARNING}"),
        _LET_KERNELS_END,
    ]
    if marker is not None:
        lines.append(f"end={shlex.quote(marker)}")
        lines += [f'end="$end.{_INDEX}"'] if array else []
        lines.append('echo "$status $began $(date +%s)" >"$end.new" && mv "$end.new" "$end"')
    return "\n".join([*lines, 'exit "$status"'])


def check_command(command: Sequence[str], directory: str) -> None:
    """Refuse a command that can't run: its program, or the script that it names, is not there.

    Raises:
        AllocationError: With the name that was looked for.
    """
    program, *args = command
    if os.sep in program or program.endswith(".py"):
        if not os.path.isfile(os.path.join(directory, program)):
            raise AllocationError(f"there is no {program!r} in {directory}", hint="Name the script as seen from here")
    elif shutil.which(program) is None:
        raise AllocationError(f"the command {program!r} is not on the PATH", hint="What shall the job run?")
    script = next((arg for arg in args if not arg.startswith("-")), None)
    runs_a_file = program.startswith("python") and not any(arg in ("-c", "-m", "-") for arg in args)
    if runs_a_file and (script is None or not os.path.isfile(os.path.join(directory, script))):
        raise AllocationError(
            f"there is no script {script or ''!r} in {directory}", hint="Name the script as seen from here"
        )


def check_outputs(paths: Sequence[str]) -> None:
    """Refuse a file of output whose directory is not there, or can't be written to.

    The batch system would find that out at the job's end: PBS keeps nodes busy for half a minute then and leaves the
    file in its spool, Slurm does not even start the script.

    Raises:
        AllocationError: With the directory.
    """
    for path in paths:
        directory = path if os.path.isdir(path) else os.path.dirname(path)
        if path != "/dev/null" and not os.path.isdir(directory):
            raise AllocationError(f"there is no directory {directory} for the output {path}", hint="Make it first")
        if path != "/dev/null" and not os.access(directory, os.W_OK):
            raise AllocationError(f"nothing can be written to {directory}", hint="Let the output go elsewhere: -o, -e")


def is_array(lines: Sequence[str]) -> bool:
    """Whether directives of the user's own ask for many tasks: `--array`, `-J`, `-t`."""
    return any(re.match(r"#(SBATCH\s.*(--array|-a)\b|(PBS|\$)\s.*-[tJ]\s)", line) for line in lines)


def parse_resources(options: Sequence[str]) -> dict[str, Any]:
    """Fields of a `JobSpec` from `-l` options: `nodes=2:ppn=4,walltime=1:00:00,mem=2gb`. All of them count.

    Source: pbs_resources of TORQUE; Slurm's qsub takes only the last `-l`, so that they must become one.

    Raises:
        AllocationError: One of them makes no sense; the message shows it.
    """
    found: dict[str, Any] = {}
    others: list[str] = []
    for part in (part.strip() for option in options for part in option.split(",")):
        name, _, value = part.partition("=")
        if name == "walltime":
            found["walltime_s"] = parse_walltime(value)
        elif name == "nodes":
            found.update(_nodes(value))
        elif part:
            others.append(part)
    found["resources"] = tuple(others)
    return found


def parse_variables(options: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    r"""Variables of `-v` options: `A=1,B` takes B from the environment; a comma in a value is written `\,`.

    Raises:
        AllocationError: B is not set here.
    """
    found: dict[str, str] = {}
    for part in (part for option in options for part in re.split(r"(?<!\\),", option)):
        name, equals, value = part.replace("\\,", ",").partition("=")
        if not equals:
            if name not in environ:
                raise AllocationError(
                    f"-v {name}: this variable is not set here", hint=rf"Use -v {name}=VALUE, and \, for a comma"
                )
            value = environ[name]
        found[name] = value
    return found


def parse_depend(options: Sequence[str]) -> str | None:
    """The dependency of `-W depend=afterok:12`; None without one.

    Raises:
        AllocationError: Another attribute: it goes in by `--line`.
    """
    found = None
    for option in options:
        name, _, value = option.partition("=")
        if name != "depend" or not value:
            raise AllocationError(f"-W {option} is not known here", hint=f"Use --line '#PBS -W {option}'")
        found = value
    return found


def _nodes(value: str) -> dict[str, Any]:
    parts = value.split(":")
    if not parts[0].isdigit() or "+" in value:
        return {"nodes": value, "ppn": None}
    found: dict[str, Any] = {"nodes": int(parts[0]), "ppn": 1}
    for part in parts[1:]:
        name, _, number = part.partition("=")
        if name != "ppn":
            return {"nodes": value, "ppn": None}  # with properties of nodes: taken as it is
        if not number.isdigit():
            raise AllocationError(f"nodes={value}: ppn must be a number", hint="For example nodes=2:ppn=4")
        found["ppn"] = int(number)
    return found
