"""The slots of one agent's servers.

Without needs a server gets its share of the threads: cores / servers of its host. Where there is but one server it has
the host for itself, and nothing is said.

With needs it is in two steps, because the client has to know how many servers there will be: `reserve` chooses slots
and takes the locks of their devices; when a server starts, its locks go over to it. It holds them to its end, and no
longer. Nothing of the host is looked at before somebody needs something.

Lives here: which server has which slot, what each is born with.
Elsewhere:  who gets what (`grid/slots/choose.py`), the locks (`devices`), what a server does with its slot (`born`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grid.kernel.born import Birth
from grid.kernel.devices import Leases, user_name
from grid.slots.choose import choose, lacks, left
from grid.slots.find import count_cores, find
from grid.slots.needs import Needs
from grid.slots.resources import Device, Resources, Said, Slot
from grid.slots.threads import ours_to_say


def host_root() -> Path:
    """Where /proc and /sys of the host are: a test makes one of its own."""
    return Path(os.environ.get("GRID_HOST_ROOT") or "/")


def locks_dir() -> Path:
    """Where the locks of devices are; the same for all users of a host."""
    return Path(os.environ.get("GRID_LOCKS_DIR") or "/tmp")


class Slots:
    """See the module; the agent's one thread, but for `look`.

    Args:
        servers: How many each service has on this host.
        said: What the host's entry says of its resources.
        environ: That of the agent, with the signs of a batch job.
        env: What the host's entry says.
        who: Whose grid this is, for users who find a device taken.
    """

    def __init__(
        self, servers: int, *, said: Said, environ: Mapping[str, str], env: Mapping[str, str], who: str = ""
    ) -> None:
        self._servers, self._word, self._environ = servers, said, environ
        self._threads_said = frozenset((*environ, *env))
        self._plain = Birth()
        if servers > 1:
            count = count_cores(environ, servers) if said.count is None else said.count
            self._plain = Birth(self._threads(max(1, count // servers)))
        self._who = f"{user_name(os.getuid())} ({who})"
        self._leases = Leases(locks_dir(), self._who)
        self._found: Resources | None = None
        self._slots: dict[str, Slot] = {}
        self._held: dict[str, list[int]] = {}  # locks of servers that have not started
        self._leaving: set[str] = set()  # servers that were told to end

    def _threads(self, number: int) -> dict[str, str]:
        return dict.fromkeys(ours_to_say(self._threads_said), str(number))

    def look(self) -> Resources:
        """What the host has for us; looked at once. May take seconds, so a thread of its own may do it."""
        if self._found is None:
            self._found = self._word.of(find(host_root(), self._environ, slots=self._servers))
        return self._found

    # -- who has what ----------------------------------------------------------------------------------------------

    def reserve(self, names: Sequence[str], needs: Needs) -> dict[str, Any]:
        """Slots for as many of these servers as there is room for.

        Returns:
            `granted`: name -> its slot in words; `why` the others have none; whether they may have one `later`, and
            `soon`, because servers with slots are just ending.
        """
        resources = self.look()
        lacking = lacks(resources, needs)
        if lacking:
            return {"granted": {}, "why": "; ".join([lacking, *resources.notes]), "later": False, "soon": False}
        busy: dict[str, str] = {}
        held: dict[str, int] = {}
        chosen: list[Slot] = []
        settled = False
        while not settled:
            chosen, settled = choose(resources, needs, len(names), self._slots.values(), busy), True
            for device in (device for slot in chosen for device in slot.devices if device.id not in held):
                lease = self._leases.take(device)
                if isinstance(lease, int):
                    held[device.id] = lease
                else:
                    busy[device.id], settled = lease, False
        for name, slot in zip(names, chosen, strict=False):
            self._slots[name] = slot
            self._held[name] = [held.pop(device.id) for device in slot.devices]
        for fd in held.values():  # a choice that came to nothing
            os.close(fd)
        why = left(resources, needs, self._slots.values(), busy) if len(chosen) < len(names) else ""
        granted = {name: str(slot) for name, slot in zip(names, chosen, strict=False)}
        return {"granted": granted, "why": why, "later": bool(why), "soon": bool(why and self._leaving)}

    def birth(self, name: str) -> Birth:
        """What a server of this name is born with."""
        slot = self._slots.get(name)
        if slot is None:
            return self._plain
        who = f"{self._who}, server {name}"
        return Birth(
            self._threads(slot.threads), visible(slot.devices), slot.runs_on, len(self._held.get(name, ())), who
        )

    def held(self, name: str) -> list[int]:
        """The locks that go over to a server which starts now; whoever asks closes them."""
        return self._held.pop(name, [])

    def limit(self, name: str) -> int | None:
        """Bytes of memory that a server may have; None: nobody said."""
        slot = self._slots.get(name)
        return None if slot is None else slot.memory

    def shown(self, name: str) -> str:
        """A server's slot in words; "" if it has none."""
        return str(self._slots.get(name) or "")

    def leaving(self, name: str) -> None:
        """A server was told to end."""
        if name in self._slots:
            self._leaving.add(name)

    def free(self, name: str) -> None:
        """A server has ended, or does not come: its slot is free."""
        self._leaving.discard(name)
        for fd in self._held.pop(name, ()):
            os.close(fd)
        slot = self._slots.pop(name, None)
        if slot is not None:
            self._leases.tidy(slot.devices)

    def free_all(self) -> None:
        """The agent ends, and all servers have."""
        for name in list(self._slots):
            self.free(name)


def visible(devices: Sequence[Device]) -> dict[str, str]:
    """The variables by which libraries see these devices and no others of their kind."""
    found = {}
    for kind in {device.kind for device in devices}:
        ids = ",".join(device.id for device in devices if device.kind == kind)
        if kind == "nvidia":
            found["CUDA_VISIBLE_DEVICES"] = ids
        elif kind == "amd":
            found["ROCR_VISIBLE_DEVICES"] = ids
            found["HIP_VISIBLE_DEVICES"] = ",".join(map(str, range(ids.count(",") + 1)))  # of those that ROCR leaves
        else:
            found["ZE_AFFINITY_MASK"] = ids
    return found
