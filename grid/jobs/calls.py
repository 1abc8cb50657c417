"""What clients and servers of jobs agree on: the calls of a server and the names of its streams. Imports nothing.

Lives here: `CALLS`, `QUEUE`, `CONDITIONS`.
Elsewhere:  what the calls do (`server.py`).
"""

from __future__ import annotations

CALLS = frozenset(
    {
        *("connect", "submit", "jobs", "fetch", "status", "abort", "stop", "control", "wait", "services"),
        *("archive", "delete", "race", "race_status", "set_email", "credits", "graph", "evaluate", "explain"),
        *("files", "read_file", "fetched", "cancel", "forget", "history"),
        *("deposit", "credentials", "upload", "modules"),
    }
)
"""Methods of `server.Server` that may be called over a wire."""

QUEUE = "jobs"
"""The stream of the list of jobs."""
CONDITIONS = "condition"
"""The stream of notices about atoms."""
