"""Batch systems as commands: jobs are submitted, asked for and ended.

Lives here: talking to a batch system (`system.py`), the script of `grid qsub` (`wrapper.py`).
Elsewhere:  each system's own words (`batch_systems/`), being inside of a job (`launch/allocation.py`), jobs that carry
            a grid (`grids/batch.py`).
"""

from grid.batch.system import BatchSystem
from grid.batch_systems import (
    DIALECTS,
    Dialect,
    JobSpec,
    JobState,
    JobStatus,
    Outcome,
    format_walltime,
    parse_walltime,
)

__all__ = [
    "DIALECTS",
    "BatchSystem",
    "Dialect",
    "JobSpec",
    "JobState",
    "JobStatus",
    "Outcome",
    "format_walltime",
    "parse_walltime",
]
