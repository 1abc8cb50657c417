"""Grids that run inside of jobs: each writes itself down in the home directory, which a cluster's machines share.

    ~/.grid/batch/grid-ID.json    name, process, job and node of a running grid

Lives here: writing it, and reading it on another machine; the batch system says which of the jobs still run.
Elsewhere:  the grids of one machine, with what they answer (`grids/register.py`), tables (`cli/running.py`).

A socket of a compute node can't be asked from the log-in host, so this tells where a grid is, not what it does.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grid.batch.records import KEPT_S, base_directory
from grid.batch_systems import JobState, JobStatus
from grid.errors import AllocationError
from grid.launch.allocation import find_allocation

_KEYS = {"id": str, "name": str, "pid": int, "began": float, "job": str, "node": str}


def write_down(grid_id: str, label: str, environ: Mapping[str, str] | None = None) -> Path | None:
    """Write down that this process, if it is in a job, has such a grid; the end of the grid removes the file."""
    try:
        allocation = find_allocation(os.environ if environ is None else environ)
        if allocation is None or allocation.job == "unknown":
            return None
        path = base_directory() / f"grid-{grid_id}.json"
        values = (grid_id, label, os.getpid(), time.time(), allocation.job, socket.gethostname().split(".")[0])
        new = path.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(json.dumps(dict(zip(_KEYS, values, strict=True))))
        os.replace(new, path)
    except (AllocationError, OSError):
        return None  # variables that make no sense, a home that can't be written: the grid itself needs neither
    return path


def grids_in_jobs(ask: Callable[[Sequence[str]], Mapping[str, JobStatus]]) -> list[dict[str, Any]]:
    """The grids whose jobs have not ended, the oldest first: id, name, pid, began, job and node of each.

    Args:
        ask: The batch system's word about jobs; not called where nothing is written down.
    Raises:
        GridError: What `ask` raises.
    """
    written = {}
    for path in base_directory().glob("grid-*.json"):
        try:
            record = json.loads(path.read_text())
            written[path] = {key: kind(record[key]) for key, kind in _KEYS.items()}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # removed meanwhile, or of another version
    if not written:
        return []
    states = {job: said.state for job, said in ask(sorted({one["job"] for one in written.values()})).items()}
    found = []
    for path, record in written.items():
        state = states[record["job"]]
        if state in (JobState.RUNNING, JobState.EXITING):
            found.append(record)
        elif state is JobState.DONE or time.time() - record["began"] > KEPT_S:
            path.unlink(missing_ok=True)  # of a script that was killed
    return sorted(found, key=lambda record: record["began"])
