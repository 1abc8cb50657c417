"""One host's life in a grid: connect, start the agent, talk to it, tell that it is gone.

    down ──start()──> up ──(silence)──> unreachable ──(heard again)──> up
      \\──> failed        \\──> gone (shut down, or lost for good)

Lives here: first words (`kernel/boot.py` at the other end), the choice between direct connection and tunnel, questions
            to the agent, what a message needs to have there (modules, `__main__`).
Elsewhere:  ssh itself (`launch/`), the link (`wire/link.py`), what its servers do (`grid.py`), files (`files.py`).
"""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from grid import errors
from grid.care.remedies import remedy
from grid.errors import ConnectError, HostError, MissingModules, PythonError, VersionError
from grid.grids.between import carry
from grid.grids.images import Images, Told
from grid.grids.watch import REGISTRATION, grids_dir
from grid.hosts import Host
from grid.kernel import boot, title
from grid.kernel.lease import start_ticks
from grid.launch import Connection, RemoteProcess, connect
from grid.launch.allocation import signs_of_jobs
from grid.launch.command import launch_command, variables, why_not_started
from grid.launch.shell import sh_command
from grid.launch.spool import own_directory
from grid.limits import Limits
from grid.services.result import Reply
from grid.staging.imports import find_needs
from grid.staging.manifest import Manifest
from grid.staging.select import StagedFile
from grid.wire import bulk, codec
from grid.wire.codec import CACHE_TAG, Dumped
from grid.wire.edited import edited_since, told_of
from grid.wire.keys import Keys
from grid.wire.link import RECONNECT_S, Link, Peer
from grid.wire.mainimage import MainImage, Packed
from grid.wire.places import SOCKET_PATH_BYTES

logger = logging.getLogger(__name__)

_LISTING_S = 2.0
"""A host that ends says within this time what files go with it, or does not say it."""

_LOOK_S = 0.05
_CLEAR_UP_S = 6.0  # for a kernel whose start was given up; a slow machine needs some of it

_ENDPOINT = re.compile(r"tcp://\[?(.*?)\]?:(\d+)\Z")


_USED: Any = ("modules", "used")
"""In what a process has: modules that the names of `__main__` there use."""


