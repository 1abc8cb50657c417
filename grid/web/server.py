"""The web server of a job manager: a thread with an event loop, from a bound socket to the end of the last connection.

Lives here: `WebServer`, addresses.
Elsewhere:  what it answers (`app.py`), certificates (`tls.py`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from dataclasses import replace
from typing import Any

import uvicorn

from grid.jobs.host.errors import JobError, RequestError
from grid.jobs.manager.job_manager import JobManager
from grid.web.app import make_app
from grid.web.arrivals import SPARE_FILES, Arrival, Newcomers, raise_files
from grid.web.connections import protocol
from grid.web.limits import WebLimits
from grid.web.names import is_loopback
from grid.web.site import Site
from grid.web.tls import Certificate
from grid.web.tokens import Tokens

logger = logging.getLogger(__name__)

START_S = 30.0
STOP_S = 10.0
PORT = 8440


def address(text: str) -> tuple[str, int]:
    """`ADDR:PORT`, `:PORT`, `PORT` or `ADDR`; default 127.0.0.1 and 8440. Raises RequestError."""
    host, colon, port = text.strip().rpartition(":")
    if not colon:
        host, port = ("", text) if text.isdecimal() else (text, "")
    host = host.strip("[]") or "127.0.0.1"
    if port and not (port.isdecimal() and int(port) < 65536):
        raise RequestError(f"{text!r} is no address to listen at", hint="Give ADDR:PORT, like 127.0.0.1:8440")
    return host, int(port) if port else PORT


class WebServer:
    """See the module; it listens when this returns. `close` ends it; the manager is its owner's.

    Args:
        listen: Address and port; port 0: any that is free, see `port`.
        tokens: None: no tokens are asked for; only on loopback.
        certificate: For TLS; None: plain HTTP.
    Raises:
        JobError: The address can't be had.
        RequestError: It is open to others and without tokens.
    """

    def __init__(
        self,
        manager: JobManager,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        *,
        tokens: Tokens | None,
        certificate: Certificate | None = None,
        limits: WebLimits | None = None,
    ) -> None:
        if tokens is None and not is_loopback(listen[0]):
            raise RequestError(
                f"{listen[0]} can be reached by others, who need tokens then", hint="Listen at 127.0.0.1, or use tokens"
            )
        limits = limits or WebLimits()
        files = raise_files(limits.connections + limits.strangers + SPARE_FILES)
        room = max(16, files - limits.strangers - SPARE_FILES)
        if room < limits.connections:
            logger.warning("with %d files open at most there is room for %d connections (ulimit -n)", files, room)
            limits = replace(limits, connections=room)
        self.site = Site(manager, tokens, limits)
        self._socket = _bind(listen)
        self.host, self.port = listen[0], self._socket.getsockname()[1]
        self.scheme = "https" if certificate is not None else "http"
        self.fingerprint = certificate.fingerprint if certificate is not None and certificate.is_own else ""
        config = uvicorn.Config(
            make_app(self.site),
            loop="asyncio",  # uvloop is no faster here (measured), and keeps a pipe open for good
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=None,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=int(STOP_S) // 2,
        )
        config.load()
        self._server = _Server(config)
        connection = protocol(self.site.limits)

        def make(arrival: Arrival) -> Any:
            options = {"config": config, "server_state": self._server.server_state, "app_state": {}}
            return connection(arrival, self.arrivals, **options)

        context = certificate.context() if certificate is not None else None
        self.arrivals = Newcomers(self._socket, self.site.limits, context, make)
        self._end = asyncio.Event()
        self._loop: Any = None
        self._failed: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_S) or self._failed is not None:
            self.close()
            raise JobError(f"the web server did not start ({self._failed})", hint="See the log") from self._failed

    @property
    def url(self) -> str:
        """Where it can be reached from this machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def about(self) -> dict[str, Any]:
        """Its address for clients; `fingerprint` of a certificate of its own, else empty."""
        return {"url": self.url, "fingerprint": self.fingerprint}

    @property
    def tokens(self) -> Tokens | None:
        """Those that it asks for; None: everybody may do all."""
        return self.site.tokens

    @property
    def manager(self) -> JobManager:
        """The one that it serves."""
        return self.site.manager

    def _run(self) -> None:
        """Thread: the event loop."""
        try:
            make = self._server.config.get_loop_factory()
            self._loop = make() if make is not None else asyncio.new_event_loop()
            try:
                self._loop.run_until_complete(self._main())
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())
                self._loop.run_until_complete(self._loop.shutdown_default_executor())
            finally:
                self._loop.close()
        except BaseException as exc:
            self._failed = exc
            logger.exception("the web server ended")
        finally:
            self._ready.set()

    async def _main(self) -> None:
        await self.site.open()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self.arrivals.unforeseen)
        serving = asyncio.ensure_future(self._server.serve([]))
        ending = asyncio.ensure_future(self._end.wait())
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.005)  # uvicorn tells nobody that it is ready
        accepting = asyncio.ensure_future(self.arrivals.accept())
        await asyncio.sleep(0)  # it listens then
        self._ready.set()
        await asyncio.wait([serving, ending, accepting], return_when=asyncio.FIRST_COMPLETED)
        accepting.cancel()
        await asyncio.wait([accepting])
        await self.site.close()
        self._server.should_exit = True
        ending.cancel()
        while not serving.done():
            await asyncio.wait([serving], timeout=0.2)
            connections: list[Any] = list(self._server.server_state.connections)
            for connection in connections:
                # TLS is closed by both; a client that does nothing at the moment would not notice for long
                if connection.cycle is None or connection.cycle.response_complete:
                    connection.transport.abort()
        await serving

    def close(self) -> None:
        """No more connections; streams and waits end. Harmless if it is done already."""
        if self._loop is not None and self._thread.is_alive():
            try:
                self._loop.call_soon_threadsafe(self._end.set)
            except RuntimeError:
                pass  # it ended meanwhile
        self._thread.join(3 * STOP_S)
        self._socket.close()


class _Server(uvicorn.Server):
    """Signals are the business of the program that runs us."""

    def install_signal_handlers(self) -> None:
        pass

    def capture_signals(self) -> Any:
        from contextlib import nullcontext

        return nullcontext()


def _bind(listen: tuple[str, int]) -> socket.socket:
    try:
        found = socket.getaddrinfo(*listen, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, number, _, where = found[0]
        bound = socket.socket(family, kind, number)
    except OSError as exc:
        raise JobError(f"{listen[0]} is no address here ({exc.strerror or exc})", hint="Give one of its own") from exc
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
        bound.set_inheritable(False)
    except OSError as exc:
        bound.close()
        raise JobError(
            f"can't listen at {listen[0]}:{listen[1]} ({exc.strerror or exc})", hint="Choose another port with --http"
        ) from exc
    return bound
