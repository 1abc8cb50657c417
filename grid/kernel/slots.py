"""The slots of one agent's servers.

Without needs a server gets its share of the threads: cores / servers of its host. Where there is but one server it has
the host for itself, and nothing is said.

Lives here: what each server is born with.
Elsewhere:  who gets what (`grid/slots/choose.py`), what a server does with it (`born`).
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from grid.kernel.born import Birth
from grid.slots.find import count_cores
from grid.slots.threads import ours_to_say


class Slots:
    """See the module; the agent's one thread.

    Args:
        servers: How many each service has on this host.
        cores: How many cores the host's entry says; None: as many as are found.
        environ: That of the agent, with the signs of a batch job.
        env: What the host's entry says.
    """

    def __init__(self, servers: int, *, cores: int | None, environ: Mapping[str, str], env: Mapping[str, str]) -> None:
        self._said: Container[str] = {*environ, *env}
        self._plain = Birth()
        if servers > 1:
            count = count_cores(environ, servers) if cores is None else cores
            self._plain = Birth(self._threads(max(1, count // servers)))

    def _threads(self, number: int) -> dict[str, str]:
        return dict.fromkeys(ours_to_say(self._said), str(number))

    def birth(self, name: str) -> Birth:
        """What a server of this name is born with."""
        return self._plain
