"""The calls of `Server` that one caller from the network may make, by scope and by owner.

Lives here: `Caller`.
Elsewhere:  who sees what (`rights.py`), which call needs which scope (`jobs/api.py`), what calls do (`jobs/server.py`),
            who somebody is (`tokens.py`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from grid.jobs.api import ADMIN, UPLOAD, ask
from grid.jobs.host.errors import AccessError, RequestError
from grid.jobs.manager.job_manager import JobManager
from grid.jobs.server import Server
from grid.web.rights import TokenRights
from grid.web.tokens import Tokens
from grid.web.who import Who, check_scopes

MOST_S = 7 * 86400.0
"""Longest life of credentials."""


class Caller(Server):
    """See the module. Made for each request."""

    in_process = False
    rights: TokenRights

    def __init__(self, manager: JobManager, who: Who, tokens: Tokens | None = None) -> None:
        super().__init__(manager, TokenRights(manager, who))
        self.who, self._tokens = who, tokens

    def call(self, name: str, /, *args: Any, **kw: Any) -> Any:
        """One of the calls.

        Raises:
            AccessError: The token is too narrow for it.
            RequestError: There is no such call, or not with such arguments.
        """
        check_values([args, kw])
        return ask(self, name, args, kw)

    def connect(self, user: str = "", token: str | None = None) -> dict[str, Any]:
        """The user of the token; only a server without tokens believes a name."""
        return {"user": self.who.user, "queue": self.queue, "tokens": not self.who.open}

    # -- calls that differ -----------------------------------------------------------------------------------------

    def jobs(self, wanted: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        found = self.rights.found(wanted)
        last = (wanted or {}).get("last")
        return [self.rights.shown(record) for record in (found[-last:] if last is not None else found)]

    def status(self, job: str) -> dict[str, Any]:
        return self.rights.standing(self.manager.record(job))

    def submit(self, submissions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        for plain in submissions:
            self.rights.check_submission(plain)
        return super().submit(submissions)

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
            self.rights.need(scope)
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
            self.rights.need(ADMIN)
        return super().forget(job)

    def race_status(self, race: str) -> dict[str, Any]:
        status = super().race_status(race)
        for job in status["jobs"]:
            self.rights.record(job)
        return status

    def set_email(self, email: str | None, mails: str | None = None) -> None:
        self.rights.check_whole()
        super().set_email(email, mails)

    def upload(self, archive: str) -> str:
        self.rights.check_whole()
        return super().upload(archive)

    def listen(self, key: str, target: Any) -> Any:
        raise AssertionError("streams go through events.py")


def check_values(value: Any) -> None:
    """Raise RequestError for what JSON parsers take and stores do not: nan, inf, halves of characters."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as exc:
        raise RequestError("a text holds half a character (a lone surrogate)", hint="Send UTF-8") from exc
    except (ValueError, TypeError, RecursionError) as exc:
        raise RequestError(f"a value is not for JSON ({exc})", hint='Send nan and inf as {"$float": "nan"}') from exc
