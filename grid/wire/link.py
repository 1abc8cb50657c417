"""The client's end of all links: calls out, replies in, nothing lost and nothing twice.

    caller ── way ──> server 1         One way for each process on a host (its owner: whoever holds the peer's lock),
    caller ── way ──> server 2         one inbox for all replies (its owner: whoever holds `_incoming`).
    leader <── inbox ── all of them

Whoever waits for a result *leads*: it takes replies out of the inbox, for everybody, until its own is there. Others
that wait follow, and one of them is roused when the leader leaves. So a caller that waits for its own reply pays for no
thread switch (measured: an I/O thread between caller and socket adds 25 to 60 us to each call). When nobody waits, the
grid's own thread leads (`collect`), and yields as soon as somebody wants the lead.

A link outlives its connection: after a reconnect, or when a gap shows, HELLO and WELCOME tell where to go on (see
`session`).

**Exceptions at any byte code.** `call` and `wait` run in the user's main thread, where Ctrl-C, an alarm or another
handler may raise after every call and at the end of every loop. So here

- locks are taken by `with`, or by a `for` over `iter(try_lock, False)`: the interpreter looks for signals neither
  between the lock and the block that releases it (bpo-29988, since Python 3.10), nor between `__next__` and the body;
- what is left half done is marked before it is begun, and done by whoever comes next: `_torn` (somebody was torn out
  of receiving: a message may be lost, so all peers are asked), `Peer.delivering` (this reply was on its way to its
  result), `_dirty` (a peer has something to send).

Lives here: who leads, when outboxes are sent.
Elsewhere:  what a message means (`arrivals`), numbers, acknowledgement, repetition (`session`), what brings frames over
            (`carrier`), one process (`peer`), what a result is (`services/result.py`), who is lost (`grids/`), the
            other end (`kernel/hostend.py`).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from grid.errors import Backlog, ConnectError, GridStopped, fork_error
from grid.limits import Limits, checked_timeout
from grid.wire import bulk
from grid.wire.arrivals import Arrivals, hand_batons
from grid.wire.callbacks import CallBacks
from grid.wire.carrier import ClientCarrier, Closed
from grid.wire.codec import Dumped
from grid.wire.frames import BATCH, BULK, CALL, HEAD, IMAGE, SMALL, Kind, pack
from grid.wire.keys import Keys
from grid.wire.peer import Moment, Peer, Pending
from grid.wire.zeromq import RECONNECT_S, ClientSockets

__all__ = ["RECONNECT_S", "Link", "Peer", "Pending"]

logger = logging.getLogger(__name__)

_TICK_S = 0.002
"""While callers lead, the grid's thread looks this often whether it is needed. Costs 0.3 % of a core, only then."""
_ALONE = 8
"""So many calls to one server go each at once; beyond that the server has enough to do until a batch is full."""
_DRAIN = 1000
_PATIENCE_MS = 500
"""A leader without a time limit looks up this often."""
_FOLLOW_S = 0.25
"""A follower looks this often whether somebody leads: one that was torn off may not have handed the lead over."""


