"""The rights of callers on jobs: of a job server in this process, or behind a socket.

Lives here: `Rights` of one client, which `api.guarded` asks before each call.
Elsewhere:  what each call needs (`api.py`), rights of those who come over the network (`web/rights.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grid.jobs.api import Call, Whose
from grid.jobs.conditions.atoms import JobAtom, KnownAtom
from grid.jobs.host.errors import AccessError, UnknownJob
from grid.jobs.manager.job_manager import JobManager
from grid.jobs.record import JobRecord


class Rights:
    """See the module. `user`: the one that asks, once `connect` has said so."""

    def __init__(self, manager: JobManager) -> None:
        self.manager = manager
        self.user: str | None = None

    # -- before each call ------------------------------------------------------------------------------------------

    def may(self, call: Call) -> None:
        """First: whether this one may make it at all. Raises AccessError."""
        if call.name != "connect":
            self.check()

    def admit(self, call: Call, given: Mapping[str, Any]) -> None:
        """Then: whether they may make it about those jobs.

        Raises:
            AccessError: They may not.
            UnknownJob: There is no such job for them.
        """
        if call.whose is Whose.KNOWN:
            self.known(given["job"])
        elif call.whose is Whose.OWN:
            one = given.get("job")
            for job in ([] if one is None else [one]) + list(given.get("jobs") or ()):
                self.record(job)

    # -- the user, and what is theirs ------------------------------------------------------------------------------

    def check(self) -> str:
        """The user that asks. Raises AccessError: the client has not said."""
        if self.user is None:
            raise AccessError("nobody has said who is asking", hint="Call connect first")
        return self.user

    def may_see(self, record: JobRecord) -> bool:
        """Whether all about that job is for them."""
        return not self.manager.settings.tokens or record.owner == self.user

    def record(self, job: str) -> JobRecord:
        """A job that they may see in full. Raises UnknownJob, AccessError."""
        record = self.manager.record(job)
        if not self.may_see(record):
            raise UnknownJob(f"there is no job {job!r}", hint="See `grid jobs list`", job=job)
        return record

    def known(self, job: str) -> JobRecord:
        """A job of which they may know that it exists. Raises UnknownJob."""
        return self.record(job)

    def may_wait(self, atom: KnownAtom) -> None:
        """Raise for an atom of a condition that they may not wait for, or ask about."""
        if isinstance(atom, JobAtom):
            record = self.manager.records.get(atom.job)
            if record is not None and not self.may_see(record):
                raise UnknownJob(f"there is no job {atom.job!r}", hint="See `grid jobs list`", job=atom.job)
