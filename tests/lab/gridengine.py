"""A batch system on hosts of a lab: Debian's gridengine 8.1.9, unpacked by `scripts/gridengine` and not installed.

Lives here: its configuration, its queue and parallel environments, waiting until it is ready.
Elsewhere:  what all systems have in common (`cluster.py`), unpacking (`scripts/gridengine`).

All hosts share $SGE_ROOT, /opt/sge, as a cluster does by NFS; each daemon has its spool on its own disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tests.lab.cluster import QUEUE, SLOTS, Cluster
from tests.lab.ground import MissingUnpacked
from tests.lab.host import RunningHost, wait_until

if TYPE_CHECKING:
    from tests.lab.lab import Lab

PLACE = os.environ.get("GRID_LAB_GRIDENGINE", "/var/cache/grid-lab/gridengine")
ROOT = "/opt/sge"
UNPACKED = "/opt/gridengine"
PROGRAMS = f"{UNPACKED}/usr/lib/gridengine"
COMMANDS = ("qsub", "qstat", "qdel", "qconf", "qrsh", "qacct", "qhost", "qmod", "qalter", "qhold", "qrls", "qselect")
RULES = {"mpi": "2", "mpi1": "1", "fill": "$fill_up", "smp": "$pe_slots"}
"""Parallel environments -> how each lays out slots over hosts."""

# As Debian's wrappers set it: by variables of their own.
ENVIRONMENT = f"""\
export SGE_ROOT={ROOT} SGE_CELL=default SGE_ARCH=lx-amd64
LD_LIBRARY_PATH={PROGRAMS}:{UNPACKED}/usr/lib/x86_64-linux-gnu exec {PROGRAMS}/"""
BOOTSTRAP = f"""\
admin_user none
default_domain none
ignore_fqdn false
spooling_method berkeleydb
spooling_lib libspoolb
spooling_params /var/lib/sge/spooldb
binary_path {ROOT}/bin
qmaster_spool_dir /var/lib/sge/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""
CONFIGURATION = """\
execd_spool_dir /var/lib/sge/execd
mailer /bin/true
xterm /bin/false
load_sensor none
prolog none
epilog none
shell_start_mode posix_compliant
login_shells bash,sh
min_uid 0
min_gid 0
user_lists none
xuser_lists none
projects none
xprojects none
enforce_project false
enforce_user auto
load_report_time 00:00:02
max_unheard 00:01:00
reschedule_unknown 00:00:00
loglevel log_info
administrator_mail none
set_token_cmd none
pag_cmd none
token_extend_time none
shepherd_cmd none
qmaster_params none
execd_params none
reporting_params accounting=true reporting=false flush_time=00:00:01 joblog=false sharelog=00:00:00
finished_jobs 100
gid_range 65400-65500
qlogin_command builtin
qlogin_daemon builtin
rlogin_command builtin
rlogin_daemon builtin
rsh_command builtin
rsh_daemon builtin
max_aj_instances 2000
max_aj_tasks 75000
max_u_jobs 0
max_jobs 0
auto_user_oticket 0
auto_user_fshare 0
auto_user_default_project none
auto_user_delete_time 86400
delegated_file_staging false
reprioritize 0
jsv_url none
jsv_allowed_mod ac,h,i,e,o,j,M,N,p,w
"""
MASTER = f"""\
#!/bin/sh
set -e
export SGE_ROOT={ROOT} SGE_CELL=default SGE_ARCH=lx-amd64 SGE_ND=1
export LD_LIBRARY_PATH={PROGRAMS}:{UNPACKED}/usr/lib/x86_64-linux-gnu
# Debian's build looks for its spooling library there and nowhere else.
[ -e /usr/lib/gridengine ] || mount -t overlay -o lowerdir={UNPACKED}/usr/lib:/usr/lib overlay /usr/lib
if [ ! -e /var/lib/sge/spooldb ]; then
    mkdir -p /var/lib/sge/qmaster/job_scripts /var/lib/sge/spooldb
    resources={UNPACKED}/usr/share/gridengine/util/resources
    {PROGRAMS}/spoolinit berkeleydb libspoolb /var/lib/sge/spooldb init
    {PROGRAMS}/spooldefaults.bin configuration {ROOT}/configuration
    {PROGRAMS}/spooldefaults.bin complexes $resources/centry
    {PROGRAMS}/spooldefaults.bin usersets $resources/usersets
    {PROGRAMS}/spooldefaults.bin managers root
fi
exec {PROGRAMS}/sge_qmaster
"""
NODE = f"""\
#!/bin/sh
set -e
export SGE_ROOT={ROOT} SGE_CELL=default SGE_ARCH=lx-amd64 SGE_ND=1
export LD_LIBRARY_PATH={PROGRAMS}:{UNPACKED}/usr/lib/x86_64-linux-gnu
mkdir -p /var/lib/sge/execd
while [ ! -e {ROOT}/ready ]; do sleep 0.1; done  # one that the master does not know yet is asked again after a minute
exec {PROGRAMS}/sge_execd
"""
PARALLEL = """\
pe_name {name}
slots 999
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule {rule}
control_slaves TRUE
job_is_first_task FALSE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""
# Seconds, where an installation has a quarter of a minute.
SCHEDULER = """\
algorithm default
schedule_interval 0:0:1
maxujobs 0
queue_sort_method load
job_load_adjustments NONE
load_adjustment_decay_time 0:0:0
load_formula np_load_avg
schedd_job_info false
flush_submit_sec 1
flush_finish_sec 1
params none
reprioritize_interval 0:0:0
halftime 168
usage_weight_list cpu=1.000000,mem=0.000000,io=0.000000
compensation_factor 5.000000
weight_user 0.250000
weight_project 0.250000
weight_department 0.250000
weight_job 0.250000
weight_tickets_functional 0
weight_tickets_share 0
share_override_tickets TRUE
share_functional_shares TRUE
max_functional_jobs_to_schedule 200
report_pjob_tickets TRUE
max_pending_tasks_per_job 50
halflife_decay_list none
policy_hierarchy OFS
weight_ticket 0.010000
weight_waiting_time 0.000000
weight_deadline 3600000.000000
weight_urgency 0.100000
weight_priority 1.000000
max_reservation 0
default_duration INFINITY
"""
QUEUE_TEXT = """\
qname {queue}
hostlist {nodes}
seq_no 0
load_thresholds NONE
suspend_thresholds NONE
nsuspend 1
suspend_interval 00:05:00
priority 0
min_cpu_interval 00:05:00
processors UNDEFINED
qtype BATCH INTERACTIVE
ckpt_list NONE
pe_list {environments}
rerun FALSE
slots {slots}
tmpdir /tmp
shell /bin/bash
prolog NONE
epilog NONE
shell_start_mode posix_compliant
starter_method NONE
suspend_method NONE
resume_method NONE
terminate_method NONE
notify 00:00:60
owner_list NONE
user_lists NONE
xuser_lists NONE
subordinate_list NONE
complex_values NONE
projects NONE
xprojects NONE
calendar NONE
initial_state default
s_rt INFINITY
h_rt INFINITY
s_cpu INFINITY
h_cpu INFINITY
s_fsize INFINITY
h_fsize INFINITY
s_data INFINITY
h_data INFINITY
s_stack INFINITY
h_stack INFINITY
s_core INFINITY
h_core INFINITY
s_rss INFINITY
h_rss INFINITY
s_vmem INFINITY
h_vmem INFINITY
"""


class GridEngine(Cluster):
    """The master runs on `head`."""

    shares: ClassVar[Mapping[str, str]] = {ROOT: "sge", UNPACKED: PLACE}

    def __init__(self, size: int) -> None:
        if not Path(PLACE, "usr/lib/gridengine/sge_qmaster").exists():
            raise MissingUnpacked("gridengine is not unpacked: run scripts/gridengine as root")
        super().__init__(size)
        self.head: RunningHost | None = None

    def furnish(self, lab: Lab) -> None:
        self.head = lab.hosts["head"]
        root = lab.directory / "shares/sge"
        common = root / "default/common"
        common.mkdir(parents=True)
        for name in ("bin", "utilbin"):
            (root / name).mkdir()
            (root / name / "lx-amd64").symlink_to(PROGRAMS)
        (root / "util").symlink_to(f"{UNPACKED}/usr/share/gridengine/util")
        texts = {
            "default/common/bootstrap": BOOTSTRAP,
            "default/common/act_qmaster": "head\n",
            "configuration": CONFIGURATION,
            "scheduler": SCHEDULER,
            "queue": QUEUE_TEXT.format(
                queue=QUEUE, nodes=" ".join(self.names), slots=SLOTS, environments=" ".join(RULES)
            ),
            **{f"pe.{name}": PARALLEL.format(name=name, rule=rule) for name, rule in RULES.items()},
        }
        for name, text in texts.items():
            (root / name).write_text(text)
        (root / "setup").write_text(self._setup())
        for host in self.hosts(lab):
            for command in COMMANDS:
                host.write_file(f"/usr/local/bin/{command}", f'#!/bin/sh\n{ENVIRONMENT}{command} "$@"\n', 0o755)
            host.write_file("/usr/local/bin/start-master", MASTER, 0o755)
            host.write_file("/usr/local/bin/start-node", NODE, 0o755)
            host.services["sge_execd"] = "/usr/local/bin/start-node"
        self.head.services = {"sge_qmaster": "/usr/local/bin/start-master"}

    def _setup(self) -> str:
        lines = ["set -e", "qconf -ah head", "qconf -as head"]
        lines += [f"qconf -ah {name}; qconf -as {name}" for name in self.names]
        lines += [f"qconf -Msconf {ROOT}/scheduler", *(f"qconf -Ap {ROOT}/pe.{name}" for name in RULES)]
        return "\n".join([*lines, f"qconf -Aq {ROOT}/queue", f"touch {ROOT}/ready", ""])

    def wait_until_idle(self, limit_s: float = 60) -> None:
        head = self.head
        assert head is not None

        def is_up() -> bool:
            return head.run(["qconf", "-sh"], user="root").returncode == 0

        wait_until(is_up, "the master", limit_s=limit_s)
        if head.run(["qconf", "-sql"], user="root").returncode:
            done = head.run(["sh", f"{ROOT}/setup"], user="root")
            assert done.returncode == 0, done

        def idle() -> bool:
            rows = head.run(["qstat", "-f"], user="root").stdout.splitlines()
            ready = [row for row in rows if row.startswith(f"{QUEUE}@") and len(row.split()) == 5]
            return len(ready) == len(self.names) and all("0/0/" in row for row in ready)

        wait_until(idle, f"{len(self.names)} idle nodes", limit_s=limit_s)
