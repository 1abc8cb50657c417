"""A pinned certificate is compared on every path: direct, through an http and an https proxy, from memory, by asyncio.

The servers, their certificates and the proxies are real, and the tests' own. What answers with another certificate than
the one on record must not see a byte of what we send.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import queue
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grid.jobs.fetch.download import Download, Policy
from grid.jobs.host.errors import AccessError
from grid.jobs.line.pins import Pinned
from grid.web.client import HttpServer
from grid.web.tls import Certificate

LIMIT_S = 20.0
TOKEN = "grid_" + "a" * 10 + "_" + "b" * 43


class Listening:
    """Serves each connection in a thread; `heard` is all that came."""

    def __init__(self, serve: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> None:
        self._serve, self._context = serve, context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self.came = 0

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._one, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _one(self, connection: socket.socket) -> None:
        connection.settimeout(LIMIT_S)
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            self.came += 1
            self._serve(connection)
        except OSError:
            pass  # the other side has hung up
        finally:
            connection.close()

    def __enter__(self) -> Listening:
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(LIMIT_S)
        for thread in self._threads:
            thread.join(LIMIT_S)


class Answering(Listening):
    """A job server, as far as this goes."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.heard = b""
        super().__init__(self._answer, context)

    def _answer(self, connection: socket.socket) -> None:
        got = b""
        while b"\r\n\r\n" not in got:
            part = connection.recv(65536)
            if not part:
                return
            got += part
            self.heard += part
        connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{"ok":{}}')
        while connection.recv(65536):
            pass  # the rest of the request, until the client hangs up


def relay(to: int) -> Callable[[socket.socket], None]:
    """A CONNECT proxy that leads to that port, whatever it is asked for."""

    def serve(connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        assert head.startswith(b"CONNECT "), head
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with socket.create_connection(("127.0.0.1", to), LIMIT_S) as there:
            while True:
                pending = isinstance(connection, ssl.SSLSocket) and connection.pending()
                ready = [connection] if pending else select.select([connection, there], [], [], LIMIT_S)[0]
                if not ready:
                    return
                for one, other in ((connection, there), (there, connection)):
                    if one in ready:
                        part = one.recv(65536)
                        if not part:
                            return
                        other.sendall(part)

    return serve


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, Certificate]:
    found = {}
    for name in ("right", "wrong", "proxy"):
        (tmp_path / name).mkdir()
        found[name] = Certificate.own(tmp_path / name, "127.0.0.1")
    return found


def fingerprint(certificate: Certificate) -> str:
    return certificate.fingerprint


@contextlib.contextmanager
def way(kind: str, to: int, certificates: dict[str, Certificate], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a server that is reached directly, or through a proxy of that kind."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    if kind == "direct":
        yield f"https://127.0.0.1:{to}"
        return
    context = certificates["proxy"].context() if kind == "https" else None
    with Listening(relay(to), context) as proxy:
        # the client trusts the proxy's own certificate: the user has set it up
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates["proxy"].cert))
        monkeypatch.setenv("HTTPS_PROXY", f"{kind}://localhost:{proxy.port}")
        yield "https://lab.invalid:8440"  # no name of this machine: these go without proxies
        assert proxy.came > 0


@pytest.mark.row("Y11")
@pytest.mark.parametrize("kind", ["direct", "http", "https"])
def test_who_has_another_certificate_sees_no_token_on_any_path(
    kind: str, certificates: dict[str, Certificate], monkeypatch: pytest.MonkeyPatch
) -> None:
    for answers, welcome in (("right", True), ("wrong", False)):
        with (
            Answering(certificates[answers].context()) as there,
            way(kind, there.port, certificates, monkeypatch) as url,
        ):
            pin = fingerprint(certificates["right"])
            server = HttpServer(url, token=TOKEN, fingerprint=pin, known={}, patience_s=0.0)
            try:
                if welcome:
                    assert server.services() == {}
                    assert TOKEN.encode() in there.heard
                else:
                    with pytest.raises(AccessError, match="another fingerprint"):
                        server.services()
                    with pytest.raises(AccessError, match="another fingerprint"):
                        server.listen("jobs", queue.Queue())
            finally:
                server.close()
        if not welcome:
            assert there.heard == b""


@pytest.mark.row("Y11")
def test_no_way_of_python_to_speak_tls_leaves_the_certificate_out(certificates: dict[str, Certificate]) -> None:
    pin = Pinned(hashlib.sha256(b"another").hexdigest())
    with Answering(certificates["wrong"].context()) as there:

        def by_memory(*, shake: bool) -> None:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            made = pin.wrap_bio(incoming, outgoing)
            with socket.create_connection(("127.0.0.1", there.port), LIMIT_S) as connection:
                while True:
                    try:
                        made.do_handshake() if shake else made.write(b"GET / secret\r\n\r\n")
                        return
                    except ssl.SSLWantReadError:
                        connection.sendall(outgoing.read())
                        incoming.write(connection.recv(65536))
                    finally:
                        with contextlib.suppress(OSError):
                            connection.sendall(outgoing.read())

        def by_socket(*, shake: bool) -> None:
            with (
                socket.create_connection(("127.0.0.1", there.port), LIMIT_S) as connection,
                pin.wrap_socket(connection, do_handshake_on_connect=shake) as made,
            ):
                made.sendall(b"GET / secret\r\n\r\n")

        async def by_asyncio() -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", there.port, ssl=pin)
            writer.write(b"GET / secret\r\n\r\n")

        for attempt in (
            lambda: by_memory(shake=True),
            lambda: by_memory(shake=False),
            lambda: by_socket(shake=True),
            lambda: by_socket(shake=False),
            lambda: asyncio.run(by_asyncio()),
        ):
            with pytest.raises(ssl.SSLError):
                attempt()
    assert there.heard == b""


@pytest.mark.row("Y11")
def test_a_download_with_credentials_compares_it_too(certificates: dict[str, Certificate], tmp_path: Path) -> None:
    for answers in ("wrong", "right"):
        with Answering(certificates[answers].context()) as there:
            download = Download(
                f"https://127.0.0.1:{there.port}/file",
                tmp_path / "file",
                Policy(),
                headers={"Authorization": f"Bearer {TOKEN}"},
                context=Pinned(fingerprint(certificates["right"])),
            )
            if answers == "right":
                assert download.run()[0] == 9
            else:
                with pytest.raises(OSError, match="another fingerprint"):
                    download.run()
                assert there.heard == b""
    assert os.path.getsize(tmp_path / "file") == 9
