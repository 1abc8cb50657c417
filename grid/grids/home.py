"""One host's life in a grid: connect, start the agent, talk to it, tell of its end.

How it stands with us (down, connected, silent, ... lost) is the table in `silence.py`.

Lives here: starting, the choice between direct connection and tunnel, questions to the agent, the end.
Elsewhere:  ssh itself (`launch/`), the link (`wire/link.py`), a kernel's first words (`firstwords.py`), what a message
            needs to have there (`needs.py`), what its servers do (`grid.py`), files (`files.py`).
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from grid import errors
from grid.errors import ConnectError, HostError
from grid.grids.between import carry
from grid.grids.firstwords import check, choose_transport, knock, report_of, silent, try_tunnel
from grid.grids.lastwords import tell_what_goes
from grid.grids.liveness import Liveness
from grid.grids.needs import HostNeeds
from grid.grids.packages import Packages
from grid.grids.register import leaving
from grid.grids.silence import HostEvent, HostState
from grid.hosts import Host
from grid.kernel import boot, title
from grid.kernel.lease import start_ticks
from grid.launch import Connection, RemoteProcess, connect
from grid.launch.allocation import signs_of_jobs
from grid.launch.command import launch_command, variables
from grid.launch.shell import sh_command
from grid.limits import Limits
from grid.services.result import Reply
from grid.staging.manifest import Manifest
from grid.wire import bulk, codec
from grid.wire.codec import Dumped
from grid.wire.keys import Keys
from grid.wire.link import RECONNECT_S, Link, Peer
from grid.wire.places import SOCKET_PATH_BYTES
from grid.wire.session import first_call

logger = logging.getLogger(__name__)

_LOOK_S = 0.05
_DYING_S = 0.1
_ANSWER_S = (
    8.0  # for an agent here that waits for its client: a dead one is told by its process, a busy one may be slow
)
_FAR_ANSWER_S = 4.0  # for one on another machine; `Grid.attach` waits for 10 s, and asks again later
_CLEAR_UP_S = 6.0  # for a kernel whose start was given up; a slow machine needs some of it

_ENDPOINT = re.compile(r"tcp://\[?(.*?)\]?:(\d+)\Z")


class Home:
    """See the module. Any thread may ask; starting is done by one at a time."""

    def __init__(
        self,
        host: Host,
        slots: int,
        link: Link,
        limits: Limits,
        keys: tuple[Keys, Keys] | None,
        grid_id: str,
        *,
        shared: bool,
        debug: bool,
        needs: Callable[[Home], HostNeeds],
        packages: Packages,
    ) -> None:
        self.host, self.slots = host, slots
        self.on_machine = slots  # of a service, those of other homes on the same machine among them: they share cores
        self._link, self.limits, self._grid_id = link, limits, grid_id
        self._keys: tuple[Keys, Keys] = keys  # type: ignore[assignment]  # a local one needs none
        self._shared, self._debug = shared, debug
        self._packages = packages
        self.keep_s: float | None = None  # how long it waits for a client that has gone
        self.python: str | None = None  # of its environment, if it has one of its own
        self._starting = threading.Lock()
        self.connection: Connection | None = None
        self._process: RemoteProcess | None = None
        self._number = 0  # of its agent, on our link
        self.peer: Peer | None = None
        self.blobs: bulk.Blobs | None = None
        self.report: dict[str, Any] = {}
        self.transport = ""
        self.life = Liveness(limits)
        self.began: float | None = None  # when its start was first tried, monotonic
        self.served = False  # a server of it came up, ever
        self._over = False  # the grid ends: nothing is begun any more
        self._settling = threading.Lock()  # a start counts, or the grid's end came first: never both, nor none
        # How a connection to it is had where that is not its own; one of its own is made anew when it breaks.
        self._way: Callable[[], Connection] | None = None
        self._invited: int | None = None  # the epoch of the client that has invited its kernel
        self._resumed = False  # an earlier client has started it
        self.ended = ""  # why nothing can be there any more, of a home of an earlier client
        self.ends_at: float | None = None  # when its allocation ends, monotonic
        self.staged: Manifest = {}
        self.unreached: set[tuple[str, int]] = set()  # lanes of other hosts to which there is no way from here
        self._tunnels: dict[int, tuple[str, str]] = {}
        self.needs = needs(self)

    @property
    def local(self) -> bool:
        """Whether it is this machine, without ssh."""
        return self.host.ssh == "local"

    @property
    def number(self) -> int:
        """Of its agent, on our link."""
        return self._number

    @property
    def up(self) -> bool:
        """Whether its agent was started and has not ended."""
        return self.life.state not in (HostState.DOWN, HostState.LOST)

    @property
    def gone(self) -> bool:
        """Whether it was up and has been shut down, or lost for good."""
        return self.life.state is HostState.LOST

    # -- starting --------------------------------------------------------------------------------------------------

    def start(self, loader: tuple[str, str] | None = None) -> None:
        """Connect and start the agent, unless it runs; within `limits.start_s`, and the time that packages take.

        Args:
            loader: Name and text of a program that becomes the kernel in place of our own.
        Raises:
            HostError: Of the kind that says which step failed.
        """
        with self._starting:
            if self.up:
                return
            self.began = self.began or time.monotonic()
            deadline = time.monotonic() + self.limits.start_s
            self._number = self._link.number()
            try:
                self.connection = connect(self.host)
                before = time.monotonic()
                self.python = self._packages.bring(self.connection, self.host)
                deadline += time.monotonic() - before
                if self._over:
                    raise ConnectError("the grid was ended meanwhile", host=self.host.label, hint="Start another")
                process = self._launch(deadline, loader)
                self.report = report_of(self, process, deadline)
                check(self.report, self.host)
                self._join()
                self._take_on()
            except BaseException:
                if self._process is not None:
                    self._process.close_stdin()  # by which a kernel clears up and ends
                    if self._process.wait(_CLEAR_UP_S) is None:
                        self._process.kill()  # a shell that hangs in its start files reads no end of input
                self._let_go()
                raise

    def _take_on(self) -> None:
        """Its agent runs: from here `shut_down` ends it. Until it is asked something it ends with its input as well."""
        assert self.peer is not None
        with self._settling:
            if self._over:
                ended = ConnectError("the grid was ended meanwhile", host=self.host.label, hint="Start another")
                self._link.drop(self.peer, ended)
                raise ended
            self._link.call(self.peer, codec.dumps(("status", (), {})), Reply(self._link))
            self.life.hear(HostEvent.STARTED)

    def invite(self, way: Callable[[], Connection]) -> tuple[str, bytes]:
        """For a kernel that somebody else starts, perhaps much later: its command (POSIX shell) and its whole input.

        `accept` follows when it has reported. `way` gives what leads there by then.
        """
        self.expect(self._link.number(), way, self._link.epoch)
        self.connection = way()
        return launch_command(self.host, self.python), self._words(None)

    def expect(self, number: int, way: Callable[[], Connection], epoch: int) -> None:
        """A kernel was invited to be its agent, by this client or an earlier one: `accept` or `resume` follow."""
        self._number, self._way, self._invited = number, way, epoch

    def accept(self, report: dict[str, Any]) -> None:
        """An invited kernel has reported: connect to it. Raises HostError."""
        assert self._way is not None
        with self._starting:
            try:
                self.connection = self.connection or self._way()
                self.report = report
                check(report, self.host)
                self._join()
                self._take_on()
            except BaseException:
                self._let_go()
                raise

    def resume(self, past: dict[str, Any], who: str) -> dict[str, Any]:
        """Take the place of the client that started its agent, which waits for one. `past`: what `facts` gave.

        Returns:
            What the agent answered, see `kernel/door`.
        Raises:
            HostError, SessionError: It can't be reached, or takes no other client.
        """
        if self.local and start_ticks(past["report"]["pid"]) is None:
            raise ConnectError("its agent has ended", host=self.host.label, hint="See its log")
        with self._starting:
            self._number, self.report, self.transport = past["number"], dict(past["report"]), past["transport"]
            try:
                if self._way is not None:
                    self.connection = self._way()
                elif self.transport == "tunnel":
                    self.connection = connect(self.host)
                answer = self._take_over(who)
                if self.local:
                    self.blobs = bulk.BlobStore(Path(self.report["blobs"]))
                self._meet(*answer["ends"])
                self._take_on()
                self._resumed = True
            except BaseException:
                self._let_go()
                raise
        return answer

    def _take_over(self, who: str) -> dict[str, Any]:
        """Have its agent hear this client, and no earlier one."""
        keys = None if self.local else self._keys[0]
        words = {"attach": self._link.epoch, "who": who}
        patience = _ANSWER_S if self.local else max(_FAR_ANSWER_S, self.limits.probe_s)
        answer = knock(self.reach(self.report["door"]), keys, words, patience, self.host.label)
        self.report["ready"] = answer["ends"]
        return answer

    def facts(self) -> dict[str, Any]:
        """What another client has to know to take our place, in plain values (JSON)."""
        return {"number": self._number, "report": self.report, "transport": self.transport, "slots": self.slots}

    def leave(self) -> None:
        """Let it wait for another client: nothing there is ended."""
        process, self._process = self._process, None
        if process is not None:
            process.abandon()
        self._let_go()

    def _config(self, loader: tuple[str, str] | None) -> dict[str, Any]:
        assert self.connection is not None
        towards = self.connection.towards()
        address = None if self.host.transport == "tunnel" else self.connection.server_address()
        return {
            "grid": self._grid_id,
            "peer": self._number,
            "keys": None if self.local else self._keys[1].to_json(),
            "local": self.local,
            "in_job": self.connection.in_job or bool(signs_of_jobs(os.environ)),
            "address": None if towards else address or "127.0.0.1",
            "towards": towards,
            "temp_path": self.host.temp_path,
            "shared": self._shared,
            "limits": vars(self.limits),
            "env": self.host.env,
            "servers": self.on_machine,
            "resources": vars(self.host.said),
            "path": [entry or os.getcwd() for entry in sys.path] if self.local else [],
            "debug": self._debug,
            "client": leaving(self._grid_id if self.local else None),
            "loader": loader,
            "owner": f"{_user()}@{socket.gethostname()}",
            "script": title.script_name(),
            "keep_s": self.keep_s,
            "epoch": self._link.epoch,
        }

    def _words(self, loader: tuple[str, str] | None) -> bytes:
        """All that is written to a kernel's input at its start."""
        return variables(self.host.env) + boot.words(self._config(loader), local=self.local)

    def _launch(self, deadline: float, loader: tuple[str, str] | None) -> RemoteProcess:
        assert self.connection is not None
        command = sh_command(launch_command(self.host, self.python))
        if self.connection.in_job:
            command = f"exec {command}"  # SIGTERM of the batch system must reach the kernel, and no shell before it
        logger.debug("host %s: %s", self.host.label, command)
        self._process = process = self.connection.start(command)
        try:
            process.write(self._words(loader), max(0.1, deadline - time.monotonic()))
        except BrokenPipeError:
            pass  # it ended early; what it says is read below
        except TimeoutError as exc:
            raise silent(self, process) from exc
        return process

    def _join(self) -> None:
        inlet, outlet = self.report["ready"]
        if self.local:
            self.transport = "local"
            self.blobs = bulk.BlobStore(Path(self.report["blobs"]))
        else:
            assert self.connection is not None
            self.transport = choose_transport(self.connection, self.host, *_address(inlet), self.limits.probe_s)
            if self.transport == "tunnel":
                try_tunnel(self.connection, self.host, *_address(inlet), self.limits.lost_s)
            if self._invited not in (None, self._link.epoch):  # by an earlier client, whom it expects
                self._take_over(f"{title.script_name()}, process {os.getpid()} on {socket.gethostname()}")
                inlet, outlet = self.report["ready"]
        self._meet(inlet, outlet)

    def _meet(self, inlet: str, outlet: str) -> None:
        """Its agent listens there, and the way is chosen: be connected to it."""
        if not self.local:
            self.blobs = bulk.Lane(
                self._open_lane, self._keys[0].tls(server=False), self.host.label, self.limits.control_s
            )
        first = first_call(self._link.epoch)
        peer = self.attach(self._number, inlet, outlet, lambda peer: peer.session.begin_at(first))
        peer.beats = True  # an agent whose client is silent ends everything
        deadline = time.monotonic() + min(self.limits.lost_s, self.limits.start_s)
        while not peer.welcomed.wait(_LOOK_S) and not self._over and time.monotonic() < deadline:
            pass  # unless the grid was ended meanwhile
        if not peer.welcomed.is_set():
            self._link.drop(peer, ConnectError("its agent does not answer", host=self.host.label, hint="See above"))
            hint = f"Try `grid doctor {self.host.label}`"
            if self.transport == "direct":
                hint = "Try transport: tunnel for it"
            raise ConnectError(
                f"its agent was started, but can't be reached ({self.transport}, {inlet})",
                host=self.host.label,
                hint=hint,
            )
        self.peer = peer
        self.staged = {}
        self.needs.begin_anew()

    def reach(self, endpoint: str) -> str:
        """Where a socket of the host is for us: itself, or the near end of a tunnel."""
        if self.transport != "tunnel":
            return endpoint
        assert self.connection is not None
        path = self.connection.forward(*_address(endpoint))
        assert len(os.fsencode(path)) <= SOCKET_PATH_BYTES
        return f"ipc://{path}"

    def attach(self, number: int, inlet: str, outlet: str, prepare: Callable[[Peer], None] | None = None) -> Peer:
        """Connect to a process on the host; see `Link.connect`."""
        keys = None if self.local else self._keys[0]
        self._tunnels[number] = (inlet, outlet)
        return self._link.connect(number, self.reach(inlet), self.reach(outlet), keys, self.blobs, prepare)

    def store(self) -> bulk.Blobs:
        """Its blobs. Raises ConnectError when it was lost just now."""
        if self.blobs is None:
            raise ConnectError("it was lost meanwhile", host=self.host.label, hint="Publish again to start it anew")
        return self.blobs

    def lane_address(self) -> tuple[str, int] | None:
        """Where other hosts may find its lane; None if it listens to this machine or to itself alone."""
        if self.local or not self.up:
            return None
        address, _ = _address(self.report["ready"][0])
        return None if ip_address(address).is_loopback else (address, self.report["lane_port"])

    def bring(self, source: Home, blob: str, sizes: Sequence[int]) -> Callable[[], str]:
        """Begin to copy a blob of another host's here; the function waits for it and gives its name here."""
        return carry(source, self, blob, sizes)

    def forget(self, blob: str) -> None:
        """Remove a blob; without waiting, and without an error where the host was lost."""
        if isinstance(self.blobs, bulk.BlobStore):
            self.blobs.drop(blob)
            return
        with contextlib.suppress(errors.GridError):
            self.ask_later("drop", blob)

    def detach(self, peer: Peer) -> None:
        """A process of the host has ended: end what led to it."""
        connection = self.connection  # another thread may be giving it up just now
        if self.transport == "tunnel" and connection is not None:
            for endpoint in self._tunnels.pop(peer.number, ()):
                with contextlib.suppress(HostError):  # it was cut, and its forwards with it
                    connection.unforward(*_address(endpoint))

    def broken(self) -> bool:
        """Whether the tunnel to it broke with its ssh connection, is ours to make anew, and was not made anew yet."""
        connection = self.connection
        ours = self._way is None and self.transport == "tunnel" and self.up
        return ours and connection is not None and not connection.alive()

    def reconnect(self) -> None:
        """Make a new ssh connection, and lead all links through it. Calls and replies go on where they were.

        Raises:
            HostError: It could not be made now.
        """
        with self._starting:
            if not self.broken():
                return
            fresh = connect(self.host)
            if self.gone:
                fresh.close()
                return
            old, self.connection = self.connection, fresh
            for peer in self._link.peers(self._tunnels):
                inlet, outlet = self._tunnels[peer.number]
                self._link.reroute(peer, self.reach(inlet), self.reach(outlet))
            if isinstance(self.blobs, bulk.Lane):
                self.blobs.renew()
            if old is not None:
                old.close()

    def _open_lane(self) -> socket.socket:
        address, _ = _address(self.report["ready"][0])
        port = self.report["lane_port"]
        if self.transport != "tunnel":
            return socket.create_connection((address, port), timeout=self.limits.control_s)
        if self.connection is None:
            raise ConnectionAbortedError("the host is gone")
        try:
            path = self.connection.forward(address, port)
        except ConnectError as exc:  # it is being made anew, see `reconnect`
            raise ConnectionAbortedError(str(exc)) from exc
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            stream.settimeout(self.limits.control_s)
            stream.connect(path)
        except BaseException:
            stream.close()
            raise
        return stream

    # -- the agent -------------------------------------------------------------------------------------------------

    def ask(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        """Have the agent do something and return its answer.

        Raises:
            ConnectError: It did not answer within `timeout` (default `limits.control_s`) seconds.
            What the agent raised.
        """
        return self.ask_later(method, *args, timeout=timeout)()

    def ask_later(self, method: str, *args: Any, timeout: float | None = None) -> Callable[[], Any]:
        """Like `ask`, in two steps: the question goes now, the answer is waited for when the function is called."""
        reply = self._question(method, args)
        limit = timeout or self.limits.control_s

        def answer() -> Any:
            try:
                return reply.get(limit)
            except TimeoutError as exc:
                raise ConnectError(
                    f"its agent did not answer {method!r} within {limit:g} s",
                    host=self.host.label,
                    hint="Is the host overloaded or cut off? Try `grid doctor`",
                ) from exc

        return answer

    def _question(self, method: str, args: tuple[Any, ...]) -> Reply:
        if self.peer is None or self.gone:
            raise ConnectError("its agent does not run", host=self.host.label, hint="See g.failures")
        reply = Reply(self._link)
        self._link.call(self.peer, codec.dumps((method, args, {})), reply)
        return reply

    def withdraw(self, server: str, call: int) -> bool:
        """Take back a call of a server unless it has begun."""
        return bool(self.ask("cancel", server, call))

    def withdraw_later(self, server: str, call: int, then: Callable[[bool], None]) -> None:
        """The same without waiting: the grid's thread calls `then(granted)` once the host has told, or was lost."""
        try:
            reply = self._question("cancel", (server, call))
        except errors.GridError:
            then(False)  # the loss of the host is told to the call itself
            return
        reply.when_done(lambda _: then(reply.exception(0) is None and bool(reply.get(0))))

    def end(self, server: str, *, force: bool) -> None:
        """Have a server ended; does not wait for it."""
        if self.up:
            self.ask_later("stop", [server], force)

    def outage(self) -> float | None:
        """Seconds since it became unreachable; None while it answers."""
        return self.life.outage()

    def refuses(self) -> bool:
        """Whether the host itself says that nobody listens any more (a dead agent, not a cut cable)."""
        if self.peer is None:
            return False
        if self.local:  # a client that was suspended is cut off, too; a process dies a moment after its sockets
            deadline = time.monotonic() + _DYING_S
            while start_ticks(self.report["pid"]) is not None:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.005)
            return True
        inlet = self.peer.endpoints[0]
        if not inlet.startswith("tcp://"):
            return False  # the near end of a tunnel says nothing of the far one
        try:
            socket.create_connection(_address(inlet), timeout=self.limits.probe_s).close()
        except OSError as exc:
            return isinstance(exc, ConnectionRefusedError)
        return False

    def has_ended(self, reason: str) -> None:
        """Nothing can be there any more: it is not asked again."""
        self.ended = reason

    def end_starts(self) -> None:
        """The grid ends: what is just starting gives up as soon as it can."""
        with self._settling:
            self._over = True

    def set_debug(self, debug: bool) -> None:
        """Have the agent log more or less, from now on or from its start. One that is cut off hears of it later."""
        self._debug = debug
        if self.up:
            with contextlib.suppress(errors.GridError):  # it was lost just now
                self.ask_later("set_debug", debug)

    def ends(self, at: float) -> None:
        """Its allocation has begun, and ends at this time (monotonic)."""
        self.ends_at = at

    def has_served(self) -> None:
        """A server of it came up."""
        self.served = True

    def shut_down(self, *, force: bool) -> None:
        """End its servers and its agent, remove what they made there, close the connection. Bounded."""
        if self.up and self.peer is not None:
            # One that can't be reached may be coming back just now; else it ends by itself after `orphan_s`.
            limit = 2 * self.limits.stop_s + 5.0 if self.outage() is None else 2 * RECONNECT_S + 1.0
            if not (force or self._resumed) and self.outage() is None:  # else nobody knows what was sent there
                tell_what_goes(self, self._shared)
            try:
                self._ask_to_end(force, limit)
            except (HostError, errors.GridError) as exc:
                logger.warning("host %s: %s", self.host.label, exc)
        else:
            self._end_start()
        self._let_go()

    def _end_start(self) -> None:
        """Its kernel may still be starting. Nothing stays there, though `init_cmd` may run what hears of no end."""
        deadline = time.monotonic() + self.limits.stop_s / 2
        while self._process is None and self._starting.locked() and time.monotonic() < deadline:
            time.sleep(_LOOK_S)  # the command is just on its way; without our connection nobody could end it
        process = self._process
        if process is None:
            return
        process.close_stdin()
        # a kernel that runs already clears up; a command of the user's would go on until its own end
        if process.wait(min(_CLEAR_UP_S, self.limits.stop_s) / 2) is None:
            process.kill()

    def _ask_to_end(self, force: bool, limit_s: float) -> None:
        """As `ask("shutdown")`; but a kernel in a batch job that has been told to end by others is not waited for."""
        process = self._process if self.connection is not None and self.connection.in_job else None
        deadline = time.monotonic() + limit_s
        answer = self.ask_later("shutdown", force, timeout=_LOOK_S if process is not None else limit_s)
        while True:
            try:
                answer()
                return
            except ConnectError:
                if process is not None and process.poll() is not None:
                    return
                if process is None or time.monotonic() > deadline:
                    raise

    def part(self) -> Callable[[], None] | None:
        """It was lost or has ended: forget at once what leads there. The answer closes that, which may take a moment.

        In two steps, because a new start may begin at once, and must not have its own connection closed: so it can
        begin only when all is forgotten. None: it was gone before.
        """
        process, self._process = self._process, None
        connection, self.connection = self.connection, None
        blobs, self.blobs = self.blobs, None

        def close() -> None:
            if process is not None:
                process.close()
            if isinstance(blobs, bulk.Lane):
                blobs.close()
            if connection is not None:
                connection.close()

        if self.life.part():
            return close
        close()  # of a start that failed
        return None

    def _let_go(self) -> None:
        close = self.part()
        if close is not None:
            close()

    def prepare(self, dumped: Dumped, image: dict[str, Any]) -> bytes | None:
        """Have on the host what a message needs: see `HostNeeds.prepare`."""
        return self.needs.prepare(dumped, image)


def _address(endpoint: str) -> tuple[str, int]:
    match = _ENDPOINT.match(endpoint)
    assert match, endpoint
    return match[1], int(match[2])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
