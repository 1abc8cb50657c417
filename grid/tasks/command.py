"""A task that is a command: an executable with files in and out, on whichever worker is next.

    class Scores(TaskSystem):
        def generate_tasks(self, master):
            return (CommandTask("score {pose} > {out}", shell=True, pose=In(path), out=Out("*.txt")) for path in poses)

        def task_finished(self, master, task, result, error):
            self.scores.update(result.contents)               # name -> bytes

Lives here: `CommandTask`. Elsewhere: templates, and running them (`grid/commands`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grid.commands.outcome import CommandRun
from grid.commands.portable import KEEP_BYTES, PortableCommand, perform
from grid.tasks.abstract import Task


class CommandTask(Task):
    """See the module. Its result is a `CommandRun` with the outputs in `contents`. Inputs are read when it is made.

    Args:
        template, fields, values, timeout_s, shell, check, env, keep_bytes: As of `g.command`.
        name: For statistics; default: the program.
    Raises:
        ValueError: As `g.command`. StagingError: An input does not exist here, or inputs have more than 64 MB.
    """

    command: PortableCommand | None

    def __init__(
        self,
        template: str | Sequence[str],
        /,
        *,
        name: str = "",
        timeout_s: float | None = None,
        shell: bool = False,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        keep_bytes: int = KEEP_BYTES,
        values: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        self.command = PortableCommand.made(
            template,
            {**(values or {}), **fields},
            timeout_s=timeout_s,
            shell=shell,
            check=check,
            env=env,
            keep_bytes=keep_bytes,
        )
        super().__init__(name or self.command.line.shown.split(maxsplit=1)[0])

    def __call__(self) -> CommandRun:
        """Run it here; raises CommandFailed."""
        assert self.command is not None, "it has run, and its inputs were dropped"
        return perform(self.command)

    def clean_up(self) -> None:
        """Its inputs stay there."""
        self.command = None
