"""The work of a grid's servers over time: recorded at the client, written as a trace for Perfetto or as a picture.

    with LocalGrid(4, trace="run.html") as g:        # or run.json for Perfetto, run.svg; or GRID_TRACE=run.html
        ...

Lives here: `record` (what a grid tells it; writing the file), `timeline` (which call ran when), `chrome` (trace
            events), `picture` (SVG and HTML); all but `record` are pure.
Elsewhere:  who tells it (`services/result.py`, `grids/abstract.py`).
"""

from grid.trace.record import Trace

__all__ = ["Trace"]
