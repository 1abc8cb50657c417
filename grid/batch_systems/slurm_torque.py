"""Slurm by its own qsub, of the package slurm-wlm-torque. Asked and cancelled by Slurm's commands, which tell more.

its qsub takes no script from standard input, honours only -N, -l and -q of the script's own lines, the last -l of
several, and hands its words to a shell without quotes
"""

from __future__ import annotations

import re

from grid.batch_systems.dialect import Seen
from grid.batch_systems.job import JobSpec, format_walltime
from grid.batch_systems.pbs import nodes_word
from grid.batch_systems.slurm import Slurm
from grid.errors import AllocationError


class SlurmTorque(Slurm):
    """Slurm by its qsub."""

    name = "slurm-torque"
    title = "Slurm with Torque's commands"
    mark = "#PBS"
    commands = ("qsub", "squeue", "scancel")

    def is_here(self, seen: Seen) -> bool:
        """Whether `qsub` is the one that Slurm brings."""
        return "qsub" in seen.commands and seen.qsub_is_slurm

    def directives(self, spec: JobSpec) -> list[str]:
        """The lines `#PBS ...` as Slurm's `qsub` understands them.

        Raises:
            AllocationError: An option of `sbatch` among the resources: that `qsub` would pass it over without a word.
        """
        if options := [resource for resource in spec.resources if resource.startswith("--")]:
            raise AllocationError(
                f"Slurm's qsub takes no {options[0]!r}", hint="Say dialect='slurm' (or GRID_DIALECT=slurm): sbatch does"
            )
        time = [f"walltime={format_walltime(spec.walltime_s)}"] if spec.walltime_s is not None else []
        lines = [f"-N {spec.name}", f"-l {','.join([f'nodes={nodes_word(spec)}', *time, *spec.resources])}"]
        return [*lines, f"-q {spec.queue}"] if spec.queue else lines

    def submit_command(self, spec: JobSpec, path: str) -> list[str]:
        """`qsub` with options for what its script lines can't say: output, and whether it restarts."""
        words = ["qsub"]
        output = spec.output or (f"{spec.name}.o%j" if spec.join else None)
        error = output if spec.join else spec.error
        pairs = {
            "-o": output,
            "-e": error,
            "-A": spec.account,
            "-W": f"depend={spec.depend}" if spec.depend else None,
            "-r": "y" if self.restarts(spec) else "n",
        }
        for option, value in pairs.items():
            words += [option, value] if value else []
        return [*words, "-V", path] if spec.export_all else [*words, path]

    def restarts(self, spec: JobSpec) -> bool:
        """The same as for Slurm, or `#PBS -r y`."""
        return super().restarts(spec) or any(re.search(r"#PBS\s.*-r\s*y\b", line) for line in spec.lines)
