"""The script that `grid bumps` runs: bumps' own command line over the grid that this place offers (`Grid.auto`).

Lives here: nothing but that. Elsewhere: the mapper (`compat/bumps.py`), the command (`bumps.py`).
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    del sys.path[0]  # the place of this script, where `bumps` would be our own module
    from bumps.webview.server import cli

    from grid.compat.bumps import on_grid
    from grid.grids.grid import Grid

    with Grid.auto() as g, on_grid(g):
        cli.main()
