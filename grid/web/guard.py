"""The checks of every request, before anything else reads it.

Bodies are read whole, up to a size, in a limited time, and only from who has shown a valid token; who has not gets
one answer, and its connection ends with it. At a server with tokens a request below /api needs a valid one. At a
server without, it must come from this machine and name it: a web page from elsewhere, opened in a browser here, sends
another `Origin`, or the name of its own site as `Host` (DNS rebinding), and is refused.

Lives here: `Guard` (ASGI).
Elsewhere:  tokens (`tokens.py`), waits for wrong ones (`slowing.py`), scopes and owners (`caller.py`), places
            (`door.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from grid.jobs.api import UPLOAD
from grid.jobs.host.errors import AccessError, StoreError
from grid.web.answers import say
from grid.web.events import Busy
from grid.web.limits import WebLimits
from grid.web.names import is_loopback
from grid.web.slowing import Slowing
from grid.web.tokens import Tokens
from grid.web.who import Who

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

API = ("/api/", "/metrics")
"""How addresses begin that need a token."""
PUBLIC = frozenset({"/api/v1/openapi.json"})
UPLOADS = "/api/v1/calls/upload"
"""May have larger bodies, of those who have that right."""
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """See the module. `tokens` None: a server without."""

    def __init__(self, app: App, tokens: Tokens | None, user: str, limits: WebLimits) -> None:
        self.app, self.tokens, self.user, self.limits = app, tokens, user, limits
        self._slowing = Slowing(limits)
        self._receiving = 0  # bytes of bodies that are on their way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1003})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        proved = False

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                have = {name for name, _ in message.get("headers", ())}
                message["headers"] = [
                    *message.get("headers", ()),
                    *(header for header in _HEADERS if header[0] not in have),
                ]
                if not proved:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            if self.tokens is None:
                self._check_near(scope, headers)
            if path.startswith(API) and path not in PUBLIC:
                who = scope.setdefault("state", {})["who"] = self._who(headers)
                proved = scope["grid.proved"](who.user)
                if not proved:
                    raise Busy("too many connections are open", hint="Close some, or try again later")
        except AccessError as exc:
            if headers.get("authorization"):
                await asyncio.sleep(self._slowing.wrong((scope.get("client") or ("",))[0]))
            status = 401 if self.tokens is not None else 403
            await say(status, "AccessError", exc.what, exc.facts.get("hint", ""))(scope, receive, send_with_headers)
            return
        except Busy as exc:
            await say(503, "JobError", exc.what, exc.facts.get("hint", ""))(scope, receive, send_with_headers)
            return
        except StoreError as exc:
            logger.error("%s", exc)
            await say(503, "StoreError", "tokens can't be read", "See the log")(scope, receive, send_with_headers)
            return
        who = scope.get("state", {}).get("who")
        large = path == UPLOADS and who is not None and who.may(UPLOAD)
        most = (self.limits.upload if large else self.limits.body) if who is not None else 0
        size = self._announced(headers, most)
        if size is None:
            await _too_large(most)(scope, receive, send_with_headers)
        elif self._receiving + size > self.limits.bodies:
            busy = say(503, "JobError", "too many large requests are on their way", "Try again later")
            proved = False  # what is still to come of it is not waited for
            await busy(scope, receive, send_with_headers)
        else:
            self._receiving += size
            try:
                body = await self._body(size, receive, most)
                if isinstance(body, bytes):
                    await self.app(scope, _replay(body, receive), send_with_headers)
                elif body is not None:
                    await body(scope, receive, send_with_headers)
            finally:
                self._receiving -= size

    # -- who -------------------------------------------------------------------------------------------------------

    def _who(self, headers: dict[str, str]) -> Who:
        if self.tokens is None:
            name = headers.get("grid-user", "")
            return Who(user=name if name and len(name) <= 200 and name.isprintable() else self.user, open=True)
        kind, _, token = headers.get("authorization", "").partition(" ")
        return self.tokens.check(token.strip() if kind.lower() == "bearer" else "")

    def _check_near(self, scope: Scope, headers: dict[str, str]) -> None:
        client = scope.get("client")
        near = client is None or is_loopback(client[0])
        host = headers.get("host", "")
        origin = headers.get("origin")
        if not near or not is_loopback(_name_of(host)) or origin not in (None, f"http://{host}", f"https://{host}"):
            raise AccessError("a server without tokens is for its own machine", hint="Use http://127.0.0.1:PORT there")

    # -- bodies ----------------------------------------------------------------------------------------------------

    def _announced(self, headers: dict[str, str], most: int) -> int | None:
        """Bytes that a body may have; None: more than it may."""
        if "content-length" not in headers and "transfer-encoding" not in headers:
            return 0
        length = headers.get("content-length", "")
        size = int(length[:20]) if length.isdecimal() else most
        return size if size <= most and not (size == most == 0 and "transfer-encoding" in headers) else None

    async def _body(self, size: int, receive: Receive, most: int) -> Any:
        """The body; an answer, if it is refused; None, if the caller has left."""
        parts, came = [], 0
        loop = asyncio.get_running_loop()
        end = loop.time() + self.limits.header_s + size / self.limits.bytes_per_s
        try:
            more = size > 0
            while more:
                message = await asyncio.wait_for(receive(), max(0.0, end - loop.time()))
                if message["type"] == "http.disconnect":
                    return None
                parts.append(message.get("body", b""))
                came += len(parts[-1])
                if came > most:
                    return _too_large(most)
                more = message.get("more_body", False)
        except asyncio.TimeoutError:
            return say(408, "RequestError", "the body did not come in time", "Send it faster")
        return b"".join(parts)


def _too_large(most: int) -> Any:
    if most == 0:
        return say(413, "RequestError", "this takes no body", "See /api/v1/openapi.json")
    return say(413, "RequestError", f"a request may have {most} bytes", "Send less at once")


def _replay(body: bytes, receive: Receive) -> Receive:
    told = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal told
        if not told:
            told = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
