"""The batch system of the tests: a real qsub that spans hosts, and nodes that can fail.

Elsewhere: the hosts under it (`edges/test_lab.py`), what grid does with it.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.lab import Lab
from tests.lab.host import wait_until

pytestmark = pytest.mark.slurm

SCRIPT = """\
#!/bin/bash
sort "$PBS_NODEFILE" | uniq -c
srun hostname | sort
echo "$PBS_ENVIRONMENT $PBS_QUEUE $PBS_O_HOST $PBS_O_WORKDIR"
"""
SLEEPER = "printf '#!/bin/sh\\nexec sleep 1000\\n' >x.sh"


def on_head(lab: Lab, command: str) -> str:
    ssh = ["ssh", "-F", str(lab.ssh_config), "head", command]
    return subprocess.run(ssh, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def state(lab: Lab, job: str) -> str:
    lines = [line.split() for line in on_head(lab, "qstat || true").splitlines()]  # 153: empty
    return next((words[4] for words in lines if words[0] == job), "gone")


def wait_for_state(lab: Lab, job: str, wanted: str) -> None:
    wait_until(lambda: state(lab, job) == wanted, f"job {job} to be {wanted}", limit_s=30)


def test_a_job_spans_hosts_and_finds_its_node_file(slurm: Lab) -> None:
    home = slurm.hosts["head"].path("/home/mara")
    (home / "job.sh").write_text(SCRIPT)
    try:
        job = on_head(slurm, "qsub -l nodes=3:ppn=2,walltime=00:02:00 -o out -e err job.sh")
        wait_for_state(slurm, job, "C")
        assert (home / "err").read_text() == ""
        assert (home / "out").read_text().split() == [
            *("2", "n1", "2", "n2", "2", "n3"),
            *("n1", "n1", "n2", "n2", "n3", "n3"),
            *("PBS_BATCH", "batch", "head", "/home/mara"),
        ]
    finally:
        for name in ("job.sh", "out", "err"):
            (home / name).unlink(missing_ok=True)
    assert not any(Path(slurm.hosts["n1"].path("/var/spool/torque/aux")).iterdir())


def test_qdel_ends_the_processes_of_a_job(slurm: Lab) -> None:
    job = on_head(slurm, f"{SLEEPER}; qsub -l nodes=1 -o /dev/null -e /dev/null x.sh")
    try:
        wait_for_state(slurm, job, "R")
        node = slurm.hosts["n1"]
        wait_until(lambda: any(found[1] == "sleep 1000" for found in node.processes()), "the job to start")
    finally:
        on_head(slurm, f"rm x.sh; qdel {job}")
    wait_until(lambda: not slurm.hosts["n1"].processes(), "the job to end on its node")


def test_a_node_can_lose_its_power_and_come_back() -> None:
    with Lab([], batch=1) as lab:
        lab.hosts["n1"].kill()
        lab.hosts["n1"].power_on()
        assert lab.cluster is not None
        lab.cluster.wait_until_idle()
        job = on_head(lab, "printf '#!/bin/sh\\nhostname\\n' >x.sh; qsub -o out -e err x.sh")
        wait_for_state(lab, job, "C")
        wait_until(lab.hosts["head"].path("/home/mara/out").read_text, "the job's output")
        assert lab.hosts["head"].path("/home/mara/out").read_text() == "n1\n"


def test_two_clusters_do_not_meet() -> None:
    start = time.monotonic()
    with Lab([], batch=1) as one, Lab([], batch=1) as two:
        job = on_head(one, f"{SLEEPER}; qsub -o /dev/null -e /dev/null x.sh")
        wait_for_state(one, job, "R")
        assert state(two, job) == "gone"
        assert two.hosts["n1"].processes() == []
    assert time.monotonic() - start < 60
