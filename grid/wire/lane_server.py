"""The agent's end of the lane: it lets the client in, and answers.

One thread accepts and shakes hands with everybody at once; a stream whose other end holds the grid's certificate gets a
thread of its own. A stranger costs a descriptor for a few seconds, no thread, and nobody's place.

Lives here: the listener, handshakes, requests.
Elsewhere:  the lane's other end and its requests (`bulk`), whom a crowd pushes out (`strangers`).
"""

from __future__ import annotations

import logging
import mmap
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grid.errors import GridError
from grid.wire import bulk
from grid.wire.limits import ACCEPT_PAUSE_S, LANE_STREAMS, LINE, SPEAKERS, STRANGER_S, strangers
from grid.wire.strangers import Strangers

if TYPE_CHECKING:
    import ssl  # takes 10 ms to load, and only other machines need it

logger = logging.getLogger(__name__)

_ACCEPTS = 64
"""Connections that are accepted at one go; then those that shake hands have their turn."""


class LaneServer:
    """See the module. `file_at`: where a file lies that waits, by its name (`kernel/filestore.py`)."""

    def __init__(
        self, address: str, context: ssl.SSLContext, store: bulk.BlobStore, file_at: Callable[[str], Path] | None = None
    ) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family, backlog=LINE)
        self._listener.setblocking(False)
        self._context, self._store, self._file_at = context, store, file_at
        self._places = threading.BoundedSemaphore(LANE_STREAMS)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._waker, self._wake = socket.socketpair()
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._strangers: Strangers[socket.socket] = Strangers(strangers(), STRANGER_S)
        self._speakers: Strangers[socket.socket] = Strangers(SPEAKERS, STRANGER_S)  # those of them that say something
        self._tls: dict[socket.socket, ssl.SSLSocket] = {}
        self._thread = threading.Thread(target=self._run, name="grid-lane", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop accepting, and end those that have not come in; streams end with the process."""
        try:
            self._wake.send(b".")
        except OSError:
            return
        self._thread.join(5.0)

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except Exception:
            logger.exception("the lane stops listening")
        finally:
            for entry in list(self._selector.get_map().values()):
                if isinstance(entry.fileobj, socket.socket):
                    self._close(entry.fileobj)
            self._selector.close()
            self._wake.close()

    def _turn(self) -> bool:
        for key, _ in self._selector.select(self._strangers.patience(time.monotonic())):
            if key.fileobj is self._waker:
                return False
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.fileobj, socket.socket) and key.fileobj.fileno() >= 0:  # else it went a moment ago
                self._shake_hands(key.fileobj)
        for late in self._strangers.overdue(time.monotonic()):
            self._close(late)
        return True

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                raw, address = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # it went before we came
            except OSError as exc:  # no descriptor is left
                oldest = self._strangers.oldest()
                if oldest is not None:
                    self._close(oldest)
                    continue
                logger.warning("the lane can't accept (%s)", exc)
                time.sleep(ACCEPT_PAUSE_S)
                return
            raw.setblocking(False)
            self._selector.register(raw, selectors.EVENT_READ)
            for victim in self._strangers.came(raw, address[0], time.monotonic()):
                self._close(victim)

    def _close(self, raw: socket.socket) -> None:
        self._strangers.left(raw)
        self._speakers.left(raw)
        stream = self._tls.pop(raw, None)
        try:
            self._selector.unregister(raw)
        except (KeyError, ValueError):
            pass
        if stream is not None:
            stream.close()
        raw.close()

    def _shake_hands(self, raw: socket.socket) -> None:
        import ssl

        stream = self._tls.get(raw)
        try:
            if stream is None:  # it has something to say; a silent stranger costs no more than a descriptor
                for victim in self._speakers.came(raw, raw.getpeername()[0], time.monotonic()):
                    self._close(victim)
                copy = socket.socket(fileno=os.dup(raw.fileno()))  # wrapping takes the socket away from the selector
                copy.setblocking(False)
                stream = self._context.wrap_socket(copy, server_side=True, do_handshake_on_connect=False)
                self._tls[raw] = stream
            stream.do_handshake()
        except ssl.SSLWantReadError:
            self._selector.modify(raw, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._selector.modify(raw, selectors.EVENT_WRITE)
        except (OSError, ValueError):
            self._close(raw)
        else:
            del self._tls[raw]
            self._close(raw)  # of the two descriptors the one that is not needed any more
            self._let_in(stream)

    def _let_in(self, stream: ssl.SSLSocket) -> None:
        if not self._places.acquire(blocking=False):
            logger.warning("the lane has %d streams, and closes another", LANE_STREAMS)
            stream.close()
            return
        threading.Thread(target=self._serve, args=(stream,), name="grid-lane-stream", daemon=True).start()

    def _serve(self, stream: ssl.SSLSocket) -> None:
        try:
            with stream:
                stream.setblocking(True)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                bulk.notice_cuts(stream)
                while True:
                    self._answer(stream, bulk.receive_line(stream))
        except (OSError, EOFError, ValueError, KeyError):
            pass  # it has closed the stream, or says what is no request
        finally:
            self._places.release()

    def _answer(self, stream: ssl.SSLSocket, request: dict[str, Any]) -> None:
        operation, name = request["op"], request["name"]
        if operation == "put":
            self._put(stream, name, int(request["size"]))
            return
        try:
            if operation in ("get", "file"):
                find = self._store.path if operation == "get" else self._file_at
                if find is None:
                    raise FileNotFoundError("no files wait here")
                with open(find(name), "rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    bulk.send_line(stream, {"size": size})
                    if size:
                        with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as view:
                            for at in range(0, size, bulk.CHUNK):
                                with view[at : at + bulk.CHUNK] as chunk:
                                    stream.sendall(chunk)
                return
            self._store.drop(name)
            if operation != "got":
                bulk.send_line(stream, {"ok": True})
        except (GridError, FileNotFoundError) as exc:
            bulk.send_line(stream, {"error": f"no {'file' if operation == 'file' else 'blob'} {name} ({exc})"})

    def _put(self, stream: ssl.SSLSocket, name: str, size: int) -> None:
        try:
            _, fd = self._store.create(size, name)
        except (GridError, OSError) as exc:
            scratch = memoryview(bytearray(min(size, bulk.CHUNK) or 1))
            left = size
            while left:  # take the bytes off the line, so that the answer is read and the stream stays usable
                left -= stream.recv_into(scratch[: min(left, len(scratch))]) or left
            bulk.send_line(stream, {"error": getattr(exc, "what", str(exc))})
            return
        try:
            bulk.receive_file(stream, fd, size)
        except BaseException:
            self._store.drop(name)
            raise
        finally:
            os.close(fd)
        bulk.send_line(stream, {"ok": True})
