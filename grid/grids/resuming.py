"""A session is taken up again: another client takes the place of the one that went.

    1. the name's directory is ours (nobody else has it), its log is read
    2. each agent is asked at its door: from then on it and its servers hear this client alone (`kernel/door`)
    3. servers say on which numbers their links stand; calls that they lack are sent, replies that we lack are repeated

What is known of calls and results is there at once, whoever can be reached. A host that does not answer is asked again
until the session's time has passed.

Lives here: `open_session`, `Resumption`.
Elsewhere:  facts (`keep.py`), the log (`keeping/`), one host (`home.py`).
"""

from __future__ import annotations

import logging
import os
import pickletools
import socket
import struct
import sys
import threading
import time
import weakref
from typing import Any, Protocol

from grid._version import __version__
from grid.errors import GridError, HostError, ServerLost, SessionError
from grid.grids import register
from grid.grids.fleet import Fleet
from grid.grids.home import Home
from grid.grids.keep import Keep
from grid.grids.losses import Losses
from grid.grids.publishing import Publisher
from grid.grids.source import HostSource
from grid.hosts import Host
from grid.keeping.journal import Journal
from grid.keeping.memory import Past, SessionMemory
from grid.keeping.places import SessionPlace, names
from grid.kernel.lease import start_ticks
from grid.kernel.title import script_name
from grid.services.kernel_server import KernelServer
from grid.services.result import Result
from grid.wire import bulk, codec
from grid.wire.frames import BULK, HEAD, FrameError, Kind, pack, unpack
from grid.wire.keys import Keys
from grid.wire.peer import Peer

logger = logging.getLogger(__name__)

_AGAIN_S = 5.0
_HANDED_OVER_S = 20.0
_LOOK_S = 0.05
_SLACK_S = 60.0
"""A host counts from its client's last word, which may be later than the last mark in the log."""


def open_session(name: str, *, steal: bool = False) -> Keep:
    """Have a session of earlier clients.

    Args:
        steal: Ask a client that lives to hand it over.
    Raises:
        SessionError: There is none of that name; another client has it; its file is of no use, or of another version.
    """
    check_session(name)
    place = SessionPlace(name)
    used_at = place.used_at()
    if not place.take():
        _ask_for(place, steal)
    try:
        journal = Journal(place.log)
        try:
            return _checked(place, journal, used_at)
        except BaseException:
            journal.close()
            raise
    except BaseException:
        place.leave()
        raise


def check_session(name: str) -> None:
    """Raise SessionError unless there is one of that name."""
    try:
        exists = SessionPlace(name).exists()
    except ValueError as exc:
        raise SessionError(f"no session has such a name: {exc}", hint="See `grid sessions`") from exc
    if not exists:
        known = ", ".join(names()) or "none"
        raise SessionError(f"there is no session {name!r} on this machine", hint=f"There are: {known}")


def _checked(place: SessionPlace, journal: Journal, used_at: float) -> Keep:
    memory = journal.memory
    facts = memory.facts.get("grid")
    if facts is None:
        raise SessionError(
            f"the file of session {place.name!r} is damaged: it does not say what it was",
            hint=f"`grid end {place.name}` removes it; its hosts end by themselves",
        )
    if facts["version"] != __version__:
        raise SessionError(
            f"session {place.name!r} was made by grid {facts['version']}, and this is {__version__}",
            hint="Attach with the version that made it",
        )
    if time.time() > used_at + facts["keep_s"] + _SLACK_S:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(used_at + facts["keep_s"]))
        journal.leaving = True
        place.remove()
        raise SessionError(
            f"the time of session {place.name!r} has passed at {when}: its servers have ended, and what was left of it "
            "here is removed now",
            hint="Start the grid again, with a longer keep=",
        )
    if journal.damaged:
        logger.warning(
            "%d bytes in the file of session %s are damaged: what else it says counts, and calls whose record is lost "
            "are not listed",
            *(journal.damaged, place.name),
        )
    if facts["python"][:2] != list(sys.version_info[:2]):
        logger.warning(
            "session %s was made with Python %d.%d, and this is %d.%d: calls that carry code by value (functions and "
            "classes of a script, lambdas) are refused with their names; all others work",
            *(place.name, *facts["python"][:2], *sys.version_info[:2]),
        )
    return Keep(place, facts["keep_s"], epoch=facts["epoch"] + 1, journal=journal)


