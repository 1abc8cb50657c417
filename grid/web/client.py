"""A job server behind HTTP, with the calls of `Server`: what `remote_service("https://...")` stands on.

Calls that only look are tried again for a while when the connection breaks; others are not, since nobody knows whether
they were carried out. Streams reconnect and go on after the last number that came: nothing is dropped or comes twice.
Who comes back too late is told what is missing: a new list of jobs, or a `Gap` in what a job said.

Lives here: `HttpServer`, `connect`.
Elsewhere:  single requests (`requests.py`), which token is whose (`login.py`), the server's side (`routes.py`).
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx

from grid.jobs.api import API, CONDITIONS, QUEUE, Call, Calls
from grid.jobs.host.errors import AccessError, JobError, RequestError, TooLarge, WireError
from grid.jobs.host.messages import ENDS, Gap, Message
from grid.jobs.line.lines import error_to_plain
from grid.jobs.line.streams import Listener
from grid.web import login
from grid.web.requests import PAUSE_S, Requests

QUIET_S = 35.0
"""After this time without a word a stream is broken: the server sends a sign of life every 10 s."""


def connect(url: str) -> HttpServer:
    """The server at that URL; a fragment is the fingerprint of its certificate: `https://host:8440#3b1f...`."""
    return HttpServer(url)


def reach(url: str, token: str, fingerprint: str, check: Callable[[str], None], most: int) -> HttpServer:
    """The server at that URL for a server that has credentials, and patience of its own; nothing else goes there."""
    return HttpServer(url, token, fingerprint, patience_s=0.0, known={}, check=check, most=most)


class HttpServer(Calls):
    """See the module. Thread-safe.

    Args:
        token: Default: that of `grid login`.
        fingerprint: SHA-256 of the server's certificate, in hex; default: the URL's fragment, then that of the login.
        known: Instead of what `grid login` has kept.
        options: Of `Requests`.
    Raises:
        JobError: The URL can't be used.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        fingerprint: str | None = None,
        *,
        known: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        find = login.find if known is None else lambda _: known
        self.requests = Requests(url, token, fingerprint, find=find, **options)
        self.path, self.where = self.requests.path, self.requests.where
        self._lock = threading.Lock()
        self._streams: dict[tuple[str, int], _Stream] = {}

    def __repr__(self) -> str:
        return f"<HttpServer {self.path}>"

    # -- calls -----------------------------------------------------------------------------------------------------

    def connect(self, user: str = "", token: str | None = None) -> dict[str, Any]:
        """See `Server.connect`. With a token the server knows who it is."""
        self.requests.user = user if user.isascii() and user.isprintable() else ""
        self.requests.token = token or self.requests.token
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
        return self.requests.ask("POST", f"/calls/{name}", again=name in API and API[name].again, content=body)["ok"]

    # -- streams ---------------------------------------------------------------------------------------------------

    def listen(self, key: str, target: Any) -> None:
        """See `Server.listen`: the messages come over a connection of their own."""
        stream = _Stream(self.requests, key, Listener(key, target=target))
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
        self.requests.refuse()
        with self._lock:
            streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.close()
        self.requests.close()


class _Stream:
    """One open stream, and the thread that reads it."""

    def __init__(self, requests: Requests, key: str, listener: Listener) -> None:
        self._requests, self.key, self._listener = requests, key, listener
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
        headers = {"last-event-id": self._seen} if self._seen else {}
        self._answer = self._requests.stream(self._path, headers, QUIET_S)

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
        """Thread: read, and connect again, until it is hung up, or the stream has ended."""
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
            self._listener.offer(Message("Lost", path=self._requests.path, **lost))

    def _again(self) -> JobError | None:
        """Connect again; why not, if that can't be."""
        end = time.monotonic() + self._requests.patience_s
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
        for line in self._requests.lines(answer):
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
