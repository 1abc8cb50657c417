"""Calls that failed, kept in files so that they can be made again here, in a debugger.

    GRID_KEEP_FAILURES=failed python fit.py          # or grid run --keep-failures failed, Grid(keep_failures="failed")
    grid debug failed/0001-energy-ValueError.call

Lives here: `keeper` (writes them while a grid runs), `reopen` (reads one, makes the call).
Elsewhere:  who tells (`services/`), the command (`cli/debug.py`).
"""