def _ask_for(place: SessionPlace, steal: bool) -> None:
    """A living client has it: ask that one to hand it over."""
    facts = SessionMemory.of(_scan(place)).facts.get("grid", {})
    who = facts.get("client", "a living process")
    if not steal:
        raise SessionError(
            f"{who} has the session {place.name!r}, and lives",
            hint="Attach with steal=True (`grid attach --steal`) to have it hand over, or end it",
        )
    for record in register.running_grids():
        if record["id"] == facts.get("id") and record["pid"] == facts.get("pid"):
            try:
                register.ask(record, "detach")
            except (TimeoutError, OSError) as exc:
                logger.debug("%s", exc)
    deadline = time.monotonic() + _HANDED_OVER_S
    while not place.take():
        if time.monotonic() > deadline:
            raise SessionError(
                f"{who} has the session {place.name!r}, and does not hand it over (is it stopped?)",
                hint=f"End it: kill -9 {facts.get('pid', 'PID')}",
            )
        time.sleep(_LOOK_S)


def _scan(place: SessionPlace) -> Any:
    from grid.keeping.records import Scan

    return Scan(place.log.read_bytes())


class EngineToResume(Protocol):
    """The part of the engine that this uses."""

    fleet: Fleet
    losses: Losses
    publisher: Publisher
    source: HostSource


