"""The agent: one per host and grid. Receives code and instances once, starts servers, relays what they print, tells how
they ended, and cleans up behind them.

One thread runs everything that changes state; work that takes long (unpacking files) is done by helpers that hand their
outcome back. It answers calls like a server does, over the same kind of link, but out of order where an answer takes
time, and sends events that nobody asked for:

    ("ready", name, inlet, outlet, pid)        a server listens
    ("failed", name, reason, last lines)       a server did not come up
    ("ended", name, certificate)               a server is gone: exit status or signal, peak memory, last lines
    ("output", [(name, text), ...])            what servers printed
    ("farewell", reason)                       the agent ends

A client that is gone for `orphan_s` ends everything: nothing on a host outlives its grid. On the client's own machine
the end of standard input is proof enough and ends it at once.

Lives here: the loop, what the client may ask for, the lifeline, the end.
Elsewhere:  forking (`zygote`), one server (`serve`), first words (`boot`).
"""

from __future__ import annotations

import contextlib
import errno
import importlib.machinery
import importlib.util
import json
import logging
import os
import pickle
import queue
import signal
import socket
import struct
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import zmq

from grid.errors import DiskError, GridError
from grid.kernel import descriptors, held, hostend, logs, made, title
from grid.kernel.address import address_towards
from grid.kernel.evidence import oom_kills
from grid.kernel.hostend import HostEnd
from grid.kernel.lease import Lease, inherit
from grid.kernel.orphans import Orphans, adopt
from grid.kernel.outgoing import Outgoing
from grid.kernel.presence import Presence
from grid.kernel.variables import expanded
from grid.kernel.zygote import TOLD, Zygote, remove
from grid.limits import Limits
from grid.wire import bulk, codec, raised
from grid.wire.codec import CACHE_TAG
from grid.wire.frames import BULK, ERROR, Frame
from grid.wire.gatekeeper import Gatekeeper
from grid.wire.keys import Keys
from grid.wire.lane_server import LaneServer
from grid.wire.limits import raise_files
from grid.wire.places import memory_dir, private_dir, runtime_dir, trusted

logger = logging.getLogger(__name__)

_TOLD_S = 1.5
"""Patience with servers after SIGTERM: who sent it (a batch system, a machine that goes down) kills all soon after."""

_RENEW_S = 10.0
_NEWS_S = 0.2
"""The lease tells of a new server so long after it was forked: of hundreds at once, not of each."""
_AT_ONCE = 8
"""Servers that are started between two looks at everybody else."""
_DESCRIPTORS = 8
"""What one more server may need here while it starts."""
_READ = 1 << 16

ORPHANED = 75
"""Exit status of an agent whose client was gone: nobody will clean up but those who started it."""


_LISTED = 5000
"""Files in a staging directory that are looked at before it goes."""


class _Server:
    """A server as its agent sees it."""

    def __init__(self, name: str, service_id: str, peer: int, output: int, control: socket.socket, log: Path) -> None:
        self.name, self.service_id, self.peer = name, service_id, peer
        self.output, self.control = output, control
        self.log = log
        self.tail: deque[str] = deque(maxlen=200)
        self.partial = b""
        self.words = b""
        self.pid = 0
        self.oom_kills = oom_kills()  # on this host, when it started
        self.ready = False
        self.failed: str | None = None
        self.kill_at: list[tuple[float, int]] = []  # when to send which signal
        self.exit: dict[str, Any] | None = None  # the zygote's word
        self.cancels: dict[int, int] = {}  # call of the server -> our call that asks


