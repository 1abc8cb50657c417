"""The host's end of one link: its carrier and its session. The counterpart of `wire/link.py`.

A server and an agent each have one. It takes a message only if it is the next in turn, so that no call runs twice, and
keeps what it sent until the client has it (`wire/session.py`).

Replies to calls that came in one batch go back in batches, too (`holding`): a thread sees to it that none is held for
longer than `_HOLD_S`, and `let_go` sends them at once, which a server does before a call that may take long. What is
held is the outbox of the session.

An exception of a handler that the user's code installed may come here, too: what `take` has accepted is in `due` until
its reply is posted, so that a server which was torn out of its loop goes on where it was (`recover`).

Lives here: `take`, `reply`, `event`, what is held back and for how long.
Elsewhere:  what a call does (`serve`, `requests`), what brings frames over (`wire/carrier.py`), numbers and repetition
            (`wire/session.py`), layout (`wire/frames.py`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from grid.wire.carrier import HostCarrier
from grid.wire.frames import BATCH, SMALL, Frame, FrameError, Kind, pack, split, unpack
from grid.wire.session import Session, first_call

logger = logging.getLogger(__name__)


SETTLES_S = 0.02
"""After it was handed over no message of the old client is taken any more."""
_HOLD_S = 0.002
"""A reply is held back for less than twice this."""
_BATCH = bytes([Kind.BATCH])
_MESSAGE = 8192
"""What `unconfirmed` counts for a message besides its bytes: small ones are many, and cost more than these."""
_MANY = 4096
_REST = 25
"""After this many looks without a held reply the watching thread sleeps."""


class HostEnd:
    """See the module. One thread at a time. Its maker has its carrier listen, and receives from it."""

    def __init__(self, carrier: HostCarrier, peer: int, epoch: int = 0) -> None:
        self.peer = peer
        self.carrier = carrier
        self.session = Session(peer, epoch)
        self.due: dict[int, Frame] = {}  # calls that were taken and have no reply yet, by number
        self.said_bye = False
        self.said_hello = False
        self._pushing = threading.Lock()  # owner of the carrier's outgoing side and of the outbox
        self._holding = False
        self._something_held = threading.Event()
        self._watcher: threading.Thread | None = None
        self._closed = False

    def admitted(self) -> bool:
        """Whether the client is connected for replies now: one that has shown its key, and answers heartbeats."""
        with self._pushing:
            return self.carrier.admitted()

    @property
    def unconfirmed(self) -> int:
        """About how many bytes of memory hold messages that the client has not confirmed."""
        kept = self.session.kept
        return len(kept) * _MESSAGE if len(kept) > _MANY else sum(_MESSAGE + len(frame) for frame in kept.values())

    def take(self, data: bytes) -> list[Frame]:
        """Look at a message that arrived: the calls that are due; several, if it was a batch. `due` has them, too."""
        if data[:1] != _BATCH:
            return self._due([data])
        try:
            return self._due([part for part in split(data) if part[:1] != _BATCH])
        except FrameError as exc:
            logger.warning("a batch is dropped: %s", exc)
            return []

    def _due(self, messages: list[bytes]) -> list[Frame]:
        due = []
        for data in messages:
            try:
                # buffers must be writable
                frame = self._look_at(unpack(bytearray(data) if len(data) > 65_536 or data[2:3] > b"\0" else data))
            except FrameError as exc:  # those before it were taken, and must not be lost with it
                logger.warning("a message is dropped: %s", exc)
                continue
            if frame is not None:
                due.append(frame)
        return due

    def _look_at(self, frame: Frame) -> Frame | None:
        session, number = self.session, frame.seq
        if frame.seconds != session.epoch:
            return None  # of a client whose place another one has taken
        session.confirm(frame.ack)
        if frame.kind == Kind.CALL:
            if session.is_next(number):
                # together, so that no exception comes between them: a call is taken when it is sure to be run
                self.due[number], session.received = frame, number
                return frame
            if session.is_gap(number):
                self._welcome()
        elif frame.kind == Kind.HELLO:
            self.said_hello = True
            self._welcome()
            with self._pushing:
                session.rewind(frame.ack)
            self.let_go()
        elif frame.kind == Kind.BYE:
            self.said_bye = True
        return None

    # -- another client takes its place ----------------------------------------------------------------------------

    def hand_over(self, epoch: int) -> str:
        """From now on only the client of this epoch is heard, and told anything. Any thread; returns the new outlet.

        Numbers go on where they are: what it posts comes after `session.received`. The thread that receives may just
        be taking a message of the old client, so that number counts a moment (`SETTLES_S`) later.
        """
        with self._pushing:
            outlet = self.carrier.change_outlet(epoch)
            self.session.epoch = epoch
        return outlet

    def begin_anew(self, epoch: int, last_word: bytes, comes_again: Callable[[memoryview], bool]) -> str:
        """The same, with new numbers: calls of the old client get no answers. Events that `comes_again` picks do.

        Only for who receives and answers in one thread.

        Args:
            last_word: An event for the old client.
        """
        told = [unpack(frame) for frame in self.session.kept.values() if frame[0] == Kind.EVENT]
        self.event(last_word)
        with self._pushing:
            outlet = self.carrier.change_outlet(epoch)
            self.session = Session(self.peer, epoch)
            self.session.received = first_call(epoch)
            self.due.clear()
        for frame in told:
            if comes_again(frame.pickle):
                self.event(bytes(frame.pickle))
        return outlet

    def recover(self) -> None:
        """We were torn out of receiving: have repeated what got lost by that."""
        self._holding = False
        self._welcome()
        self.let_go()

    def _welcome(self) -> None:
        with self._pushing:
            self.carrier.send_patiently(self.session.welcome())  # if it is lost the client asks again

    # -- holding back ----------------------------------------------------------------------------------------------

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Let small replies wait for each other until the end of the block."""
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="grid-held", daemon=True)
            self._watcher.start()
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
            self.let_go()

    def let_go(self) -> None:
        """Send what is held."""
        if self.session.waiting:
            with self._pushing:
                self.session.flush(self.carrier)

    def _watch(self) -> None:
        """Thread: nothing is held for long, whatever the call that runs meanwhile does."""
        while not self._closed:
            self._something_held.wait()
            idle = 0
            while idle < _REST and not self._closed:
                sent = self.session.sent
                time.sleep(_HOLD_S)
                if not self.session.waiting:
                    idle += 1
                elif sent == self.session.sent:
                    self.let_go()
            self._something_held.clear()
            if self.session.waiting:  # just now
                self._something_held.set()

    def reply(
        self,
        call: int,
        data: bytes,
        buffers: Sequence[memoryview] = (),
        flags: int = 0,
        seconds: float = 0.0,
        cost: bytes = b"",
    ) -> None:
        """Send the outcome of `call`."""
        self._send(Kind.REPLY, call, data, buffers, flags, seconds, cost)

    def event(self, data: bytes) -> None:
        """Send news that nobody asked for."""
        self._send(Kind.EVENT, 0, data, (), 0, 0.0)

    def _send(
        self,
        kind: int,
        call: int,
        data: bytes,
        buffers: Sequence[memoryview],
        flags: int,
        seconds: float,
        cost: bytes = b"",
    ) -> None:
        session = self.session
        with self._pushing:
            number = session.posted + 1
            frame = pack(kind, self.peer, number, session.received, call, data, buffers, flags, seconds, cost)
            session.post(frame)
            self.due.pop(call, None)
            if not self._holding or len(frame) > SMALL or session.waiting >= BATCH:
                if session.sent == number - 1:
                    self.carrier.send(frame)
                    session.sent = number
                else:
                    session.flush(self.carrier)
                return
        if not self._something_held.is_set():
            self._something_held.set()

    def close(self) -> None:
        """Send what is held, and close the carrier."""
        self.let_go()
        self._closed = True
        self._something_held.set()
        with self._pushing:
            self.carrier.close()
