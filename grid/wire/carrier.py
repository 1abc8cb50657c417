"""What carries frames between a client and the processes of its hosts, as a link sees it.

A carrier takes frames in order and never waits. It may lose them when a connection breaks, and may bring one twice:
`session` makes up for both. It knows nothing of what is in a frame. How the host's end listens, and how its addresses
are spelled, is its own affair: `inlet` and `outlet` are texts that the host's end made and the client's understands.

    client                                host
    ClientCarrier.way(inlet)  ──calls──>  HostCarrier.receive
    ClientCarrier.receive   <──replies──  HostCarrier.send      (attach(outlet): one inbox for all processes)

Lives here: what each end of a carrier must do.
Elsewhere:  the carrier that we use (`zeromq`), numbers and repetition (`session`), who sends and receives when (`link`,
            `kernel/hostend.py`).
"""

from __future__ import annotations

from typing import Any, Protocol

from grid.wire.keys import Keys


class Closed(Exception):
    """The carrier was closed while somebody received."""


class Carrier(Protocol):
    """The outgoing side of either end."""

    def send(self, data: bytes) -> Any:
        """Take one frame; it is lost where there is no connection. One thread at a time."""


class Way(Carrier, Protocol):
    """From a client to one process. Frames wait here while there is no connection."""

    def lead(self, inlet: str) -> None:
        """Go elsewhere from now on. What was under way may be lost."""

    def close(self) -> None:
        """Drop what is under way."""


class Inbox(Protocol):
    """The incoming side of either end. One thread at a time."""

    patience_ms: int
    """How long `receive` waits, in milliseconds."""

    def receive(self) -> bytes | None:
        """The next frame; None if none comes in time. Closed: it was closed meanwhile."""

    def receive_now(self) -> bytes | None:
        """The next frame that has arrived, if one has."""

    def close(self) -> None:
        """End it, at once."""


class ClientCarrier(Inbox, Protocol):
    """A client's end: one way out to each process, one inbox for all of them."""

    bell: Any
    """What a poller watches: readable when there is news of connections."""

    def way(self, inlet: str, keys: Keys | None) -> Way:
        """A way to the process that listens there; does not wait for the connection."""

    def attach(self, number: int, outlet: str, keys: Keys | None) -> None:
        """Receive what process `number` sends there. The thread that receives calls this."""

    def detach(self, number: int) -> None:
        """Receive nothing more of it; unknown numbers are ignored. The thread that receives calls this."""

    def rouse(self, frame: bytes) -> None:
        """From any thread: have `receive` return this frame soon."""

    def news(self) -> tuple[int, bool] | None:
        """The next change of a connection that brings frames here: (process, whether it stands now); None: no more."""

    def forked(self) -> None:
        """In a forked child: it is the parent's; `rouse` does nothing."""


class Waker(Protocol):
    """Ends a wait of a host's end."""

    def wake(self) -> None:
        """Have `receive` return with an empty frame."""

    def close(self) -> None:
        """Nobody will be woken any more."""


class HostCarrier(Carrier, Inbox, Protocol):
    """The end of one process on a host. `close` gives what was sent some time to be on its way."""

    bell: Any
    """What a poller watches: readable when there is something to receive."""

    def send_patiently(self, data: bytes) -> None:
        """The same as `send`, and waits a moment for a connection."""

    def admitted(self) -> bool:
        """Whether the client is connected for replies now, and has proved who it is."""

    def change_outlet(self, epoch: int) -> str:
        """Send from another outlet from now on, and return it: who is connected to the old one gets no more."""

    def waker(self) -> Waker:
        """Made in the thread that receives; one other thread wakes and closes."""
