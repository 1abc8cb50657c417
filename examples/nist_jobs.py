"""Submits fits of NIST's data sets as jobs, watches them improve, and compares the results with the certified ones.

    python examples/nist_jobs.py                        a job server in this process, jobs on this machine
    python examples/nist_jobs.py --server fits          the one that `grid serve --name fits` runs
    python examples/nist_jobs.py Hahn1 --cycles 500 --server fits --detach

Lives here: the script. Elsewhere: the services (`nist_service.py`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nist_data import load
from nist_service import FitSet, Worst

from grid.jobs import Monitor, ServerProxy, open_service, remote_service


class Show(Monitor):
    """Prints what its job says."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_improved(self, message) -> None:
        print(f"{self.name:10} improved   rss {message.partial['rss']:.6E}  {message.partial['digits']:.1f} digits")

    def on_completed(self, message) -> None:
        print(f"{self.name:10} complete   {message.final['cycles']} cycles")

    def on_message(self, message) -> None:
        """Others are not shown."""


@contextmanager
def service(name: str | None) -> Iterator[ServerProxy]:
    if name is None:
        with tempfile.TemporaryDirectory() as place, open_service(place) as own:
            yield own
    else:
        with remote_service(name) as other:
            yield other
        other.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fits of NIST's reference data as jobs.")
    parser.add_argument("sets", nargs="*", metavar="SET", help="names of data sets (default: all eight)")
    parser.add_argument("--server", metavar="NAME", help="a running job server; default: one in this process")
    parser.add_argument("--cycles", type=int, default=3)
    parser.add_argument("--tries", type=int, default=4, help="starts in each cycle")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--detach", action="store_true", help="submit, print the jobs' ids, and leave")
    options = parser.parse_args(arguments)
    known = load()
    for name in options.sets:
        if name not in known:
            parser.error(f"no data set {name!r}; there are {', '.join(known)}")

    with service(options.server):
        jobs = {}
        for name in options.sets or known:
            values = {"set": name, "cycles": options.cycles, "tries": options.tries, "seed": options.seed}
            monitor = None if options.detach else Show(name)
            jobs[name] = FitSet.submit(**values, monitor=monitor, tags=["project=nist", f"name={name}"])
        if options.detach:
            print(*jobs.values())
            return 0
        worst = Worst.submit(results=[job.result for job in jobs.values()])  # runs when all of them are complete
        for name, job in jobs.items():
            result = job.wait()
            print(f"{name:10} {result['digits']:4.1f} digits of the worst parameter")
        print(f"fewest digits: {worst.wait()['set']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
