"""One batch system on one machine: its commands are run there, each with a limit of time.

Lives here: submitting, asking for all jobs at once, cancelling; what is tried again and what is not.
Elsewhere:  the words (`batch_systems/`), the way to the machine (`launch/`).

A server that hangs makes every command hang: none is waited for longer than `command_s`. Only a submission that did not
reach the server is repeated.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Sequence

from grid.batch_systems import Answer, Dialect, JobSpec, JobState, JobStatus
from grid.batch_systems.dialect import worst
from grid.batch_systems.known import VARIABLE, choose_dialect, detect_script, dialect_named
from grid.errors import AllocationError, ConnectError, SubmitError
from grid.launch import Completed, Connection
from grid.launch.shell import AS_LOGGED_IN

logger = logging.getLogger(__name__)

_QUESTIONS = 4
"""Commands at most that one look at jobs takes."""


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
        self._before = "" if connection.host.ssh == "local" else AS_LOGGED_IN
        dialect = dialect or os.environ.get(VARIABLE) or None
        if dialect is None:
            found = self._run(detect_script()).stdout.decode(errors="replace")
            self.dialect: Dialect = choose_dialect(found, prefer=prefer)
        else:
            self.dialect = dialect_named(dialect)

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
        """What is known of these jobs, by as few commands as can be; one that the system does not know is UNKNOWN.

        That is not the same as done. Arrays and heterogeneous jobs are told of as one: see `worst`.

        Raises:
            AllocationError: The system does not answer, or one of them is no job's id.
        """
        for job in ids:
            self._check_id(job)  # qstat takes other words for queues, and tells of everybody's jobs
        if not ids:
            return {}  # so it does without ids
        dialect, answers = self.dialect, list[Answer]()
        while len(answers) < _QUESTIONS and (words := dialect.question(ids, answers)) is not None:
            done = self._run(shlex.join(words))
            said = (done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
            answers.append(Answer(tuple(words), done.returncode, *said))
        rows = dialect.read(answers)
        parts: dict[str, list[JobStatus]] = {}
        for row in rows:
            parts.setdefault(dialect.base_of(row.id), []).append(row)
        return {job: self._of(job, parts.get(dialect.base_of(job), [])) for job in ids}

    def _of(self, job: str, rows: Sequence[JobStatus]) -> JobStatus:
        parts = [row for row in rows if self.dialect.covers(job, row.id)]
        if not parts:
            return JobStatus(job, JobState.UNKNOWN)
        return parts[0] if len(parts) == 1 else worst(parts, job)

    def _check_id(self, job: str) -> None:
        if not self.dialect.is_job_id(job):
            raise AllocationError(
                f"{job!r} is no id of a job of {self.dialect.title}", hint="`grid batch status` lists yours"
            )

    def cancel(self, job: str) -> None:
        """End a job; one that has ended is no error.

        Raises:
            AllocationError: The system does not answer, or refuses.
        """
        self._check_id(job)
        done = self._run(shlex.join(self.dialect.cancel_command(job)))
        if done.returncode:
            said = (done.stderr + done.stdout).decode(errors="replace").strip()
            # Some don't tell of other people's jobs: that such a one is unknown does not mean that it has ended.
            ended = (JobState.DONE, JobState.UNKNOWN, JobState.EXITING)
            if not self.dialect.is_forbidden(said) and self.status([job])[job].state in ended:
                return
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
