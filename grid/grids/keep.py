"""The session of a grid that is kept: what another client needs to know, written down as it happens.

    fact                value
    grid                who made it, with which version, for how long it waits, limits, the epoch of its client
    keys                both ends' keys, where there are other machines
    home/<number>       a host: its entry, its agent's report (`Home.facts`), the number of the agent; `ended`: why
                        nothing is there any more, of a node of a pilot
    intended/<number>   a pilot that is to be submitted, or just being so
    pilots              what is asked of pilots, and how many may follow
    pilot/<number>      a pilot that is held: its job, where its files are, its request, its agents (`Held.fact`)
    service/<id>        names of its methods, and of those that yield; what was asked for its servers
    server/<name>       its number, its service, the number of its host; `earlier`: numbers that it had before it moved;
                        `ended`: why, once it has
    (calls and replies) see `keeping/memory`

Lives here: `Keep`, the facts; beginning and end of a session.
Elsewhere:  taking a session up again (`resuming.py`), the file (`keeping/`), a host that waits (`kernel/`).
"""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import Any

from grid._version import __version__
from grid.errors import SessionError
from grid.grids.home import Home
from grid.hosts import Host
from grid.keeping.carrier import KeptCarrier
from grid.keeping.claims import Claims
from grid.keeping.journal import Journal
from grid.keeping.memory import SessionMemory
from grid.keeping.places import SessionPlace
from grid.kernel.title import script_name
from grid.limits import Limits
from grid.services.kernel_server import KernelServer
from grid.wire.keys import Keys
from grid.wire.link import Link
from grid.wire.zeromq import ClientSockets

_SYNC_S = 5.0


