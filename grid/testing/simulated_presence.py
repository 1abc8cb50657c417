"""A simulated host's agent, as far as it asks itself whether its client is still there.

Real are its end of the link, `Presence`, and the client's heartbeats. Strangers connect and hang up as they please: the
host's sockets notice, as real ones do, and nothing may follow from it.

Lives here: `Lifeline`. Elsewhere: the world (`simulation.py`), hosts (`simulated_hosts.py`), cables (`cables.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from grid.errors import ConnectError
from grid.kernel.hostend import HostEnd
from grid.kernel.presence import Presence

if TYPE_CHECKING:
    from grid.testing.simulation import World


class Lifeline:
    """The link between one host's agent and the client, which carries heartbeats alone."""

    def __init__(self, world: World) -> None:
        self._world = world
        limits, number = world.limits, world.link.number()
        self._carrier = world.network.host(limits)
        self._end = HostEnd(self._carrier, number)
        inlet, outlet = self._carrier.bind_sockets(Path("/simulated"), f"p{number}")
        self._client = Presence(
            world.clock.now,
            start_s=limits.start_s,
            orphan_s=limits.orphan_s,
            lost_s=limits.lost_s,
            heartbeat_s=limits.heartbeat_s,
        )
        self._peer = world.link.connect(number, inlet, outlet, None, None)
        self._peer.beats = True
        self._calls: Any = world.network.calls[inlet]
        self._replies: Any = self._carrier.push
        self._whole_at = world.clock.now  # when the client last was connected
        self.connections: list[bool] = []  # what a monitor of its sockets tells: somebody came, or went

    def stranger(self) -> None:
        """Somebody without a key connects, or hangs up, or both."""
        self.connections += self._world.rng.choice(([True], [False], [True, False]))

    def trouble(self) -> None:
        """The connection breaks, or is made again, or its ends notice how it stands."""
        deeds = (self._calls.break_, self._replies.break_, self._replies.notice_here, self._replies.notice_there)
        self._world.rng.choice((*deeds, self.mend, self.mend, self.mend))()

    def mend(self) -> None:
        """Its ends find each other again."""
        self._replies.notice_there()
        for cable in (self._calls, self._replies):
            cable.mend()

    def stall(self, stalled: bool) -> None:
        """The host can't be reached, or can again."""
        self._calls.stalled = self._replies.stalled = stalled

    def look(self) -> bool:
        """What the agent does in its loop; whether it gives its client up."""
        now = self._world.clock.now
        self._calls.carry(100)
        self._replies.carry(100)
        if self._calls.up and self._replies.up and not self._calls.stalled:
            # A client that has no time to beat is silent as well, and for as long as it likes: nobody can tell.
            self._whole_at = max(self._whole_at, min(now, self._world.spoke_at + self._world.limits.heartbeat_s))
        while (data := self._carrier.receive_now()) is not None:
            self._client.heard(now)
            self._end.take(data)
        if not self._client.is_over(now):
            return False
        if self._end.admitted():
            self._client.heard(now)
            return False
        away = now - self._whole_at
        limit = self._world.limits.orphan_s
        self._world.users.demand(away >= limit, f"a client that was away for {away:.1f} of {limit:.0f} s is given up")
        return True

    def end(self) -> None:
        """The host is lost."""
        self._world.link.drop(self._peer, ConnectError("it is lost", host="simulated", hint="It is a simulation"))
        self._carrier.pull.close(0)
        self._carrier.push.close(0)
