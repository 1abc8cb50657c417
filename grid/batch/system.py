"""One batch system on one machine: its commands are run there, each with a limit of time.

Lives here: submitting, asking for all jobs at once, cancelling; what is tried again and what is not.
Elsewhere:  the words (`dialects.py`), the way to the machine (`launch/`).

A server that hangs makes every command hang: none is waited for longer than `command_s`. Only a submission that did not
reach the server is repeated.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Sequence

from grid.batch.dialects import DETECT, DIALECTS, Dialect, choose_dialect
from grid.batch.job import JobSpec, JobState, JobStatus
from grid.errors import AllocationError, ConnectError, SubmitError
from grid.launch import Completed, Connection

logger = logging.getLogger(__name__)

VARIABLE = "GRID_DIALECT"

_PROFILE = "[ ! -r /etc/profile ] || . /etc/profile >/dev/null 2>&1; "
"""Over ssh commands get a bare PATH; batch systems often come by the profile."""


class BatchSystem:
    """The batch system that `connection`'s machine submits to.

    Args:
        dialect: Its name in `DIALECTS`; None means what $GRID_DIALECT says, else what is found there.
        prefer: Of Slurm's two faces, where there are both: "slurm" or "slurm-torque".
        command_s: Seconds that one command may take.
        retries: How often a submission is repeated that did not reach the server.
    Raises:
        AllocationError: No batch system there, or two.
    """

    def __init__(
        self,
        connection: Connection,
        dialect: str | None = None,
        *,
        prefer: str = "slurm",
        command_s: float = 60.0,
        retries: int = 3,
        pause_s: float = 2.0,
    ) -> None:
        self._connection = connection
        self._command_s, self._retries, self._pause_s = command_s, retries, pause_s
        self._before = "" if connection.host.ssh == "local" else _PROFILE
        dialect = dialect or os.environ.get(VARIABLE) or None
        if dialect is None:
            self.dialect: Dialect = choose_dialect(self._run(DETECT).stdout.decode(errors="replace"), prefer=prefer)
        elif dialect in DIALECTS:
            self.dialect = DIALECTS[dialect]
        else:
            raise AllocationError(f"there is no dialect {dialect!r}", hint=f"There are {', '.join(DIALECTS)}")

    def submit(self, spec: JobSpec) -> str:
        """Submit a job and return its id.

        Raises:
            SubmitError: It was refused; with the system's own words.
            AllocationError: qsub hangs.
        """
        script = self.dialect.script(spec)
        # A file, for Slurm's qsub takes no script from standard input.
        words = shlex.join(self.dialect.submit_command(spec, "SCRIPT")).replace("SCRIPT", '"$d/job"')
        where = f"cd {shlex.quote(spec.workdir)} && " if spec.workdir else ""
        tidy = """trap 'rm -rf "$d"' EXIT; trap 'exit 143' HUP INT TERM"""
        command = f'umask 077; d=$(mktemp -d) && {tidy} && cat >"$d/job" && {{ {where}{words}; }}'
        for attempt in range(self._retries + 1):
            if attempt:
                time.sleep(self._pause_s * attempt)  # the server is down: nothing tells when it is back
            done = self._run(command, script.encode())
            try:
                return self.dialect.parse_submit(done.returncode, done.text, done.stderr.decode(errors="replace"))
            except SubmitError as exc:
                if not exc.connection:
                    raise
                logger.warning("%s", exc)
                failure = exc
        raise failure

    def status(self, ids: Sequence[str]) -> dict[str, JobStatus]:
        """What is known of these jobs, by one command; one that the system does not know is UNKNOWN, not done.

        Raises:
            AllocationError: The system does not answer.
        """
        if not ids:
            return {}  # without ids, qstat would tell of everybody's jobs
        done = self._run(shlex.join(self.dialect.status_command(ids)))
        said = done.stderr.decode(errors="replace").strip()
        if self.dialect.status_failed(done.returncode, said):
            raise AllocationError(
                f"the batch system does not tell of its jobs (exit status {done.returncode}): {said[-500:]}",
                hint="Its server may be down; jobs that run go on",
            )
        known = {_short(each.id): each for each in self.dialect.parse_status(done.stdout.decode(errors="replace"))}
        return {job: known.get(_short(job)) or JobStatus(job, JobState.UNKNOWN) for job in ids}

    def cancel(self, job: str) -> None:
        """End a job; one that has ended is no error.

        Raises:
            AllocationError: The system does not answer, or refuses.
        """
        done = self._run(shlex.join(self.dialect.cancel_command(job)))
        if done.returncode:
            if self.status([job])[job].state in (JobState.DONE, JobState.UNKNOWN, JobState.EXITING):
                return
            said = (done.stderr + done.stdout).decode(errors="replace").strip()
            raise AllocationError(f"job {job} can't be cancelled: {said}", hint="Is it yours?")

    def _run(self, command: str, stdin: bytes = b"") -> Completed:
        try:
            return self._connection.run(self._before + command, stdin=stdin, timeout=self._command_s)
        except ConnectError as exc:
            if not isinstance(exc.__cause__, TimeoutError):
                raise
            raise AllocationError(
                f"the batch system on {self._connection.host.label!r} did not answer within {self._command_s:g} s",
                hint="Its server hangs or is overloaded: try `qstat` by hand",
            ) from exc


def _short(job: str) -> str:
    """`12.vm` and `12` are the same job."""
    return job.partition(".")[0]
