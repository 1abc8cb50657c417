"""The slots of one agent's servers.

Without needs a server gets its share of the threads: cores / servers of its host. Where there is but one server it has
the host for itself, and nothing is said. All that servers with needs take is loaded with the first of them: nobody else
waits for it at his start.

Lives here: what each server is born with.
Elsewhere:  servers with needs (`reservations`), what a server does with its slot (`born`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from grid.kernel.born import Birth
from grid.slots.cores import count_cores
from grid.slots.threads import ours_to_say

if TYPE_CHECKING:
    from grid.kernel.memgroups import GroupEnd
    from grid.kernel.reservations import Reservations
    from grid.slots.resources import Slot


class Slots:
    """See the module; the agent's one thread, but for `look`.

    Args:
        servers: How many each service has on this host.
        said: What the host's entry says of its resources, as it travels.
        environ: That of the agent, with the signs of a batch job.
        env: What the host's entry says.
        who: Whose grid this is, for users who find a device taken.
    """

    def __init__(
        self, servers: int, *, said: Mapping[str, Any], environ: Mapping[str, str], env: Mapping[str, str], who: str
    ) -> None:
        self._servers, self._said, self._environ, self._who = servers, said, environ, who
        self._threads_said = frozenset((*environ, *env))
        self._plain = Birth()
        self._reservations: Reservations | None = None
        if servers > 1:
            cores = said.get("cores")
            count = count_cores(environ, servers) if cores is None else cores if isinstance(cores, int) else len(cores)
            self._plain = Birth(self._threads(max(1, count // servers)))

    def _threads(self, number: int) -> dict[str, str]:
        return dict.fromkeys(ours_to_say(self._threads_said), str(number))

    # -- servers with needs ----------------------------------------------------------------------------------------

    def look(self) -> dict[str, Any]:
        """What the host has for us, as it travels. The first look may take seconds; a thread of its own may do it."""
        if self._reservations is None:
            from grid.kernel.reservations import Reservations
            from grid.slots.resources import Said

            self._reservations = Reservations(self._servers, Said.of_plain(self._said), self._environ, self._who)
        return self._reservations.look().plain()

    def reserve(self, names: Sequence[str], needs: Mapping[str, Any]) -> dict[str, Any]:
        """Slots for servers that are to be started; comes after `look`. See `Reservations.reserve`."""
        from grid.slots.needs import Needs

        assert self._reservations is not None, "who reserves has looked"
        return self._reservations.reserve(names, Needs(**needs))

    def _slot(self, name: str) -> Slot | None:
        return None if self._reservations is None else self._reservations.slot(name)

    # -- a server --------------------------------------------------------------------------------------------------

    def birth(self, name: str) -> tuple[Birth, list[int]]:
        """What a server of this name is born with, and the locks that go over to it; whoever asks closes them."""
        slot = self._slot(name)
        if slot is None or self._reservations is None:
            return self._plain, []
        from grid.kernel.reservations import visible

        locks = self._reservations.held(name)
        who = self._reservations.who(name)
        group = "" if slot.memory is None else self._reservations.groups.make(name, slot.memory)
        return Birth(self._threads(slot.threads), visible(slot.devices), slot.runs_on, len(locks), who, group), locks

    def limit(self, name: str) -> int | None:
        """Bytes of memory that a server may have; None: nobody said."""
        slot = self._slot(name)
        return None if slot is None else slot.memory

    def memory_end(self, name: str) -> GroupEnd | None:
        """What the kernel says of the memory of a server that has ended; None: it kept no limit."""
        return None if self._reservations is None else self._reservations.groups.end(name)

    def shown(self, name: str) -> str:
        """A server's slot in words; "" if it has none."""
        return str(self._slot(name) or "")

    def leaving(self, name: str) -> None:
        """A server was told to end."""
        if self._reservations is not None:
            self._reservations.leaving(name)

    def free(self, name: str) -> None:
        """A server has ended, or does not come: its slot is free."""
        if self._reservations is not None:
            self._reservations.free(name)

    def free_all(self) -> None:
        """The agent ends, and all servers have."""
        if self._reservations is not None:
            self._reservations.free_all()
