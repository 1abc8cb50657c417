"""A job server behind HTTP, with the calls of `Server`: what `remote_service("https://...")` stands on.

Calls that only look are tried again for a while when the connection breaks; others are not, since nobody knows whether
they were carried out. Streams reconnect and go on after the last number that came: nothing is dropped or comes twice.
What the server could not keep for so long is told: a new list of jobs, or a `Gap` in what a job said.

Lives here: `HttpServer`, `connect`.
Elsewhere:  which token is whose (`login.py`), TLS with a fingerprint (`pins.py`), the server's side (`routes.py`).
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from grid.jobs.api import API, CONDITIONS, QUEUE, Call, Calls
from grid.jobs.host.errors import AccessError, JobError, RequestError, TooLarge, WireError
from grid.jobs.host.messages import ENDS, Gap, Message
from grid.jobs.line.lines import error_from_plain, error_to_plain
from grid.jobs.line.pins import Pinned
from grid.jobs.line.streams import Listener
from grid.web import login
from grid.web.names import is_loopback

CONNECT_S = 10.0
ANSWER = 256 << 20
"""Bytes of one answer, or of one message of a stream, that are taken."""
ANSWER_TOTAL_S = 600.0
"""For all of one answer, however slowly it comes."""
ANSWER_S = 60.0
QUIET_S = 35.0
"""A stream that says nothing for so long is broken: the server sends a sign of life every 10 s."""
PATIENCE_S = 30.0
"""Default; $GRID_JOBS_PATIENCE is another."""
PAUSE_S = 0.1


def connect(url: str) -> HttpServer:
    """The server at that URL; a fragment is the fingerprint of its certificate: `https://host:8440#3b1f...`."""
    return HttpServer(url)


def reach(url: str, token: str, fingerprint: str, check: Callable[[str], None], most: int) -> HttpServer:
    """The server at that URL for a server that has credentials, and patience of its own; nothing else goes there."""
    return HttpServer(url, token, fingerprint, patience_s=0.0, known={}, check=check, most=most)


class _Checked(httpcore.SyncBackend):
    """Connects to addresses that were looked at, not to names that may mean another one a moment later."""

    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check

    def connect_tcp(self, host: str, port: int, *arguments: Any, **options: Any) -> httpcore.NetworkStream:
        error: Exception = httpcore.ConnectError(f"{host} has no address")
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as exc:
            raise httpcore.ConnectError(str(exc)) from exc
        for *_, where in found:
            self._check(str(where[0]))
            try:
                return super().connect_tcp(str(where[0]), port, *arguments, **options)
            except httpcore.ConnectError as exc:
                error = exc
        raise error


class HttpServer(Calls):
    """See the module. Thread-safe.

    Args:
        token: Default: that of `grid login`.
        fingerprint: SHA-256 of the server's certificate, in hex; default: that of the login, or the URL's fragment.
        known: Instead of what `grid login` has kept.
        check: Called with each address before it is connected to; may raise.
        most: Bytes of one answer, or of one message of a stream.
        patience_s: How long looks and streams try to reach a server that has gone.
    Raises:
        JobError: The URL can't be used.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        fingerprint: str | None = None,
        patience_s: float | None = None,
        known: dict[str, Any] | None = None,
        check: Callable[[str], None] | None = None,
        most: int = ANSWER,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise JobError(f"{url!r} can't be the URL of a job server", hint="https://host:port, without user or ?")
        self.path = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        known = login.find(self.path) if known is None else known
        self._token = token or known.get("token")
        pin = fingerprint or parts.fragment or known.get("fingerprint") or None
        self.where = {"url": self.path, "fingerprint": pin or ""}
        """What others need to find it."""
        self._is_near = is_loopback(parts.hostname)
        self._is_clear = parts.scheme == "http" and not self._is_near
        default_s = float(os.environ.get("GRID_JOBS_PATIENCE") or PATIENCE_S)
        self.patience_s = default_s if patience_s is None else patience_s
        self._user, self._most = "", most
        self._was_there = False
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._streams: dict[tuple[str, int], _Stream] = {}
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

    def __repr__(self) -> str:
        return f"<HttpServer {self.path}>"

    # -- calls -----------------------------------------------------------------------------------------------------

    def headers(self) -> dict[str, str]:
        """Who is asking."""
        if self._token is not None:
            if self._is_clear:
                raise AccessError(f"the token would go to {self.path} in clear text", hint="Use https")
            return {"authorization": f"Bearer {self._token}"}
        return {"grid-user": self._user} if self._user else {}

    def connect(self, user: str = "", token: str | None = None) -> dict[str, Any]:
        """See `Server.connect`. With a token the server knows who it is."""
        self._user = user if user.isascii() and user.isprintable() else ""
        self._token = token or self._token
        answer: dict[str, Any] = self.call("connect", user)
        return answer

    def carry(self, call: Call, args: Sequence[Any], kw: Mapping[str, Any]) -> Any:
        """Over HTTP."""
        return self.call(call.name, *args, **kw)

    def call(self, name: str, /, *args: Any, **kw: Any) -> Any:
        """One of the calls of `Server`."""
        try:
            body = json.dumps({"args": args, "kw": kw}, allow_nan=False).encode()
        except (TypeError, ValueError) as exc:
            raise JobError(f"the call {name!r} can't be sent ({exc})", hint="Give it plain values") from exc
        return self.ask("POST", f"/calls/{name}", again=name in API and API[name].again, content=body)["ok"]

    _call = call

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
                    body = _read(answer, self._most, self.path)
                self._was_there = True
                if answer.status_code != 503 or not again or time.monotonic() + pause > end:
                    break  # else it is too busy, or about to stop
            except httpx.HTTPError as exc:
                if not again or self._is_final(exc) or time.monotonic() + pause > end:
                    raise self._broken(exc) from exc
            except RuntimeError as exc:  # httpx says so of a closed client
                raise JobError("this connection was closed", hint="Connect again") from exc
            self._closed.wait(pause)
            pause = min(2.0, pause * 2)
        return _value(answer.status_code, body, self.path)

    def _is_final(self, exc: httpx.HTTPError) -> bool:
        """Whether trying again can't help: nobody was ever there, or it is somebody else."""
        return "certificate" in str(exc).lower() or isinstance(exc, httpx.UnsupportedProtocol) or not self._was_there

    def _broken(self, exc: Exception) -> JobError:
        if "fingerprint" in str(exc):
            return AccessError(f"{self.path}: {exc}", hint="Ask who runs it for the fingerprint, then grid login again")
        if "certificate" in str(exc).lower():
            return AccessError(f"{self.path} can't be trusted ({exc})", hint="Give its --fingerprint to grid login")
        if isinstance(exc, httpx.ConnectError) and self._was_there:
            return JobError(f"the job server at {self.path} has gone", hint="Jobs go on when it is back")
        if isinstance(exc, httpx.ConnectError):
            return JobError(f"no job server answers at {self.path} ({exc})", hint="Start one: grid serve --http")
        return JobError(f"the connection to {self.path} broke ({exc or type(exc).__name__})", hint="Is it still there?")

    # -- streams ---------------------------------------------------------------------------------------------------

    def listen(self, key: str, target: Any) -> None:
        """See `Server.listen`: the messages come over a connection of their own."""
        stream = _Stream(self, key, Listener(key, target=target))
        stream.open()
        with self._lock:
            self._streams[key, id(target)] = stream
        stream.start()

    def hangup(self, key: str, target: Any) -> None:
        """No more of it."""
        with self._lock:
            stream = self._streams.pop((key, id(target)), None)
        if stream is not None:
            stream.close()

    def close(self) -> None:
        """End all connections."""
        self._closed.set()
        with self._lock:
            streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.close()
        self._http.close()


