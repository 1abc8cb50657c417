"""Whether the client lives, known from its own messages and from nothing else.

Anybody may open and close connections to a port of ours: port scanners do. So none are counted. What comes off the
inlet was sent by who holds the client's key (CURVE), or by us (a UNIX socket in a 0700 directory); the client says
something every heartbeat (`Link.housekeep`). One that is deep in C code and holds its interpreter can't, though its
ZeroMQ goes on: before a silent client is given up, the caller asks the outlet whether an admitted connection stands.

Lives here: the times, and what follows from them. Pure: the time is an argument.
Elsewhere:  hearing (`agent`), the outlet (`HostEnd.admitted`), who may come in at all (`wire/keys.py`).
"""

from __future__ import annotations

NAP_S = 10.0
"""Its agent looks at the clock at least every 5 s. A longer gap means that the agent itself was stopped (Ctrl-Z, a
paused virtual machine): nobody listened, so nobody was silent."""


class Presence:
    """One client, as its agent knows it; all times in seconds of one monotonic clock.

    Args:
        now: When waiting begins.
        start_s: What the client has until its first word, besides the rest.
        orphan_s: How long it may be cut off.
        lost_s: What it takes the client to notice that. It counts `orphan_s` from there, and must not find its agent
            ended while it still counts.
        heartbeat_s: Between two words of a client that is there. It may have been cut off just before it would have
            said something.
    """

    def __init__(self, now: float, *, start_s: float, orphan_s: float, lost_s: float, heartbeat_s: float) -> None:
        self.came = False
        """Whether it ever said something."""
        self._patience = orphan_s + lost_s + heartbeat_s
        self._over_at = now + start_s + orphan_s
        self._looked = now

    @property
    def over_at(self) -> float:
        """The time at which it counts as dead, unless a message arrives before."""
        return self._over_at

    def heard(self, now: float) -> None:
        """It said something, or was found to be connected."""
        self.came = True
        self._over_at = now + self._patience

    def is_over(self, now: float) -> bool:
        """Whether it has been silent for too long while somebody listened; to be asked every few seconds."""
        gap, self._looked = now - self._looked, now
        if gap > NAP_S:
            self._over_at += gap
        return now >= self._over_at
