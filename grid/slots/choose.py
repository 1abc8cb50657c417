"""Who gets which cores, memory and devices: a pure function of what a host has, what servers need, and what is taken.

The rules, in their order:

1. No core and no device is given twice, and no more memory than there is.
2. Cores of one server are of one NUMA node. If no node is large enough they are of as few as possible.
3. Devices of one server are of one node, if one has enough that are free; its cores are of the node of its first
   device, as far as that has room.
4. Of several nodes that would do, the fullest is used first, so that large servers find room later; then the lowest.

Equal arguments give equal slots.

Lives here: the rules, and why nothing is left.
Elsewhere:  what is taken by others, and what is done with a slot (`kernel/`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from grid.slots.needs import Needs, shown
from grid.slots.resources import ANYWHERE, Device, Resources, Slot


def choose(
    resources: Resources, needs: Needs, count: int, taken: Iterable[Slot] = (), busy: Mapping[str, str] | None = None
) -> list[Slot]:
    """Slots for as many of `count` servers as there is room for.

    Args:
        taken: Slots that servers have already.
        busy: Devices that are not to be had: id -> why, as `is used by anna`.
    """
    taken = list(taken)
    room = _Room(resources, taken, busy or {})
    share = max(1, len(resources.cores) // max(1, count))
    slots: list[Slot] = []
    while len(slots) < count and (slot := room.take(needs, share)) is not None:
        slots.append(slot)
    if slots and len(slots) < count and not needs.cores:  # fewer share the threads
        return choose(resources, needs, len(slots), taken, busy)
    return slots


def _are(cores: int) -> str:
    return "core is" if cores == 1 else "cores are"


def lacks(resources: Resources, needs: Needs) -> str:
    """What a host lacks for one server of these needs, however empty it is; "" if it has it all."""
    said = []
    if needs.cores and needs.cores > len(resources.cores):
        said.append(f"{needs.cores} {_are(needs.cores)} needed, and it has {len(resources.cores)}")
    if needs.memory_bytes and resources.memory is not None and needs.memory_bytes > resources.memory:
        said.append(f"{shown(needs.memory_bytes)} of memory is needed, and it has {shown(resources.memory)}")
    if needs.gpus > len(resources.devices):
        has = str(len(resources.devices) or "none")
        said.append(f"{needs.gpus} device{'s are' if needs.gpus > 1 else ' is'} needed, and it has {has}")
    return "; ".join(said)


def left(resources: Resources, needs: Needs, taken: Iterable[Slot], busy: Mapping[str, str]) -> str:
    """Why there is no room for one more server of these needs: what is left, and who has the devices."""
    taken = list(taken)
    said = []
    cores = len(resources.cores) - sum(len(slot.cores) for slot in taken)
    if needs.cores and needs.cores > cores:
        said.append(f"{needs.cores} {_are(needs.cores)} needed, and {cores} of {len(resources.cores)} are free")
    if needs.memory_bytes and resources.memory is not None:
        free = resources.memory - sum(slot.memory or 0 for slot in taken)
        if needs.memory_bytes > free:
            said.append(f"{shown(needs.memory_bytes)} of memory is needed, and {shown(max(0, free))} is free")
    ours = {device.id for slot in taken for device in slot.devices}
    devices = [device for device in resources.devices if device.id not in ours and device.id not in busy]
    if needs.gpus > len(devices):
        others = [f"{device.id} {busy[device.id]}" for device in resources.devices if device.id in busy]
        used = [f"{len(ours)} by this grid"] if ours else []
        what = f"{needs.gpus} device{'s are' if needs.gpus > 1 else ' is'} needed"
        free_ones = f"{len(devices) or 'none'} of {len(resources.devices)} {'is' if len(devices) < 2 else 'are'} free"
        said.append(f"{what}, and {free_ones} ({', '.join([*others, *used])})")
    return "; ".join(said) or "its free cores are of several NUMA nodes, and none has enough of them"


class _Room:
    """What is left of a host while slots are chosen."""

    def __init__(self, resources: Resources, taken: Iterable[Slot], busy: Mapping[str, str]) -> None:
        gone, memory, used = set(busy), resources.memory, set[int]()
        for slot in taken:
            gone.update(device.id for device in slot.devices)
            used.update(slot.cores)
            if memory is not None:
                memory -= slot.memory or 0
        self._memory, self._pinned = memory, resources.pinned
        self._all: dict[int, list[int]] = {}  # node -> its cores
        self._free: dict[int, list[int]] = {}  # node -> those that are free, the lowest last
        self._devices: dict[int, list[Device]] = {}  # node -> free devices, the first last
        for number, node in sorted(resources.cores):
            self._all.setdefault(node, []).append(number)
            free = self._free.setdefault(node, [])
            if number not in used:
                free.append(number)
        for free in self._free.values():
            free.reverse()
        for device in reversed(resources.devices):
            if device.id not in gone:
                self._devices.setdefault(device.node, []).append(device)
        self._largest = max(map(len, self._all.values()), default=0)
        # The node that is used now is the fullest that will do until it will not do any more.
        self._node = self._node_of_devices = ANYWHERE
        self._near = {node: tuple(cores) for node, cores in self._all.items()} if resources.pinned else {}

    def take(self, needs: Needs, share: int) -> Slot | None:
        """One slot; None: there is no room for it. `share`: threads of a server that has no cores of its own."""
        memory, count = needs.memory_bytes, needs.cores or 0
        if memory is not None and self._memory is not None and memory > self._memory:
            return None
        device_nodes = self._places_of_devices(needs.gpus, count) if needs.gpus else []
        if device_nodes is None:
            return None
        first = device_nodes[0] if device_nodes else ANYWHERE
        core_nodes = self._places_of_cores(count, first) if count else []
        if core_nodes is None:
            return None
        devices = tuple([self._devices[node].pop() for node in device_nodes])
        cores = tuple(sorted([self._free[node].pop() for node in core_nodes]))
        if memory is not None and self._memory is not None:
            self._memory -= memory
        near = self._near.get(first, ()) if devices and not cores else ()
        threads = len(cores) or (min(share, len(near)) if near else share)
        return Slot(cores, near, devices, memory, threads, self._pinned)

    def _places_of_devices(self, gpus: int, cores: int) -> list[int] | None:
        """The node of each device of the next slot; None: there are too few."""
        node = self._node_of_devices
        if len(self._devices.get(node, ())) < gpus or len(self._free.get(node, ())) < cores:
            together = [node for node, free in self._devices.items() if len(free) >= gpus]
            if not together:
                nodes = [node for node in sorted(self._devices) for _ in self._devices[node]]
                return nodes[:gpus] if len(nodes) >= gpus else None
            fits = [node for node in together if len(self._free.get(node, ())) >= cores]
            node = min(fits or together, key=lambda node: (len(self._devices[node]), node))
            self._node_of_devices = node
        return [node] * gpus

    def _places_of_cores(self, count: int, first: int) -> list[int] | None:
        """The node of each of its cores. `first`: that of its first device."""
        if len(self._free.get(first, ())) >= count:
            return [first] * count
        if len(self._free.get(self._node, ())) >= count:
            return [self._node] * count
        fits = [node for node, free in self._free.items() if len(free) >= count]
        if fits:
            self._node = min(fits, key=lambda node: (len(self._free[node]), node))
            return [self._node] * count
        if count <= self._largest:
            return None
        free = sorted(self._free, key=lambda node: (-len(self._free[node]), node))
        nodes = [node for node in free for _ in self._free[node]]
        return nodes[:count] if len(nodes) >= count else None
