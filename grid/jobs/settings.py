"""Every limit and choice of a job manager in one frozen value, times in seconds; where jobs of a user lie."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from grid.jobs.conditions.tree import Most
from grid.jobs.conditions.work import UNITS
from grid.jobs.fetch.download import Policy
from grid.jobs.rules.scheduler import MINIMUM_SHARE, RULES


def data_directory() -> Path:
    """Where jobs of this user lie: $GRID_JOBS_DIR, else ~/.local/share/grid/jobs."""
    named = os.environ.get("GRID_JOBS_DIR")
    return Path(named) if named else Path("~/.local/share/grid/jobs").expanduser()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Times and shares of a job manager."""

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
    condition_atoms: int = 20_000
    """Parts of one condition."""
    condition_tests: int = 200
    """Expressions in one condition."""
    condition_outside: int = 100
    """Downloads and jobs elsewhere in one condition."""
    evaluate_units: float = 10 * UNITS
    """Work of all expressions in one `evaluate`, see `conditions/work.py`."""
    events_waiting: int = 10_000
    """Messages of a job that wait to be tested for one condition; of more it is cancelled."""
    message_bytes: int = 1 << 20
    """Of one message to a job; `messages_waiting` of them until it takes them in."""
    messages_waiting: int = 1_000
    jobs_each: int = 200_000
    """Jobs of one user that are not deleted; `bytes_each` of their requests and inputs together."""
    bytes_each: int = 2 << 30
    races: int = 1_000
    """Races that are open; of those that are decided as many are remembered."""
    fetches: int = 8
    """Files that conditions wait for, fetched at once; `fetches_each` of one user; `fetches_waiting` of all."""
    fetches_each: int = 4
    fetches_waiting: int = 10_000
    elsewhere: int = 500
    """Jobs of other servers that are listened to at once; `elsewhere_each` for one user."""
    elsewhere_each: int = 100
    elsewhere_bytes: int = 4 << 20
    """One answer or message of another server; a condition that would need more is cancelled."""
    fetch: Policy = field(default_factory=Policy)
    """From where URLs may be fetched, and how much."""
    mail_host: str = "localhost"
    mail_port: int = 25
    mail_from: str = "grid@localhost"
    mail_tls: str = "none"
    """`none`; `starttls`: begin in clear, then TLS; `tls` from the start. A server without it is not used."""
    mail_ca: str = ""
    """File of certificates to trust; empty: those of this machine."""
    mail_login: str = ""
    """File with user and password in two lines, readable by its owner alone; empty: no login."""
    mail_hour: int = 7
    """Of the daily mail, in this machine's time zone."""
    mail_retry_s: float = 30.0
    """First pause after a failure; the next ones double, up to an hour."""
    mail_notes: int = 50_000
    """Ends that wait to be told, at most; of more nobody is told, but the log."""
    mail_give_up_s: float = 5 * 86400.0
    """After this time a mail that can't be sent is given up (RFC 5321, 4.5.4.1)."""

    @property
    def most(self) -> Most:
        """What a condition may hold."""
        return Most(atoms=self.condition_atoms, tests=self.condition_tests, outside=self.condition_outside)

    def __post_init__(self) -> None:
        for name in ("checkpoint_s", "abort_grace_s", "suspend_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"Settings.{name} must not be negative")
        if not 0 <= self.mail_hour <= 23:
            raise ValueError("Settings.mail_hour must be from 0 to 23")
        if self.mail_tls not in ("none", "starttls", "tls"):
            raise ValueError("Settings.mail_tls must be none, starttls or tls")
        if self.mail_login and self.mail_tls == "none" and self.mail_host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("Settings.mail_login needs mail_tls: a password must not travel in clear")
        if not 0 <= self.minimum_share < 1:
            raise ValueError("Settings.minimum_share must be 0 or more, and less than 1")