class Link:
    """All links of one grid. Thread-safe.

    Args:
        carrier: What brings frames over; sockets of ZeroMQ by default.
        epoch: Which client of its processes it is: the first, or one that took the place of others.
        first: The number of the first process that will be connected.
        clock: What tells the time, in seconds, never backwards.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        carrier: ClientCarrier | None = None,
        clock: Callable[[], float] = time.monotonic,
        epoch: int = 0,
        first: int = 1,
    ) -> None:
        self._limits, self.epoch = limits, epoch
        self._clock = clock
        self._carrier: ClientCarrier = ClientSockets(limits) if carrier is None else carrier
        self._carrier.patience_ms = _PATIENCE_MS
        self._peers: dict[int, Peer] = {}
        self._numbers = iter(range(first, 1 << 32))
        self._numbers_lock = threading.Lock()
        # the leader
        self._incoming = threading.Lock()  # held by the leader, which receives
        self._try_lead = partial(self._incoming.acquire, False)
        self._torn = False  # somebody leads, or was torn out of leading: see the module
        self._turnstile = threading.Lock()  # held by a thread that needs the inbox for something else
        self._wanted = 0
        self._queueing = threading.Lock()
        self._followers: deque[Any] = deque()
        self._collector_leads = False
        self._dirty: deque[Peer] = deque()  # whose outboxes are not empty
        self._shooed = False  # a caller would rather take replies in itself
        # what the grid's thread does outside the lead
        self._errands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._rouse = threading.Event()
        self.callbacks = CallBacks()
        self._closed = self._foreign = False
        self.on_event: Callable[[Peer, Any], None] = lambda peer, event: None
        self.on_welcome: Callable[[Peer], None] = lambda peer: None
        self.on_connection: Callable[[Peer, bool], None] = lambda peer, up: None
        self._arrivals = Arrivals(self, self._peers, clock, self.errand, self._hello)
        self._take_in = self._arrivals.take_in

    # -- peers -----------------------------------------------------------------------------------------------------

    def number(self) -> int:
        """A number for the next process that will be connected."""
        with self._numbers_lock:
            return next(self._numbers)

    def connect(
        self,
        number: int,
        inlet: str,
        outlet: str,
        keys: Keys | None,
        blobs: bulk.Blobs | None,
        prepare: Callable[[Peer], None] | None = None,
    ) -> Peer:
        """Connect to the process `number` that listens at `inlet` and sends at `outlet`; does not wait.

        HELLO is said once replies have a way back, see `read_monitor`.

        Args:
            prepare: Called before anything can arrive.
        """
        peer = Peer(number, self._carrier.way(inlet, keys), (inlet, outlet), self.epoch)
        peer.blobs, peer.keys = blobs, keys
        if prepare is not None:
            prepare(peer)
        with self._own_incoming():
            self._peers[number] = peer
            self._carrier.attach(number, outlet, keys)
        return peer

    def drop(self, peer: Peer, error: BaseException) -> None:
        """Forget a process: its outstanding calls fail with `error`, its sockets are closed."""
        with peer.lock:
            if peer.closed is not None:
                return
            peer.closed = peer.refuses = error
            peer.way.close()
            waiting = list(peer.pending.values())
            peer.pending.clear()
            peer.session.kept.clear()
        if not self._closed:
            with self._own_incoming():
                self._peers.pop(peer.number, None)
                self._carrier.detach(peer.number)
        for pending in waiting:
            pending.fail(error)
            self.rouse(pending)

    def peers(self, numbers: Iterable[int]) -> list[Peer]:
        """Those of these processes that are still there."""
        return [self._peers[number] for number in list(numbers) if number in self._peers]

    def reroute(self, peer: Peer, inlet: str, outlet: str) -> None:
        """A process is reached another way now; what was under way is repeated after HELLO and WELCOME."""
        with peer.lock:
            if peer.closed is not None:
                return
            peer.way.lead(inlet)
        with self._own_incoming():
            self._carrier.detach(peer.number)
            peer.endpoints = (inlet, outlet)
            peer.connected = False
            self._carrier.attach(peer.number, outlet, peer.keys)

    def _hello(self, peer: Peer) -> None:
        peer.asked_at = self._clock()
        with peer.lock:
            if peer.closed is None:
                peer.send(peer.session.hello())

    def bye(self, peer: Peer) -> None:
        """Ask a process to end after the calls that it has."""
        with peer.lock:
            if peer.closed is None:
                peer.send(pack(Kind.BYE, peer.number, 0, peer.session.received, seconds=peer.session.epoch))

    # -- calls -----------------------------------------------------------------------------------------------------

    def call(
        self,
        peer: Peer,
        dumped: Dumped,
        pending: Pending,
        image: bytes | None = None,
        flags: int = 0,
        *,
        then: BaseException | None = None,
    ) -> int:
        """Send one call and return its number; the reply goes to `pending`. Waits only if too much is under way.

        Args:
            then: It is the last one: later ones raise this.
        Raises:
            Backlog: The process had `in_flight` calls unanswered and answered none within `send_s`.
            The error that the peer was dropped with, or its `refuses`.
        """
        data, buffers = dumped.data, dumped.buffers
        beside = 0
        if (buffers or len(data) >= bulk.LARGE) and peer.blobs is not None:
            whole = len(data) + sum(map(len, buffers))
            data, buffers, flags = bulk.put_apart(peer.blobs, data, buffers, flags)
            if flags & BULK:
                beside = whole - len(data)
                peer.session.tally.sent += beside
        if image is not None:
            flags |= IMAGE
            buffers = [memoryview(image), *buffers]
        under_way, session = peer.pending, peer.session
        if len(under_way) >= self._limits.in_flight:
            self._wait_for_room(peer)
        try:
            with peer.lock:
                if peer.refuses is not None:
                    raise peer.refuses
                seq = session.posted + 1
                received = session.received
                if buffers:
                    frame = pack(CALL, peer.number, seq, received, seq, data, buffers, flags, session.epoch)
                else:
                    frame = _HEAD(CALL, flags, 0, peer.number, seq, received, seq, session.epoch, len(data)) + data
                pending.call = seq
                pending.size = len(frame) + beside
                session.post(frame)
                under_way[seq] = pending
                if then is not None:
                    peer.refuses = then
                session.acked = received
                ahead = len(under_way)
                if ahead < _ALONE or len(frame) > SMALL or then is not None:
                    if session.sent == seq - 1:
                        peer.way.send(frame)
                        session.sent = seq
                        session.tally.sent += len(frame)
                    else:
                        session.flush(peer.way)
                else:
                    waits = seq - session.sent
                    if waits >= BATCH or 4 * waits >= ahead:
                        session.flush(peer.way)
                    elif not peer.dirty:
                        self._dirty.append(peer)
                        peer.dirty = True
                        self._shoo()
        except BaseException:  # of the user's, in between: it may be posted and not sent
            self._dirty.append(peer)
            self._shoo()
            raise
        if not ahead & 127:  # a burst: take replies in between, or they pile up
            self._collect_now()
        return seq

    def flush(self) -> None:
        """Send all that was called, now."""
        self._flush_all()

    def _flush_all(self) -> None:
        """Send what waits in outboxes. Called before every wait, and by the grid's thread every few ms."""
        dirty = self._dirty
        while dirty:
            try:
                peer = dirty[0]
            except IndexError:
                return
            with peer.lock:
                peer.dirty = False
                if peer.closed is None:
                    peer.session.flush(peer.way)
            try:
                dirty.remove(peer)  # only now, so that nobody forgets it
            except ValueError:
                pass  # another thread did the same

    def _wait_for_room(self, peer: Peer) -> None:
        deadline = self._clock() + self._limits.send_s
        while len(peer.pending) >= self._limits.in_flight:
            try:
                # one that was cancelled is done, and still takes up room until its server says so
                oldest = next((each for each in peer.pending.values() if not each.done_flag), None)
            except RuntimeError:  # replies come in meanwhile
                continue
            if oldest is None:
                over = self._clock() >= deadline
                self.wait(Moment(), 0.01)
            else:
                over = not self.wait(oldest, deadline - self._clock())
            if over:
                raise Backlog(
                    f"{len(peer.pending)} calls wait on one server, and none ended within {self._limits.send_s:g} s",
                    hint="Fetch results before making more calls, or raise Limits.in_flight",
                )

    # -- the leader ------------------------------------------------------------------------------------------------

    def wait(self, pending: Pending, timeout: float | None = None) -> bool:
        """Wait until `pending` is done, taking in replies for everybody meanwhile. False after `timeout` seconds."""
        if pending.done_flag:
            return True
        if self._foreign:
            raise fork_error()
        deadline = None
        if timeout is not None and (timeout := checked_timeout(timeout)) is not None:
            deadline = self._clock() + timeout
        while True:
            if self._dirty:
                self._flush_all()
            led = False
            try:
                for led in iter(self._try_lead, False):  # noqa: B007 - it is set before any exception can come
                    self._lead(pending, deadline)
                    break
            finally:
                if led:
                    self._incoming.release()
                    self._hand_over()
            if led:
                if pending.done_flag:
                    return True
                if deadline is not None and self._clock() >= deadline:
                    return False
                if self._closed:
                    raise GridStopped("the grid was terminated", hint="Its results are gone; start another grid")
                with self._turnstile:  # a thread that needs the socket takes it now
                    continue
            if self._follow(pending, deadline):
                return True
            if deadline is not None and self._clock() >= deadline:
                return pending.done_flag

    def _follow(self, pending: Pending, deadline: float | None) -> bool:
        baton = threading.Lock()
        baton.acquire()
        try:
            with self._queueing:
                if pending.batons is None:
                    pending.batons = []
                pending.batons.append(baton)
                self._followers.append(baton)
            if self._collector_leads:
                self._rouse_leader()
            if not self._incoming.locked():  # the leader left before we stood in line
                self._hand_over()
            if not pending.done_flag:
                remaining = _FOLLOW_S if deadline is None else min(_FOLLOW_S, max(0.0, deadline - self._clock()))
                baton.acquire(timeout=remaining)
        finally:
            try:
                self._followers.remove(baton)
            except ValueError:  # we were asked to lead; if we need not, another must
                if pending.done_flag:
                    self._hand_over()
            try:
                (pending.batons or []).remove(baton)
            except ValueError:
                pass
        return pending.done_flag

    def _hand_over(self) -> None:
        while self._followers and not self._incoming.locked():
            try:
                self._followers.popleft().release()
                return
            except (IndexError, RuntimeError):
                continue

    def rouse(self, waiter: Pending) -> None:
        """Wake all threads that wait for `waiter`, which something else than a reply has finished."""
        hand_batons(waiter)
        if self._incoming.locked():
            self._rouse_leader()  # it may be the very one that waits

    def _lead(self, pending: Pending | None, deadline: float | None) -> None:
        """Take in replies until `pending` is done, the time has passed, or another thread needs the socket."""
        if self._torn:
            self._ask_all()
        self._torn = True
        self._receive(pending, deadline)
        self._torn = False

    def _ask_all(self) -> None:
        """Somebody was torn out of receiving: a message may have been taken off the socket and lost."""
        self._carrier.patience_ms = _PATIENCE_MS
        for peer in list(self._peers.values()):
            if peer.welcomed.is_set():
                self._hello(peer)

    def _receive(self, pending: Pending | None, deadline: float | None) -> None:
        carrier = self._carrier
        receive = carrier.receive
        timed = False
        while not (pending is not None and pending.done_flag) and not self._wanted and not self._closed:
            if pending is None and (self._followers or self._shooed or self._dirty or not self._errands.empty()):
                break
            if deadline is not None:
                remaining = deadline - self._clock()
                if remaining <= 0:
                    break
                if remaining * 1000 < _PATIENCE_MS:
                    timed = True
                    carrier.patience_ms = max(1, int(remaining * 1000))
            try:
                data = receive()
            except Closed:
                if self._closed:
                    return
                raise
            if data is None:
                continue
            if self._take_in(data) and pending is not None and pending.done_flag:
                self._drain()  # more are under way; what is here already costs less now than one by one
        if timed and not self._closed:
            carrier.patience_ms = _PATIENCE_MS

    def _drain(self) -> None:
        """Take in what has arrived, without waiting; the caller leads."""
        receive, take_in = self._carrier.receive_now, self._take_in
        for _ in range(_DRAIN):
            data = receive()
            if data is None or not take_in(data):
                return

    def _collect_now(self) -> None:
        if self._collector_leads:
            self._shoo()
            return
        led = False
        try:
            for led in iter(self._try_lead, False):  # noqa: B007 - as in `wait`
                if self._torn:
                    self._ask_all()
                self._torn = True
                self._drain()
                self._torn = False
                break
        finally:
            if led:
                self._incoming.release()
                self._hand_over()

    def _shoo(self) -> None:
        """Have the grid's thread stop leading for some ms: a caller takes replies in itself, or has filled an outbox.

        Two threads that send and receive by turns wait for each other's interpreter lock: 2 to 4 times slower.
        """
        if self._collector_leads and not self._shooed:
            self._shooed = True
            self._rouse_leader()

    @contextmanager
    def _own_incoming(self) -> Iterator[None]:
        """Have the inbox for something else than receiving."""
        with self._turnstile:
            self._wanted += 1
            try:
                self._rouse_leader()
                if not self._incoming.acquire(timeout=30.0):
                    raise ConnectError("the receiving thread does not yield", host="client", hint="Please report this")
                try:
                    yield
                finally:
                    self._incoming.release()
            finally:
                self._wanted -= 1
        self._hand_over()

    def _rouse_leader(self) -> None:
        if not self._closed:
            self._carrier.rouse(_WAKE)

    # -- the grid's own thread -------------------------------------------------------------------------------------

    def errand(self, what: Callable[[], None]) -> None:
        """Have `what` done by the grid's thread, in order, outside the lead."""
        self._errands.put(what)
        if self._collector_leads:
            self._rouse_leader()
        self._rouse.set()

    def collect(self) -> None:
        """Body of the grid's thread: lead while nobody else does, do errands; returns when the link is closed."""
        while not self._closed:
            if self._incoming.acquire(False):
                self._collector_leads, self._shooed = True, False
                try:
                    self._flush_all()
                    self._lead(None, None)
                finally:
                    self._collector_leads = False
                    self._incoming.release()
                    self._hand_over()
            taken = -1
            while not self._closed and (self._incoming.locked() or self._wanted or taken != self._arrivals.taken):
                self._run_errands()
                self._flush_all()
                taken = self._arrivals.taken
                self._rouse.wait(_TICK_S)
                self._rouse.clear()
            self._run_errands()
        self._run_errands()

    def _run_errands(self) -> None:
        while True:
            try:
                errand = self._errands.get_nowait()
            except queue.Empty:
                return
            try:
                errand()
            except Exception:
                logger.exception("an errand of the grid's thread failed")

    # -- health ----------------------------------------------------------------------------------------------------

    @property
    def monitor(self) -> Any:
        """For a poller: readable when a connection came or went. Only `read_monitor`'s caller touches it."""
        return self._carrier.bell

    def read_monitor(self) -> None:
        """Take all news of connections; `on_connection(peer, up)` is called for each that changed."""
        while (news := self._carrier.news()) is not None:
            peer = self._peers.get(news[0])
            if peer is None or peer.connected == news[1]:
                continue
            peer.connected = news[1]
            if peer.connected:
                self._hello(peer)
            self.on_connection(peer, peer.connected)

    def housekeep(self) -> None:
        """To be called every heartbeat or so: acknowledge what is not yet, ask again where nothing comes."""
        now = self._clock()
        for peer in list(self._peers.values()):
            if not peer.welcomed.is_set() and peer.connected:
                self._hello(peer)
            elif (
                peer.pending and peer.session.received == peer.heard and now - peer.asked_at >= self._limits.heartbeat_s
            ):
                self._hello(peer)  # a lost message shows in the WELCOME
            elif peer.session.received != peer.session.acked or (peer.beats and peer.connected):
                self._arrivals.acknowledge(peer)
            peer.heard = peer.session.received

    def close(self, why: BaseException | None = None) -> None:
        """Drop all peers and end the sockets. Idempotent; bounded. `why`: the error of calls without a reply."""
        if self._closed:
            return
        why = why or GridStopped("the grid was terminated", hint="Its results are gone; start another grid")
        for peer in list(self._peers.values()):
            self.drop(peer, why)
        with self._own_incoming():
            self._closed = True
        self._rouse.set()

    def forked(self) -> None:
        """In a forked child: no call, no wait. The threads that would release these locks are the parent's."""
        self._foreign = self._closed = True
        self._incoming, self._turnstile, self._queueing = (threading.Lock() for _ in range(3))
        self._try_lead = partial(self._incoming.acquire, False)
        for peer in list(self._peers.values()):
            peer.lock = threading.Lock()
            peer.refuses = peer.closed = fork_error()
        self._dirty.clear()
        self._carrier.forked()

    def destroy(self) -> None:
        """Free the carrier; after the threads that used it have ended."""
        self.callbacks.close(self._limits.stop_s)
        with self._incoming:
            self._carrier.close()


_WAKE = pack(Kind.WAKE, 0, 0, 0)
_HEAD = HEAD.pack
