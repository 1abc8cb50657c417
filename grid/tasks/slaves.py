"""Slaves, and their registry: registration, heartbeats, states. Pure: time is an argument.

    PENDING ──workers──> ACTIVE <──beats again── INACTIVE      No worker yet: pending. `inactive_after` beats missed:
                            └──────silent──────────^           inactive, gets no tasks. `removed_after`: removed.

Lives here: `Slave`, `SlaveRegistry`.
Elsewhere:  who finds out that a host answers (`attendance`), who picks a slave (`strategies`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum


class SlaveState(Enum):
    """Of one slave."""

    PENDING = "pending"
    ACTIVE = "active"
    INACTIVE = "inactive"


@dataclass(eq=False)
class Slave:
    """A host and its workers, as strategies see it.

    `running`: tasks that it has. `packs`: calls under way that hold them. `ahead`: how many of those a worker may have.
    `isolated`: packs among them whose worker gets nothing else.
    `speed`: how fast it is beside the others (1.0 = average), measured; `measured`: from how many tasks.
    `mean_s`: mean seconds of its latest tasks. `turn`: when it got a task last, counted in packs.
    """

    slave_id: str
    workers: int = 0
    state: SlaveState = SlaveState.PENDING
    running: int = 0
    packs: int = 0
    isolated: int = 0
    ahead: int = 1
    speed: float = 1.0
    measured: int = 0
    mean_s: float = 0.0
    turn: int = 0
    aside: bool = False
    """Passed over for a moment: the task at hand can't run there."""
    heard: float = 0.0
    done: int = 0
    why: str = ""

    @property
    def room(self) -> int:
        """How many more packs it may have now."""
        if self.state is not SlaveState.ACTIVE or self.aside:
            return 0
        return max(0, (self.workers - self.isolated) * self.ahead - (self.packs - self.isolated))

    def took(self, tasks: int, seconds: float, expected_s: float) -> None:
        """It ran `tasks` in `seconds`; on average they take `expected_s` each."""
        each = seconds / tasks
        weight = 0.3 if self.measured else 1.0
        self.mean_s += weight * (each - self.mean_s)
        if each > 0 and expected_s > 0:
            # bounded: one odd measurement must not rule a host out, or call everything there
            self.speed += weight * (min(100.0, max(0.01, expected_s / each)) - self.speed)
        self.measured += tasks


@dataclass
class SlaveRegistry:
    """The registered slaves. `check` says which went silent; its caller gives their tasks to others."""

    heartbeat_s: float = 5.0
    inactive_after: int = 3
    removed_after: int = 9
    slaves: dict[str, Slave] = field(default_factory=dict)

    def register(self, slave_id: str, workers: int, now: float) -> Slave:
        """Register a slave with its number of workers; again: the number changed."""
        slave = self.slaves.get(slave_id)
        if slave is None:
            slave = self.slaves[slave_id] = Slave(slave_id)
        slave.workers = workers
        self.heartbeat(slave_id, now)
        return slave

    def heartbeat(self, slave_id: str, now: float) -> bool:
        """It gave a sign of life; True if that changed its state."""
        slave = self.slaves.get(slave_id)
        if slave is None:
            return False
        slave.heard = now
        before = slave.state
        slave.state = SlaveState.ACTIVE if slave.workers else SlaveState.PENDING
        return slave.state is not before

    def check(self, now: float) -> tuple[list[Slave], list[Slave]]:
        """Those that became inactive, and those that are removed now."""
        silenced, removed = [], []
        for slave in list(self.slaves.values()):
            missed = (now - slave.heard) / self.heartbeat_s
            if missed >= self.removed_after:
                removed.append(self.remove(slave.slave_id))
            elif missed >= self.inactive_after and slave.state is SlaveState.ACTIVE:
                slave.state = SlaveState.INACTIVE
                silenced.append(slave)
        return silenced, [slave for slave in removed if slave is not None]

    def remove(self, slave_id: str) -> Slave | None:
        """It was lost."""
        slave = self.slaves.pop(slave_id, None)
        if slave is not None:
            slave.state, slave.workers = SlaveState.INACTIVE, 0
        return slave

    def active(self) -> Iterator[Slave]:
        """Those that may get tasks."""
        return (slave for slave in self.slaves.values() if slave.state is SlaveState.ACTIVE)
