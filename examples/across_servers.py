"""One workflow over two job servers: data are reduced where they are, and fitted where the computers are.

    python examples/across_servers.py DATA COMPUTERS     two job servers: URLs, or names of grid login

The script makes a plan and waits: the second server itself listens to the first one's job, fetches its file from there
with credentials for this one job, and goes on, also if the script is ended. Run it again: what was simulated is
remembered.
"""

from __future__ import annotations

import sys

import across_service
from across_service import Fit, Reduce, Simulate

from grid.jobs import ServerProxy, remote_service


def plan(data: ServerProxy, computers: ServerProxy) -> dict[str, object]:
    """Submit all of it, and wait for the end."""
    computers.install_service(across_service).wait(60)
    reduced = data.submit(Reduce.request(runs=20))
    fetched = computers.fetch_url(
        reduced.url("reduced.csv"), auth=data.credentials(jobs=[reduced], lifetime_s=3600), when=reduced
    )
    simulated = computers.submit(Simulate.request(centres=list(range(60, 101, 4)), widths=[8, 10, 12, 14]))
    fit = computers.submit(Fit.request(path=fetched.filename, simulated=simulated.result), when=fetched)
    print(f"{reduced} reduces; {fetched} fetches, {simulated} simulates, {fit} fits")
    print(fit.explain())
    found = dict(fit.wait(300))
    found["remembered"] = "remembered" in simulated.status["reason"]
    return found


def main() -> None:
    with remote_service(sys.argv[1]) as data, remote_service(sys.argv[2]) as computers:
        found = plan(data, computers)
        data.close()
        computers.close()
    print(f"centre {found['centre']}, width {found['width']}, chi square {found['chi2']:.1f}")
    print("the simulation was remembered" if found["remembered"] else "the simulation was made")


if __name__ == "__main__":
    main()
