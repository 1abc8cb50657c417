r"""Text for shells: quoting that survives any login shell, and the search for an interpreter.

Lives here: pure functions from text to text.
Elsewhere:  what runs the text (`connection.py`), what goes in front of the interpreter (`hosts.compose_command`).

sshd hands a command to the user's login shell, which may be csh or fish. Both treat some characters inside single
quotes in their own way: csh wants no newline there and expands `!`, fish reads `\\` and `\'` as escapes. So a text
that has any of these travels with them written as octal escapes, which printf of the POSIX shell turns back.
"""

from __future__ import annotations

import re
import shlex

PID_LINE = re.compile(rb"grid-pid (\d+)\n")
PROFILE = "[ ! -r /etc/profile ] || . /etc/profile </dev/null >/dev/null 2>&1"
AS_LOGGED_IN = f"""eval "$(exec 3>&1; trap 'export -p >&3' EXIT; {PROFILE})"; """
"""Sets what /etc/profile and /etc/profile.d export for a log-in shell: over ssh commands get a bare PATH, and batch
systems often come by these. They are read in a shell of their own, which tells what it exports at its end: a file that
prints, asks, changes directory or calls `exit` does not touch the commands that follow, nor their input."""
LOGIN_PATH = f"""$(exec 3>&1; trap 'printf %s "$PATH" >&3' EXIT; {PROFILE})"""
"""Shell word: the PATH of a log-in shell alone."""
_TROUBLE = "\\'!\n\r"
MINIMUM = (3, 10)
"""Oldest Python that the kernel runs on."""
_BUILT_ON = range(MINIMUM[1], 20)


def sh_command(text: str) -> str:
    """A command line that makes any login shell run `text` by `sh`."""
    if not any(char in text for char in _TROUBLE):
        return f"sh -c {shlex.quote(text)}"
    encoded = "".join(f"\\0{ord(char):03o}" if char in _TROUBLE else char for char in text)
    # In `encoded` no single quote is left, so these quotes are plain in every shell.
    return f"""sh -c 'eval "$(printf %b "$0")"' '{encoded}'"""


def safe_program(text: str) -> str:
    """A program for `python -c`, which would else import a json.py of the directory that it starts in (the home)."""
    return f"import sys\nsys.path[:] = [each for each in sys.path if each]\n{text}"


def announced(text: str, mark: str = "") -> str:
    """The same commands, whose first line on standard error tells their process id: see `kill_script`.

    Args:
        mark: What stands on standard output before the first byte of theirs: start-up files of the login shell may have
            printed before, without an end of line, too (a window title).
    """
    said = f"printf %s {mark}; " if mark else ""
    return f'echo "grid-pid $$" >&2; {said}{text}'


def kill_script(pid: int) -> str:
    """Ends the process group of an announced command, politely and then not.

    The group and not the process: its children belong to the command. `ps` and not `-pid`: where the login shell
    forks (csh, fish) it leads the group, not our shell.
    """
    return (
        f"g=$(ps -o pgid= -p {pid} 2>/dev/null | tr -d ' '); g=${{g:-{pid}}}; "
        'kill -s TERM -- "-$g" 2>/dev/null && sleep 1; kill -s KILL -- "-$g" 2>/dev/null; :'
    )


def follow_child(signals: str) -> str:
    """Shell text behind `... &`: wait for that command, hand a signal on to it, leave its status in `$status`.

    Only the first signal is handed on, as SIGTERM: a batch system may send several, and the second one would kill a
    Python whose handler of the first has begun to end it. From then on the shell ignores them. A signal interrupts
    `wait`, whose answer then says nothing of the command, and a second one at the command's end makes bash 5.2 forget
    how that ended (it answers -1). The shell may have taken the end in at the same moment: it is asked once more.

    Args:
        signals: Their names, as `trap` takes them.
    """
    return (
        f"""child=$!; trap 'trap "" {signals}; kill -TERM "$child" 2>/dev/null' {signals}; """
        'wait "$child"; status=$?; while [ "$status" -gt 128 ]; do '
        'kill -0 "$child" 2>/dev/null; lives=$?; wait "$child" 2>/dev/null; again=$?; '
        "case $again in 127 | -1) break ;; esac; "  # it was told already, or is forgotten
        'status=$again; [ "$lives" = 0 ] || break; done'
    )


def remote_path(path: str) -> str:
    """A path on the host as one word of shell text: quoted, but for the `~` or `~user` that it starts with."""
    if not path.startswith("~"):
        return shlex.quote(path)
    home, slash, rest = path.partition("/")
    if not re.fullmatch(r"~[A-Za-z0-9._-]*", home):
        return shlex.quote(path)
    return home + slash + (shlex.quote(rest) if rest else "")


FIND_BROUGHT = (
    'for p in "$HOME"/.grid/env/python-*/bin/python3 "$HOME"/.grid/env/python-*/*/bin/python3; do '
    '[ -x "$p" ] && { PY=$p; break; }; done'
)
"""POSIX shell text: sets $PY to an interpreter of an archive that grid has brought there, if there is one."""


def find_python_script(python: str, client_minor: int, *, base: bool = False) -> str:
    """POSIX shell text that sets $PY to the interpreter's command, or to nothing if there is none.

    Args:
        python: `Host.python`. Anything but the default `python` is what the user wants: taken as it is.
        client_minor: N of the client's Python 3.N. First come the environment that `grid hosts setup` made for it
            and an interpreter of that version; then another environment of ours, then any.
        base: To build an environment on: one of ours is none.
    """
    if python != "python":
        return f"PY={remote_path(python)}"
    env = '"$HOME"/.grid/env'
    if base:
        names = " ".join(
            f"python3.{minor}" for minor in sorted(_BUILT_ON, key=lambda minor: (minor != client_minor, -minor))
        )
        return _first_of(f"{names} python3 python")
    names = f"{env}/py3{client_minor}/bin/python python3.{client_minor} {env}/py3*/bin/python python3 python"
    return _first_of(names)


def _first_of(names: str) -> str:
    return f'PY=; for p in {names}; do if command -v "$p" >/dev/null 2>&1; then PY=$p; break; fi; done'
