"""Requests to a job server over HTTP: the user, the certificates it trusts, repetition, limits of answers.

Lives here: `Requests`.
Elsewhere:  the calls of a job server, its streams (`client.py`), which token is whose (`login.py`), pinned TLS
            (`jobs/line/pins.py`).
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from grid.jobs.host.errors import AccessError, JobError, TooLarge, WireError
from grid.jobs.line.lines import error_from_plain
from grid.jobs.line.pins import Pinned
from grid.text import in_words
from grid.web.names import is_loopback

CONNECT_S = 10.0
ANSWER = 256 << 20
"""Bytes of one answer, or of one message of a stream, that are taken."""
ANSWER_TOTAL_S = 600.0
"""For all of one answer, however slowly it comes."""
ANSWER_S = 60.0
PATIENCE_S = 30.0
"""Default; $GRID_JOBS_PATIENCE is another."""
PAUSE_S = 0.1


class _Checked(httpcore.SyncBackend):
    """Connects to addresses that were checked, not to names that may mean another one a moment later."""

    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check

    def connect_tcp(self, host: str, port: int, *arguments: Any, **options: Any) -> httpcore.NetworkStream:
        error: Exception = httpcore.ConnectError(f"{host} has no address")
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as exc:
            raise httpcore.ConnectError(in_words(exc)) from exc
        for *_, where in found:
            self._check(str(where[0]))
            try:
                return super().connect_tcp(str(where[0]), port, *arguments, **options)
            except httpcore.ConnectError as exc:
                error = exc
        raise error


class Requests:
    """See the module. Thread-safe.

    Args:
        token: Default: what `find` has.
        fingerprint: SHA-256 of the server's certificate, in hex; default: the URL's fragment, then what `find` has.
        find: What is known of the server at a URL: `token`, `fingerprint`.
        check: Called with each address before it is connected to; may raise.
        most: Bytes of one answer, or of one message of a stream.
        patience_s: How long calls that only look, and streams, try to reach a server that does not answer any more;
            default: $GRID_JOBS_PATIENCE, or
            `PATIENCE_S`.
    Raises:
        JobError: The URL can't be used.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        fingerprint: str | None = None,
        patience_s: float | None = None,
        find: Callable[[str], dict[str, Any]] = lambda url: {},
        check: Callable[[str], None] | None = None,
        most: int = ANSWER,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise JobError(f"{url!r} can't be the URL of a job server", hint="https://host:port, without user or ?")
        self.path = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        known = find(self.path)
        self.token = token or known.get("token")
        pin = fingerprint or parts.fragment or known.get("fingerprint") or None
        self.where = {"url": self.path, "fingerprint": pin or ""}
        """Its address, for others."""
        self._is_near = is_loopback(parts.hostname)
        self._is_clear = parts.scheme == "http" and not self._is_near
        default_s = float(os.environ.get("GRID_JOBS_PATIENCE") or PATIENCE_S)
        self.patience_s = default_s if patience_s is None else patience_s
        self.user, self._most = "", most
        self._was_there = False
        self._closed = threading.Event()
        verify: Any = Pinned(pin) if pin else True
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=30.0)
        transport: httpx.HTTPTransport | None = None
        if check is not None:
            transport = httpx.HTTPTransport(verify=verify, limits=limits, trust_env=False)
            transport._pool._network_backend = _Checked(check)  # httpx has no other way in
        self._http = httpx.Client(
            base_url=f"{self.path}/api/v1",
            headers={"accept-encoding": "identity"},
            verify=verify,
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            limits=limits,
            transport=transport,
            trust_env=check is None and not self._is_near,  # proxies
        )

    def headers(self) -> dict[str, str]:
        """The user that asks."""
        if self.token is not None:
            if self._is_clear:
                raise AccessError(f"the token would go to {self.path} in clear text", hint="Use https")
            return {"authorization": f"Bearer {self.token}"}
        return {"grid-user": self.user} if self.user else {}

    def ask(self, method: str, path: str, *, again: bool = False, **options: Any) -> Any:
        """One request; its answer, from JSON.

        Args:
            again: It may be repeated, for `patience_s`, if the connection breaks.
        Raises:
            GridError: What the server says went wrong, or JobError: it can't be reached.
        """
        headers = {"content-type": "application/json", **self.headers(), **options.pop("headers", {})}
        end = time.monotonic() + self.patience_s
        pause = PAUSE_S
        while True:
            if self._closed.is_set():
                raise JobError("this connection was closed", hint="Connect again")
            try:
                with self._http.stream(method, path, headers=headers, **options) as answer:
                    body = read(answer, self._most, self.path)
                self._was_there = True
                if answer.status_code != 503 or not again or time.monotonic() + pause > end:
                    break  # else it is too busy, or about to stop
            except httpx.HTTPError as exc:
                if not again or self._is_final(exc) or time.monotonic() + pause > end:
                    raise self.broken(exc) from exc
            except RuntimeError as exc:  # httpx says so of a closed client
                raise JobError("this connection was closed", hint="Connect again") from exc
            self._closed.wait(pause)
            pause = min(2.0, pause * 2)
        return value(answer.status_code, body, self.path)

    def stream(self, path: str, headers: dict[str, str], quiet_s: float) -> httpx.Response:
        """Open a stream, which may say nothing for `quiet_s` seconds. Raises what the server says."""
        headers = {**self.headers(), "accept": "text/event-stream", **headers}
        timeout = httpx.Timeout(quiet_s, connect=CONNECT_S)
        request = self._http.build_request("GET", path, headers=headers, timeout=timeout)
        try:
            answer = self._http.send(request, stream=True)
        except httpx.HTTPError as exc:
            raise self.broken(exc) from exc
        except RuntimeError as exc:
            raise JobError("this connection was closed", hint="Connect again") from exc
        if answer.status_code != 200:
            try:
                value(answer.status_code, read(answer, self._most, self.path), self.path)
            finally:
                answer.close()
        return answer

    def lines(self, answer: httpx.Response) -> Iterator[bytes]:
        """The lines of a stream. Raises TooLarge for one that does not end."""
        return lines(answer, self._most, self.path)

    def refuse(self) -> None:
        """No more requests from now on; the present one is not tried again."""
        self._closed.set()

    def close(self) -> None:
        """End all connections."""
        self._closed.set()
        self._http.close()

    def _is_final(self, exc: httpx.HTTPError) -> bool:
        """Whether trying again can't help: nobody was ever there, or it is somebody else."""
        return "certificate" in str(exc).lower() or isinstance(exc, httpx.UnsupportedProtocol) or not self._was_there

    def broken(self, exc: Exception) -> JobError:
        """The error of a connection, in words."""
        said = in_words(exc)
        if "fingerprint" in said:
            hint = "Ask who runs it for the fingerprint, then grid login again"
            return AccessError(f"{self.path}: {said}", hint=hint)
        if "certificate" in said.lower():
            return AccessError(f"{self.path} can't be trusted ({said})", hint="Give its --fingerprint to grid login")
        if isinstance(exc, httpx.ConnectError) and self._was_there:
            return JobError(
                f"the job server at {self.path} does not answer any more", hint="Jobs go on when it is back"
            )
        if isinstance(exc, httpx.ConnectError):
            return JobError(f"no job server answers at {self.path} ({said})", hint="Start one: grid serve --http")
        return JobError(f"the connection to {self.path} broke ({said})", hint="Is it still there?")