class Resumption:
    """One client's way into a session. Its grid's thread and one thread for each host call this."""

    def __init__(self, engine: EngineToResume, keep: Keep) -> None:
        assert keep.past is not None
        self._fleet, self._losses, self._keep, self._past = engine.fleet, engine.losses, keep, keep.past
        self._source, self._publisher = engine.source, engine.publisher
        self._began = time.monotonic()
        self._homes: dict[int, tuple[Home, dict[str, Any]]] = {}
        self._servers: dict[str, KernelServer] = {}
        self._pending: dict[str, dict[int, Result]] = {}  # of servers that have not attached yet
        self._results: list[weakref.ref[Result]] = []
        self._away: dict[int, float] = {}  # homes that did not answer, and when to ask again
        self._coming: set[str] = set()  # servers that are sure to attach soon
        self._asked: set[int] = set()  # homes whose first answer is due
        self._moved = threading.Condition()

    # -- what is known before anybody answers ------------------------------------------------------------------------

    def make_homes(self) -> None:
        """Of all agents that the session knows."""
        fleet, keys = self._fleet, self._past.facts.get("keys")
        if keys is not None:
            ours, theirs = map(Keys.from_json, keys)
            fleet.use_keys((ours, theirs))
        of_source = self._source.take_up(self._past)
        for number, fact in self._past.facts_of("home").items():
            home = of_source.get(int(number)) or fleet.make_home(Host.of_state(fact["host"]), fact["slots"])
            if fact.get("ended"):
                home.has_ended(str(fact["ended"]))
            self._homes[int(number)] = home, fact
        known = [home for home, _ in self._homes.values()]
        fleet.homes = [home for home in known if not home.ended and self._source.takes_part(home)]

    def begin(self) -> None:
        """Services, servers and results are there; hosts are asked, each by a thread of its own."""
        services = self._fleet.grid._services
        served = {fact["service"] for fact in self._past.facts_of("server").values()}
        for service_id, fact in self._past.facts_of("service").items():
            if service_id not in served:  # the client was killed as it published: nobody has ever had it
                self._keep.service_gone(service_id)
                continue
            services.add(service_id, frozenset(fact["methods"]), frozenset(fact["yielding"]))
            self._publisher.remember(service_id, fact["asked"])
        for name, fact in self._past.facts_of("server").items():
            if fact["home"] not in self._homes:
                continue
            server = self._known(name, fact["service"], fact["peer"], self._homes[fact["home"]][0])
            for peer in (*fact.get("earlier", ()), fact["peer"]):  # it may have moved
                if past := self._past.peers.get(peer):
                    self._take_results(server, peer, past)
            if "ended" in fact:
                self._lost(server, fact["ended"])
            elif server.service is None:
                self._lost(server, "its service was withdrawn")
            elif server.home.ended:  # type: ignore[attr-defined]
                self._fleet.errand(_later(self._ended, server, None))
        asked = [number for number, (home, _) in self._homes.items() if not home.ended]
        with self._moved:
            self._coming |= {name for name in self._servers if name in self._pending}
            self._asked |= set(asked)
        for number in asked:
            self._fleet.in_thread("grid-resume", self._resume, number)

    def _known(self, name: str, service_id: str, peer: int, home: Home) -> KernelServer:
        server = KernelServer(service_id, name, home.host, home, peer)
        server.link = self._fleet.link
        self._servers[name], self._pending[name] = server, {}
        service = self._fleet.grid._services.get(service_id)
        if service is not None:
            service.announce([server])
            self._fleet.processes.begin(server)
        return server

    def _take_results(self, server: KernelServer, peer: int, past: Past) -> None:
        for call, frame in sorted(past.calls.items()):
            result: Result = Result.again(server, self._fleet.link, method_of(frame), call)
            result.name = past.names.get(call)
            result.claim = self._keep.claims.claim(peer, call)
            self._keep.claims.hold(result)
            self._results.append(weakref.ref(result))
            reply = past.replies.get(call)
            if reply is None and peer == server.number:
                self._pending[server.name][call] = result
            elif reply is None:
                what = f"the result of call {call} of server {server.name} got lost as it moved"
                result.fail(SessionError(what, hint="The call has run; the server has its effects"))
            else:
                _, flags, _, _, _, _, _, seconds, _ = HEAD.unpack_from(reply)
                result.deliver(flags, seconds, reply)

    # -- hosts -------------------------------------------------------------------------------------------------------

    def _resume(self, number: int) -> None:
        """Thread: take a host's agent over."""
        try:
            self._take_over(number)
        finally:
            with self._moved:
                self._asked.discard(number)
                self._moved.notify_all()

    def _take_over(self, number: int) -> None:
        home, fact = self._homes[number]
        who = f"{script_name()}, process {os.getpid()} on {socket.gethostname()}"
        self._fleet.processes.expect_agent(number, home)
        try:
            answer = home.resume(fact, who)
        except (HostError, SessionError, OSError) as exc:
            self._fleet.processes.remove(number)
            self._not_there(number, exc)
            return
        self._fleet.grid.failures.pop(home.host.label, None)
        self._keep.home_up(home.host, home.facts())
        for known in self._results:
            result = known()
            if result is not None and result.server.home is home:
                result._blobs = home.blobs
        result = None
        with self._moved:
            self._away.pop(number, None)
            for name, server in self._servers.items():
                if server.home is home and name not in answer["servers"]:
                    self._coming.discard(name)
                    if server.final_state is None and not server.connected:
                        self._fleet.errand(_later(self._ended, server, answer["ended"].get(name)))
            self._moved.notify_all()

    def _not_there(self, number: int, exc: Exception) -> None:
        home, fact = self._homes[number]
        dead = bool(home.ended) or (home.local and start_ticks(fact["report"]["pid"]) is None)
        refused = isinstance(exc, SessionError)
        if self._fleet.halted:
            return
        self._fleet.grid.failures[home.host.label] = exc
        if not dead and not refused:
            logger.warning("%s", exc)
        for name, server in self._servers.items():
            if server.home is home:
                with self._moved:
                    self._coming.discard(name)
                if dead and server.final_state is None:
                    self._fleet.errand(_later(self._ended, server, None))
        with self._moved:
            if not dead and not refused:
                self._away[number] = time.monotonic() + _AGAIN_S
            self._moved.notify_all()

    def look(self) -> None:
        """In the watch's thread, now and then: ask again who did not answer; give up when the time has passed."""
        now = time.monotonic()
        over = now - self._began > self._keep.keep_s
        for number, at in list(self._away.items()):
            ended = bool(self._homes[number][0].ended)
            if now < at and not ended:
                continue
            del self._away[number]
            if over or ended:
                for server in self._servers.values():
                    if server.home is self._homes[number][0] and server.final_state is None:
                        self._fleet.errand(_later(self._ended, server, None))
            else:
                self._fleet.in_thread("grid-resume", self._resume, number)

    def wait(self, timeout_s: float) -> None:
        """Until all hosts have answered, or have not, and all servers of those that did have attached."""
        deadline = time.monotonic() + timeout_s
        with self._moved:
            while (self._coming or self._asked) and (left := deadline - time.monotonic()) > 0:
                self._moved.wait(left)

    # -- servers -----------------------------------------------------------------------------------------------------

    def attached(
        self, home: Home, name: str, number: int, inlet: str, outlet: str, numbers: tuple[int, int, int]
    ) -> None:
        """In the grid's thread: a server listens to us now. `numbers`: what it received, posted, and we confirmed."""
        fleet, service_id = self._fleet, name.rpartition("/")[0]
        server = self._servers.get(name)
        if server is None and service_id in fleet.grid._services:
            server = self._known(name, service_id, number, home)
        if server is None or server.final_state is not None or server.service is None or fleet.halted:
            if home.up:
                home.ask_later("stop", [name], True)  # its service was withdrawn, and nobody could tell it
            self._arrived(name)
            return
        self._keep.server_up(server, home.number)
        pending = self._pending.pop(name, {})
        past = self._past.peers.get(number) or Past()
        lost = [pending.pop(call) for call in list(pending) if call <= numbers[2]]
        try:
            peer = home.attach(number, inlet, outlet, lambda peer: go_on(peer, past, pending, numbers))
        except GridError as exc:
            self._pending[name] = pending
            self._lost(server, f"it can't be connected to ({exc})")
            self._arrived(name)
            return
        for result in (*pending.values(), *lost):
            result._blobs = home.blobs
        server.attach(fleet.link, peer, {})
        fleet.processes.add_known(number, server, home)
        fleet.processes.end_start(name)
        home.has_served()
        server.service.add(server)  # type: ignore[attr-defined]
        if pending:  # free when the calls that it has have ended
            proxy = server.service.at_once(server)  # type: ignore[attr-defined]
            if proxy is not None:
                server.service.release(proxy)  # type: ignore[attr-defined]
        for result in lost:
            what = f"the result of call {result.call} of server {name} was in a damaged part of the session's file"
            result.fail(SessionError(what, hint="The call has run; the server has its effects"))
        fleet.notify()
        self._arrived(name)

    def _arrived(self, name: str) -> None:
        with self._moved:
            self._coming.discard(name)
            self._moved.notify_all()

    def _ended(self, server: KernelServer, certificate: dict[str, Any] | None) -> None:
        """In the grid's thread: it is not there any more."""
        if server.final_state is None and not server.connected:
            ended = server.home.ended  # type: ignore[attr-defined]
            what = "it ended while no client was there" if certificate else ended or "it has ended; nobody knows how"
            self._losses.lose_server(server, what, certificate)
            self._lost(server, what, certificate)

    def _lost(self, server: KernelServer, what: str, certificate: dict[str, Any] | None = None) -> None:
        """Its calls that have no result will have none."""
        known = certificate or {}
        error = ServerLost(
            what,
            service_id=server.service_id,
            server=server.name,
            host=server.host.label,
            hint="The call was not repeated",
            exit_status=known.get("exit_status"),
            signal=known.get("signal"),
            last_output=known.get("last_output", ""),
        )
        for result in self._pending.pop(server.name, {}).values():
            result.fail(error)
            self._fleet.link.rouse(result)


