"""Every limit of a grid in one frozen value: no wait without an end, no queue without a size.

Times in seconds, sizes in bytes. Hosts get the part that concerns them with their start message.
"""

from __future__ import annotations

import numbers
import os
from dataclasses import dataclass, field, fields
from typing import Any

PACKAGE_DATA_BYTES = 64 * 1024 * 1024
"""Files beside the code of a user's package that are sent along with it, together; larger ones stay and are named."""


def _from_environment(name: str, default: float) -> Any:
    return field(default_factory=lambda: _number_in(name, default))


def _number_in(variable: str, default: float) -> float:
    said = os.environ.get(variable)
    try:
        return float(said or default)
    except ValueError:
        raise ValueError(f"the variable {variable} must be a number of seconds, not {said!r}") from None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Waiting times and bounds of a grid."""

    start_s: float = _from_environment("GRID_START_S", 60.0)
    """One host: from connecting to a kernel that answers."""
    publish_s: float = _from_environment("GRID_PUBLISH_S", 600.0)
    """All hosts: until the wanted number of servers is ready."""
    probe_s: float = 2.0
    """Trying a direct connection before taking the tunnel."""
    heartbeat_s: float = 5.0
    """Between heartbeats on every link."""
    lost_s: float = 15.0
    """Silence after which a server or host counts as unreachable."""
    orphan_s: float = _from_environment("GRID_ORPHAN_S", 60.0)
    """A host without its client ends all it started after this; a cut-off client can come back within it."""
    stop_s: float = 5.0
    """A server's time to end after a polite request; then SIGTERM, then SIGKILL."""
    control_s: float = 30.0
    """An agent's answer to a short request."""
    send_s: float = 60.0
    """A caller's patience where too many calls are in flight to one server."""
    in_flight: int = 100_000
    """Calls to one server without an answer, at most."""
    starts_at_once: int = 16
    """Hosts that are started side by side."""
    snapshot_bytes: int = 1 << 30
    """The state of one server, as a snapshot; this process keeps the last one of each."""
    output_lines: int = 50
    """Last lines of a server's output that an error about it shows."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise TypeError(f"Limits.{each.name} must be a number, not {value!r}")
            if not float(value) > 0:
                raise ValueError(f"Limits.{each.name} must be more than 0, not {value!r}")


def checked_timeout(timeout: float | None) -> float | None:
    """A time limit as a caller gave it, in seconds; None has no end.

    Raises:
        ValueError, TypeError: It is not a number, or nan.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not hasattr(timeout, "__float__"):
        raise TypeError(f"a timeout is a number of seconds or None, not {timeout!r}")
    if not isinstance(timeout, (int, float)):
        timeout = float(timeout.__float__())  # NumPy's numbers, for example
    if timeout != timeout:
        raise ValueError("a timeout is a number of seconds or None, not nan")
    return timeout
