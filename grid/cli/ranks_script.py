"""The script that `grid run --ranks N SCRIPT` runs: SCRIPT as N ranks, over the grid that this place offers.

Lives here: nothing but that. Elsewhere: ranks of scripts (`ranks/launched.py`), the command (`run.py`).
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    n, script, *args = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    sys.argv = [script, *args]
    from grid.errors import GridError
    from grid.grids.grid import Grid
    from grid.ranks.launched import run_script

    status = 1
    try:
        with Grid.auto() as g:
            status = run_script(g, g._engine.stager.stage_modules, script, args, int(n))
    except GridError as exc:
        cause = exc.__cause__
        if cause is not None and cause.__cause__ is not None:
            print(cause.__cause__, file=sys.stderr)  # the traceback over there
        print(f"grid: {exc}", file=sys.stderr)
    sys.exit(status)
