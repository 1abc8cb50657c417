"""Batch systems as words: one file for each, behind one class.

Lives here: what a job asks for and what is said of it (`job.py`), what a batch system is (`dialect.py`), the systems
            (`torque.py`, `openpbs.py`, `slurm.py`, `slurm_torque.py`, `sge.py`), the list of them (`known.py`).
Elsewhere:  running their commands (`batch/`), being inside of a job (`launch/allocation.py`), starting programs on its
            nodes (`launch/tasks.py`), jobs that carry a grid (`grids/batch.py`).
"""

from grid.batch_systems.dialect import Answer, Dialect, Launcher, Seen
from grid.batch_systems.job import JobSpec, JobState, JobStatus, Outcome, format_walltime, parse_walltime
from grid.batch_systems.known import DIALECTS
from grid.batch_systems.nodes import Node

__all__ = [
    "DIALECTS",
    "Answer",
    "Dialect",
    "JobSpec",
    "JobState",
    "JobStatus",
    "Launcher",
    "Node",
    "Outcome",
    "Seen",
    "format_walltime",
    "parse_walltime",
]
