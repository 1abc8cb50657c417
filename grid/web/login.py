"""Tokens of this user for job servers elsewhere: `grid login`, `grid logout`.

The token goes into the system's keyring where there is one that works, else into ~/.config/grid/logins.json (0600),
which has names and fingerprints in any case. So one login is good for all sessions; there is no agent process.

Lives here: `login`, `logout`, `find`.
Elsewhere:  tokens at the server (`tokens.py`), short names that point to servers (`jobs/line/client.py`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from grid.jobs.host.errors import AccessError, RequestError
from grid.jobs.line.client import logins_file, read_logins
from grid.jobs.line.pins import check_fingerprint
from grid.web.requests import Requests

_KEYRING = "grid job server"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


def login(
    url: str, token: str, *, name: str | None = None, fingerprint: str | None = None
) -> tuple[dict[str, Any], str]:
    """Check the token at the server, and keep it.

    Returns:
        What the server says of us (`user`, `scopes`, `expires`), and where the token is kept.
    Raises:
        AccessError: The token is not valid there, or the server is not the one with that fingerprint.
        JobError: It can't be reached.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise RequestError(f"{name!r} can't be the name of a job server", hint="Letters, digits, dash and dot")
    url = url_of(url)
    pin = check_fingerprint(fingerprint) if fingerprint else None
    server = Requests(url, token, pin, find=find)
    try:
        me: dict[str, Any] = server.ask("GET", "/me")
    finally:
        server.close()
    if not me["tokens"]:
        raise AccessError(f"{url} asks for no tokens", hint="Use it without")
    chain = _keyring()
    if chain is not None:
        chain.set_password(_KEYRING, url, token)
    with _changing() as known:
        entry = {"name": name, "fingerprint": pin, "user": me["user"], "expires": me["expires"]}
        known[url] = {**entry, **({"keyring": True} if chain is not None else {"token": token})}
    return me, "the keyring" if chain is not None else str(logins_file())


def logout(url: str) -> bool:
    """Forget the token of that URL, or short name; whether there was one."""
    with _changing() as known:
        found = [each for each, entry in known.items() if url in (each, entry.get("name")) or url_of(url) == each]
        for each in found:
            entry = known.pop(each)
            chain = _keyring() if entry.get("keyring") else None
            if chain is not None:
                chain.delete_password(_KEYRING, each)
    return bool(found)


def find(url: str) -> dict[str, Any]:
    """The entry of the server at that URL: `token`, `fingerprint`, `user`, `expires`; empty if there is none."""
    entry = dict(read_logins().get(url, {}))
    if entry.get("keyring"):
        chain = _keyring()
        entry["token"] = chain.get_password(_KEYRING, url) if chain is not None else None
    return entry


def url_of(text: str) -> str:
    """The URL as it is kept: no path's end, no fragment."""
    parts = urlsplit(text)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _keyring() -> Any:
    """The system's keyring, if it is installed and has a place to keep things; None with $GRID_NO_KEYRING."""
    if os.environ.get("GRID_NO_KEYRING"):
        return None
    try:
        import keyring  # type: ignore[import-not-found,unused-ignore]

        return keyring if keyring.get_keyring().priority >= 1 else None
    except Exception:  # not installed, or its backend has no session to talk to
        return None


@contextmanager
def _changing() -> Iterator[dict[str, Any]]:
    known = read_logins()
    yield known
    path = logins_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = Path(f"{path}.{os.getpid()}")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        json.dump(known, file, indent=1)
    os.replace(part, path)
