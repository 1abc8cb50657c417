"""A batch system on hosts of a lab: Slurm with the qsub, qstat and qdel that Debian ships for it.

Lives here: its configuration, what makes it answer more as Torque does, waiting until it is ready.
Elsewhere:  what all systems have in common (`cluster.py`).

Its hosts share one munged through a shared /run/munge.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tests.lab.cluster import QUEUE, SLOTS, Cluster
from tests.lab.ground import FREEZER
from tests.lab.host import RunningHost, wait_until

if TYPE_CHECKING:
    from tests.lab.lab import Lab

NODE_FILES = "/var/spool/torque/aux"  # where Torque keeps them as well

CONFIGURATION = """\
ClusterName=lab
SlurmctldHost=head({head})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=/var/lib/slurmctld
SlurmdSpoolDir=/var/lib/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/none
TaskProlog=/etc/slurm/task_prolog.sh
Epilog=/etc/slurm/epilog.sh
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
# A job whose node died ends, as with Torque; the default would start it again.
JobRequeue=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# Slots are what we say, not what the machine has.
SlurmdParameters=config_overrides
JobSubmitPlugins=lua
# A request that can never be met is refused, not queued for ever.
EnforcePartLimits=ALL
SlurmdTimeout=10
KillWait=5
MinJobAge=300
# Heterogeneous jobs are started by the backfill scheduler alone, which passes by every 30 s unless told otherwise.
SchedulerParameters=batch_sched_delay=0,bf_interval=1
GresTypes=gpu
{nodes}
PartitionName={queue} Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
PartitionName=small Nodes=n1 MaxTime=10 State=UP
"""

# What spank_pbs leaves out. As with Torque the node file stands on the first host only and is written once, by the
# batch step: inside a step of srun SLURM_TASKS_PER_NODE is that step's, and the file would come out wrong.
TASK_PROLOG = f"""\
#!/bin/bash
if [ -z "$SLURM_STEP_ID" ]; then
    file={NODE_FILES}/$SLURM_JOB_ID
    made=$(/usr/bin/generate_pbs_nodefile 2>/dev/null) && mv -f "$made" "$file" && echo "export PBS_NODEFILE=$file"
fi
echo "export PBS_ENVIRONMENT=PBS_BATCH"
echo "export PBS_QUEUE=$SLURM_JOB_PARTITION"
echo "export PBS_O_HOST=$SLURM_SUBMIT_HOST"
# Inherited from `qsub -v A=1` without -V, it makes every plain srun in the job fail: execve(): No such file.
echo "unset SLURM_EXPORT_ENV"
"""

EPILOG = f"""\
#!/bin/sh
rm -f "{NODE_FILES}/$SLURM_JOB_ID"
"""

# nodes=N:ppn=P asks for P slots on each of N nodes. The wrapper says only -N N -n N*P, which would be laid out 4,1,1.
JOB_SUBMIT = """\
function slurm_job_submit(job, partitions, uid)
    local nodes, tasks = job.min_nodes, job.num_tasks
    if nodes ~= nil and tasks ~= nil and nodes > 0 and nodes < 65534 and tasks >= nodes and tasks < 65534
        and tasks % nodes == 0 and (job.ntasks_per_node == nil or job.ntasks_per_node >= 65534) then
        job.ntasks_per_node = tasks / nodes
    end
    return slurm.SUCCESS
end
function slurm_job_modify(job, record, partitions, uid) return slurm.SUCCESS end
return slurm.SUCCESS
"""

# Devices in name only, for what Slurm says of them to jobs: /dev/null and the like, which it accepts as files of some.
GPUS = ("/dev/zero", "/dev/full")
GRES = "".join(f"NodeName=n1 Name=gpu File={file}\n" for file in GPUS)

CGROUP = """\
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainCores=no
ConstrainRAMSpace=no
"""


class Slurm(Cluster):
    """The controller runs on `head`."""

    shares: ClassVar[Mapping[str, str]] = {"/run/munge": "munge"}
    hidden = ()

    def __init__(self, size: int) -> None:
        # With the freezer nothing of a job survives its end; without it a daemon of a job does.
        self.freezer = os.access(FREEZER / "tasks", os.W_OK)
        super().__init__(size)
        self.head: RunningHost | None = None

    def furnish(self, lab: Lab) -> None:
        self.head = lab.hosts["head"]
        nodes = [
            f"NodeName={name} NodeAddr={lab.hosts[name].address} CPUs={SLOTS} RealMemory=2000 State=UNKNOWN"
            + (f" Gres=gpu:{len(GPUS)}" if name == "n1" else "")
            for name in self.names
        ]
        configuration = CONFIGURATION.format(
            head=self.head.address,
            proctrack="cgroup" if self.freezer else "linuxproc",
            nodes="\n".join(nodes),
            queue=QUEUE,
        )
        [spank_pbs] = Path("/usr/lib").glob("*/slurm-wlm/spank_pbs.so")
        for host in self.hosts(lab):
            host.write_file("/etc/slurm/slurm.conf", configuration)
            host.write_file("/etc/slurm/gres.conf", GRES)
            host.write_file("/etc/slurm/plugstack.conf", f"required {spank_pbs}\n")
            host.write_file("/etc/slurm/job_submit.lua", JOB_SUBMIT)
            host.write_file("/etc/slurm/task_prolog.sh", TASK_PROLOG, 0o755)
            host.write_file("/etc/slurm/epilog.sh", EPILOG, 0o755)
            if self.freezer:
                host.write_file("/etc/slurm/cgroup.conf", CGROUP)
            for directory in ("var/lib/slurmctld", "var/lib/slurmd", NODE_FILES.lstrip("/")):
                (host.directory / "root" / directory).mkdir(parents=True)
            (host.directory / "root" / NODE_FILES.lstrip("/")).chmod(0o1777)
            host.services["slurmd"] = f"/usr/sbin/slurmd -D -N {host.name}"
        self.head.write_file("/etc/munge/munge.key", secrets.token_hex(64), 0o400)
        self.head.services = {
            "munged": "/usr/sbin/munged --force --foreground --key-file=/etc/munge/munge.key"
            " --socket=/run/munge/munge.socket.2 --pid-file=/run/munged.pid --seed-file=/var/lib/munged.seed",
            "slurmctld": "/usr/sbin/slurmctld -D",
        }

    def wait_until_idle(self, limit_s: float = 60) -> None:
        assert self.head is not None
        head = self.head
        idle = ["sinfo", "--noheader", "--partition", QUEUE, "--states", "idle", "--format", "%D"]
        wait_until(
            lambda: head.run(idle, user="root").stdout.strip() == str(len(self.names)),
            f"{len(self.names)} idle nodes",
            limit_s=limit_s,
        )
