"""A schedule with slaves, for tests of who gets which task."""

from __future__ import annotations

from typing import Any

from grid.tasks import (
    LeastLoaded,
    Task,
    TaskLimits,
    TaskScheduleStrategy,
)
from grid.tasks.schedule import Pack, Schedule
from grid.tasks.slaves import SlaveRegistry

LIMITS = TaskLimits()


class Work(Task):
    def __init__(self, number: int = 0, prefers: tuple[str, ...] = ()) -> None:
        self.number, self.prefers = number, prefers

    def __call__(self) -> int:
        return self.number


class World:
    """A schedule with slaves, and shorthands."""

    def __init__(self, strategy: TaskScheduleStrategy | None = None, **workers: int) -> None:
        self.registry = SlaveRegistry()
        self.strategy = strategy or LeastLoaded()
        self.schedule = Schedule(self.strategy, self.registry, LIMITS)
        self.strategy.setup(None, None)  # type: ignore[arg-type]
        for name, count in workers.items():
            self.registry.register(name, count, 0.0)
        self.schedule.rerate()

    def feed(self, tasks: Any, key: str = "s") -> None:
        self.schedule.open(key)
        self.schedule.begin_generation(key)
        self.schedule.feed(key, tasks)

    def pack(self) -> Pack:
        step = self.schedule.next()
        assert isinstance(step, Pack), step
        return step

    def finish(self, pack: Pack, seconds: float = 1.0) -> None:
        if self.schedule.settled(pack, seconds):
            for _ in pack.entries:
                self.schedule.finished(pack.slave)
