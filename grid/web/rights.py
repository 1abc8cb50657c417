"""The rights of users from the network, by the scopes of their token, and by the owner of a job.

A caller sees all about their own jobs, and of others' that they are there: owner, service, state, times, progress.
Who has the scope admin sees and does all, and so does everybody at a server without tokens. A narrow token, for
certain services or jobs, knows of nothing else.

Lives here: `TokenRights`, `hide`.
Elsewhere:  what each call needs (`jobs/api.py`), who somebody is (`tokens.py`, `who.py`), the calls (`caller.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grid.jobs.api import ADMIN, SUBMIT, UPLOAD, Call
from grid.jobs.conditions.atoms import IsFetched, JobAtom, KnownAtom
from grid.jobs.fetch.job import SERVICE as FETCH
from grid.jobs.host.errors import AccessError, ConditionError, RequestError, UnknownJob
from grid.jobs.host.references import jobs_in
from grid.jobs.manager.job_manager import JobManager
from grid.jobs.modules.install import SERVICE as INSTALL
from grid.jobs.record import JobRecord
from grid.jobs.rights import Rights
from grid.jobs.server import check_wanted, fits
from grid.web.who import Who

_HIDDEN: dict[str, Any] = {"data": {}, "best": None, "reason": "", "tags": [], "paused": False}


class TokenRights(Rights):
    """See the module. Made for each request."""

    def __init__(self, manager: JobManager, who: Who) -> None:
        super().__init__(manager)
        self.who, self.user = who, who.user

    # -- before each call ------------------------------------------------------------------------------------------

    def may(self, call: Call) -> None:
        """Whether the token has the scope that the call needs."""
        self.need(call.scope)

    def need(self, scope: str | None) -> None:
        """Raise AccessError unless the caller has that scope."""
        if scope is not None and not self.who.may(scope):
            raise AccessError(f"this needs a token with the scope {scope}", hint="Ask who runs the server for one")

    def check_whole(self) -> None:
        """Calls that concern the user, and not one job or service, are not for narrow tokens. Raises AccessError."""
        if self.who.is_narrow:
            raise AccessError("this token is for something else", hint="Ask who gave it to you")

    # -- rights to see ---------------------------------------------------------------------------------------------

    def within(self, record: JobRecord) -> bool:
        """Whether the token concerns that job at all."""
        who = self.who
        return (who.jobs is None or record.id in who.jobs) and (who.services is None or record.service in who.services)

    def may_see(self, record: JobRecord) -> bool:
        return self.within(record) and (self.who.open or ADMIN in self.who.scopes or record.owner == self.who.user)

    def record(self, job: str) -> JobRecord:
        record = self.known(job)
        if not self.may_see(record):
            raise AccessError(f"job {job} is somebody else's", hint="Its owner may do that, or an admin", job=job)
        return record

    def known(self, job: str) -> JobRecord:
        record = self.manager.records.get(job) if isinstance(job, str) else None
        if record is None or not self.within(record):
            raise UnknownJob(f"there is no job {job!r}", hint="See `grid jobs list`", job=str(job)[:200])
        return record

    def shown(self, record: JobRecord) -> dict[str, Any]:
        """Its summary, as this caller may see it."""
        return record.summary() if self.may_see(record) else hide(record.summary())

    def found(self, wanted: Mapping[str, Any] | None) -> list[JobRecord]:
        """The jobs that fit, oldest first. What can't be seen of others' can't be searched."""
        wanted = check_wanted(wanted)
        searched = bool(wanted.get("text") or wanted.get("tags"))
        return [
            record
            for record in self.manager.book.all()
            if self.within(record) and fits(record, wanted) and (not searched or self.may_see(record))
        ]

    def standing(self, record: JobRecord) -> dict[str, Any]:
        """The status of a job, as this caller may see it."""
        if self.may_see(record):
            return self.manager.status(record.id)
        return {
            **hide(record.summary()),
            "ready_age": None,
            "oldest_unit": None,
            "waits_for": None,
        }

    # -- what they may submit, and wait for -----------------------------------------------------------------------

    def check_submission(self, plain: Any) -> None:
        """Nobody learns about jobs that they may not see by waiting for them, or by using their results."""
        if not isinstance(plain, Mapping) or not isinstance(plain.get("request"), Mapping):
            raise RequestError("there is no request to submit", hint="Make one with Service.request(...)")
        request = plain["request"]
        if request.get("service") == INSTALL:
            self.need(UPLOAD)
        if request.get("service") == FETCH and not self.who.open:
            _check_url((request.get("data") or {}).get("url"))
        if self.who.services is not None and request.get("service") not in self.who.services:
            raise AccessError("this token is for other services", hint="Ask who gave it to you")
        if self.who.jobs is not None:
            raise AccessError("this token is for jobs that there are", hint="Ask who gave it to you")
        for job in jobs_in(request.get("data")) | jobs_in(plain.get("inputs")):
            self._awaited(job, in_full=True)

    def _awaited(self, job: str, *, in_full: bool) -> None:
        """A job that another shall wait for, and, `in_full`, learn more of than how it ended."""
        try:
            self.record(job) if in_full else self.known(job)
        except UnknownJob as exc:
            raise ConditionError(
                f"there is no job {job!r} to wait for", hint="See `grid jobs list`", job=str(job)[:200]
            ) from exc

    def may_wait(self, atom: KnownAtom) -> None:
        if isinstance(atom, JobAtom):
            self._awaited(atom.job, in_full=atom.kind not in ("completed", "cancelled"))
        if atom.is_outside:
            self.need(SUBMIT)
        if isinstance(atom, IsFetched) and not self.who.open:
            _check_url(atom.url)


def _check_url(url: Any) -> None:
    if not isinstance(url, str) or not url.lower().startswith(("http://", "https://")):
        raise ConditionError("files of the server can't be fetched", hint="Give an http or https URL")


def hide(summary: dict[str, Any]) -> dict[str, Any]:
    """The part of a job that others may see."""
    return {**summary, **_HIDDEN}
