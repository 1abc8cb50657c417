"""Libraries that only some of grid needs: the exact line that installs them, where they are missing.

Lives here: `need`. Elsewhere: which extra brings what (`setup.cfg`).
"""

from __future__ import annotations

import importlib.util

from grid.errors import MissingExtra


def need(what: str, extra: str, *modules: str) -> None:
    """Raise MissingExtra unless all modules are there; `what` needs them, and `extra` brings them."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingExtra(
            f"{what} needs {' and '.join(missing)}", extra=extra, hint=f"Run: pip install 'sshgrid[{extra}]'"
        )
