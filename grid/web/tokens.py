"""Tokens of a job server: a file of hashes beside its jobs.

A token is `grid_<id>_<secret>`: the id is public, names it in lists and revokes it; of the secret, 32 random bytes,
the file has the SHA-256 alone (slow hashes are for passwords that people choose). The file can be changed while the
server runs, by `grid token`: it is replaced at one stroke, under a lock, and the server looks at it for every request.

Lives here: `Tokens`: made, listed, revoked, checked; tokens that are made of others.
Elsewhere:  what a token allows (`who.py`), how it comes over HTTP (`guard.py`).
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import math
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grid.jobs.host.errors import AccessError, RequestError, StoreError
from grid.web.who import USUAL, Who, check_scopes

FORM = re.compile(r"grid_([a-z0-9]{10})_([A-Za-z0-9_-]{43})")
"""A token. Messages and logs are searched for it by a test."""

MOST_MADE = 500
"""Tokens that one user has made of tokens, at once; each names `MOST_NAMES` jobs and services at most."""
MOST_NAMES = 1_000
MOST_DAYS = 3660.0
DAY_S = 86400.0
LIFETIME_S = 90 * DAY_S
_USER = re.compile(r"[^\s\x00-\x1f\x7f]{1,200}")


class Tokens:
    """See the module. Thread-safe, and safe between processes.

    Args:
        directory: That of the store; the file is `tokens.json` in it, 0600.
        clock: Seconds since 1970.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(directory) / "tokens.json"
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._known: dict[str, dict[str, Any]] = {}

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read(self) -> dict[str, dict[str, Any]]:
        with self._lock:
            try:
                info = os.stat(self.path)
            except FileNotFoundError:
                self._seen, self._known = None, {}
                return self._known
            seen = (info.st_ino, info.st_mtime_ns, info.st_size)
            if seen != self._seen:
                if info.st_uid != os.geteuid() or info.st_mode & 0o077:
                    raise StoreError(f"{self.path} can be read or written by others", hint=f"chmod 600 {self.path}")
                try:
                    self._known = json.loads(self.path.read_text(encoding="utf-8"))["tokens"]
                except (ValueError, KeyError, TypeError) as exc:
                    raise StoreError(
                        f"{self.path} can't be read", hint="Move it away; tokens must then be made anew"
                    ) from exc
                self._seen = seen
            return self._known

    def check(self, token: str) -> Who:
        """The user and rights of a token.

        Raises:
            AccessError: It is none, was revoked, or has expired; the message does not say which.
        """
        found = FORM.fullmatch(token)
        known = self._read()
        entry = known.get(found[1]) if found is not None else None
        given = _hash(found[2] if found is not None else "")
        right = hmac.compare_digest(entry["hash"] if entry is not None else _hash("nothing"), given)
        if entry is None or not right or not self._holds(entry, known):
            raise AccessError("this token is not valid here", hint="Ask who runs the server for one: grid token create")
        assert found is not None
        return _who(found[1], entry)

    def holds(self, who: Who) -> bool:
        """Whether the token of a caller still does."""
        known = self._read()
        entry = known.get(who.token)
        return entry is not None and self._holds(entry, known)

    def _holds(self, entry: dict[str, Any], known: dict[str, dict[str, Any]]) -> bool:
        if entry["expires"] <= self._clock():
            return False
        above = entry.get("parent")
        return above is None or (above in known and self._holds(known[above], known))

    def list(self, user: str | None = None) -> list[dict[str, Any]]:
        """All that is known of the tokens, but for their hashes, oldest first."""
        known = self._read()
        return [
            {"id": name, **{k: v for k, v in entry.items() if k != "hash"}, "valid": self._holds(entry, known)}
            for name, entry in sorted(known.items(), key=lambda item: item[1]["created"])
            if user is None or entry["user"] == user
        ]

    # -- changing --------------------------------------------------------------------------------------------------

    def create(
        self,
        user: str,
        scopes: Iterable[str] = USUAL,
        lifetime_s: float = LIFETIME_S,
        *,
        note: str = "",
        services: Iterable[str] | None = None,
        jobs: Iterable[str] | None = None,
        parent: str | None = None,
    ) -> str:
        """A new token; it is shown only this once.

        Args:
            services, jobs: It is good for these alone.
            parent: Id of the token that it ends with.
        Raises:
            RequestError: Something about it makes no sense.
        """
        if not isinstance(user, str) or not _USER.fullmatch(user):
            raise RequestError(f"{user!r} can't be a user", hint="Give a name without blanks")
        if not (math.isfinite(lifetime_s) and 0 < lifetime_s <= MOST_DAYS * DAY_S):
            raise RequestError("a token must end some day", hint=f"Give a lifetime of at most {MOST_DAYS:g} days")
        names = [*(services or ()), *(jobs or ())]
        if len(names) > MOST_NAMES or any(len(each) > 300 for each in names):
            raise RequestError(f"a token names {MOST_NAMES} services and jobs at most", hint="Make several")
        now = self._clock()
        name = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(10))
        secret = secrets.token_urlsafe(32)
        entry = {
            "user": user,
            "scopes": list(check_scopes(tuple(scopes))),
            "created": now,
            "expires": now + lifetime_s,
            "note": str(note)[:200],
            "services": sorted(services) if services is not None else None,
            "jobs": sorted(jobs) if jobs is not None else None,
            "parent": parent,
            "hash": _hash(secret),
        }
        with self._changing() as known:
            if parent is not None:
                own = [each for each in known.values() if each.get("parent") is not None and each["user"] == user]
                made = sum(self._holds(each, known) for each in own)
                if made >= MOST_MADE:
                    raise RequestError(f"{user} has {made} credentials", hint="Wait until some expire, or revoke some")
            known[name] = entry
        return f"grid_{name}_{secret}"

    def revoke(self, name: str) -> None:
        """End a token, and with it those that were made of it. Raises RequestError if there is none of that id."""
        with self._changing() as known:
            if name not in known:
                raise RequestError(f"there is no token {name!r}", hint="See `grid token list`")
            del known[name]

    @contextmanager
    def _changing(self) -> Iterator[dict[str, dict[str, Any]]]:
        """The tokens, to be changed; those that expired a month ago, or lost their parent, are removed."""
        with open(os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = {name: dict(entry) for name, entry in self._read().items()}
            yield known
            cut = self._clock() - 30 * DAY_S
            kept = {
                name: entry
                for name, entry in known.items()
                if entry["expires"] > cut and (entry.get("parent") is None or self._holds(entry, known))
            }
            part = Path(f"{self.path}.part")
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
                json.dump({"tokens": kept}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _who(name: str, entry: dict[str, Any]) -> Who:
    services, jobs = entry.get("services"), entry.get("jobs")
    return Who(
        user=entry["user"],
        scopes=frozenset(entry["scopes"]),
        services=None if services is None else frozenset(services),
        jobs=None if jobs is None else frozenset(jobs),
        expires=entry["expires"],
        token=name,
    )
