"""Waiting times and numbers of tries of a master, in one frozen value. Times in seconds."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class TaskLimits:
    """Limits of a master."""

    heartbeat_s: float = 5.0
    """Between looks at the hosts: each that answers beats."""
    inactive_after: int = 3
    """Beats missed until a slave gets no more tasks."""
    removed_after: int = 9
    """Beats missed until it counts as lost, and its tasks go to others."""
    sends: int = 3
    """How often sending a task may fail before the task fails."""
    losses: int = 3
    """How many servers a task may be lost with before the task fails: it may be what kills them."""
    pack_s: float = 0.05
    """Time that a pack of short tasks should take."""
    largest_pack: int = 2000
    """Tasks in one pack, at most."""
    hire_s: float = 1.0
    """While a service has no server: between looks for new ones."""
    stop_s: float = 10.0
    """For the master's thread to end."""
    kept_results: int = 1000
    """Results of detached systems that are kept until somebody fetches them; the oldest are dropped first."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) <= 0:
                raise ValueError(f"TaskLimits.{each.name} must be more than 0, not {getattr(self, each.name)!r}")
