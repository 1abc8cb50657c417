"""How long until 8 ssh hosts serve, against the slowest alone? And 5,000 files to 3 of them, against `tar | ssh`? In s.

Needs the test hosts: root, on Debian. Run with `python -m benchmarks.ssh_hosts`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.parts.measure import Row, table
from grid import SSHGrid
from grid.testing.probe import Probe
from tests.lab import Lab, LabHost

ROUNDS = 3


def start(names: list[str]) -> float:
    """Seconds from nothing to a server on each host."""
    began = time.perf_counter()
    with SSHGrid(names, output=None) as g:
        g.publish(Probe(), wait="all")
        return time.perf_counter() - began


def tar_over_ssh(lab: Lab, folder: str, names: list[str]) -> float:
    """Seconds of `tar c | ssh HOST tar x` to all hosts at once."""

    def send(name: str) -> None:
        ssh = f"ssh -F {lab.ssh_config} {name}"
        subprocess.run(
            f"tar cz -C {folder} . | {ssh} 'rm -rf /tmp/taken; mkdir /tmp/taken; tar xz -C /tmp/taken'",
            shell=True,
            check=True,
        )

    began = time.perf_counter()
    with ThreadPoolExecutor() as pool:
        list(pool.map(send, names))
    return time.perf_counter() - began


def main() -> None:
    names = [f"h{index}" for index in range(8)]
    with Lab([LabHost(name) for name in names]) as lab, tempfile.TemporaryDirectory() as folder:
        os.environ["GRID_SSH_CONFIG"] = str(lab.ssh_config)
        for index in range(5000):
            path = Path(folder, f"d{index % 50}", f"f{index}.txt")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(os.urandom(500) * 8)
        together = [start(names) for _ in range(ROUNDS)]
        alone = [max(start([name]) for name in names) for _ in range(ROUNDS)]
        first, again, tar = [], [], []
        for _ in range(ROUNDS):
            tar.append(tar_over_ssh(lab, folder, names[:3]))
            with SSHGrid(names[:3], output=None) as g:
                g.publish(Probe(), wait="all")
                for times in (first, again):
                    began = time.perf_counter()
                    g.copy_files(folder, ["*"])
                    times.append(time.perf_counter() - began)
        table(
            "ssh hosts (two cores carry all of them)",
            [
                Row("8 hosts together / the slowest alone", [together], [alone], 2.0),
                Row("5,000 files to 3 hosts / tar | ssh", [first], [tar], 1.1),
                Row("again, unchanged / tar | ssh", [again], [tar], 0.3),
            ],
            unit="s",
        )


if __name__ == "__main__":
    main()
