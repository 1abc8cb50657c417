"""What a host has for servers, and the part of it that one server gets.

Lives here: `Device`, `Resources`, `Slot`, all of them plain values; what the entry of a host says instead (`Said`).
Elsewhere:  looking at a machine (`find`), who gets what (`choose`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grid.slots.needs import shown

ANYWHERE = -1
"""The NUMA node of a device or core that belongs to none, or of which nobody says it."""


@dataclass(frozen=True)
class Device:
    """A GPU. `id` is what its driver calls it for good, in its visible-devices variable: a UUID, for Intel a number."""

    kind: str  # nvidia, amd, intel
    id: str
    node: int = ANYWHERE
    memory: int | None = None  # bytes
    name: str = ""

    def __str__(self) -> str:
        more = [self.name] * bool(self.name) + ([shown(self.memory)] if self.memory else [])
        return f"{self.id} ({', '.join(more)})" if more else self.id


@dataclass(frozen=True)
class Resources:
    """What a host has for the servers of one grid.

    `cores`: (number, NUMA node) of each. `pinned`: whether servers may be bound to them. If only their count is known
    (a quota, a share of a batch system that makes no cpuset), others may be on the very same ones: nobody is bound.
    """

    cores: tuple[tuple[int, int], ...]
    memory: int | None = None
    devices: tuple[Device, ...] = ()
    pinned: bool = True
    notes: tuple[str, ...] = ()  # what could not be told, or is not as one expects

    def plain(self) -> dict[str, Any]:
        """As it travels; `Resources.of` makes the same again."""
        return {**vars(self), "devices": [vars(device) for device in self.devices]}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Resources:
        """The value that `plain` made, perhaps with lists for tuples."""
        cores = tuple((number, node) for number, node in plain["cores"])
        devices = tuple(Device(**each) for each in plain["devices"])
        return cls(cores, plain["memory"], devices, plain["pinned"], tuple(plain["notes"]))


@dataclass(frozen=True)
class Slot:
    """The part of a host that one server has.

    `cores` are its own; `near` are those that it runs on if it has none of its own (empty: any).
    """

    cores: tuple[int, ...] = ()
    near: tuple[int, ...] = ()
    devices: tuple[Device, ...] = ()
    memory: int | None = None  # bytes that it may have
    threads: int = 1
    bound: bool = True  # whether it runs on these cores alone; else only their count means something

    @property
    def runs_on(self) -> tuple[int, ...]:
        """The cores that its process is bound to; empty: it is not."""
        return (self.cores or self.near) if self.bound else ()

    def plain(self) -> dict[str, Any]:
        """As it travels; `Slot.of` makes the same again."""
        return {**vars(self), "devices": [vars(device) for device in self.devices]}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Slot:
        """The value that `plain` made, perhaps with lists for tuples."""
        devices = tuple(Device(**each) for each in plain["devices"])
        cores, near = tuple(plain["cores"]), tuple(plain["near"])
        return cls(cores, near, devices, plain["memory"], plain["threads"], plain["bound"])

    def __str__(self) -> str:
        said = []
        if self.cores:
            said = [f"cores {ranges(self.cores)}" if self.bound else f"{len(self.cores)} cores"]
        said += [f"devices {', '.join(device.id for device in self.devices)}"] if self.devices else []
        said += [f"{shown(self.memory)} of memory"] if self.memory else []
        return "; ".join(said)


@dataclass(frozen=True)
class Said:
    """What the entry of a host says of its resources: it comes before what is found there."""

    cores: int | tuple[int, ...] | None = None
    memory: int | None = None
    gpus: str | int | tuple[str, ...] = "auto"

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Said:
        """The value whose fields these are, perhaps with lists for tuples."""
        words: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in plain.items()}
        return cls(**words)

    @property
    def count(self) -> int | None:
        """How many cores it says; None: it says nothing of them."""
        return len(self.cores) if isinstance(self.cores, tuple) else self.cores

    def of(self, found: Resources) -> Resources:
        """The resources that count. A list of devices names each by its place in what was found (from 0) or its id."""
        notes = list(found.notes)
        cores, pinned = found.cores, found.pinned
        if isinstance(self.cores, int):
            more = range(len(cores), self.cores)  # more than there are: somebody knows better, and nobody is bound
            cores = (*cores[: self.cores], *((number, ANYWHERE) for number in more))
            pinned = pinned and len(cores) == len(found.cores)
        elif self.cores is not None:
            nodes = dict(found.cores)
            cores = tuple((number, nodes[number]) for number in self.cores if number in nodes)
            lacking = [number for number in self.cores if number not in nodes]
            if lacking:
                notes.append(f"cores {ranges(lacking)} of its entry are not ours there")
        memory = found.memory if self.memory is None else self.memory
        devices, more_notes = self._devices(found.devices)
        return replace(found, cores=cores, memory=memory, devices=devices, pinned=pinned, notes=(*notes, *more_notes))

    def _devices(self, found: tuple[Device, ...]) -> tuple[tuple[Device, ...], list[str]]:
        if self.gpus == "auto":
            return found, []
        if self.gpus == "none":
            return (), []
        if isinstance(self.gpus, int):
            return found[: self.gpus], []
        chosen: list[Device] = []
        notes = []
        for word in self.gpus:
            if word.isdecimal() and int(word) < len(found):
                device = found[int(word)]
            else:
                named = [each for each in found if each.id == word]
                if not named:
                    notes.append(f"device {word} of its entry was not found there")
                    continue
                device = named[0]
            if device not in chosen:
                chosen.append(device)
        return tuple(chosen), notes


def ranges(numbers: Sequence[int]) -> str:
    """`0-3,8`, as the kernel writes lists of cores."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def numbers_of(text: str) -> tuple[int, ...]:
    """The numbers of a list as the kernel writes it: `0-3,8`. ValueError: it is none."""
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.partition("-")
        if int(first) > 1 << 16 or int(last or first) > 1 << 16:
            raise ValueError(f"{part} is more than any machine has")
        found += range(int(first), int(last if dash else first) + 1)
    return tuple(found)
