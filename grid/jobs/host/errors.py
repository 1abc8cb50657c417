"""Errors of jobs: the family of `GridError` below `JobError`.

JobError(what, hint=, job=, ...)
 ├─ RequestError             a request that can't be used: no service or version, values that are no primitives
 │   └─ UnknownJobService    no such service, or not in that version; `available` says what there is (also KeyError)
 ├─ UnknownJob               no job of that id                                        (also a KeyError)
 ├─ MoveError                a job can't go from its state to that one
 ├─ ConditionError           a condition that can't be used: unknown job, kind, or a callable that can't be stored
 │   └─ ExpressionError      its expression does not parse, names nothing, or may not be evaluated
 ├─ JobFailed                the job ended with an error; `error` and `trace` say which
 ├─ JobAborted               it was aborted; `partial` is the best result until then
 ├─ JobCancelled             it never ran, because its condition can't be satisfied any more, or somebody said so
 ├─ WaitTimeout              it did not end in time; it goes on                      (also a TimeoutError)
 ├─ AccessError              a token is missing or wrong, or the job is somebody else's
 ├─ WireError                the other end of a connection speaks something else
 └─ StoreError               the store can't be used: locked, full, or made by a newer version
     ├─ StoreLocked
     ├─ StoreFull
     └─ StoreTooNew
"""

from __future__ import annotations

import concurrent.futures
from typing import Any

from grid.errors import GridError


class JobError(GridError):
    """Something about jobs. `job` is the id of the job, where it is about one."""


class RequestError(JobError, ValueError):
    """A request can't be used; the message names the value or attribute."""


class UnknownJobService(RequestError, KeyError):
    """The server has no such service, or not in that version. `available`: name -> versions."""

    __str__ = Exception.__str__
    available: dict[str, list[str]]


class UnknownJob(JobError, KeyError):
    """The queue has no job of that id, or not one that you may see."""

    __str__ = Exception.__str__  # KeyError would show the repr of the message


class MoveError(JobError):
    """A job can't go from its state to the one that was asked for."""


class ConditionError(JobError, ValueError):
    """A condition can't be used."""


class ExpressionError(ConditionError):
    """An expression does not parse, names nothing, or holds what may not be evaluated."""


class JobFailed(JobError):
    """The job ended with an error: `error` is its text, `trace` its traceback."""

    error: str
    trace: str

    @classmethod
    def _render(cls, what: str, facts: Any) -> str:
        trace = facts.get("trace")
        return f"{what}\n{trace}" if trace else what


class JobAborted(JobError):
    """The job was aborted. `partial`: the best result until then, or None."""

    partial: Any


class JobCancelled(JobError):
    """The job never ran: `reason` says why."""

    reason: str


class WaitTimeout(JobError, *dict.fromkeys([TimeoutError, concurrent.futures.TimeoutError])):  # type: ignore[misc]
    """A job did not end within the time; it goes on."""


class AccessError(JobError, PermissionError):
    """A token is missing or wrong, or the job is somebody else's."""


class WireError(JobError):
    """The other end of a connection does not speak our language, or not this version of it."""


class TooLarge(JobError):
    """More came than may: an answer, a message, a file."""


class StoreError(JobError):
    """The store of jobs can't be used."""


class StoreLocked(StoreError):
    """Another manager has the store open."""


class StoreFull(StoreError):
    """The disk, or the room that the store may take, is full; acknowledged jobs are safe."""


class StoreTooNew(StoreError):
    """The store was made by a newer version of grid."""
