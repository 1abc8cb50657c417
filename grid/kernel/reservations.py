"""Slots that servers with needs have on this host, and the locks of their devices.

In two steps, because the client has to know how many servers there will be: `reserve` chooses slots and takes the locks
of their devices; when a server starts, its locks go over to it. It holds them to its end, and no longer.

Lives here: which server has which slot.
Elsewhere:  who gets what (`grid/slots/choose.py`), the locks (`devices`), servers without needs (`slots`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from grid.kernel.corelocks import CoreLocks
from grid.kernel.devices import Leases, user_name
from grid.kernel.memgroups import MemoryGroups
from grid.slots.choose import choose, lacks, left
from grid.slots.find import find
from grid.slots.needs import Needs
from grid.slots.places import host_root, locks_dir
from grid.slots.resources import Device, Resources, Said, Slot


class Reservations:
    """See the module; the agent's one thread, but for `look`.

    Args:
        servers: How many each service has on this host.
        said: What the host's entry says of its resources.
        environ: That of the agent, with the signs of a batch job.
        who: Whose grid this is, for users who find a device taken.
    """

    def __init__(self, servers: int, said: Said, environ: Mapping[str, str], who: str) -> None:
        self._servers, self._said, self._environ = servers, said, environ
        self._who = f"{user_name(os.getuid())} ({who})"
        self._leases, self._core_locks = Leases(locks_dir(), self._who), CoreLocks(locks_dir())
        self.groups = MemoryGroups(host_root())
        self._found: Resources | None = None
        self._slots: dict[str, Slot] = {}
        self._held: dict[str, list[int]] = {}  # locks of servers that have not started
        self._leaving: set[str] = set()  # servers that were told to end

    def look(self) -> Resources:
        """What the host has for us; looked at once. May take seconds, so a thread of its own may do it."""
        if self._found is None:
            self._found = self._said.of(find(host_root(), self._environ, slots=self._servers))
        return self._found

    # -- who has what ----------------------------------------------------------------------------------------------

    def reserve(self, names: Sequence[str], needs: Needs) -> dict[str, Any]:
        """Slots for as many of these servers as there is room for.

        Returns:
            `granted`: name -> its slot in words; `why` the others have none; whether they may have one `later`, and
            `soon`, because servers with slots are just ending. A name whose earlier process is ending gets a slot
            after that.
        """
        resources = self.look()
        names, wanted = [name for name in names if name not in self._leaving], len(names)
        lacking = lacks(resources, needs)
        if lacking:
            return {"granted": {}, "why": "; ".join([lacking, *resources.notes]), "later": False, "soon": False}
        busy: dict[str, str] = {}
        held: dict[str, int] = {}
        chosen: list[Slot] = []
        away = self._cores_of_others(resources, needs)
        settled = False
        while not settled:
            taken = list(self._slots.values())
            chosen, settled = choose(resources, needs, len(names), [*taken, away], busy), True
            if away.cores and len(chosen) < len(names):  # rather on cores that others use than not at all
                chosen += choose(resources, needs, len(names) - len(chosen), [*taken, *chosen], busy)
            for device in (device for slot in chosen for device in slot.devices if device.id not in held):
                lease = self._leases.take(device)
                if isinstance(lease, int):
                    held[device.id] = lease
                else:
                    busy[device.id], settled = lease, False
        for name, slot in zip(names, chosen, strict=False):
            self._slots[name] = slot
            self._held[name] = [held.pop(device.id) for device in slot.devices]
            if slot.cores and slot.bound and (lock := self._core_locks.take(slot.cores)) is not None:
                self._held[name].append(lock)
        for fd in held.values():  # a choice that came to nothing
            os.close(fd)
        why = ""
        if len(names) < wanted:
            why = "an earlier process of that server is just ending"
        elif len(chosen) < len(names):
            self._look_at_locks(resources.devices, busy)
            why = left(resources, needs, self._slots.values(), busy)
        granted = {name: str(slot) for name, slot in zip(names, chosen, strict=False)}
        return {"granted": granted, "why": why, "later": bool(why), "soon": bool(why and self._leaving)}

    def _cores_of_others(self, resources: Resources, needs: Needs) -> Slot:
        """Cores that servers of other grids run on alone, as a slot that is taken."""
        if not needs.cores or not resources.pinned:
            return Slot()
        ours = {core for slot in self._slots.values() for core in slot.cores}
        return Slot(cores=tuple(self._core_locks.others(number for number, _ in resources.cores if number not in ours)))

    def _look_at_locks(self, devices: Sequence[Device], busy: dict[str, str]) -> None:
        """Note why devices that nobody has tried just now are not to be had."""
        ours = {device.id for slot in self._slots.values() for device in slot.devices}
        for device in devices:
            if device.id not in ours and device.id not in busy:
                lease = self._leases.take(device)
                if isinstance(lease, int):
                    os.close(lease)
                    self._leases.tidy([device])
                else:
                    busy[device.id] = lease

    def slot(self, name: str) -> Slot | None:
        """That of a server; None: it has none of its own."""
        return self._slots.get(name)

    def who(self, name: str) -> str:
        """Words of a server for the locks that it holds."""
        return f"{self._who}, server {name}"

    def held(self, name: str) -> list[int]:
        """The locks that go over to a server which starts now; whoever asks closes them."""
        return self._held.pop(name, [])

    def leaving(self, name: str) -> None:
        """A server was told to end."""
        if name in self._slots:
            self._leaving.add(name)

    def free(self, name: str) -> None:
        """A server has ended, or does not come: its slot is free."""
        self._leaving.discard(name)
        self.groups.remove(name)
        for fd in self._held.pop(name, ()):
            os.close(fd)
        slot = self._slots.pop(name, None)
        if slot is not None:
            self._leases.tidy(slot.devices)
            if slot.cores:
                self._core_locks.tidy()

    def free_all(self) -> None:
        """The agent ends, and all servers have."""
        for name in list(self._slots):
            self.free(name)
        self.groups.remove_all()


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
