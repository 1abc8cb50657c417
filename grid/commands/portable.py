"""A command that travels with its inputs, to be run wherever it arrives: in units of jobs, and as a task.

A worker of a job, or of a master, has no way to ask a client for files. So inputs go along as bytes, outputs come back
as bytes, and both are bounded; for more than that `g.command` has files.

Lives here: `PortableCommand`, `perform`. It runs on hosts, as all that it needs does.
Elsewhere:  the run itself (`onhost`), its value (`outcome`), `handler.command` (`jobs/host/runner.py`), tasks
            (`tasks/command.py`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grid.arguments import check_number
from grid.commands.onhost import RunCommand
from grid.commands.outcome import CommandRun, judged, trouble, unmatched
from grid.commands.template import CommandLine, fill
from grid.errors import CommandFailed, StagingError
from grid.kernel.filestore import FileStore
from grid.limits import checked_timeout
from grid.wire.remote_path import RemotePath

MOST_BYTES = 64 * 1024 * 1024
"""Inputs of one command together, and its outputs together."""
KEEP_BYTES = 1 << 20
_FACTS = (
    *("status", "signal", "seconds", "cpu_s", "peak_bytes", "stdout", "stderr", "stdout_lost", "stderr_lost"),
    *("left", "timed_out", "began"),
)


@dataclass(frozen=True)
class PortableCommand:
    """See the module. `files`: (place, contents, permission bits) of each input."""

    line: CommandLine
    files: tuple[tuple[str, bytes, int], ...]
    timeout_s: float | None
    check: bool
    variables: Mapping[str, str]
    keep_bytes: int

    @classmethod
    def made(
        cls,
        template: str | Sequence[str],
        values: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        shell: bool = False,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        keep_bytes: int = KEEP_BYTES,
    ) -> PortableCommand:
        """The command with its values, and with the contents that its inputs have now. Arguments as of `g.command`.

        Raises:
            ValueError: As `g.command`. StagingError: An input does not exist here, or inputs have too many bytes.
        """
        checked_timeout(timeout_s)
        check_number("keep_bytes", keep_bytes, 0)
        line = fill(template, values, shell=shell)
        files: list[tuple[str, bytes, int]] = []
        total = 0
        for place, source in line.ins.items():
            if isinstance(source, RemotePath):
                raise StagingError(f"{source!r} can't be an input here", hint="fetch() it, or use g.command")
            try:
                with open(source, "rb") as file:
                    status = os.fstat(file.fileno())
                    total += status.st_size
                    if total > MOST_BYTES:
                        raise StagingError(
                            f"inputs of one command have more than {MOST_BYTES:,} bytes ({source!r} among them)",
                            hint="Name them by whole paths, on a file system that the hosts share",
                        )
                    files.append((place, file.read(), stat.S_IMODE(status.st_mode)))
            except OSError as exc:
                raise StagingError(
                    f"the input {source!r} can't be read here, on {os.uname().nodename} ({exc.strerror or exc})",
                    hint="Inputs are files of the machine where this runs: see whether they are there",
                ) from exc
        travelling = CommandLine(line.words, line.text, dict.fromkeys(line.ins, ""), line.outs)
        variables = {name: str(value) for name, value in (env or {}).items()}
        return cls(travelling, tuple(files), timeout_s, check, variables, keep_bytes)


def perform(command: PortableCommand) -> CommandRun:
    """Run it in this process's name; `contents` of the value has the outputs.

    Raises:
        CommandFailed: It did not end well, or its outputs have too many bytes.
    """
    line = command.line
    answer = RunCommand()(
        {
            "words": list(line.words),
            "text": line.text,
            "ins": command.files,
            "outs": list(line.outs),
            "variables": command.variables,
            "stdin": None,
            "timeout_s": command.timeout_s,
            "keep_bytes": command.keep_bytes,
            "show": False,
            "check": command.check,
            "apart": MOST_BYTES // 2,
            "keep": False,
        }
    )
    host = answer["host"]
    outputs = answer.get("outputs", [])
    if large := [output for output in outputs if "kept" in output]:
        FileStore(os.environ["GRID_ROOT"]).drop(output["kept"] for output in large)
        answer["trouble"] = "output", f"{large[0]['name']!r} has too many bytes: it travels in one message"
    failed = trouble(line.shown, host, answer, lambda _: "see the PATH of its workers")
    if failed is not None:
        raise failed
    about = {"command": line.shown, "host": host, "server": os.environ.get("GRID_SERVER", ""), "key": ""}
    facts = {name: answer[name] for name in _FACTS}
    contents = {output["name"]: output["data"] for output in outputs}
    run = CommandRun(**about, **facts, outputs=[], kept=[], contents=contents)
    bad: CommandFailed | None = None
    if command.check:
        bad = judged(run, command.timeout_s)
        if bad is None and "missing" in answer:
            bad = unmatched(run, answer["missing"])
    if bad is not None:
        raise bad
    return run
