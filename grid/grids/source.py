"""Where a grid's hosts come from while it runs.

Lives here: `HostSource`, the answers of a grid that was given its hosts, and gets others by `add_hosts` alone.
Elsewhere:  hosts that batch jobs hold for a while (`tending.py`).
"""

from __future__ import annotations

from typing import Any

from grid.grids.home import Home
from grid.keeping.memory import SessionMemory


class HostSource:
    """See the module."""

    patience_s: float | None = None
    """How long `publish` waits for the first server unless it is told; None: `limits.publish_s`."""

    def begin(self) -> None:
        """The grid has started; harmless if that is said again. Raises GridError where no host can be had."""

    def take_up(self, past: SessionMemory) -> dict[int, Home]:
        """Of what an earlier client has left, the homes that this source has made, by the numbers of their agents."""
        return {}

    def takes_part(self, home: Home) -> bool:
        """Whether a home of an earlier client is one of the grid's, and does not only stand by."""
        return True

    def leave(self) -> None:
        """The client goes, and all that it has stays."""

    def end(self) -> None:
        """The grid has ended, and its homes are shut down."""

    def wake(self) -> None:
        """The grid ends: all that wait for the source look."""

    def standing_by(self) -> list[Home]:
        """Homes that take no part and have to be shut down at the end all the same."""
        return []

    def takes_in(self, home: Home, now: float) -> bool:
        """Whether servers may move to this home: it does not end soon."""
        return home.ends_at is None

    def takes_back(self, home: Home) -> bool:
        """Whether servers that have left this home may come back: it is not being given up."""
        return True

    def more_may_come(self) -> bool:
        """Whether a host may join yet, for servers that move and have no other."""
        return True

    def is_expecting(self) -> bool:
        """Whether hosts are on their way that nobody can name yet, for `publish`."""
        return False

    def is_hoping(self) -> bool:
        """Whether servers may come yet: a caller that waits for one waits on, even if there is none now."""
        return False

    def homes_to_be(self) -> list[Home] | None:
        """The homes that there are when all hosts are up; None: those that the grid knows now."""
        return None

    def on_their_way(self) -> list[str]:
        """In words, where hosts may come from."""
        return []

    def status(self) -> dict[str, Any]:
        """More of the grid's status, in plain values."""
        return {}
