"""A job server behind a socket, with the calls of `Server`.

Lives here: `RemoteServer`, `connect`, names of servers.
Elsewhere:  the language (`lines.py`), the view for users (`client/proxy.py`), HTTP (`grid/web/client.py`).
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from grid.jobs.api import Call, Calls
from grid.jobs.host.errors import AccessError, JobError, RequestError, WireError
from grid.jobs.host.messages import Message
from grid.jobs.line.lines import JsonLine, error_from_plain, error_to_plain, socket_path
from grid.jobs.line.streams import Listener
from grid.text import in_words
from grid.wire.places import runtime_dir

CONNECT_S = 10.0


TRANSPORTS = {"http": "grid.web.client", "https": "grid.web.client"}
"""Modules with a `connect(url)`; by name, since what they need is not everybody's."""


def connect(address: str) -> Calls:
    """The server of that address: `unix:/path`, a URL, the name of a running `grid serve`, or a short name (`servers`).

    Raises:
        JobError: There is none, or it does not answer.
        WireError: No job server answers there, or one of another version.
    """
    where = address
    for _ in range(10):  # names may stand for names
        scheme = where.partition("://")[0] if "://" in where else ""
        if scheme in TRANSPORTS:
            try:
                module = importlib.import_module(TRANSPORTS[scheme])
            except ImportError as exc:
                raise JobError(f"{where} needs the module {exc.name}", hint="Run: pip install 'sshgrid[web]'") from exc
            found: Calls = module.connect(where)
            return found
        known = servers()
        if where not in known:
            break
        where = known[where]
    return RemoteServer(resolve(where))


def answers(name: str) -> bool:
    """Whether that is a short name of a server, or a `grid serve` of that name runs here."""
    if name in servers():
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(str(runtime_dir() / "jobs" / name / "socket"))
        except OSError:
            return False
    return True


def reach(url: str, token: str, fingerprint: str, check: Callable[[str], None], most: int) -> Any:
    """The server at a URL, by credentials: a client with the calls of `Server` that is not connected yet.

    Args:
        check: Raises for an address that may not be connected to.
        most: Bytes of one answer or message; more is TooLarge.
    """
    scheme = url.partition("://")[0]
    if scheme not in TRANSPORTS:
        raise JobError(f"{url!r} can't be the URL of a job server", hint="http or https")
    return importlib.import_module(TRANSPORTS[scheme]).reach(url, token, fingerprint, check, most)


def resolve(address: str) -> str:
    """The path of its socket."""
    if address.startswith("unix:"):
        return address.removeprefix("unix:").removeprefix("//") if address.startswith("unix://") else address[5:]
    if "://" in address:
        raise JobError(f"{address!r} can't be the address of a job server", hint="https://host:port, or unix:/path")
    known = servers()
    if address in known:
        return resolve(known[address])
    if not address or any(not (c.isalnum() or c in "._-") for c in address) or address[0] == ".":
        raise RequestError(f"{address!r} can't be the name of a job server", hint="Letters, digits, dash and dot")
    if not (runtime_dir() / "jobs" / address / "socket").exists():
        running = sorted(path.parent.name for path in (runtime_dir() / "jobs").glob("*/socket"))
        names = sorted({*known, *running})
        raise JobError(
            f"no job server is called {address!r}",
            hint=f"There are {', '.join(names)}" if names else f"Start one: grid serve --name {address}",
        )
    return socket_path(address)


def logins_file() -> Path:
    """What `grid login` keeps, of this user alone: `$GRID_LOGINS`, else ~/.config/grid/logins.json."""
    return Path(os.environ.get("GRID_LOGINS") or Path("~/.config/grid/logins.json").expanduser())


def read_logins() -> dict[str, Any]:
    """URL -> name, fingerprint, token. Raises AccessError if others can read it."""
    path = logins_file()
    try:
        info = path.stat()
    except OSError:
        return {}
    if info.st_uid != os.geteuid() or info.st_mode & 0o077:
        raise AccessError(f"{path} can be read by others", hint=f"chmod 600 {path}, and revoke the tokens in it")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise JobError(f"{path} can't be read ({exc})", hint="Remove it, and log in again") from exc
    return found if isinstance(found, dict) else {}


def servers() -> dict[str, str]:
    """Short names of servers: those of `grid login --name`, and names to addresses in a file: `$GRID_SERVERS`,
    ./servers.yaml, or in ~/.config/grid. The file comes first.
    """
    logins = {entry["name"]: url for url, entry in read_logins().items() if entry.get("name")}
    return {**logins, **_servers_in_file()}


