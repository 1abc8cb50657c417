"""Credentials for other servers that users leave here for their jobs: a file beside the store, never in a record.

A deposit has a name that nobody can guess; the job's request or condition has this name alone. It is used for the URLs
below its own, by jobs of who left it, until it ends.

Lives here: `Credentials`, for users; `Deposits`, `Deposit`, at the server.
Elsewhere:  where credentials come from (`grid/web/caller.py`), who uses them (`job.py`, `elsewhere.py`).
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from grid.jobs.host.errors import AccessError, RequestError

MOST = 10_000
"""Deposits of all users; `EACH` of one."""
EACH = 500
LIFETIME_S = 8 * 86400.0
"""Longest life: a week, as credentials have at most, and a day for clocks that differ."""
URL, TOKEN = 2_048, 512
"""Characters."""


@dataclass(frozen=True, repr=False)
class Credentials:
    """A token for a job server, good for certain jobs or services and for a time: made by `service.credentials(...)`.

    Given as `auth=`; not to be put into requests, whose values are stored and shown.
    """

    url: str
    token: str
    expires: float
    fingerprint: str = ""

    def __repr__(self) -> str:
        return f"<Credentials for {self.url}>"

    def __grid_plain__(self) -> Any:
        raise RequestError("credentials would be stored with the job, for others to see", hint="Give them as auth=")

    def to_plain(self) -> dict[str, Any]:
        """To be left at a server."""
        return {"url": self.url, "token": self.token, "expires": self.expires, "fingerprint": self.fingerprint}


@dataclass(frozen=True, repr=False)
class Deposit:
    """A token for the server at `url`; `fingerprint` of its certificate, if that is its own."""

    owner: str
    url: str
    token: str
    fingerprint: str
    expires: float

    def covers(self, url: str) -> bool:
        """Whether it is for that URL."""
        own, other = urlsplit(self.url), urlsplit(url)
        below = f"{own.path.rstrip('/')}/"
        return (own.scheme, own.netloc) == (other.scheme, other.netloc) and f"{other.path}/".startswith(below)


class Deposits:
    """See the module. Thread-safe."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = Path(directory) / "credentials.json"
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            self._known = json.loads(self._path.read_text(encoding="utf-8"))

    def keep(self, owner: str, credentials: Mapping[str, Any]) -> str:
        """Leave credentials (`url`, `token`, `expires`, `fingerprint`) here; their name. Raises RequestError."""
        url, token = credentials.get("url"), credentials.get("token") or ""
        expires, pin = credentials.get("expires"), credentials.get("fingerprint") or ""
        if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise RequestError("credentials must say for which URL they are", hint="Make them with credentials()")
        if len(url) > URL:
            raise RequestError(f"a URL of {len(url)} characters", hint=f"At most {URL}")
        if not isinstance(token, str) or not isinstance(pin, str) or len(token) > TOKEN or len(pin) > 100:
            raise RequestError("these are no credentials", hint="Make them with credentials()")
        now = self._clock()
        if isinstance(expires, bool) or not isinstance(expires, (int, float)) or not expires > now:
            raise RequestError("these credentials have expired", hint="Make new ones with credentials()")
        if not expires <= now + LIFETIME_S:
            days = LIFETIME_S / 86400
            raise RequestError(f"credentials are kept for {days:g} days at most", hint="Make some that expire sooner")
        name = f"credentials-{secrets.token_urlsafe(24)}"
        with self._lock:
            self._known = {each: entry for each, entry in self._known.items() if entry["expires"] > self._clock()}
            own = sum(entry["owner"] == owner for entry in self._known.values())
            if len(self._known) >= MOST or own >= EACH:
                raise RequestError(
                    f"there are too many credentials here ({EACH} for each user, {MOST} in all)",
                    hint="Wait until some expire",
                )
            entry = {"owner": owner, "url": url, "token": token, "fingerprint": pin, "expires": expires}
            self._known[name] = entry
            part = Path(f"{self._path}.part")
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
                json.dump(self._known, file)
            os.replace(part, self._path)
        return name

    def get(self, name: str, owner: str | None = None) -> Deposit:
        """Those of that name. Raises AccessError: they have expired, or are somebody else's."""
        with self._lock:
            entry = self._known.get(name)
        if entry is None or entry["expires"] <= self._clock() or owner not in (None, entry["owner"]):
            raise AccessError(
                "the credentials for that server have expired, or were never left here",
                hint="Make new ones with credentials()",
            )
        return Deposit(**entry)
