"""What came of a command, and its outputs as files here.

Lives here: `CommandRun`, what a host's answer means, bringing outputs.
Elsewhere:  the run itself (`onhost`).
"""

from __future__ import annotations

import os
import posixpath
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grid.errors import CommandFailed, GridError, StagingError
from grid.staging.whole import whole_file
from grid.text import clean
from grid.wire.remote_path import RemotePath

_STDERR_LINES = 12


@dataclass(frozen=True)
class CommandRun:
    """One command that has run.

    `command`: as one would type it. `host`: the label of its host, `server`: the server that ran it. `status` and
    `signal`: how it ended; one of them is 0. `seconds`: how long it ran. `cpu_s`: processor seconds of it and its
    children. `peak_bytes`: the most memory that one of its processes had; Linux counts from the start, when it still
    shares that of its server, so that less than about 25 MB is not told. `stdout`, `stderr`: their last `keep_bytes`
    bytes, and `stdout_lost`, `stderr_lost`: bytes before those. `outputs`: files here, in the order of their names;
    with `keep=True` there are none, and `kept` has those on the host. `left`: how many processes it left running in
    sessions of their own, which were ended. `timed_out`: it was ended at `timeout_s`. `began`: seconds since 1970, by
    the clock of the host. `key`: what the run is known by. `memo`: it was done by an earlier run, and was not run
    now.
    """

    command: str
    host: str
    server: str
    status: int
    signal: int
    seconds: float
    cpu_s: float
    peak_bytes: int
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)
    stdout_lost: int
    stderr_lost: int
    outputs: list[Path]
    kept: list[RemotePath]
    left: int
    timed_out: bool
    began: float
    key: str
    memo: bool = False
    contents: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        """Whether it ended with status 0, by itself."""
        return not (self.status or self.signal or self.timed_out)

    @property
    def text(self) -> str:
        """What it wrote to stdout; bytes that are no UTF-8 are replaced."""
        return self.stdout.decode("utf-8", "replace")


def _end_of(stderr: bytes) -> str:
    return "\n".join(clean(stderr.decode("utf-8", "replace")[-8000:]).rstrip().splitlines()[-_STDERR_LINES:])


def judged(run: CommandRun, timeout_s: float | None) -> CommandFailed | None:
    """The error of a run that did not end well."""
    if run.ok:
        return None
    if run.timed_out:
        how = f"was ended at its time limit of {timeout_s:g} s" if timeout_s else "was ended at its time limit"
        hint = "Give it more: timeout_s=..."
    elif run.signal:
        name = signal.Signals(run.signal).name if run.signal in set(signal.Signals) else f"signal {run.signal}"
        how, hint = f"was ended by {name}", "SIGKILL without a reason is often the host's lack of memory"
        hint = hint if name == "SIGKILL" else "The program, or somebody on that host, sent it"
    else:
        how, hint = f"ended with status {run.status}", "check=False gives the value instead of this error"
    said = _end_of(run.stderr)
    return CommandFailed(
        f"{run.command[:300]!r} on host {run.host!r} {how}. "
        + (f"Its stderr ends:\n{said}\n" if said else "No stderr"),
        command=run.command,
        host=run.host,
        status=run.status,
        signal=run.signal,
        stderr=said,
        run=run,
        hint=hint,
    )


def trouble(command: str, host: str, answer: dict[str, Any], having: Callable[[str], str]) -> GridError | None:
    """The error of a command that could not run, or whose outputs can't be brought.

    Args:
        having: In words, which hosts have a program.
    """
    what, about = answer.get("trouble", ("", ""))
    if not what:
        return None
    text, hint = {
        "absent": (f"there is no program {about!r}", "Install it there, name its path, or say where= it is"),
        "no right": (f"{about!r} may not be executed", "chmod +x the file here: inputs keep their permission bits"),
        "refused": (f"it can't be started ({about})", "Is it a program of that machine, and are its words too long?"),
        "output": (f"an output is refused: {about}", "Have it write plain files in its directory, and name those"),
        "vanished": (f"its input {about!r} is not on the host any more", "Run again what wrote it"),
        "disk": (f"its directory can't be written ({about})", "Make room there, or name another temp_path"),
    }.get(what, (f"it could not run ({about})", "Look at the host's log: grid logs"))
    if what == "absent" and "/" not in about:
        text += f"; {having(about)}"
    return CommandFailed(
        f"{command[:300]!r} on host {host!r}: {text}",
        command=command,
        host=host,
        status=None,
        signal=None,
        stderr="",
        hint=hint,
    )


def unmatched(run: CommandRun, missing: tuple[str, list[str], int]) -> CommandFailed:
    """The error of a pattern that matched nothing after a run that ended well."""
    pattern, present, number = missing
    more = f" and {number - len(present)} more" if number > len(present) else ""
    there = f"It wrote {', '.join(map(repr, present))}{more}" if present else "It wrote no file"
    return CommandFailed(
        f"{run.command[:300]!r} on host {run.host!r} ended well, but its output {pattern!r} matches nothing",
        command=run.command,
        host=run.host,
        status=0,
        signal=0,
        stderr=_end_of(run.stderr),
        run=run,
        hint=there,
    )


def place_below(to: Path, name: str) -> Path:
    """Where an output of that name lies. StagingError: It leads out of there."""
    if not name or name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise StagingError(f"the output {name!r} leads out of {os.fspath(to)!r}", hint="The host is not to be trusted")
    return to / posixpath.normpath(name)


def bring_outputs(outputs: list[dict[str, Any]], to: Path, bring: Callable[[dict[str, Any], Path], None]) -> list[Path]:
    """Have the outputs below `to`, each whole or not at all.

    Args:
        bring: Brings one that waits on its host. Raises OSError, GridError.
    Raises:
        StagingError: It can't be written, or a name leads out of there.
    """
    brought = []
    for output in sorted(outputs, key=lambda output: str(output["name"])):
        path = place_below(to, output["name"])
        try:
            if "kept" in output:
                bring(output, path)
            else:
                with whole_file(path, output["mode"]) as file:
                    file.write(output["data"])
        except OSError as exc:
            raise StagingError(
                f"the output {output['name']!r} can't be written to {os.fspath(path)!r} ({exc.strerror or exc})",
                hint="Make room there, or name another directory: to=...",
            ) from exc
        brought.append(path)
    return brought
