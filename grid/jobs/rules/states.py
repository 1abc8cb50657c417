"""States of a job, and the moves between them.

    WAITING -> PENDING -> ACTIVE -> COMPLETE | ERROR | ABORTED
    WAITING, PENDING -> CANCELLED: its condition can't be satisfied, or somebody aborted it before it ran
    ACTIVE -> PENDING only after a restart of the server, or where the machine that ran it was lost

Archived is a mark on a job that has ended, not a state.

Lives here: the table.
Elsewhere:  who makes the moves (`manager/job_manager.py`), where they are kept (`store/`).
"""

from __future__ import annotations

import enum

from grid.jobs.host.errors import MoveError


class JobState(str, enum.Enum):
    """Where a job is in its life."""

    WAITING = "waiting"
    PENDING = "pending"
    ACTIVE = "active"
    COMPLETE = "complete"
    ERROR = "error"
    ABORTED = "aborted"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self in ENDED

    def __str__(self) -> str:
        return self.value


_S = JobState
ENDED = frozenset((_S.COMPLETE, _S.ERROR, _S.ABORTED, _S.CANCELLED))

MOVES: dict[JobState, frozenset[JobState]] = {
    _S.WAITING: frozenset((_S.PENDING, _S.CANCELLED)),
    _S.PENDING: frozenset((_S.ACTIVE, _S.CANCELLED)),
    _S.ACTIVE: frozenset((_S.COMPLETE, _S.ERROR, _S.ABORTED, _S.PENDING)),
    **{state: frozenset() for state in ENDED},
}


def check_move(job: str, before: JobState, after: JobState) -> None:
    """Raise MoveError unless the table has the move."""
    if after not in MOVES[before]:
        possible = ", ".join(sorted(MOVES[before])) or "nothing more"
        raise MoveError(f"job {job} is {before} and can't become {after}", hint=f"Possible: {possible}", job=job)