class Agent:
    """See the module."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._grid: str = config["grid"]
        self._limits = Limits(**config["limits"])
        self._local: bool = config["local"]
        self._debug: bool = config["debug"]
        self._env = expanded(config["env"])
        self._path: list[str] = config["path"]
        self._keys = Keys.from_json(config["keys"]) if config["keys"] else None
        self._address: str = config["address"] or address_towards(config["towards"])
        unique = f"{self._grid}-{config['peer']}"
        self._config = config
        self._ours: list[Path] = [Path(config["code"]["unpacked"])] if config["code"].get("unpacked") else []
        self._base: Path | None = None  # the directory that was named for us
        config["ours"] = self._ours  # until the agent listens to SIGTERM itself, `boot` does
        try:
            self._make_directories(config, unique)
        except BaseException:
            self.remove_directories()
            raise
        self._lease = Lease(
            self._grid,
            {
                "owner": config["owner"],
                "run": str(self.run_dir),
                "kind": "agent",
                "directories": [str(d) for d in self._ours],
            },
        )
        if self._keys:
            raise_files()
        adopt()  # should the zygote be killed
        self._start_zygote()  # before there are threads
        descriptors.raise_limit()  # after it: servers keep the limit that their user knows, and room for strangers
        self._wishes: deque[dict[str, Any]] = deque()  # servers to be started
        # and before the locks, which end with this process alone: `grid clean` sees by them that we live
        self._locks = [held.hold(path) for path in self._ours]
        self._servers: dict[str, _Server] = {}
        self._by_pid: dict[int, _Server] = {}
        self._early_exits: dict[int, dict[str, Any]] = {}
        self._poller = zmq.Poller()
        self._context: zmq.Context[Any] = zmq.Context()
        self._end = HostEnd(self._context, config["peer"], self._limits)
        self._lane: LaneServer | None = None
        if self._keys:
            self._gatekeeper = Gatekeeper(self._context, self._keys.other_public, self._end.listeners)
            self.ends = self._end.bind_ports(self._address, self._keys)
            self._lane = LaneServer(self._address, self._keys.tls(server=True), self._store)
        else:
            self.ends = self._end.bind_sockets(self._sockets, f"p{config['peer']}")
        self._done: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()
        self._done_reader, self._done_writer = os.pipe()
        os.set_blocking(self._done_writer, False)
        waits = {name: getattr(self._limits, name) for name in ("start_s", "orphan_s", "lost_s", "heartbeat_s")}
        self._client = Presence(time.monotonic(), **waits)
        self._next_renewal = 0.0
        self._told = False
        self._stopping: str | None = None
        self.status = 0  # that our process ends with
        self._stop_by = 0.0
        self._farewell_call: int | None = None
        self._outgoing = Outgoing()

    def _make_directories(self, config: dict[str, Any], unique: str) -> None:
        self._base = _temp_path(config["temp_path"]) if config["temp_path"] else None
        base = self._base or runtime_dir()
        self.run_dir = private_dir(base / f"run-{unique}")
        self._ours.append(self.run_dir)
        if config["shared"]:
            self.root = private_dir(base / f"run-{self._grid}-shared")
            self._ours.append(self.root)
        else:
            self.root = private_dir(self.run_dir / "src")
        self._logs = private_dir(self.run_dir / "log")
        self.log = os.open(self.run_dir / "agent.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._sockets = private_dir(private_dir(runtime_dir() / "s") / unique)
        self._blobs = memory_dir(unique)
        self._store = bulk.Store(self._blobs)
        self._ours += [self._sockets, self._blobs]
        if self._store.overflow is not None:  # made before anything needs it: the lock would be a file in its place
            self._ours.append(private_dir(self._store.overflow))
        probe = self.run_dir / "probe"
        try:
            probe.write_bytes(b"x" * 4096)
            probe.unlink()
            (self.run_dir / "host").write_text(os.uname().nodename)  # for `grid clean`, where temp_path is shared
        except OSError as exc:
            raise DiskError(
                f"can't write to {self.run_dir} ({exc.strerror})",
                host=os.uname().nodename,
                hint="Free some space there, or name another directory with temp_path",
            ) from exc

    def remove_directories(self) -> None:
        """Remove all that this agent made."""
        for path in [*map(str, self._ours), *inherit(self._config)]:
            remove(path)
        if self._base is not None:
            made.leave(self._base)

    def _start_zygote(self) -> None:
        ours, theirs = socket.socketpair()
        will = {name: self._config[name] for name in ("client", "in_job", "script")}
        will["base"] = str(self._base or "")
        will["ours"] = [str(path) for path in [*self._ours, self._lease.path]]
        # a batch system that kills its job at one stroke must leave one to clean up; that ends by itself
        self._zygote = Zygote(theirs, will, self.log, new_session=self._config["in_job"])
        theirs.close()
        self._config["heir"] = self._zygote.pid
        self._lease.name_zygote(self._zygote.pid)
        self._zygote_socket = ours
        self._zygote_words = b""
        self._zygote_fault = ""  # what it died of, if it could say

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to stop, or until the client is gone for good."""
        register = self._poller.register
        register(self._end.pull, zmq.POLLIN)
        register(self._zygote_socket.fileno(), zmq.POLLIN)
        register(self._done_reader, zmq.POLLIN)
        register(0, zmq.POLLIN)
        while True:
            ready = dict(self._poller.poll(self._patience_ms()))
            if self._end.pull in ready:
                self._take_calls()
            if ready.get(self._zygote_socket.fileno(), 0) & zmq.POLLIN and not self._hear_zygote():
                self._begin_stop(f"its zygote died{self._zygote_fault}")
                return
            self._start_some()
            if self._done_reader in ready:
                self._finish_background()
            if 0 in ready:
                self._read_lifeline()
            for server in list(self._servers.values()):
                if server.output in ready:
                    self._read_output(server)
                if server.control.fileno() in ready:
                    self._hear_server(server)
            self._look_at_clock()
            if printed := self._outgoing.take(self._end.unconfirmed):
                self._tell(("output", printed))
            if self._stopping and (not self._servers or time.monotonic() > self._stop_by):
                return

    def _patience_ms(self) -> int:
        now = time.monotonic()
        until = [self._next_renewal]
        until += [at for server in self._servers.values() if server.pid for at, _ in server.kill_at[:1]]
        until.append(self._stop_by if self._stopping else self._client.over_at)
        return max(0, min(5000, int((min(until) - now) * 1000) + 1))

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        if now >= self._next_renewal:
            self._renew_lease()
        for server in self._servers.values():
            while server.pid and server.kill_at and now >= server.kill_at[0][0]:
                _, which = server.kill_at.pop(0)
                _signal_group(server.pid, which)
        if self._client.is_over(now) and not self._stopping:
            if self._end.admitted():  # it is deep in C code, and its ZeroMQ answers for it
                self._client.heard(now)
                return
            self.status = ORPHANED
            self._begin_stop(f"its client was gone for {self._limits.orphan_s:g} s")

    def _renew_lease(self) -> None:
        self._next_renewal = time.monotonic() + _RENEW_S
        lasts = _RENEW_S * 3 + self._limits.orphan_s
        try:
            self._lease.renew(lasts, {s.name: s.pid for s in self._servers.values() if s.pid})
        except OSError as exc:
            logger.warning("can't renew the lease %s (%s)", self._lease.path, exc)

    def _read_lifeline(self) -> None:
        if not os.read(0, _READ):
            self._poller.unregister(0)
            if self._local:  # no network in between: the client is dead
                self._begin_stop("its client ended")
            elif not self._client.came and not self._config["in_job"]:  # whose input may be a file
                self._begin_stop("its client ended before it came")

    # -- calls of the client ---------------------------------------------------------------------------------------

    def _take_calls(self) -> None:
        while True:
            try:
                data = self._end.pull.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._client.heard(time.monotonic())  # nobody else can put anything there
            for frame in self._end.take(data):
                self._answer(frame)

    def _answer(self, frame: Frame) -> None:
        try:
            words, buffers = frame.pickle, frame.buffers
            if frame.flags & BULK:
                words, buffers = bulk.bring_together(self._store, words, frame.flags)
            method, args, kwargs = codec.loads(words, buffers)
            outcome = getattr(self, f"do_{method}")(frame.call, *args, **kwargs)
        except Exception as exc:
            self._reply_error(frame.call, exc)
            return
        if outcome is not _LATER:
            self._end.reply(frame.call, codec.dumps_whole(outcome))

    def _reply_error(self, call: int, exc: BaseException) -> None:
        if not isinstance(exc, GridError):
            logger.exception("a call of the client failed", exc_info=exc)
        self._end.reply(call, codec.dumps_whole((raised.told(exc, ""), "")), flags=ERROR)

    def _in_background(self, call: int, work: Callable[[], Any]) -> Any:
        def run() -> None:
            try:
                outcome: tuple[int, Any, BaseException | None] = (call, work(), None)
            except BaseException as exc:
                outcome = (call, None, exc)
            self._done.put(outcome)
            os.write(self._done_writer, b".")

        threading.Thread(target=run, name="grid-background", daemon=True).start()
        return _LATER

    def _finish_background(self) -> None:
        os.read(self._done_reader, 4096)
        while not self._done.empty():
            call, value, error = self._done.get()
            if error is not None:
                self._reply_error(call, error)
            else:
                self._end.reply(call, codec.dumps_whole(value))

    def _tell(self, event: tuple[Any, ...]) -> None:
        self._end.event(pickle.dumps(event, 5))

    # what the client may ask for; each gets the number of the call first

    def do_start(self, call: int, wishes: list[dict[str, Any]], published: dict[str, Any]) -> None:
        """Start servers. Each wish: name, service_id, peer, niceness; `published`: blob, sizes, image."""
        self._wishes += ({**wish, **published} for wish in wishes)

    def _start_some(self) -> None:
        """Some of the servers that are wished for: others come up meanwhile, and have to be heard."""
        for _ in range(_AT_ONCE):
            if not self._wishes:
                break
            wish = self._wishes.popleft()
            try:
                self._start_server(wish)
            except OSError as exc:
                why = f"this host has no room for it ({exc.strerror}; {descriptors.limit()})"
                self._tell(("failed", wish["name"], why, ""))
        # looked at again as soon as the zygote takes more
        self._poller.modify(self._zygote_socket.fileno(), zmq.POLLIN | (zmq.POLLOUT if self._wishes else 0))

    def _start_server(self, wish: dict[str, Any]) -> None:
        if descriptors.left() < _DESCRIPTORS:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        name = wish["name"]
        spec = {
            **wish,
            "limits": vars(self._limits),
            "keys": self._keys.to_json() if self._keys else None,
            "address": self._address,
            "sockets": str(self._sockets),
            "blobs": str(self._blobs),
            "root": str(self.root),
            "path": self._path,
            "env": self._env,
            "debug": self._debug,
            "script": self._config["script"],
        }
        server = _Server(name, wish["service_id"], wish["peer"], reader, ours, self._log_of(name))
        data = pickle.dumps(spec, 5)
        try:
            socket.send_fds(self._zygote_socket, [struct.pack("<I", len(data))], [writer, theirs.fileno()])
            self._zygote_socket.sendall(data)
        finally:
            os.close(writer)
            theirs.close()
        self._servers[name] = server
        self._poller.register(reader, zmq.POLLIN)
        self._poller.register(ours.fileno(), zmq.POLLIN)

    def do_stop(self, call: int, names: list[str], force: bool) -> None:
        """End servers: at once if `force`, else after a polite word (they were said BYE) and some patience."""
        now = time.monotonic()
        never = [wish["name"] for wish in self._wishes if wish["name"] in set(names)]
        if never:
            self._wishes = deque(wish for wish in self._wishes if wish["name"] not in never)
        for name in never:
            self._tell(("failed", name, "it was ended before it was started", ""))
        for name in names:
            server = self._servers.get(name)
            if server is not None:
                patience = 0.0 if force else self._limits.stop_s
                server.kill_at = [
                    (now + patience, signal.SIGTERM if not force else signal.SIGKILL),
                    (now + 2 * patience, signal.SIGKILL),
                ]

    def do_cancel(self, call: int, name: str, which: int) -> Any:
        """Withdraw a call of a server if it has not begun; answers whether it was."""
        server = self._servers.get(name)
        if server is None or not server.ready:
            return False
        server.cancels[which] = call
        self._say_to(server, {"cancel": which})
        return _LATER

    def do_drop(self, call: int, blob: str) -> None:
        """Remove a blob."""
        self._store.drop(blob)

    def do_fetch(self, call: int, blob: str, address: str, port: int) -> Any:
        """Copy a blob of the agent on another host here; answers with its name. ConnectError: no way leads there."""
        assert self._keys is not None, "only other machines have a lane"
        keys = self._keys

        def work() -> str:
            lane = bulk.Lane(
                lambda: socket.create_connection((address, port), self._limits.probe_s),
                keys.tls(server=False),
                address,
                self._limits.control_s,
            )
            try:
                return lane.bring(blob, self._store)
            finally:
                lane.close()

        return self._in_background(call, work)

    def do_missing_modules(self, call: int, names: list[str]) -> list[str]:
        """Those of some top-level modules that servers here could not import."""
        importlib.invalidate_caches()
        path = [str(self.root), *sys.path, *self._path]
        return [name for name in names if not _can_import(name, path)]

    def do_unpack(self, call: int, blob: str, subroot: str) -> Any:
        """Unpack staged files from a blob below the root; answers with the list of names."""
        from grid.kernel.unpack import unpack

        root = self._below_root(subroot)

        def work() -> list[str]:
            try:
                with open(self._store.path(blob), "rb") as file:
                    return list(unpack(file, str(root)))
            except OSError as exc:
                raise DiskError(
                    f"can't write {exc.filename or root} ({exc.strerror})",
                    host=os.uname().nodename,
                    hint="Free some space there, or name another directory with temp_path",
                ) from exc
            finally:
                self._store.drop(blob)

        return self._in_background(call, work)

    def do_make_directory(self, call: int, subroot: str) -> str:
        """Make a directory below the root."""
        path = self._below_root(subroot)
        path.mkdir(parents=True, exist_ok=True)
        return str(path)

    def _below_root(self, subroot: str) -> Path:
        path = (self.root / subroot).resolve()
        if path != self.root.resolve() and self.root.resolve() not in path.parents:
            raise DiskError(
                f"{subroot!r} leads out of the staging directory",
                host=os.uname().nodename,
                hint="Name a directory below it",
            )
        return path

    def do_list_files(self, call: int) -> list[str]:
        """Names of files below the root, relative to it; not byte code, not hidden ones. Not more than `_LISTED`."""
        found: list[str] = []
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
            found += [os.path.relpath(os.path.join(folder, name), self.root) for name in files if name[0] != "."]
            if len(found) > _LISTED:
                break
        return found

    def do_probe(self, call: int, token: str, write: bool) -> bool:
        """Write, or look for, a file that proves that a directory is shared."""
        path = self.root / f".probe-{token}"
        if write:
            path.write_text(token)
            return True
        os.listdir(self.root)  # makes NFS look anew
        return path.exists() and path.read_text() == token

    def do_unprobe(self, call: int, token: str) -> None:
        """Remove that file."""
        (self.root / f".probe-{token}").unlink(missing_ok=True)

    def do_status(self, call: int) -> dict[str, Any]:
        """What runs here."""
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        servers = [
            {"name": s.name, "pid": s.pid, "ready": s.ready, "log": str(self._log_of(s.name))}
            for s in self._servers.values()
        ]
        ours = {"pid": os.getpid(), "zygote": self._zygote.pid, "load": load, "root": str(self.root)}
        return {**ours, "servers": servers}

    def _log_of(self, name: str) -> Path:
        return self._logs / f"{name.replace('/', '.')}.log"

    def do_set_debug(self, call: int, debug: bool) -> None:
        """Change the log level here, of all servers, and of those started later."""
        self._debug = debug
        logging.getLogger().setLevel(logging.DEBUG if debug else logging.INFO)
        for server in self._servers.values():
            self._say_to(server, {"debug": debug})

    def do_tail(self, call: int, name: str, lines: int) -> str:
        """Last lines that a server printed."""
        server = self._servers.get(name)
        return _tail(server, lines) if server else ""

    def do_shutdown(self, call: int, force: bool) -> Any:
        """End all servers, then this process. Answered when the servers are gone."""
        self._farewell_call = call
        self.do_stop(call, list(self._servers), force)
        self._begin_stop("its client said so", signalled=True)
        return _LATER

    # -- servers ---------------------------------------------------------------------------------------------------

    def _say_to(self, server: _Server, message: dict[str, Any]) -> None:
        try:
            server.control.send(json.dumps(message).encode() + b"\n")
        except OSError:
            pass  # it is ending

    def _read_output(self, server: _Server) -> None:
        try:
            data = os.read(server.output, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._poller.unregister(server.output)
            os.close(server.output)
            server.output = -1
            if server.partial:
                self._print(server, server.partial)
                server.partial = b""
            self._maybe_ended(server)
            return
        logs.append(server.log, data)
        lines = (server.partial + data).split(b"\n")
        server.partial = lines.pop()[-_READ:]
        if lines:
            self._print(server, b"\n".join(lines))

    def _print(self, server: _Server, data: bytes) -> None:
        text = data.decode(errors="replace")
        server.tail.extend(text.split("\n"))
        self._outgoing.add(server.name, text)

    def _hear_server(self, server: _Server) -> None:
        try:
            data = server.control.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._poller.unregister(server.control.fileno())
            server.control.close()
            # its end is told by the zygote
            server.control = _Closed()  # type: ignore[assignment]
            return
        *lines, server.words = (server.words + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "ready" in message:
                server.ready = True
                self._tell(("ready", server.name, *message["ready"], message["pid"]))
            elif "failed" in message:
                server.failed = message["failed"] + "\n" + message["traceback"]
            elif "cancelled" in message:
                asked = server.cancels.pop(message["cancelled"], None)
                if asked is not None:
                    self._end.reply(asked, codec.dumps_whole(message["granted"]))

    def _hear_zygote(self) -> bool:
        try:
            data = self._zygote_socket.recv(_READ)
        except OSError:
            data = b""
        if not data:
            return False
        *lines, self._zygote_words = (self._zygote_words + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "forked" in message:
                server = self._servers[message["forked"]]
                server.pid = message["pid"]
                self._by_pid[server.pid] = server
                self._next_renewal = min(self._next_renewal, time.monotonic() + _NEWS_S)
            elif "died" in message:
                self._zygote_fault = f": {message['died']}"
            elif "refused" in message:
                refused = self._servers[message["refused"]]
                refused.failed = message["why"]
                refused.exit = {"status": 0, "peak_kb": 0}
                self._maybe_ended(refused)
            else:
                ended = self._by_pid.pop(message["exited"], None)
                if ended is not None:
                    ended.exit = message
                    self._maybe_ended(ended)
        return True

    def _maybe_ended(self, server: _Server) -> None:
        """Once its process is reaped and its output read to the end."""
        if server.exit is None:
            return
        if server.output >= 0:
            self._read_output(server)  # what is still in the pipe; a grandchild may hold it open
            if server.output >= 0:
                self._poller.unregister(server.output)
                os.close(server.output)
                server.output = -1
        if self._servers.pop(server.name, None) is None:
            return
        logs.remove(server.log)
        for left in self._sockets.glob(f"p{server.peer}.?"):
            left.unlink(missing_ok=True)
        remove(str(self._sockets / f"m{server.pid}"))  # of its children (`spawned`)
        if not isinstance(server.control, _Closed):
            self._hear_server(server)
            if not isinstance(server.control, _Closed):
                self._poller.unregister(server.control.fileno())
                server.control.close()
        for asked in server.cancels.values():
            self._end.reply(asked, codec.dumps_whole(False))
        status = server.exit["status"]
        certificate = {
            "exit_status": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            "peak_kb": server.exit["peak_kb"],
            "oom_kills": _kills_since(server) if os.WIFSIGNALED(status) else 0,
            "last_output": _tail(server, self._limits.output_lines),
        }
        if printed := self._outgoing.take_all():
            self._tell(("output", printed))
        if server.ready:
            self._tell(("ended", server.name, certificate))
        else:
            why = server.failed or _how_it_ended(certificate)
            self._tell(("failed", server.name, why, certificate["last_output"]))

    # -- the end ---------------------------------------------------------------------------------------------------

    def _be_told(self) -> None:
        """SIGTERM."""
        self._told = True
        self._begin_stop("it got SIGTERM", patience=_TOLD_S)

    def _begin_stop(self, reason: str, *, signalled: bool = False, patience: float | None = None) -> None:
        if self._stopping:
            return
        logger.info("ending: %s", reason)
        self._stopping = reason
        self._wishes.clear()
        patience = self._limits.stop_s if patience is None else min(patience, self._limits.stop_s)
        self._stop_by = time.monotonic() + 2 * patience + 2.0
        if not signalled:
            now = time.monotonic()
            for server in self._servers.values():
                server.kill_at = [(now, signal.SIGTERM), (now + patience, signal.SIGKILL)]
                self._look_at_clock()

    def finish(self) -> None:
        """After the loop: nothing of ours stays on this host."""
        for server in self._servers.values():
            if server.pid:
                _signal_group(server.pid, signal.SIGKILL)
        if self._lane:
            self._lane.close()
        if self._told:
            with contextlib.suppress(OSError):
                self._zygote_socket.sendall(TOLD)
        self._zygote_socket.close()  # ends the zygote, which kills what is left and removes our directories
        self._zygote.end(self._limits.stop_s)
        Orphans().end_all()
        self.remove_directories()
        self._lease.end()
        try:
            if self._farewell_call is not None:
                self._end.reply(self._farewell_call, codec.dumps_whole(None))
            else:
                self._tell(("farewell", self._stopping))
            self._end.close()
            hostend.flush(self._context)
        except zmq.ZMQError:
            pass


_LATER = object()


class _Closed:
    """In place of a control socket that ended."""

    def fileno(self) -> int:
        return -1

    def send(self, data: bytes) -> int:
        raise OSError("closed")


def _temp_path(named: str) -> Path:
    """The directory of that name, made if it is not there, once nobody else can replace what is in it."""
    path = Path(os.path.expanduser(named))
    path = trusted(path, "Name a directory of yours with temp_path, or take away the right of others to write there")
    try:
        made.make(path)
    except OSError as exc:
        raise DiskError(
            f"can't make temp_path {path} ({exc.strerror})",
            host=os.uname().nodename,
            hint="Name another with temp_path",
        ) from exc
    return trusted(path, "Name a directory of yours with temp_path")  # somebody may have made it just now


def _tail(server: _Server, lines: int) -> str:
    return "\n".join(list(server.tail)[-lines:])


def _kills_since(server: _Server) -> int:
    """How many processes the kernel killed here for lack of memory while the server ran."""
    now = oom_kills()
    return 0 if now is None or server.oom_kills is None else now - server.oom_kills


def _how_it_ended(certificate: dict[str, Any]) -> str:
    if certificate["signal"]:
        return f"ended by {signal.Signals(certificate['signal']).name}"
    return f"ended with exit status {certificate['exit_status']}"


def _signal_group(pid: int, which: int) -> None:
    if pid:
        try:
            os.killpg(pid, which)
        except (ProcessLookupError, PermissionError):
            pass


def _can_import(name: str, path: list[str]) -> bool:
    if name in sys.builtin_module_names or importlib.machinery.FrozenImporter.find_spec(name):
        return True
    try:
        return importlib.machinery.PathFinder.find_spec(name, path) is not None
    except (ImportError, ValueError):
        return False


def main(config: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> NoReturn:
    """Body of the agent's process, after `boot` found everything that it needs."""
    if not config["local"] and not config["in_job"]:
        os.setsid()
    title.show("agent", config["script"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closed ssh channel is not our end; `orphan_s` decides
    try:
        agent = Agent(config)
    except GridError as exc:
        report({"error": exc.what, "hint": exc.facts.get("hint", ""), "kind": type(exc).__name__})
        sys.exit(1)
    except Exception as exc:
        report(
            {
                "error": f"the agent did not start ({type(exc).__name__}: {exc})",
                "hint": "Please report this",
                "kind": "HostError",
            }
        )
        raise
    report(
        {
            "ready": list(agent.ends),
            "lane_port": agent._lane.port if agent._lane else None,
            "blobs": str(agent._blobs),
            "root": str(agent.root),
            "run": str(agent.run_dir),
            "pid": os.getpid(),
            "hostname": os.uname().nodename,
            "cache_tag": CACHE_TAG,
            "python": sys.version.split()[0],
            "executable": sys.executable,
            "pip": importlib.util.find_spec("pip") is not None,
            "platform_tag": (sysconfig.get_config_var("EXT_SUFFIX") or "").split(".")[1:2],
        }
    )
    for fd in (1, 2):  # the launch channel must see its end when its ssh ends, and not wait for us
        os.dup2(agent.log, fd)
    logging.basicConfig(
        level=logging.DEBUG if config["debug"] else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    signal.signal(signal.SIGTERM, lambda *_: agent._be_told())
    try:
        agent.run()
    except BaseException:
        logger.exception("the agent failed")
    finally:
        agent.finish()
        os._exit(agent.status)