class HostLink:
    """See the module. Any thread may ask; starting is done by one at a time."""

    def __init__(
        self,
        host: Host,
        slots: int,
        link: Link,
        limits: Limits,
        keys: tuple[Keys, Keys],
        grid_id: str,
        *,
        shared: bool,
        debug: bool,
    ) -> None:
        self.host, self.slots = host, slots
        self._link, self.limits, self._keys, self._grid_id = link, limits, keys, grid_id
        self._shared, self.debug = shared, debug
        self._starting = threading.Lock()
        self.connection: Connection | None = None
        self._process: RemoteProcess | None = None
        self._number = 0  # of its agent, on our link
        self.peer: Peer | None = None
        self.blobs: bulk.Blobs | None = None
        self.report: dict[str, Any] = {}
        self.transport = ""
        self.loader: tuple[str, str] | None = None  # name and text of a program in place of our own
        self.unreachable_since: float | None = None
        self.probed_at = float("-inf")  # when it was last looked whether its agent is dead
        self.reachable_since = float("-inf")  # when it came back from being unreachable
        self.gone = False
        self.began: float | None = None  # when its start was first tried, monotonic
        self.served = False  # a server of it came up, ever
        self.over = False  # the grid ends: nothing is begun any more
        self.rejoining = False  # somebody is at it
        self.rejoins = True  # its connection is its own, and is made anew when it breaks
        self.furnished = True  # it has what was copied to all hosts before it joined
        self.ends_at: float | None = None  # when its allocation ends, monotonic
        self.stage: Callable[[HostLink, list[StagedFile]], None] | None = None  # set by the grid
        self.warn: Callable[[set[str]], None] | None = None  # told of names that hold random generators
        self.staged: Manifest = {}
        self.unreached: set[tuple[str, int]] = set()  # lanes of other hosts to which there is no way from here
        self._tunnels: dict[int, tuple[str, str]] = {}
        self._modules: set[str] = set()
        self._images = Images()
        self._modules_lock = threading.Lock()

    @property
    def local(self) -> bool:
        """Whether it is this machine, without ssh."""
        return self.host.ssh == "local"

    @property
    def up(self) -> bool:
        """Whether its agent was started and has not ended."""
        return self.peer is not None and not self.gone

    # -- starting --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect and start the agent, unless it runs; within `limits.start_s`.

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
                if self.over:
                    raise ConnectError("the grid was ended meanwhile", host=self.host.label, hint="Start another")
                self._hear_from(self._launch(deadline), deadline)
                self._join()
            except BaseException:
                if self._process is not None:
                    self._process.close_stdin()  # by which a kernel clears up and ends
                    if self._process.wait(_CLEAR_UP_S) is None:
                        self._process.kill()  # a shell that hangs in its start files reads no end of input
                self._let_go()
                raise
            self.gone, self.unreachable_since = False, None

    def invite(self, connection: Connection) -> tuple[str, bytes]:
        """For a kernel that somebody else starts, perhaps much later: its command (POSIX shell) and its whole input.

        `accept` follows when it has reported. `connection` is what leads there by then.
        """
        self.connection, self._number, self.rejoins = connection, self._link.number(), False
        return launch_command(self.host), self._words()

    def accept(self, report: dict[str, Any]) -> None:
        """An invited kernel has reported: connect to it. Raises HostError."""
        with self._starting:
            try:
                self._check(report)
                self._join()
            except BaseException:
                self._let_go()
                raise
            self.gone, self.unreachable_since = False, None

    def _config(self) -> dict[str, Any]:
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
            "path": [entry or os.getcwd() for entry in sys.path] if self.local else [],
            "debug": self.debug,
            "client": self._leaving(),
            "loader": self.loader,
            "owner": f"{_user()}@{socket.gethostname()}",
            "script": title.script_name(),
        }

    def _words(self) -> bytes:
        """All that is written to a kernel's input at its start."""
        return variables(self.host.env) + boot.words(self._config(), local=self.local)

    def _launch(self, deadline: float) -> RemoteProcess:
        assert self.connection is not None
        command = sh_command(launch_command(self.host))
        if self.connection.in_job:
            command = f"exec {command}"  # SIGTERM of the batch system must reach the kernel, and no shell before it
        logger.debug("host %s: %s", self.host.label, command)
        self._process = process = self.connection.start(command)
        try:
            process.write(self._words(), max(0.1, deadline - time.monotonic()))
        except BrokenPipeError:
            pass  # it ended early; what it says is read below
        except TimeoutError as exc:
            raise self._silent(process) from exc
        return process

    def _hear_from(self, process: RemoteProcess, deadline: float) -> None:
        self._check(self._hear(process, deadline))

    def _check(self, report: dict[str, Any]) -> None:
        self.report = report
        if "error" in report:
            kind = getattr(errors, report["kind"], HostError)
            raise kind(report["error"], host=self.host.label, hint=report["hint"])

    def _leaving(self) -> dict[str, Any]:
        """What this process would leave on its machine if it were killed: an agent on the same machine removes it."""
        files = [f"{grids_dir() / self._grid_id}{end}" for end in REGISTRATION] if self.local else []
        files += [str(own_directory())] if self.local else []
        return {"pid": os.getpid(), "started": start_ticks(os.getpid()), "leaves": files}

    def _hear(self, process: RemoteProcess, deadline: float) -> dict[str, Any]:
        noise: list[str] = []
        while True:
            try:
                line = process.read_line(max(0.1, deadline - time.monotonic())).decode(errors="replace")
            except TimeoutError as exc:
                raise self._silent(process) from exc
            except ValueError as exc:
                raise HostError(
                    "it answers with something else than our words",
                    host=self.host.label,
                    hint="Does its login shell print much? See `grid doctor`",
                ) from exc
            _, found, words = line.partition(boot.MARK)  # a start-up file may have printed without an end of line
            if found:
                with contextlib.suppress(ValueError):
                    report: dict[str, Any] = json.JSONDecoder().raw_decode(words)[0]
                    return report
            if not line:
                status = process.wait(2.0)
                if not process.began and self.connection is not None:
                    raise self.connection.no_command(process, status)
                told, hint = why_not_started(process.stderr_tail(2.0))
                said = (told or "\n".join(noise)).strip()[-2000:]
                raise PythonError(
                    f"the kernel did not start (exit status {status}){': ' + said if said else ''}",
                    host=self.host.label,
                    hint=hint or f"Try `grid doctor {self.host.label}`",
                )
            noise.append(line.rstrip())

    def _silent(self, process: RemoteProcess) -> HostError:
        said, _ = why_not_started(process.stderr_tail())
        said = said[-2000:]
        return HostError(
            f"it let us in, but no kernel answered within {self.limits.start_s:g} s"
            + (f"; it printed: {said}" if said else ""),
            host=self.host.label,
            hint=f"Try `grid doctor {self.host.label}`, or more time with GRID_START_S",
        )

    def _join(self) -> None:
        inlet, outlet = self.report["ready"]
        if self.local:
            self.transport = "local"
            from pathlib import Path

            self.blobs = bulk.Store(Path(self.report["blobs"]))
        else:
            self.transport = self._choose_transport(inlet)
            if self.transport == "tunnel":
                self._try_tunnel(*_address(inlet))
            self.blobs = bulk.Lane(
                self._open_lane, self._keys[0].tls(server=False), self.host.label, self.limits.control_s
            )
        peer = self.attach(self._number, inlet, outlet)
        peer.beats = True  # an agent whose client is silent ends everything
        deadline = time.monotonic() + min(self.limits.lost_s, self.limits.start_s)
        while not peer.welcomed.wait(_LOOK_S) and self.connection is not None and time.monotonic() < deadline:
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
        self._modules, self.staged, self._images = set(), {}, Images()

    def _choose_transport(self, inlet: str) -> str:
        wish = self.host.transport
        assert self.connection is not None
        if not self.connection.has_forwards:
            return "direct"
        if wish != "auto":
            return wish
        address, port = _address(inlet)
        if self.connection.server_address() is None or address in ("127.0.0.1", "::1"):
            return "tunnel"
        try:
            socket.create_connection((address, port), timeout=self.limits.probe_s).close()
        except OSError as exc:
            logger.info("host %s: no direct way to %s:%d (%s), taking the tunnel", self.host.label, address, port, exc)
            return "tunnel"
        return "direct"

    def _try_tunnel(self, address: str, port: int) -> None:
        """See at once whether sshd lets us through: the agent greets, a forward that is forbidden ends."""
        assert self.connection is not None
        path = self.connection.forward(address, port)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as near:
            near.settimeout(self.limits.lost_s)
            try:
                near.connect(path)
                greeted = bool(near.recv(1))
            except TimeoutError:
                return  # slow, which the link has more patience for
            except OSError:
                greeted = False
        if not greeted and self.connection is not None and self.connection.alive():
            raise ConnectError(
                f"its sshd makes no tunnel to {address} port {port}"
                + ("" if self.host.transport == "tunnel" else ", and there is no direct way to it"),
                host=self.host.label,
                hint="Its sshd must allow forwarding (AllowTcpForwarding yes), or a firewall ports above 1023 "
                f"(then transport: direct): ask its administrator. `grid doctor {self.host.label}` looks again",
            )

    def reach(self, endpoint: str) -> str:
        """Where a socket of the host is for us: itself, or the near end of a tunnel."""
        if self.transport != "tunnel":
            return endpoint
        assert self.connection is not None
        path = self.connection.forward(*_address(endpoint))
        assert len(os.fsencode(path)) <= SOCKET_PATH_BYTES
        return f"ipc://{path}"

    def attach(self, number: int, inlet: str, outlet: str) -> Peer:
        """Connect to a process on the host."""
        keys = None if self.local else self._keys[0]
        self._tunnels[number] = (inlet, outlet)
        return self._link.connect(number, self.reach(inlet), self.reach(outlet), keys, self.blobs)

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

    def bring(self, source: HostLink, blob: str, sizes: Sequence[int]) -> Callable[[], str]:
        """Begin to copy a blob of another host's here; the function waits for it and gives its name here."""
        return carry(source, self, blob, sizes)

    def forget(self, blob: str) -> None:
        """Remove a blob; without waiting, and without an error where the host is gone."""
        if isinstance(self.blobs, bulk.Store):
            self.blobs.drop(blob)
            return
        with contextlib.suppress(errors.GridError):
            self.ask_later("drop", blob)

    def detach(self, peer: Peer) -> None:
        """A process of the host is gone: end what led to it."""
        connection = self.connection  # another thread may be giving it up just now
        if self.transport == "tunnel" and connection is not None:
            for endpoint in self._tunnels.pop(peer.number, ()):
                with contextlib.suppress(HostError):  # it was cut, and its forwards with it
                    connection.unforward(*_address(endpoint))

    def broken(self) -> bool:
        """Whether the tunnel to it is gone with its ssh connection, and there is none anew yet."""
        return self.up and self.transport == "tunnel" and self.connection is not None and not self.connection.alive()

    def reconnect(self) -> None:
        """Make a new ssh connection, and lead all links through it. Calls and replies go on where they were.

        Raises:
            HostError: It could not be made now.
        """
        with self._starting:
            if not self.broken() or not self.rejoins:
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
        if self.peer is None or self.gone:
            raise ConnectError("its agent does not run", host=self.host.label, hint="See g.failures")
        reply = Reply(self._link)
        self._link.call(self.peer, codec.dumps((method, args, {})), reply)
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

    def withdraw(self, server: str, call: int) -> bool:
        """Take back a call of a server unless it has begun."""
        return bool(self.ask("cancel", server, call))

    def end(self, server: str, *, force: bool) -> None:
        """Have a server ended; does not wait for it."""
        if self.up:
            self.ask_later("stop", [server], force)

    def outage(self) -> float | None:
        """Seconds since it became unreachable; None while it answers."""
        return None if self.unreachable_since is None else time.monotonic() - self.unreachable_since

    def shut_down(self, *, force: bool) -> None:
        """End its servers and its agent, remove what they made there, close the connection. Bounded."""
        if self.up and self.peer is not None:
            # One that can't be reached may be coming back just now; else it ends by itself after `orphan_s`.
            limit = 2 * self.limits.stop_s + 5.0 if self.unreachable_since is None else 2 * RECONNECT_S + 1.0
            if not force and self.unreachable_since is None:
                self._tell_what_goes()
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

    def _tell_what_goes(self) -> None:
        """Name files that servers wrote into the staging directory, which is about to be removed."""
        if self._shared and not self.staged:
            return  # the home that files were sent to tells of them
        try:
            written = sorted(set(self.ask("list_files", timeout=_LISTING_S)) - set(self.staged))
        except errors.GridError:
            return  # a slow host may end all the same
        if written:
            more = f" and {len(written) - 5} more" if len(written) > 5 else ""
            logger.warning(
                "host %s: servers wrote %s%s into the staging directory, which is removed now. To keep such files, "
                "make the grid with workdir=..., write under absolute names, or return what you need",
                self.host.label,
                ", ".join(written[:5]),
                more,
            )

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

    def part(self) -> Callable[[], None]:
        """It is gone: forget at once what leads there. The answer closes that, which may take a moment.

        In two steps, because a new start may begin at once, and must not have its own connection closed.
        """
        self.gone = True
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

        return close

    def _let_go(self) -> None:
        self.part()()

    # -- what a message needs there --------------------------------------------------------------------------------

    def prepare(self, dumped: Dumped, image: dict[str, Any]) -> bytes | None:
        """Have on the host what a message needs; returns the image of `__main__` that must go with it, if one must.

        `image`: what the process there has: names of `__main__`, and editions of modules. It is brought up to date.

        Raises:
            VersionError: Code by value, and another version of Python there.
            MissingModules: Modules that are neither there nor the user's own.
        """
        self.check_code(dumped.by_value)
        modules = codec.modules_in(dumped.data) | dumped.modules
        lacking = MainImage().lacking(dumped.main_names, image) if dumped.main_names else None
        if dumped.main_names:  # what the script defines may use modules that the message does not name
            modules |= image.get(_USED, frozenset())
        if not lacking:
            return self._with_edits(modules, image, None)
        told: bytes
        known = self._images.known(lacking, image)
        if known is not None:
            told, packed = known
        else:
            packed = MainImage().pack(lacking, image)
            self.check_code(packed.by_value)
            if packed.random and self.warn is not None:
                self.warn(packed.random)
            told = self._images.put(packed, self.store(), self.forget)
        image.update(packed.entries)
        image[_USED] = image.get(_USED, frozenset()) | packed.modules
        return self._with_edits(modules | packed.modules, image, told)

    def _with_edits(self, modules: set[str], image: dict[Any, Any], told: bytes | None) -> bytes | None:
        """Have modules there as they are now; a process that has older ones is told with the message."""
        fresh = edited_since(modules, image) if modules else None
        if fresh:
            self._modules.difference_update(fresh)
        self.have_modules(modules)
        if not fresh:
            return told
        word = Told(told_of(fresh, told))
        word.large = getattr(told, "large", None)
        return word

    def pack_image(self, entries: Mapping[str, Any]) -> Packed:
        """An image of names of `__main__` as they were bound, if this host can use it."""
        names = {name: obj for name, obj in entries.items() if isinstance(name, str)}
        packed = MainImage({**sys.modules["__main__"].__dict__, **names}).pack(names)
        self.check_code(packed.by_value)
        return packed

    def check_code(self, by_value: Any) -> None:
        """Refuse code by value where the host's Python is of another minor version."""
        theirs = self.report.get("cache_tag")
        if by_value and theirs != CACHE_TAG:
            raise VersionError(
                f"host {self.host.label!r} runs {theirs} and this is {CACHE_TAG}: {', '.join(list(by_value)[:4])} "
                "would have to travel as byte code, which crashes there or misleads",
                hint="Move that code into a module (it is sent as source), or use the same minor version on the host",
            )

    def have_modules(self, names: set[str]) -> None:
        """Have modules importable on the host: the user's own are sent, others must be installed there."""
        if self.local or names <= self._modules:
            return
        with self._modules_lock:
            wanted = names - self._modules
            needs = find_needs(sorted(wanted))
            if needs.files and self.stage is not None:
                self.stage(self, needs.files)
            others = sorted(needs.installed | needs.unknown)
            lacking = self.ask("missing_modules", others) if others else []
            if lacking:
                raise MissingModules(
                    f"it lacks {', '.join(lacking)}",
                    host=self.host.label,
                    modules=tuple(lacking),
                    hint=remedy(self.host, self.report, lacking),
                )
            self._modules |= wanted


def _address(endpoint: str) -> tuple[str, int]:
    match = _ENDPOINT.match(endpoint)
    assert match, endpoint
    return match[1], int(match[2])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