def _servers_in_file() -> dict[str, str]:
    named = os.environ.get("GRID_SERVERS")
    places = [Path(named)] if named else [Path("servers.yaml"), Path("~/.config/grid/servers.yaml").expanduser()]
    for place in places:
        if place.exists():
            found = yaml.safe_load(place.read_text(encoding="utf-8"))
            if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
                raise JobError(f"{place} must map names of servers to addresses", hint="lab: unix:/run/grid/socket")
            return {str(name): value for name, value in found.items()}
    return {}


class Gone(JobError):
    """The other end has ended, or the connection broke."""


class RemoteServer(Calls):
    """See the module. Connections are made as they are needed: one for each call under way, and one per stream."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._idle: list[JsonLine] = []
        self._who: tuple[str, str | None] | None = None
        self._ids = itertools.count(1)
        self._streams: dict[tuple[str, int], tuple[JsonLine, threading.Thread]] = {}
        self._closed = False

    def _line(self) -> JsonLine:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(CONNECT_S)
        try:
            connection.connect(self.path)
        except OSError as exc:
            connection.close()
            raise JobError(
                f"no job server answers at {self.path} ({exc.strerror or exc})", hint="Start one: grid serve"
            ) from exc
        line = JsonLine(connection)
        try:
            line.greet(f"the server at {self.path}")
            if self._who is not None:
                self._ask(line, {"call": "connect", "args": list(self._who)})
        except BaseException:
            line.close()
            raise
        return line

    def _ask(self, line: JsonLine, question: dict[str, Any]) -> Any:
        number = next(self._ids)
        try:
            line.send({"id": number, **question})
            answer = line.receive()
        except (OSError, ValueError) as exc:
            what = f"the connection to {self.path} broke ({in_words(exc)})"
            raise Gone(what, hint="Is the server still there?") from exc
        if answer is None:
            raise Gone(f"the job server at {self.path} does not answer any more", hint="Jobs go on when it is back")
        if "error" in answer:
            raise error_from_plain(answer["error"])
        if answer.get("id") != number:
            raise WireError("the answer is to another question", hint="Connect again")
        return answer["ok"]

    def _call(self, name: str, /, *args: Any, **kw: Any) -> Any:
        with self._lock:
            if self._closed:
                raise JobError("this connection was closed", hint="Connect again")
            line = self._idle.pop() if self._idle else None
        line = line or self._line()
        try:
            value = self._ask(line, {"call": name, "args": list(args), "kw": kw})
        except (Gone, WireError):
            line.close()
            raise
        except JobError:  # what the server says went wrong; the line is good
            self._put_back(line)
            raise
        except BaseException:
            line.close()  # an answer may still be under way
            raise
        self._put_back(line)
        return value

    def _put_back(self, line: JsonLine) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < 8:
                self._idle.append(line)
                return
        line.close()

    def connect(self, user: str = "", token: str | None = None) -> dict[str, Any]:
        """See `Server.connect`."""
        self._who = None
        with self._lock:
            idle, self._idle = self._idle, []
        for line in idle:
            line.close()
        answer: dict[str, Any] = self._call("connect", user, token)
        self._who = (user, token)
        return answer

    def carry(self, call: Call, args: Sequence[Any], kw: Mapping[str, Any]) -> Any:
        """Over the socket."""
        return self._call(call.name, *args, **kw)

    # -- streams ---------------------------------------------------------------------------------------------------

    def listen(self, key: str, target: Any) -> None:
        """See `Server.listen`: the messages come over a connection of their own."""
        line = self._line()
        try:
            self._ask(line, {"listen": key})
        except BaseException:
            line.close()
            raise
        listener = Listener(key, target=target)

        def pump() -> None:
            error: dict[str, Any] | None = None
            try:
                while (told := line.receive()) is not None:
                    if "error" in told:
                        error = told["error"]
                        break
                    listener.offer(Message.from_plain(told["message"]))
            except OSError:
                pass  # hung up, or the server has ended
            except (ValueError, KeyError, TypeError, AttributeError, WireError) as exc:  # it speaks something else
                error = error_to_plain(exc)
            with self._lock:
                hung_up = (key, id(target)) not in self._streams
            if not hung_up:
                listener.offer(Message("Lost", path=self.path, error=error))

        thread = threading.Thread(target=pump, name="jobs-stream", daemon=True)
        with self._lock:
            self._streams[key, id(target)] = (line, thread)
        thread.start()

    def hangup(self, key: str, target: Any) -> None:
        """No more of it."""
        with self._lock:
            found = self._streams.pop((key, id(target)), None)
        if found is not None:
            _end(*found)

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            streams, self._streams = list(self._streams.values()), {}
        for line in idle:
            line.close()
        for line, thread in streams:
            _end(line, thread)


def _end(line: JsonLine, thread: threading.Thread) -> None:
    try:
        line.socket.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    thread.join(5.0)
    line.close()
