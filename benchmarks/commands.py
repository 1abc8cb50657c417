"""How many commands of `true` a second, over a `LocalGrid(2)` and by GNU parallel, both with a joblog, side by side?

    python -m benchmarks.commands [commands of each turn] [turns]

Three turns each, in turns, so that both bear the same load; the median of each, and their ratio. GNU parallel is
left out where it is not installed. `grid exec` is timed whole: its start, its servers' start and end count.

Two cores, Python 3.11, 10,000 commands, commit 0954394: 661 a second against 303 (one turn, cores shared with
others), ratio 2.18; 141 against 75 at load 8 to 9 (medians of three turns), ratio 1.87.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SERVERS, COMMANDS, TURNS = 2, 10_000, 3
LIMIT_S = 600.0


def ways(arguments: Path, joblog: Path) -> dict[str, list[str]]:
    """Name -> the command line that runs `true` for each line of `arguments`."""
    words = ["--joblog", str(joblog)]
    each = ["true", "{}", "::::", str(arguments)]
    found = {"grid exec": [sys.executable, "-m", "grid", "exec", "--local", str(SERVERS), *words, "--", *each]}
    if parallel := shutil.which("parallel"):
        found["GNU parallel"] = [parallel, "-j", str(SERVERS), *words, *each]
    return found


def rate(words: list[str], joblog: Path, count: int) -> float:
    """Commands a second of one turn, which must have run them all."""
    joblog.unlink(missing_ok=True)
    began = time.perf_counter()
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=LIMIT_S)
    took = time.perf_counter() - began
    logged = len(joblog.read_text().splitlines()) - 1
    if logged != count:
        raise SystemExit(f"{words[0]} logged {logged} of {count} commands")
    return count / took


def main() -> None:
    """Print a line for each way, and the ratio."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COMMANDS
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else TURNS
    with tempfile.TemporaryDirectory() as folder:
        arguments, joblog = Path(folder, "arguments"), Path(folder, "joblog")
        arguments.write_text("".join(f"{number}\n" for number in range(count)))
        rates: dict[str, list[float]] = {}
        for _ in range(turns):
            for name, words in ways(arguments, joblog).items():
                rates.setdefault(name, []).append(rate(words, joblog, count))
    middle = {name: statistics.median(each) for name, each in rates.items()}
    for name, value in middle.items():
        print(f"{name:14} {value:7.0f} commands a second")
    if len(middle) > 1:
        print(f"ratio {middle['grid exec'] / middle['GNU parallel']:.2f}")
    else:
        print("GNU parallel is not installed: nothing to compare with")


if __name__ == "__main__":
    main()
