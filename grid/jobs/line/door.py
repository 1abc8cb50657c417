"""Serves a job manager on a UNIX socket: 0600, in a directory 0700. A thread for each connection.

Lives here: `SocketServer`.
Elsewhere:  the language (`lines.py`), what may be called (`server.py`).
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
from typing import Any

from grid.jobs.api import ask
from grid.jobs.host.errors import JobError, StoreLocked, WireError
from grid.jobs.line.lines import JsonLine, error_to_plain, socket_path
from grid.jobs.manager.job_manager import JobManager
from grid.jobs.server import Server
from grid.wire.places import runtime_dir

logger = logging.getLogger(__name__)

CONNECTIONS = 256
QUEUED = 10_000


class SocketServer:
    """Listens as long as it is open; `close` ends all connections."""

    def __init__(self, manager: JobManager, path: str | None = None, name: str = "default") -> None:
        self.manager = manager
        self.path = path or socket_path(name)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind(self._socket, self.path)
        except BaseException:
            self._socket.close()
            raise
        self._lock = threading.Lock()
        self._lines: dict[int, tuple[JsonLine, threading.Thread]] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name="jobs-accept", daemon=True)
        self._thread.start()

    @property
    def about(self) -> dict[str, Any]:
        """Its address, for clients."""
        return {"path": self.path}

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with self._lock:
                if self._closed or len(self._lines) >= CONNECTIONS:
                    connection.close()
                    continue
                line = JsonLine(connection)
                thread = threading.Thread(target=self._serve, args=(line,), name="jobs-client", daemon=True)
                self._lines[id(line)] = (line, thread)
                thread.start()

    def _serve(self, line: JsonLine) -> None:
        """Thread: one connection."""
        server = Server(self.manager)
        try:
            line.greet("the client")
            while (question := line.receive()) is not None:
                if not isinstance(question, dict) or not isinstance(question.get("id"), int):
                    raise WireError("this is no question", hint="See grid/jobs/line/lines.py")
                if "listen" in question:
                    self._stream(line, server, question)
                    return
                try:
                    name, args, kw = question.get("call"), question.get("args", []), question.get("kw", {})
                    answer: dict[str, Any] = {"ok": ask(server, name, args, kw)}
                except Exception as exc:
                    if not isinstance(exc, JobError):
                        logger.exception("the call %r failed", question.get("call"))
                    answer = {"error": error_to_plain(exc)}
                try:
                    line.send({"id": question["id"], **answer})
                except ValueError as exc:  # the answer is no JSON: told, so that nobody takes us for gone
                    logger.exception("the answer to %r can't be sent", question.get("call"))
                    line.send({"id": question["id"], "error": error_to_plain(exc)})
        except WireError as exc:
            logger.warning("a connection was ended: %s", exc)
            try:
                line.send({"id": 0, "error": error_to_plain(exc)})
            except (OSError, WireError):
                pass  # the client has ended
        except (OSError, ValueError):
            pass  # the client has ended; ValueError: we closed the line while it was read
        finally:
            line.close()
            with self._lock:
                self._lines.pop(id(line), None)

    def _stream(self, line: JsonLine, server: Server, question: dict[str, Any]) -> None:
        """Messages of a stream, until the client or we end."""
        messages: queue.Queue[Any] = queue.Queue(QUEUED)
        try:
            server.listen(question["listen"], messages)
        except JobError as exc:
            line.send({"id": question["id"], "error": error_to_plain(exc)})
            return
        line.send({"id": question["id"], "ok": None})
        gone = threading.Event()

        def watch() -> None:
            try:
                while line.receive() is not None:
                    pass
            except (OSError, ValueError, WireError):
                pass  # as good as the end
            gone.set()

        watcher = threading.Thread(target=watch, name="jobs-listener", daemon=True)
        watcher.start()
        try:
            while not gone.is_set() and not self._closed:
                try:
                    message = messages.get(timeout=0.2)
                except queue.Empty:
                    continue
                try:
                    line.send({"message": message.to_plain()})
                except (ValueError, WireError) as exc:
                    logger.exception("a message of %s can't be sent", question["listen"])
                    line.send({"error": error_to_plain(exc)})
                    return
        finally:
            server.hangup(question["listen"], messages)
            line.socket.close() if gone.is_set() else line.close()
            watcher.join(5.0)

    def close(self) -> None:
        """No more connections; the present ones end."""
        with self._lock:
            self._closed = True
            lines = list(self._lines.values())
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()
        self._thread.join(5.0)
        for line, _ in lines:
            try:
                line.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it ended meanwhile
        for _, thread in lines:
            thread.join(12.0)
        try:
            os.unlink(self.path)
            os.rmdir(os.path.dirname(self.path))
            if os.path.dirname(os.path.dirname(self.path)) == str(runtime_dir() / "jobs"):
                os.rmdir(runtime_dir() / "jobs")
        except OSError:
            pass  # a directory that was given and holds more, or another server's


def _bind(listening: socket.socket, path: str) -> None:
    """Take the path, also from a server that died; never from one that lives."""
    before = os.umask(0o177)
    try:
        try:
            listening.bind(path)
        except OSError:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(2.0)
                try:
                    probe.connect(path)
                except (ConnectionRefusedError, FileNotFoundError):
                    os.unlink(path)
                    listening.bind(path)
                else:
                    raise StoreLocked(
                        f"a job server listens at {path} already", hint="Use it, or name another with --name"
                    ) from None
    finally:
        os.umask(before)
    listening.listen(64)