def _later(what: Any, *args: Any) -> Any:
    return lambda: what(*args)


def go_on(peer: Peer, past: Past, pending: dict[int, Result], numbers: tuple[int, int, int]) -> None:
    """Set a link to where the server stands. `numbers`: what it received, posted, and an earlier client confirmed.

    Calls that it lacks are in `past`, or, where the log was damaged, lost: such a number gets a call that does nothing.
    """
    session, (received, _, confirmed) = peer.session, numbers
    session.received = session.acked = max(past.received, confirmed)
    session.posted = session.sent = max(past.posted, received)
    session.confirmed = received
    for number in range(received + 1, session.posted + 1):
        frame = past.calls.get(number)
        if frame is None:
            nothing = codec.dumps(("@nothing", (), {})).data
            frame = pack(Kind.CALL, peer.number, number, session.received, number, nothing, seconds=session.epoch)
        session.kept[number] = stamped(frame, session.epoch)
    peer.pending.update(sorted(pending.items()))


def stamped(frame: bytes, epoch: int) -> bytes:
    """The same message from the client of another epoch."""
    return frame[:32] + struct.pack("<d", epoch) + frame[40:]


def method_of(frame: bytes) -> str:
    """The method that a call names; not loading anything of it."""
    try:
        call = unpack(frame)
        words: Any = call.pickle
        if call.flags & BULK:
            _, _, words = bulk.split(call.pickle)
        for _, value, _ in pickletools.genops(bytes(words)):
            if isinstance(value, str):
                return value
    except (FrameError, ValueError, IndexError, KeyError):
        pass
    return "?"
