"""What a host that ends has left to say: which files go with it.

Lives here: the line about them.
Elsewhere:  ending a host (`home.py`), files that were sent there (`stager.py`).
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from grid import errors
from grid.hosts import Host

logger = logging.getLogger(__name__)

_LISTING_S = 2.0
"""A host that ends says within this time what files go with it, or does not say it."""


class HomeThatEnds(Protocol):
    """The host, as far as its files go."""

    host: Host
    staged: dict[str, Any]

    def ask(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        """Have the agent do something."""


def tell_what_goes(home: HomeThatEnds, shared: bool) -> None:
    """Name files that servers wrote into the staging directory, which is about to be removed."""
    if shared and not home.staged:
        return  # the home that files were sent to tells of them
    try:
        written = sorted(set(home.ask("list_files", timeout=_LISTING_S)) - set(home.staged))
    except errors.GridError:
        return  # a slow host may end all the same
    if written:
        more = f" and {len(written) - 5} more" if len(written) > 5 else ""
        logger.warning(
            "host %s: servers wrote %s%s into the staging directory, which is removed now. To keep such files, "
            "call fetch_files before the end, make the grid with workdir=..., or write under absolute names",
            home.host.label,
            ", ".join(written[:5]),
            more,
        )
