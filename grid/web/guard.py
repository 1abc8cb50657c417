"""What every request goes through before anything else looks at it.

Bodies are read whole, up to a size, in a limited time. At a server with tokens a request below /api needs a valid one.
At a server without, it must come from this machine and name it: a web page from elsewhere, opened in a browser here,
sends another `Origin`, or the name of its own site as `Host` (DNS rebinding), and is refused.

Lives here: `Guard` (ASGI).
Elsewhere:  tokens (`tokens.py`), scopes and owners (`caller.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from grid.jobs.api import UPLOAD
from grid.jobs.host.errors import AccessError, StoreError
from grid.web.answers import say
from grid.web.limits import WebLimits
from grid.web.names import is_loopback
from grid.web.tokens import Tokens
from grid.web.who import Who

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

API = "/api/"
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1003})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                have = {name for name, _ in message.get("headers", ())}
                message["headers"] = [
                    *message.get("headers", ()), *(header for header in _HEADERS if header[0] not in have)
                ]
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            if self.tokens is None:
                self._check_near(scope, headers)
            if path.startswith(API) and path not in PUBLIC:
                scope.setdefault("state", {})["who"] = self._who(headers)
        except AccessError as exc:
            status = 401 if self.tokens is not None else 403
            await say(status, "AccessError", exc.what, exc.facts.get("hint", ""))(scope, receive, send_with_headers)
            return
        except StoreError as exc:
            logger.error("%s", exc)
            await say(503, "StoreError", "tokens can't be read", "See the log")(scope, receive, send_with_headers)
            return
        who = scope.get("state", {}).get("who")
        large = path == UPLOADS and who is not None and who.may(UPLOAD)
        body = await self._body(headers, receive, self.limits.upload if large else self.limits.body)
        if isinstance(body, bytes):
            await self.app(scope, _replay(body, receive), send_with_headers)
        elif body is not None:
            await body(scope, receive, send_with_headers)

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

    async def _body(self, headers: dict[str, str], receive: Receive, most: int) -> Any:
        """The body; an answer, if it is refused; None, if the caller has gone."""
        if "content-length" not in headers and "transfer-encoding" not in headers:
            return b""
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > most:
            return _too_large(most)
        parts, size = [], 0
        try:
            more = True
            while more:
                message = await asyncio.wait_for(receive(), self.limits.header_s)
                if message["type"] == "http.disconnect":
                    return None
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    return _too_large(most)
                more = message.get("more_body", False)
        except asyncio.TimeoutError:
            return say(408, "RequestError", "the body did not come in time", "Send it faster")
        return b"".join(parts)


def _too_large(most: int) -> Any:
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
