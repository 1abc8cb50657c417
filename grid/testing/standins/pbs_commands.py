"""qsub, qstat, qdel, pbsdsh, pbs_tmrsh as TORQUE 6.1.3 and OpenPBS (23.06.06, and git of April 2026) have them.

Made from records of the real ones: what they print, on which stream, with which exit status; what stands in a job's
environment; what happens at its end. They are strict: an option that the real command does not have ends as it ends
there. `config["system"]` is torque, openpbs or openpbs-git; `history` says whether OpenPBS keeps one.

Lives here: their names.
Elsewhere:  each of them (`pbs_qsub.py`, `pbs_qstat.py`, `pbs_inside.py`), the server's part (`pbs_server.py`).
"""

from __future__ import annotations

from grid.testing.standins.pbs_inside import pbs_tmrsh, pbsdsh
from grid.testing.standins.pbs_qstat import qdel, qstat
from grid.testing.standins.pbs_qsub import qsub

COMMANDS = {"qsub": qsub, "qstat": qstat, "qdel": qdel, "pbsdsh": pbsdsh, "pbs_tmrsh": pbs_tmrsh}
