"""Where servers spend their time, for `g.profile()` and `grid profile`: all hosts are asked side by side.

Lives here: the questions to agents; profiles that the command line has asked for, which are fetched when they are done.
Elsewhere:  sampling (`kernel/sampler.py`), what is made of it (`services/profile.py`), the command (`cli/profile.py`).
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

from grid.errors import GridError, ServiceError
from grid.grids.fleet import Fleet
from grid.kernel.sampler import lasts
from grid.services.profile import Profile

ANSWER_S = 10.0
"""For the answer of a host, after the time of the profile."""
_MOST_S = 3600.0
_AT_ONCE = 4
_KEPT = 8


class Profiles:
    """Profiles of a grid."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._under_way = 0
        self._outcomes: dict[int, dict[str, Any] | None] = {}

    def profile(self, service_id: str, seconds: float = 10.0, *, interval_s: float = 0.01) -> Profile:
        """Look at the stacks of all servers of a service again and again, and tell where their time goes. Waits.

        Args:
            seconds: How long, at most an hour.
            interval_s: Between two looks at a server, at least 0.001 s.

        Raises:
            UnknownService, ValueError: There is no such service; it can't be so long or so often.
            ServiceError: No server gave a profile; the reason of each is in it. Where some do, the others say why in
                `why`.
        """
        if not 0 < seconds <= _MOST_S:
            raise ValueError(f"seconds must be more than 0 and at most {_MOST_S:g}, not {seconds!r}")
        if not 0.001 <= interval_s <= seconds:
            raise ValueError(f"interval_s must be from 0.001 s to the {seconds:g} s of the profile, not {interval_s!r}")
        profile = Profile.from_plain(self._ask(service_id, seconds, interval_s))
        if all(one.why for one in profile.servers):
            why = "; ".join(f"{one.server} on {one.host}: {one.why}" for one in profile.servers[:5])
            raise ServiceError(
                f"no server gave a profile ({why or 'it has no servers'})",
                service_id=service_id,
                hint="`grid dump` shows servers that are deep in C code or stopped",
            )
        return profile

    def _ask(self, service_id: str, seconds: float, interval_s: float) -> dict[str, Any]:
        self._fleet.grid._services.find(service_id)
        servers = [one for one in self._fleet.servers() if one.service_id == service_id]
        asked = []
        for home in self._fleet.homes:
            here = [server.name for server in servers if server.home is home]
            if not here:
                continue
            label = home.host.label
            try:
                answer = home.ask_later("profile", here, seconds, interval_s, timeout=lasts(seconds) + ANSWER_S)
                asked.append((label, here, answer))
            except GridError as exc:
                asked.append((label, here, _failing(exc)))
        told = []
        for label, here, answer in asked:
            found: dict[str, dict[str, Any]] = {}
            why = "its process has ended, or has not begun yet"
            try:
                found = {one["name"]: one for one in answer()}
            except GridError as exc:
                why = str(exc)
            told += [(name, label, found.get(name, {"why": why})) for name in here]
        return {"service_id": service_id, "servers": told}

    # -- for the command line --------------------------------------------------------------------------------------

    def begin(self, service_id: str, seconds: float) -> dict[str, Any]:
        """Begin one in a thread: its number, under which `outcome` has it, or what is wrong."""
        with self._lock:
            if self._under_way >= _AT_ONCE:
                return {"error": f"{_AT_ONCE} profiles are under way; try again later"}
            self._under_way += 1
            number = next(self._numbers)
            self._outcomes[number] = None
            while len(self._outcomes) > _KEPT:
                del self._outcomes[next(iter(self._outcomes))]
        threading.Thread(target=self._run, args=(number, service_id, seconds), name="grid-profile", daemon=True).start()
        return {"profile": number}

    def _run(self, number: int, service_id: str, seconds: float) -> None:
        try:
            outcome: dict[str, Any] = {"profile": self._ask(service_id, seconds, min(0.01, seconds))}
        except Exception as exc:
            outcome = {"error": str(exc)}
        with self._lock:
            self._under_way -= 1
            if number in self._outcomes:
                self._outcomes[number] = outcome

    def outcome(self, number: int) -> dict[str, Any]:
        """Empty until it is done; then `profile` or `error`. Tells it once."""
        with self._lock:
            if number not in self._outcomes:
                return {"error": f"there is no profile {number}"}
            outcome = self._outcomes[number]
            if outcome is None:
                return {}
            del self._outcomes[number]
        return outcome


def _failing(exc: GridError) -> Any:
    def answer() -> Any:
        raise exc

    return answer
