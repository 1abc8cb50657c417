"""What was submitted from this account, how its scripts ended by their own word, and what that means.

A batch system forgets: PBS as it is installed at once, others after minutes; and one that remembers may say 0 for a job
whose first node crashed. So the script of each job writes its exit status into a file of ours, and that counts first.

    ~/.grid/batch/job-ID.json     a record
    ~/.grid/batch/end-TOKEN       `STATUS BEGAN ENDED`; of an array end-TOKEN.INDEX for each task

Lives here: records, the scripts' words, `outcome_of`, which puts both and the batch system's word together (pure).
Elsewhere:  the script that writes (`wrapper.py`), tables (`cli/batch.py`).
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from grid.batch_systems import JobState, JobStatus, Outcome

KEPT_S = 14 * 86400.0
"""A record of a job is forgotten after this time."""

_NEAR_S = 60.0
"""A job that was told to end so near to its walltime was told because of it: systems look once a minute."""


def base_directory() -> Path:
    """Where markers and records of submitted jobs are: ~/.grid/batch, 0700."""
    path = Path.home() / ".grid" / "batch"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@dataclass(frozen=True)
class End:
    """What a job's script said of its end; of an array the worst of its tasks. Times in seconds since 1970."""

    status: int
    began: float
    ended: float
    of_array: bool = False  # some tasks have ended; others may run


@dataclass(frozen=True)
class Record:
    """A job that was submitted from here."""

    job: str
    name: str
    dialect: str
    submitted: float  # seconds since 1970
    command: str
    token: str = ""
    walltime_s: float | None = None
    restarts: bool = False  # whether the system may start it again
    outputs: list[str] = field(default_factory=list)  # files that were asked for
    cancelled: bool = False  # by `grid batch cancel`
    tasks_cancelled: list[int] = field(default_factory=list)  # of an array, one by one

    def keep(self) -> None:
        """Write it down."""
        path = base_directory() / f"job-{self.job.replace('/', '_')}.json"
        new = path.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(json.dumps(vars(self)))
        os.replace(new, path)

    def forget(self) -> None:
        """It is too long ago."""
        (base_directory() / f"job-{self.job.replace('/', '_')}.json").unlink(missing_ok=True)
        for path in markers(self.token):
            path.unlink(missing_ok=True)

    @property
    def end(self) -> End | None:
        """What its script said; None if it has said nothing yet, or never will."""
        return read_end(self.token) if self.token else None


def of_task(job: str, task: int, known: Iterable[Record]) -> Record | None:
    """What the record of an array says of one of its tasks; None: no such array was submitted from here."""
    number = re.match(r"\d+", job)
    for record in known:
        if number and record.token and re.match(rf"{number[0]}(\[\])?(\.|\Z)", record.job):
            cancelled = record.cancelled or task in record.tasks_cancelled
            return replace(record, job=job, token=f"{record.token}.{task}", cancelled=cancelled, outputs=[])
    return None


def marker(token: str) -> Path:
    """The file in which a job's script says how it ended."""
    return base_directory() / f"end-{token}"


def markers(token: str) -> list[Path]:
    """Those that exist: several for an array."""
    if not token:
        return []
    base = base_directory()
    os.listdir(base)  # makes NFS look anew
    return [path for path in (marker(token), *base.glob(f"end-{token}.*")) if path.exists() and path.suffix != ".new"]


def read_end(token: str) -> End | None:
    """What a job's script said."""
    found = []
    for path in markers(token):
        try:
            status, began, ended = (float(word) for word in path.read_text().split()[:3])
        except (OSError, ValueError):
            continue
        found.append(End(int(status), began, ended, of_array=path != marker(token)))
    if not found:
        return None
    worst = max(found, key=lambda end: end.status)
    return End(worst.status, min(end.began for end in found), max(end.ended for end in found), worst.of_array)


def records() -> list[Record]:
    """The jobs that were submitted from this account, the oldest first."""
    found = []
    for path in base_directory().glob("job-*.json"):
        try:
            record = Record(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            continue  # half written, or of another version
        if time.time() - record.submitted > KEPT_S:
            record.forget()
        else:
            found.append(record)
    return sorted(found, key=lambda record: record.submitted)


def outcome_of(said: JobStatus, record: Record | None, end: End | None) -> tuple[str, str | None, int | None]:
    """State, reason and exit status of a job, by all that is known of it.

    Args:
        said: The batch system's word.
        record: Ours, if it was submitted from here.
        end: The script's own word, if it has said one.
    Returns:
        The state is queued, held, running, exiting, done, failed, killed, cancelled or unknown.
    """
    if said.state in (JobState.QUEUED, JobState.HELD) or (
        said.state is JobState.RUNNING and (end is None or record is None or record.restarts or end.of_array)
    ):
        return said.state.value, said.reason, None  # a word from before is of an earlier run, or of another task
    again = record is not None and record.restarts  # then it may be queued again, and nobody knows yet
    if said.state is JobState.RUNNING or (said.state is JobState.EXITING and (end is None or again)):
        return said.state.value if end is None else "exiting", said.reason, None if end is None else end.status
    cancelled = said.outcome is Outcome.CANCELLED or (record is not None and record.cancelled)
    if end is not None:
        if end.status == 0:
            return Outcome.DONE.value, None, 0
        if cancelled:
            return Outcome.CANCELLED.value, said.reason, end.status
        if said.outcome is Outcome.KILLED or end.status in (143, 137):
            return Outcome.KILLED.value, why_killed(said, record, end), end.status
        return Outcome.FAILED.value, None, end.status
    if cancelled:
        return Outcome.CANCELLED.value, said.reason, said.exit_status
    if said.outcome is not None:
        if said.outcome is Outcome.DONE and record is not None and record.token:
            # a crashed first node can be told of as 0
            return Outcome.KILLED.value, "it ended without a word from its script", said.exit_status
        return said.outcome.value, said.reason, said.exit_status
    if said.state is JobState.DONE:
        return "done" if record is None else Outcome.KILLED.value, said.reason, said.exit_status
    forgotten = "the batch system does not know it any more, and its script has said nothing"
    return "unknown", said.reason or (forgotten if record is not None else None), None


def why_killed(said: JobStatus, record: Record | None, end: End) -> str:
    """Why a script was told to end, as far as can be known."""
    if said.outcome is Outcome.KILLED and said.reason:
        return said.reason
    if record is not None and record.walltime_s is not None and end.ended - end.began > record.walltime_s - _NEAR_S / 4:
        return "its walltime was up"
    return "it was told to end by a signal: cancelled, preempted, or beyond one of its limits"


def lost_outputs(record: Record, paths: Sequence[str] | None = None) -> list[str]:
    """Files of output that were asked for and are missing: their directory was removed, or the copy did not arrive."""
    return [path for path in (record.outputs if paths is None else paths) if not os.path.lexists(path)]
