"""Every limit and choice of a job manager in one frozen value. Times in seconds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from grid.jobs.download import Policy
from grid.jobs.rules.scheduler import MINIMUM_SHARE, RULES


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a job manager waits for, how long, and how it shares."""

    checkpoint_s: float = 600.0
    """Between checkpoints of a job, at least."""
    abort_grace_s: float = 30.0
    """From an abort to its end by force."""
    suspend_s: float = 20.0
    """Jobs may take this long to checkpoint and end when the manager stops."""
    attempts: int = 5
    """How often a job is begun again because its process died."""
    lease_s: float = float("inf")
    """A unit that takes longer is given to another worker as well; the first outcome counts."""
    tick_s: float = 0.25
    """Between looks at what announces itself to nobody; partial results are stored that often."""
    allowance: float = 10_000.0
    """Credits of each user, see `rules/credits.py`."""
    half_life_s: float = 7 * 86400.0
    """Used credits halve in this time."""
    minimum_share: float = MINIMUM_SHARE
    """Of all units goes to free work, where it waits."""
    rules: Collection[str] = RULES
    """Rules of selection that are on, see `rules/scheduler.py`."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Shares of users, 1 for whom it does not name."""
    tokens: bool = False
    """Whether a client needs a token."""
    fetch: Policy = field(default_factory=Policy)
    """From where URLs may be fetched, and how much."""
    mail_host: str = "localhost"
    mail_port: int = 25
    mail_from: str = "grid@localhost"

    def __post_init__(self) -> None:
        for name in ("checkpoint_s", "abort_grace_s", "suspend_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"Settings.{name} must not be negative")
        if not 0 <= self.minimum_share < 1:
            raise ValueError("Settings.minimum_share must be 0 or more, and less than 1")
