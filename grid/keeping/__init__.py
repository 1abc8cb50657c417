"""Kept sessions: what a client must remember so that another one can take its place.

    records    the log, byte by byte (pure)               journal    the one writer of it
    memory     what a log says, replayed (pure)           carrier    writes down what travels
    places     where logs lie, who has them

Lives here: nothing; see the modules.
Elsewhere:  what a grid does with it (`grids/keep.py`), a host that waits for its client (`kernel/`).
"""