class Keep:
    """See the module. Any thread; each fact is one record.

    Args:
        epoch: Which client of the session this is, from 0.
        journal: Of a session that is taken up again; `place` is ours by then.
    """

    def __init__(self, place: SessionPlace, keep_s: float, *, epoch: int = 0, journal: Journal | None = None) -> None:
        self.place, self.keep_s, self.epoch = place, keep_s, epoch
        self._journal = journal
        self.past: SessionMemory | None = None if journal is None else journal.memory
        """What earlier clients have left; None: there was none."""
        self._carrier: KeptCarrier | None = None
        self._tended = 0.0
        self._numbers: dict[str, list[int]] = {}  # server name -> its numbers, the last one last
        if journal is not None:
            for name, fact in journal.memory.facts_of("server").items():
                self._numbers[name] = [*fact.get("earlier", ()), fact["peer"]]
        self.claims: Claims

    @property
    def journal(self) -> Journal:
        """Of a session that has begun."""
        assert self._journal is not None
        return self._journal

    def begin(self, limits: Limits, grid_id: str) -> Link:
        """Have the session, and the link of its client.

        Raises:
            SessionError: There is one of that name.
        """
        if self._journal is None:
            if not self.place.take():
                raise SessionError(
                    f"a living process has the session {self.place.name!r}", hint="End it, or take another name"
                )
            if self.place.exists():
                self.place.leave()
                raise SessionError(
                    f"there is a session {self.place.name!r} already",
                    hint=f"Grid.attach({self.place.name!r}) goes on with it, `grid end {self.place.name}` ends it",
                )
            self._journal = Journal(self.place.log)
        self.claims = Claims(self._journal)
        facts = {
            "version": __version__,
            "python": list(sys.version_info[:3]),
            "id": grid_id,
            "keep_s": self.keep_s,
            "epoch": self.epoch,
            "limits": vars(limits),
            "client": f"{script_name()}, process {os.getpid()} on {socket.gethostname()}",
            "pid": os.getpid(),
            "directory": os.getcwd(),
            "began": time.time(),
        }
        self._journal.fact("grid", facts)
        self._carrier = KeptCarrier(ClientSockets(limits), self._journal)
        return Link(limits, carrier=self._carrier, epoch=self.epoch, first=self._first())

    def _first(self) -> int:
        """No process had this number, or a higher one."""
        if self.past is None:
            return 1
        numbers = [*self.past.peers, *map(int, self.past.facts_of("home"))]
        numbers += [number for pilot in self.past.facts_of("pilot").values() for number in pilot["numbers"]]
        numbers += [server["peer"] for server in self.past.facts_of("server").values()]
        return max(numbers, default=0) + 1

    # -- facts -----------------------------------------------------------------------------------------------------

    def note_keys(self, keys: tuple[Keys, Keys]) -> None:
        """Of both ends of the grid."""
        self.journal.fact("keys", [each.to_json() for each in keys])

    def home_up(self, host: Host, facts: dict[str, Any]) -> None:
        """The agent of a host came up. `facts`: of its home."""
        self.journal.fact(f"home/{facts['number']}", {"host": host.__getstate__(), **facts})

    def home_gone(self, home: Home, reason: str) -> None:
        """The batch job that held it has ended."""
        self.journal.fact(f"home/{home.number}", {"host": home.host.__getstate__(), **home.facts(), "ended": reason})

    def pilots(self, request: dict[str, Any], renewals: int) -> None:
        """What is asked of pilots, and how many may follow those that there are."""
        self.journal.fact("pilots", {"request": request, "renewals": renewals})

    def intended(self, number: int, request: dict[str, Any] | None) -> None:
        """A pilot is to be submitted; None: that was done, or is not wanted any more."""
        self.journal.fact(f"intended/{number}", request)

    def pilot(self, number: int, fact: dict[str, Any] | None) -> None:
        """A pilot is held; None: not any more."""
        self.journal.fact(f"pilot/{number}", fact)

    def service(
        self, service_id: str, methods: frozenset[str], yielding: frozenset[str], asked: dict[str, Any]
    ) -> None:
        """A service is being published. `asked`: where, and how its servers are to be, in plain values."""
        fact = {"methods": sorted(methods), "yielding": sorted(yielding), "asked": asked}
        self.journal.fact(f"service/{service_id}", fact)

    def service_gone(self, service_id: str) -> None:
        """It was withdrawn."""
        self.journal.fact(f"service/{service_id}", None)

    def server_up(self, server: KernelServer, home: int) -> None:
        """A server came up: from now on its calls are written down. `home`: the number of its host's agent."""
        self.server_moved(server, server.number, home)

    def server_moved(self, server: KernelServer, number: int, home: int) -> None:
        """From now on it is the process of that number, and its calls are written down."""
        assert self._carrier is not None
        known = self._numbers.setdefault(server.name, [])
        if number not in known:
            known.append(number)
        self._note(server.name, server.service_id, home)
        self._carrier.peers.add(number)
        server.claims = self.claims

    def server_gone(self, server: KernelServer, home: int, reason: str) -> None:
        """It was lost or terminated. Its calls that have no result will have none."""
        self._numbers.setdefault(server.name, [server.number])  # it may have been lost before it was up
        self._note(server.name, server.service_id, home, ended=reason)

    def _note(self, name: str, service_id: str, home: int, **more: Any) -> None:
        *earlier, peer = self._numbers[name]
        fact = {"peer": peer, "service": service_id, "home": home, "earlier": earlier, **more}
        self.journal.fact(f"server/{name}", fact)

    # -- now and then, and the end ---------------------------------------------------------------------------------

    def look(self) -> None:
        """In the watch's thread, now and then."""
        if self._journal is None or self._journal.leaving:
            return
        self.claims.look()
        self._journal.settle()
        now = time.monotonic()
        if now - self._tended >= _SYNC_S:
            self._tended = now
            self._journal.tend()

    def settle(self) -> None:
        """The client goes, and the session stays: write down what is due. What is dropped from now on says nothing."""
        self.claims.look()
        self.journal.settle()
        self.journal.leaving = True

    def leave(self) -> None:
        """Another client may have it. The link is closed."""
        if self._journal is not None:
            self._journal.leaving = True
            self._journal.close()
        self.place.leave()

    def end(self) -> None:
        """The session has ended: nothing of it stays here."""
        if self._journal is not None:
            self._journal.leaving = True
            self._journal.close()
            self.place.remove()
