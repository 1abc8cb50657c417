"""Large values that stay on their hosts until somebody asks for them, or nobody can any more.

Lives here: `Unfetched`. Elsewhere: results (`result`), what is removed when (`waste`), values kept on purpose
(`remote_value`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grid.services.waste import Waste


class Unfetched:
    """A value that waits in a blob on its host. Once it is here, or nobody can ask for it, that is waste."""

    __slots__ = ("_blob", "_home", "_waste")

    def __init__(self, home: Any, blob: str, waste: Waste) -> None:
        self._home = home
        self._blob, self._waste = blob, waste

    def fetched(self) -> None:
        """It is here: remove the blob."""
        home, self._home = self._home, None
        if home is not None:
            home.forget(self._blob)

    def __del__(self) -> None:
        home = getattr(self, "_home", None)
        if home is not None:
            self._waste.put(partial(_forget, home, self._blob))  # any thread, any lock held: so no more than that


def _forget(home: Any, blob: str) -> bool:
    home.forget(blob)
    return True
