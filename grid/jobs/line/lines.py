"""The wire between a job server and its clients: lines of JSON over a stream socket. Nothing on it is ever unpickled.

    server -> client   {"grid_jobs": 1, "grid": "0.1.0"}                 at once; then the client says the same
    client -> server   {"id": 7, "call": "submit", "args": [...], "kw": {...}}
    server -> client   {"id": 7, "ok": value}    or    {"id": 7, "error": {"kind": ..., "what": ..., "facts": {...}}}
    client -> server   {"id": 8, "listen": "job-1"}                      on a connection of its own; then come
    server -> client   {"message": {...}}                                until either side closes

Lives here: framing, the handshake, errors as JSON.
Elsewhere:  who listens (`door.py`), who connects (`client.py`), what can be called (`api.py`).
"""

from __future__ import annotations

import json
import socket
from typing import Any

from grid._version import __version__
from grid.errors import GridError
from grid.jobs.host import errors
from grid.jobs.host.errors import JobError, WireError
from grid.wire.places import private_dir, runtime_dir

PROTOCOL = 1
LINE = 64 * 1024 * 1024
"""Bytes of one line, at most."""
HELLO_S = 10.0

_KINDS: dict[str, type[GridError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, GridError)
}


def socket_path(name: str) -> str:
    """Of the server of that name, of this user on this machine, in a directory of its own (0700)."""
    return str(private_dir(private_dir(runtime_dir() / "jobs") / name) / "socket")


class JsonLine:
    """A connected socket, line by line. One thread reads; a writer holds the owner's lock."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._file = connection.makefile("rb")

    def send(self, value: Any) -> None:
        """One value."""
        data = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        if len(data) > LINE:
            raise WireError(f"a message of {len(data)} bytes is too long", hint=f"At most {LINE} bytes fit")
        self.socket.sendall(data)

    def receive(self) -> Any:
        """The next value; None at the end of the stream."""
        data = self._file.readline(LINE + 1)
        if not data:
            return None
        if len(data) > LINE or not data.endswith(b"\n"):
            raise WireError("a line was cut off or is too long", hint="Is the other end a grid?")
        try:
            return json.loads(data)
        except ValueError as exc:
            raise WireError(f"a line is no JSON ({data[:60]!r})", hint="Is the other end a grid?") from exc

    def greet(self, who: str) -> None:
        """Say what we speak, and hear what the other end speaks.

        Raises:
            WireError: It speaks something else, or another version; both are named.
        """
        self.socket.settimeout(HELLO_S)
        self.send({"grid_jobs": PROTOCOL, "grid": __version__})
        try:
            hello = self.receive()
        except TimeoutError as exc:
            raise WireError(f"{who} did not say anything within {HELLO_S:g} s", hint="Is it a grid?") from exc
        if not isinstance(hello, dict) or not isinstance(hello.get("grid_jobs"), int):
            raise WireError(f"{who} is no job server or client of grid", hint="Check the address")
        if hello["grid_jobs"] != PROTOCOL:
            raise WireError(
                f"{who} speaks version {hello['grid_jobs']} (grid {hello.get('grid')}), we speak {PROTOCOL} "
                f"(grid {__version__})",
                hint="Use the same version of grid on both sides",
            )
        self.socket.settimeout(None)

    def close(self) -> None:
        """End the connection; a reader in another thread wakes up."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed already
        self._file.close()
        self.socket.close()


def error_to_plain(exc: BaseException) -> dict[str, Any]:
    """An error as JSON."""
    if isinstance(exc, GridError):
        facts = {}
        for name, value in exc.facts.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError):
                continue
            facts[name] = value
        return {"kind": type(exc).__name__, "what": exc.what, "facts": facts}
    return {"kind": "JobError", "what": f"{type(exc).__name__}: {exc}", "facts": {"hint": "See the server's log"}}


def error_from_plain(plain: Any) -> GridError:
    """The error that came as JSON; of an unknown kind: a JobError."""
    try:
        kind = _KINDS.get(plain["kind"], JobError)
        return kind(str(plain["what"]), **{str(name): value for name, value in plain["facts"].items()})
    except Exception:
        return JobError(f"the server answered with an error that can't be read: {str(plain)[:200]}")
