"""Batch systems as commands: what a job asks for, each system's own words for it, what the answers mean.

Lives here: jobs (`job.py`), the systems' dialects (`dialects.py`), talking to one (`system.py`), the script of
            `grid qsub` (`wrapper.py`).
Elsewhere:  being inside of a job (`launch/allocation.py`), jobs that carry a grid (`grids/batch.py`).
"""

from grid.batch.dialects import DIALECTS, Dialect
from grid.batch.job import JobSpec, JobState, JobStatus, format_walltime, parse_walltime
from grid.batch.system import BatchSystem

__all__ = [
    "DIALECTS",
    "BatchSystem",
    "Dialect",
    "JobSpec",
    "JobState",
    "JobStatus",
    "format_walltime",
    "parse_walltime",
]
