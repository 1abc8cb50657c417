"""The command that becomes a kernel's interpreter on a host, with its `init_cmd` and `env` in force.

Variables of `env` are there before the interpreter starts (PYTHONPATH, LD_LIBRARY_PATH) and before `init_cmd` runs.
They go over standard input, as shell text on a line of its own: on a command line everybody there could read them.
Blank lines come before it, for a start-up file of the login shell that reads standard input: it gets an empty answer.

Lives here: which interpreter, the text around it, the line of variables.
Elsewhere:  what the interpreter is told then (`kernel/boot.py`), finding one (`shell.py`).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping

from grid.errors import PythonError
from grid.hosts import Host, compose_command
from grid.kernel import boot
from grid.launch.shell import find_python_script, remote_path

_LINE = "GRID-ENV "
_SPARE = b"\n" * 16
"""For a program that reads our input before us."""
STARTED = "GRID_STARTS_KERNEL"
"""Set while the interpreter of a kernel starts. A program that finds it set is no interpreter of Python, see below."""

# `set -f` and an empty IFS keep the blanks in an interpreter's path; without blanks a command may have arguments.
_KEEP_BLANKS = 'case $PY in *" "*) command -v "$PY" >/dev/null 2>&1 && { IFS=; set -f; };; esac; '
_READ = f"while IFS= read -r GRID_E; do case $GRID_E in {_LINE.strip()}*) break;; esac; done; "
_SET = f'eval "${{GRID_E#{_LINE.strip()}}}"; '


def this_python() -> str:
    """The interpreter that runs this program, for kernels on this machine.

    Raises:
        PythonError: There is none: a frozen application, or Python inside another program.
    """
    if getattr(sys, "frozen", False) or STARTED in os.environ:
        what = f"{sys.executable or 'this program'} is a frozen application and no Python interpreter"
    elif not sys.executable:
        what = "Python runs inside another program here (sys.executable is empty)"
    else:
        return sys.executable
    raise PythonError(
        what,
        host="localhost",
        hint="Name an interpreter that has pyzmq and dill: LocalGrid(python=...), or Host('localhost', ssh='local', "
        "python=...)",
    )


def python_of(host: Host) -> str:
    """The interpreter's command there. On this machine, unless the host names another, it is our own."""
    return this_python() if host.ssh == "local" and host.python == "python" else host.python


def launch_command(host: Host, python: str | None = None) -> str:
    """POSIX shell text that becomes the kernel's interpreter on a host; its input begins with `variables`.

    Args:
        python: The interpreter of its environment; None: that of the host's entry.
    """
    find = find_python_script(python or python_of(host), sys.version_info[1])
    lacking = json.dumps(
        {
            "error": f"no Python was found under the name {host.python!r}, nor python3",
            "hint": "Name the interpreter with python:, or run `grid hosts setup`",
            "kind": "PythonError",
        }
    )
    find += f'; [ -n "$PY" ] || {{ printf "%s\\n" {shlex.quote(boot.MARK + lacking)}; exit 1; }}; '
    # named only if it does not start: that Python may be another than theirs
    find += 'printf "grid-note PYTHONPATH=%s PYTHONHOME=%s\\n" "$PYTHONPATH" "$PYTHONHOME" >&2; '
    find += f"{_KEEP_BLANKS}unset GRID_E; export {STARTED}=1; "
    run = f"$PY -c {shlex.quote(boot.SCOUT)}"
    if host.init_cmd.rstrip().endswith("!"):
        return _READ + _SET + find + compose_command(host.init_cmd, run)
    return _READ + _SET + compose_command(host.init_cmd, f"{_SET}{find}exec {run}")


def with_variables(host: Host, find: str, run: str) -> str:
    """The same surroundings for another program: `find` sets $PY, `run` runs it. Its input begins with `variables`."""
    if host.init_cmd.rstrip().endswith("!"):
        return _READ + _SET + find + _KEEP_BLANKS + compose_command(host.init_cmd, run)
    return _READ + _SET + compose_command(host.init_cmd, _SET + find + _KEEP_BLANKS + run)


def variables(env: Mapping[str, str]) -> bytes:
    """The first words on a kernel's input: what `launch_command` reads."""
    return _SPARE + f"{_LINE}{assignments(env)}\n".encode()


def assignments(env: Mapping[str, str]) -> str:
    """Shell text, one line, that sets and exports variables; `~` is the host's.

    A value with a newline is left out: no such variable means anything to an interpreter's start, and servers get it
    later like all others.
    """
    words = [
        f"{name}={':'.join(_word(part) for part in _parts(value))}; export {name};"
        for name, value in env.items()
        if "\n" not in value
    ]
    return " ".join(words)


def _parts(value: str) -> list[str]:
    parts = value.split(":")
    return parts if all(re.match(r"[~/.]|\Z", part) for part in parts) else [value]


def _word(text: str) -> str:
    return remote_path(text) if text else ""


def why_not_started(stderr: str) -> tuple[str, str]:
    """The output of a kernel that did not start, without our own note; and a hint if a variable may be the cause."""
    kept, hint = [], ""
    for line in stderr.splitlines():
        found = re.match(r"grid-note PYTHONPATH=(.*) PYTHONHOME=(.*)\Z", line)
        if found is None:
            kept.append(line)
            continue
        said = {"PYTHONPATH": found[1], "PYTHONHOME": found[2]}
        named = [f"{name} is {value!r}" for name, value in said.items() if value]
        if named:
            names = " ".join(word.split()[0] for word in named)
            hint = (
                f"There {' and '.join(named)}, which may belong to another Python: take it out of the start-up files "
                f"there, or set init_cmd: 'unset {names};'"
            )
    return "\n".join(kept).strip(), hint
