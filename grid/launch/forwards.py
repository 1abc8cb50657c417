"""UNIX sockets here whose connections end elsewhere.

Lives here: the listening socket and its streams, two threads to each stream.
Elsewhere:  what a stream leads to: the caller passes a function that opens the far end.

Two threads with large buffers and not one selector: both of paramiko's channel ends wait on conditions, not on
descriptors, and making them look like descriptors halves their speed.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Protocol

from grid.errors import DiskError
from grid.wire.places import SOCKET_PATH_BYTES, runtime_dir

logger = logging.getLogger(__name__)

_CHUNK = 1 << 18


class FarEnd(Protocol):
    """The methods of a far end that a stream uses; sockets and paramiko's channels both have them."""

    def recv(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end of the stream."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of it. OSError: the far side takes no more."""

    def shutdown(self, how: int, /) -> None:
        """End one direction, as sockets do."""

    def close(self) -> None:
        """End both."""


def socket_path(host: str) -> str:
    """A new path for a UNIX socket in our private directory, short enough for the kernel."""
    path = str(runtime_dir() / f"fwd-{os.getpid()}-{secrets.token_hex(6)}.sock")
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise DiskError(
            f"the path of a socket would be longer than {SOCKET_PATH_BYTES} bytes: {path}",
            host=host,
            hint="Set GRID_RUNTIME_DIR to a shorter one on this machine",
        )
    return path


class Forward:
    """One listening socket; its maker closes it, and its streams end with it."""

    def __init__(self, host: str, open_far_end: Callable[[], FarEnd]) -> None:
        self.path = socket_path(host)
        self._host = host
        self._open_far_end = open_far_end
        self._lock = threading.Lock()
        self._ends: set[FarEnd] = set()
        self._threads: set[threading.Thread] = set()
        self._closed = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(self.path)
            self._listener.listen(128)
        except BaseException:
            self._listener.close()
            raise
        self._acceptor = threading.Thread(target=self._accept, name=f"grid-forward-{host}", daemon=True)
        self._acceptor.start()

    def close(self, timeout: float) -> None:
        """End it with its streams, waiting at most `timeout` for their threads. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            ends = list(self._ends)
            threads = list(self._threads)
        try:
            # accept() does not return because another thread closes the socket; a connection makes it.
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waker:
                waker.settimeout(0.2)
                waker.connect(self.path)
        except OSError:
            pass  # a full backlog: accept() is about to return anyway
        self._acceptor.join(timeout)
        self._listener.close()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        for end in ends:
            _hang_up(end)
        for thread in threads:
            thread.join(timeout / 10)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closed:
                    near.close()
                    return
            # The far end may take its time to open; the next connection must not wait for that.
            self._run(self._stream, near)

    def _run(self, work: Callable[..., None], *args: object) -> threading.Thread:
        def body() -> None:
            try:
                work(*args)
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=body, name=f"grid-stream-{self._host}", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()
        return thread

    def _stream(self, near: socket.socket) -> None:
        with near:
            try:
                far = self._open_far_end()
            except Exception as exc:
                logger.debug("no far end", extra={"host": self._host, "reason": str(exc)})
                return
            with self._lock:
                if self._closed:
                    far.close()
                    return
                self._ends |= {near, far}
            try:
                out = self._run(_pump, near, far)
                _pump(far, near)
                out.join()
            finally:
                with self._lock:
                    self._ends -= {near, far}
                far.close()


def _pump(source: FarEnd, sink: FarEnd) -> None:
    """Carry bytes until the source ends, then pass the end on; a fault ends both directions."""
    try:
        while chunk := source.recv(_CHUNK):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
    except (OSError, EOFError):
        _hang_up(source)
        _hang_up(sink)


def _hang_up(end: FarEnd) -> None:
    """Wake all threads that read or write there. A socket must be shut down for that: closing it wakes nobody."""
    try:
        if isinstance(end, socket.socket):
            end.shutdown(socket.SHUT_RDWR)
        else:
            end.close()
    except (OSError, EOFError):
        pass