class _Stream:
    """One open stream, and the thread that reads it."""

    def __init__(self, server: HttpServer, key: str, listener: Listener) -> None:
        self._server, self.key, self._listener = server, key, listener
        path = {QUEUE: "/events", CONDITIONS: "/notices"}.get(key)
        self._path = path or f"/jobs/{key}/events"
        self._seen = ""
        self._last: int | None = None
        self._over = self._final = False
        self._closed = threading.Event()
        self._answer: httpx.Response | None = None
        self._thread = threading.Thread(target=self._run, name="jobs-stream", daemon=True)

    def open(self) -> None:
        """Connect, and go on where it was. Raises what the server says."""
        server = self._server
        headers = {**server.headers(), "accept": "text/event-stream"}
        if self._seen:
            headers["last-event-id"] = self._seen
        timeout = httpx.Timeout(QUIET_S, connect=CONNECT_S)
        request = server._http.build_request("GET", self._path, headers=headers, timeout=timeout)
        try:
            answer = server._http.send(request, stream=True)
        except httpx.HTTPError as exc:
            raise server._broken(exc) from exc
        except RuntimeError as exc:
            raise JobError("this connection was closed", hint="Connect again") from exc
        if answer.status_code != 200:
            try:
                _value(answer.status_code, _read(answer, server._most, server.path), server.path)
            finally:
                answer.close()
        self._answer = answer

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Hang up; wakes the thread."""
        self._closed.set()
        answer = self._answer
        stream = answer.extensions.get("network_stream") if answer is not None else None
        connection = stream.get_extra_info("socket") if stream is not None else None
        if connection is not None:
            try:
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not SSLSocket's, which forgets its state
            except OSError:
                pass  # it ended meanwhile
        if threading.current_thread() is not self._thread:
            self._thread.join(10.0)

    def _run(self) -> None:
        """Thread: read, and connect again, until hung up, or the stream is over."""
        why: JobError | None = None
        while not self._closed.is_set():
            if self._answer is None:
                why = self._again()
                if why is not None:
                    break
                continue
            try:
                for message in self._messages(self._answer):
                    self._take(message)
            except TooLarge as exc:
                why, self._final = exc, True
            except (httpx.HTTPError, httpx.StreamError, ValueError, KeyError, OSError, AttributeError):
                pass  # it broke, or we hung up
            finally:
                self._answer.close()
                self._answer = None
            if self._over:
                return
            if why is not None:
                break
        if why is not None and not self._closed.is_set():
            lost = {"reason": str(why), "error": error_to_plain(why), "final": self._final}
            self._listener.offer(Message("Lost", path=self._server.path, **lost))

    def _again(self) -> JobError | None:
        """Connect again; why not, if that can't be."""
        end = time.monotonic() + self._server.patience_s
        pause = PAUSE_S
        while True:
            try:
                self.open()
                return None
            except JobError as exc:
                refused = isinstance(exc, (AccessError, KeyError, RequestError, WireError))
                if refused or time.monotonic() + pause > end:
                    return exc
            if self._closed.wait(pause):
                return None
            pause = min(2.0, pause * 2)

    def _messages(self, answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
        number = ""
        for line in _lines(answer, self._server._most, self._server.path):
            if line.startswith(b"id: "):
                number = line[4:].decode()
            elif line.startswith(b"data: "):
                yield number, json.loads(line[6:])

    def _take(self, event: tuple[str, dict[str, Any]]) -> None:
        seen, plain = event
        same = seen.partition("-")[0] == self._seen.partition("-")[0]
        number = plain["number"]
        if plain["kind"] in ("Jobs", "Join"):
            if self._last is not None and plain["kind"] == "Join":
                gap = Gap(missed=max(0, number - self._last) if same else 0)
                gap.job, gap.number, gap.time = self.key, number, plain["time"]
                self._listener.offer(gap)
        elif same and self._last is not None and number <= self._last:
            return
        self._seen, self._last = seen, number
        self._listener.offer(Message.from_plain(plain))
        self._over = plain["kind"] in ENDS and self.key not in (QUEUE, CONDITIONS)


def _read(answer: httpx.Response, most: int, where: str) -> bytes:
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


def _lines(answer: httpx.Response, most: int, where: str) -> Iterator[bytes]:
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


def _value(status: int, body: bytes, where: str) -> Any:
    """What came, or the error that came."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise WireError(f"what answers at {where} is no job server of grid", hint="Check the address") from exc
    if 200 <= status < 300:
        return value
    if not isinstance(value, dict) or not isinstance(value.get("error"), str):
        raise WireError(f"what answers at {where} is no job server of grid", hint="Check the address")
    facts = value.get("facts")
    facts = {**(facts if isinstance(facts, dict) else {}), "hint": value.get("hint") or ""}
    raise error_from_plain({"kind": value.get("kind"), "what": value["error"], "facts": facts})
