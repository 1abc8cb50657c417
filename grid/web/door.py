"""Places of connections: those that have proved nothing share a few, those with a valid token have their own.

Pure: told who comes, proves, works, rests and leaves, it says whom to cut. A stranger who comes when the places of
strangers are taken gets one all the same: that of the oldest of the address with the most. So many connections of few
addresses, held or opened ever anew, displace each other; somebody from elsewhere is not reached by them, and somebody
behind the same address has as long to prove himself as it takes to fill all places once. Who has proved who he is has
a place until he rests, and then until others need it.

Lives here: `Door`.
Elsewhere:  sockets and time limits (`arrivals.py`), tokens (`guard.py`).
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Hashable

from grid.web.limits import WebLimits


class Door:
    """See the module. Keys are connections, whatever they are."""

    def __init__(self, limits: WebLimits) -> None:
        self._limits = limits
        self._strangers: dict[Hashable, str] = {}  # connection -> share, oldest first
        self._shares: dict[str, OrderedDict[Hashable, None]] = {}
        self._known: dict[Hashable, str] = {}  # connection -> user
        self._each: Counter[str] = Counter()
        self._resting: OrderedDict[Hashable, None] = OrderedDict()  # longest first

    def came(self, key: Hashable, address: str) -> Hashable | None:
        """A new connection; returns those to close for it."""
        share = share_of(address)
        self._strangers[key] = share
        self._shares.setdefault(share, OrderedDict())[key] = None
        return self.spare() if len(self._strangers) > self._limits.strangers else None

    def spare(self) -> Hashable | None:
        """The stranger who can be spared first."""
        if not self._shares:
            return None
        largest = max(self._shares.values(), key=len)
        return next(iter(largest))

    def proved(self, key: Hashable, user: str) -> tuple[bool, Hashable | None]:
        """A connection has shown a valid token: whether it has a place, and the connections to close for it."""
        if self._known.get(key) == user:
            return True, None
        self.left(key)
        full = len(self._known) >= self._limits.connections
        victim = None
        if full or self._each[user] >= self._limits.connections_each:
            own = self._each[user] >= self._limits.connections_each
            victim = next((each for each in self._resting if not own or self._known[each] == user), None)
            if victim is None:
                return False, None
            self.left(victim)
        self._known[key] = user
        self._each[user] += 1
        return True, victim

    def works(self, key: Hashable) -> None:
        """A request of it is answered."""
        self._resting.pop(key, None)

    def rests(self, key: Hashable) -> None:
        """It waits for the next one."""
        if key in self._known:
            self._resting[key] = None
            self._resting.move_to_end(key)

    def left(self, key: Hashable) -> None:
        """It has ended, or is about to; harmless if that is known."""
        share = self._strangers.pop(key, None)
        if share is not None:
            del self._shares[share][key]
            if not self._shares[share]:
                del self._shares[share]
        user = self._known.pop(key, None)
        if user is not None:
            self._each[user] -= 1
            if not self._each[user]:
                del self._each[user]
        self._resting.pop(key, None)

    def is_stranger(self, key: Hashable) -> bool:
        """Whether it has proved nothing yet."""
        return key in self._strangers

    def __len__(self) -> int:
        return len(self._strangers) + len(self._known)


def share_of(address: str) -> str:
    """The address, or the network of 64 bits that one subscriber has in IPv6."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)
