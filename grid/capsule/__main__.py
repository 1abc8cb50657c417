"""`python -m grid.capsule FILE SCRIPT [ARGS]`: what `grid run --capsule` becomes."""

from __future__ import annotations

import sys

from grid.capsule.record import run

run(sys.argv[1], sys.argv[2], sys.argv[3:])
