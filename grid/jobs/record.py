"""A job as the manager and its store have it.

Lives here: `JobRecord`, what it shows to clients (`summary`), what atoms see of it (`view`).
Elsewhere:  where it is kept (`store/`), who changes it (`manager/job_manager.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

from grid.jobs.conditions.atoms import JobView
from grid.jobs.host.plain import dumps, from_plain
from grid.jobs.rules.states import JobState


@dataclass
class JobRecord:
    """One job. Times are seconds since 1970 (UTC); values are plain (`host/plain.py`)."""

    id: str
    number: int
    owner: str
    service: str
    version: str
    request: dict[str, Any]
    state: JobState = JobState.WAITING
    priority: int = 0
    archived: bool = False
    tags: list[str] = field(default_factory=list)
    condition: dict[str, Any] | None = None
    inputs: list[Any] | None = None
    created: float = 0.0
    started: float | None = None
    ended: float | None = None
    attempt: int = 0
    result: Any = None
    best: Any = None
    has_best: bool = False
    improved: float | None = None
    """When `best` was last said."""
    progress: list[Any] | None = None
    error: str = ""
    trace: str = ""
    reason: str = ""
    memo: str = ""
    """Key that the result is remembered by; empty: it is not."""
    use_memo: bool = False
    notify: str = ""
    """Where a mail goes at the end; empty: to its owner's address."""
    mails: str = ""
    """When it goes, see `rules/post.py`; empty: as its owner wishes."""

    best_size = 0  # bytes of the last improvement as JSON; not stored
    is_paused = False  # at a safe point, until `resume`; not stored

    def summary(self) -> dict[str, Any]:
        """What lists of jobs show."""
        return {
            "id": self.id,
            "owner": self.owner,
            "service": self.service,
            "version": self.version,
            "state": self.state.value,
            "paused": self.is_paused and self.state is JobState.ACTIVE,
            "priority": self.priority,
            "archived": self.archived,
            "tags": list(self.tags),
            "created": self.created,
            "started": self.started,
            "ended": self.ended,
            "attempt": self.attempt,
            "progress": self.progress,
            "best": self.best,
            "improved": self.improved,
            "reason": self.reason or self.error,
            "data": self.request["data"],
        }

    def detail(self) -> dict[str, Any]:
        """All that there is to know."""
        return {
            **self.summary(),
            "request": self.request,
            "condition": self.condition,
            "inputs": self.inputs,
            "result": self.result,
            "error": self.error,
            "trace": self.trace,
            "memo": self.memo,
        }

    @cached_property
    def size(self) -> int:
        """Bytes of what was submitted, as JSON."""
        return len(dumps([self.request, self.inputs, self.condition]))

    @property
    def why(self) -> str:
        """What went wrong, or why it is where it is."""
        return self.error or self.reason

    def view(self) -> JobView:
        """What atoms see."""
        return JobView(
            self.id,
            self.state.value,
            reason=self.why,
            result=from_plain(self.result),
            best=from_plain(self.best),
            has_best=self.has_best,
        )

    def all_tags(self) -> list[str]:
        """Its own tags, and those that every job has."""
        return [
            *self.tags,
            f"owner={self.owner}",
            f"service={self.service}",
            f"state={self.state}",
            f"created={iso(self.created)}",
            *([f"started={iso(self.started)}"] if self.started else []),
        ]


FIELDS = tuple(each.name for each in fields(JobRecord))


def iso(seconds: float) -> str:
    """UTC, to the second, with its zone."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
