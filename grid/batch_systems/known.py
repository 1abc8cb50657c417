"""Which batch systems there are: ours, and those that a site adds by an entry point of group `grid.batch_systems`.

Lives here: `DIALECTS`, by name; which of them a machine has; whose job an environment is.
Elsewhere:  what one of them is (`dialect.py`).

A site's own comes first and may have the name of one of ours, to mend it.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache

from grid.batch_systems.dialect import Dialect, Launcher, Seen
from grid.batch_systems.openpbs import OpenPbs
from grid.batch_systems.sge import Sge
from grid.batch_systems.slurm import Slurm
from grid.batch_systems.slurm_torque import SlurmTorque
from grid.batch_systems.torque import Torque
from grid.errors import AllocationError

logger = logging.getLogger(__name__)

GROUP = "grid.batch_systems"
VARIABLE = "GRID_DIALECT"
"""Names the one that is meant."""

OURS: tuple[type[Dialect], ...] = (Torque, OpenPbs, Slurm, SlurmTorque, Sge)


class Dialects(Mapping[str, Dialect]):
    """All of them by name. Entry points are looked for at the first question that ours can't answer."""

    def __init__(self) -> None:
        self._ours = {kind.name: kind() for kind in OURS}

    def __getitem__(self, name: str) -> Dialect:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> Mapping[str, Dialect]:
        sites = _sites(tuple(sys.path))
        return {**sites, **{name: each for name, each in self._ours.items() if name not in sites}}


@cache
def _sites(path: tuple[str, ...]) -> dict[str, Dialect]:
    """Those of entry points; looked for anew when `sys.path` has changed."""
    from importlib import metadata  # here, for it takes as long as all of ours together

    found: dict[str, Dialect] = {}
    for point in metadata.entry_points(group=GROUP):
        try:
            made = point.load()()
            if not isinstance(made, Dialect) or not made.name:
                raise TypeError("it is no subclass of grid.batch_systems.Dialect with a name")
        except Exception as exc:  # whatever a site's code raises must not end programs that need none of it
            logger.warning(
                "the batch system %s (%s) can't be loaded: %s: %s", point.name, point.value, type(exc).__name__, exc
            )
            continue
        found[made.name] = made
    return found


DIALECTS: Mapping[str, Dialect] = Dialects()


def dialect_named(name: str) -> Dialect:
    """The one of that name.

    Raises:
        AllocationError: There is none; the message names those that there are.
    """
    if name not in DIALECTS:
        raise AllocationError(f"there is no dialect {name!r}", hint=f"There are {', '.join(DIALECTS)}")
    return DIALECTS[name]


# -- on a machine where jobs are submitted


def detect_script() -> str:
    """Shell text that finds out what a machine has; `choose_dialect` reads its answer."""
    commands = sorted({command for dialect in DIALECTS.values() for command in (*dialect.commands, "qconf")})
    return DETECT.replace("{commands}", " ".join(commands))


DETECT = r"""
for c in {commands}; do
    p=$(command -v "$c" 2>/dev/null) && printf 'has %s %s\n' "$c" "$p"
done
q=$(command -v qsub 2>/dev/null) && head -c 4096 "$q" 2>/dev/null | grep -qi slurm && echo 'qsub is slurm'
s=$(command -v qstat 2>/dev/null) && ! head -c 4096 "$s" 2>/dev/null | grep -qi slurm && "$s" --version 2>&1 |
    head -n 3 | sed 's/^/version /'
:
"""


def choose_dialect(answer: str, *, prefer: str = "slurm") -> Dialect:
    """Which system a machine has, by what `detect_script` printed there.

    Args:
        prefer: Of Slurm's two faces, the one that is meant: slurm or slurm-torque.
    Raises:
        AllocationError: None, with what was looked for; or two.
    """
    seen = Seen(
        frozenset(re.findall(r"^has (\S+) ", answer, re.M)),
        "\n".join(re.findall(r"^version (.*)$", answer, re.M)),
        "qsub is slurm" in answer,
    )
    found = [dialect for dialect in DIALECTS.values() if dialect.is_here(seen)]
    if sites := [dialect for dialect in found if type(dialect) not in OURS]:
        found = sites  # a site knows best what its machines have
    elif {dialect.name for dialect in found} == {"slurm", "slurm-torque"}:
        found = [dialect for dialect in found if (dialect.name == "slurm-torque") == (prefer == "slurm-torque")]
    if not found:
        looked = ", ".join(sorted({command for dialect in DIALECTS.values() for command in dialect.commands}))
        raise AllocationError(
            f"no batch system was found (looked for {looked} on the PATH)",
            hint="Is this the machine where jobs are submitted? A `module load` may be needed",
        )
    if len(found) > 1:
        names = sorted((dialect.name for dialect in found), key=lambda name: (not name.startswith("slurm"), name))
        raise AllocationError(
            f"both {names[0]} and {names[1]} are here", hint=f"Say which one is meant: {VARIABLE}={names[0]}"
        )
    return found[0]


# -- inside of a job


def job_systems(environ: Mapping[str, str]) -> list[Dialect]:
    """Those of which the environment is a job's: one of each family."""
    found: dict[str, Dialect] = {}
    for dialect in DIALECTS.values():
        if dialect.signs and dialect.speaks(environ):
            found.setdefault(dialect.family or dialect.name, dialect)
    return list(found.values())


def launcher_names() -> list[str]:
    """What `Host.ssh` may say for a node of the job that we are in."""
    return list(dict.fromkeys(each.name for dialect in DIALECTS.values() for each in dialect.launchers))


def launcher_named(name: str, environ: Mapping[str, str]) -> Launcher:
    """The launcher of that name: of the system whose job we are in, if it has one."""
    of_the_job = [each for dialect in job_systems(environ) for each in dialect.launchers]
    others = [each for dialect in DIALECTS.values() for each in dialect.launchers]
    return next(each for each in (*of_the_job, *others) if each.name == name)
