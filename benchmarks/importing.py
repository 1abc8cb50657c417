"""How long do `import grid` and `grid --help` take? Limits: 150 and 250 ms.

    python -m benchmarks.importing [ROUNDS]

Each in a process of its own, byte code being there; medians, and beside them an interpreter that does nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median
from tempfile import TemporaryDirectory


def seconds(rounds: int, cache: str, *command: str) -> float:
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, env=environment)
        times.append(time.perf_counter() - began)
    return median(times[1:])


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    with TemporaryDirectory() as cache:
        nothing = seconds(rounds, cache, "-c", "pass")
        for name, limit, command in (
            ("import grid", 0.150, ("-c", "import grid")),
            ("from grid import LocalGrid", 0.0, ("-c", "from grid import LocalGrid")),
            ("grid --help", 0.250, ("-m", "grid", "--help")),
        ):
            took = seconds(rounds, cache, *command)
            said = f"limit {limit * 1e3:.0f} ms, {'ok' if took <= limit else 'MISSED'}" if limit else ""
            print(f"{name:28s} {took * 1e3:4.0f} ms ({(took - nothing) * 1e3:.0f} above an empty interpreter)  {said}")


if __name__ == "__main__":
    main()