def read(answer: httpx.Response, most: int, where: str) -> bytes:
    """The body of an answer, as it is on the wire. Raises TooLarge, WireError."""
    if answer.headers.get("content-encoding", "identity") != "identity":  # small ones may unpack to anything
        raise WireError(f"what answers at {where} is no job server of grid", hint="Check the address")
    parts, size, end = [], 0, time.monotonic() + ANSWER_TOTAL_S
    for part in answer.iter_raw():
        size += len(part)
        if size > most or time.monotonic() > end:
            raise TooLarge(
                f"an answer of {where} has more than {most} bytes, or takes longer than {ANSWER_TOTAL_S:g} s",
                hint="Ask for less",
            )
        parts.append(part)
    return b"".join(parts)


def lines(answer: httpx.Response, most: int, where: str) -> Iterator[bytes]:
    """The lines of a stream. Raises TooLarge for one that does not end."""
    rest = bytearray()
    for part in answer.iter_raw():
        start = len(rest)
        rest += part
        while (end := rest.find(b"\n", start)) >= 0:
            yield bytes(rest[:end])
            del rest[: end + 1]
            start = 0
        if len(rest) > most:
            raise TooLarge(f"a message of {where} has more than {most} bytes", hint="Listen to less")


def value(status: int, body: bytes, where: str) -> Any:
    """What came, or the error that came."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise WireError(f"what answers at {where} is no job server of grid", hint="Check the address") from exc
    if 200 <= status < 300:
        return found
    if not isinstance(found, dict) or not isinstance(found.get("error"), str):
        raise WireError(f"what answers at {where} is no job server of grid", hint="Check the address")
    facts = found.get("facts")
    facts = {**(facts if isinstance(facts, dict) else {}), "hint": found.get("hint") or ""}
    raise error_from_plain({"kind": found.get("kind"), "what": found["error"], "facts": facts})
