"""What one caller from the network may ask of a job server: the calls of `Server`, by scope and by owner.

A caller sees all about their own jobs, and of others' that they are there: owner, service, state, times, progress.
Who has the scope admin sees and does all, and so does everybody at a server without tokens. A narrow token, for
certain services or jobs, knows of nothing else.

Lives here: `Caller`.
Elsewhere:  which call needs which scope (`jobs/api.py`), what they do (`jobs/server.py`), who somebody is
            (`tokens.py`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from grid.jobs.api import ADMIN, SUBMIT, UPLOAD, Call, ask
from grid.jobs.conditions.atoms import IsFetched, JobAtom, KnownAtom
from grid.jobs.fetch.job import SERVICE as FETCH
from grid.jobs.host.errors import AccessError, ConditionError, RequestError, UnknownJob
from grid.jobs.host.references import jobs_in
from grid.jobs.manager.job_manager import JobManager
from grid.jobs.modules.install import SERVICE as INSTALL
from grid.jobs.record import Record
from grid.jobs.server import Server, check_wanted, fits
from grid.web.tokens import Tokens
from grid.web.who import Who, check_scopes

MOST_S = 7 * 86400.0
"""Longest life of credentials."""

_HIDDEN: dict[str, Any] = {"data": {}, "best": None, "reason": "", "tags": []}


class Caller(Server):
    """See the module. Made for each request."""

    in_process = False

    def __init__(self, manager: JobManager, who: Who, tokens: Tokens | None = None) -> None:
        super().__init__(manager)
        self.who, self._tokens = who, tokens
        self.user = who.user

    def call(self, name: str, /, *args: Any, **kw: Any) -> Any:
        """One of the calls.

        Raises:
            AccessError: The token is too narrow for it.
            RequestError: There is no such call, or not with such arguments.
        """
        check_values([args, kw])
        return ask(self, name, args, kw)

    def may(self, call: Call) -> None:
        """Whether the token has the scope that the call needs."""
        self.need(call.scope)

    def need(self, scope: str | None) -> None:
        """Raise AccessError unless the caller has that scope."""
        if scope is not None and not self.who.may(scope):
            raise AccessError(f"this needs a token with the scope {scope}", hint="Ask who runs the server for one")

    # -- who sees what ---------------------------------------------------------------------------------------------

    def connect(self, user: str = "", token: str | None = None) -> dict[str, Any]:
        """Who the token says that they are; a name is believed by a server without tokens alone."""
        return {"user": self.who.user, "queue": self.queue, "tokens": not self.who.open}

    def _within(self, record: Record) -> bool:
        """Whether the token concerns that job at all."""
        who = self.who
        return (who.jobs is None or record.id in who.jobs) and (who.services is None or record.service in who.services)

    def _may_see(self, record: Record) -> bool:
        return self._within(record) and (self.who.open or ADMIN in self.who.scopes or record.owner == self.who.user)

    def _record(self, job: str) -> Record:
        record = self._known(job)
        if not self._may_see(record):
            raise AccessError(f"job {job} is somebody else's", hint="Its owner may do that, or an admin", job=job)
        return record

    def _known(self, job: str) -> Record:
        """A job of which the caller may know that it is there."""
        record = self.manager.records.get(job) if isinstance(job, str) else None
        if record is None or not self._within(record):
            raise UnknownJob(f"there is no job {job!r}", hint="See `grid jobs list`", job=str(job)[:200])
        return record

    def shown(self, record: Record) -> dict[str, Any]:
        """Its summary, as this caller may see it."""
        return record.summary() if self._may_see(record) else hide(record.summary())

    # -- calls that differ -----------------------------------------------------------------------------------------

    def jobs(self, wanted: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        found = self.found(wanted)
        last = (wanted or {}).get("last")
        return [self.shown(record) for record in (found[-last:] if last is not None else found)]

    def found(self, wanted: Mapping[str, Any] | None) -> list[Record]:
        """The jobs that fit, oldest first. What can't be seen of others' can't be searched."""
        wanted = check_wanted(wanted)
        searched = bool(wanted.get("text") or wanted.get("tags"))
        return [
            record
            for record in self.manager.book.all()
            if self._within(record) and fits(record, wanted) and (not searched or self._may_see(record))
        ]

    def status(self, job: str) -> dict[str, Any]:
        return self.standing(self.manager.record(job))

    def standing(self, record: Record) -> dict[str, Any]:
        """The status of a job, as this caller may see it."""
        if self._may_see(record):
            return self.manager.status(record.id)
        return {
            **hide(record.summary()),
            "ready_age": None,
            "paused": False,
            "oldest_unit": None,
            "waits_for": None,
        }

    def submit(self, submissions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        for plain in submissions:
            self._check_submission(plain)
        return super().submit(submissions)

    def _check_submission(self, plain: Any) -> None:
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
            self._record(job) if in_full else self._known(job)
        except UnknownJob as exc:
            raise ConditionError(
                f"there is no job {job!r} to wait for", hint="See `grid jobs list`", job=str(job)[:200]
            ) from exc

    def _may_wait(self, atom: KnownAtom) -> None:
        if isinstance(atom, JobAtom):
            self._awaited(atom.job, in_full=atom.kind not in ("completed", "cancelled"))
        if atom.is_outside:
            self.need(SUBMIT)
        if isinstance(atom, IsFetched) and not self.who.open:
            _check_url(atom.url)

    def credentials(
        self,
        scopes: Sequence[str] = ("read",),
        services: Sequence[str] | None = None,
        jobs: Sequence[str] | None = None,
        lifetime_s: float = 3600.0,
    ) -> dict[str, Any]:
        """A token that may less than the caller's, for a time: `token` and `expires`. It ends with the caller's, too.

        Raises:
            AccessError: The caller has not such a right.
            RequestError: It would be for everything, or for ever.
        """
        if not 0 < lifetime_s <= MOST_S:
            raise RequestError(f"{lifetime_s!r} is no lifetime of credentials", hint=f"At most {MOST_S:g} s")
        wanted = check_scopes(scopes)
        if services is None and jobs is None:
            raise RequestError("credentials must be for something", hint="Name services, or jobs")
        for scope in wanted:
            self.need(scope)
        if ADMIN in wanted or UPLOAD in wanted:
            raise AccessError("the rights to upload and of an admin are not passed on", hint="read, submit, control")
        own = self.who
        if own.services is not None and not (services is not None and set(services) <= own.services):
            raise AccessError("this token is for other services", hint="Ask who gave it to you")
        if own.jobs is not None and not (jobs is not None and set(jobs) <= own.jobs):
            raise AccessError("this token is for other jobs", hint="Ask who gave it to you")
        expires = time.time() + lifetime_s
        if self._tokens is None:
            return {"token": "", "expires": expires}
        expires = min(expires, own.expires or expires)
        left = max(1.0, expires - time.time())
        made = self._tokens.create(
            own.user, wanted, left, note="credentials", services=services, jobs=jobs, parent=own.token
        )
        return {"token": made, "expires": expires}

    def forget(self, job: str | None = None) -> int:
        if job is None:
            self.need(ADMIN)
        return super().forget(job)

    def race_status(self, race: str) -> dict[str, Any]:
        status = super().race_status(race)
        for job in status["jobs"]:
            self._record(job)
        return status

    def set_email(self, email: str | None, mails: str | None = None) -> None:
        self._whole()
        super().set_email(email, mails)

    def upload(self, archive: str) -> str:
        self._whole()
        return super().upload(archive)

    def _whole(self) -> None:
        """What concerns the user and not one job or service is not for narrow tokens."""
        if self.who.is_narrow:
            raise AccessError("this token is for something else", hint="Ask who gave it to you")

    def listen(self, key: str, target: Any) -> Any:
        raise AssertionError("streams go through events.py")


def _check_url(url: Any) -> None:
    if not isinstance(url, str) or not url.lower().startswith(("http://", "https://")):
        raise ConditionError("files of the server can't be fetched", hint="Give an http or https URL")


def check_values(value: Any) -> None:
    """Raise RequestError for what JSON parsers take and stores do not: nan, inf, halves of characters."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as exc:
        raise RequestError("a text holds half a character (a lone surrogate)", hint="Send UTF-8") from exc
    except (ValueError, TypeError, RecursionError) as exc:
        raise RequestError(f"a value is not for JSON ({exc})", hint='Send nan and inf as {"$float": "nan"}') from exc


def hide(summary: dict[str, Any]) -> dict[str, Any]:
    """What others may see of a job."""
    return {**summary, **_HIDDEN}
