"""Batch jobs, private kernels and pilots on batch systems: real ones, and the stand-ins for others.

Elsewhere: the systems and what differs between them (`site.py`), what is Slurm's alone (`test_slurm.py`).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grid import LocalGrid, ServerLost
from grid.batch import BatchSystem
from grid.hosts import Host
from grid.launch import connect
from grid.testing import batch
from grid.testing.probe import Probe, Traveller
from tests.cluster.site import ENVIRONMENT, NIGHTLY, NODES, REAL, SYSTEMS, Site
from tests.lab import Lab
from tests.lab.host import wait_until
from tests.lab.titles import is_of_kernel

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def place(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that all nodes share, /home/mara/work; and nothing of ours anywhere afterwards."""
    monkeypatch.setenv("GRID_SSH_CONFIG", str(site.lab.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    site.head.run(["mkdir", "work"], check=True)
    yield site.home / "work"
    site.clear()


# -- the batch system --------------------------------------------------------------------------------------------------


@pytest.mark.row("B01", "B09", "B11", "B12", "B15", "L10")
@pytest.mark.parametrize("check", batch.CHECKS, ids=lambda check: check.__name__)
def test_every_system_does_what_a_batch_system_does(
    check: Callable[[BatchSystem, str], None], site: Site, place: Path
) -> None:
    with connect(Host("head")) as connection:
        for dialect in site.dialects:
            check(BatchSystem(connection, dialect), "/home/mara/work")
            site.head.run(["sh", "-c", "rm -rf work; mkdir work"])


@pytest.mark.row("B01", "L01")
def test_which_one_it_is_is_found_out(site: Site, place: Path) -> None:
    with connect(Host("head")) as connection:
        assert BatchSystem(connection).dialect.name == site.dialects[0]
        assert BatchSystem(connection, prefer="slurm-torque").dialect.name == site.dialects[-1]


# -- the wrapper -------------------------------------------------------------------------------------------------------

SCRIPT = """\
import os, signal, sys, time
if sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
    open("up", "w").close()
    time.sleep(300)
print(sys.argv[1:], os.environ["WORD"], os.getcwd())
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.row("B08", "B09", "D05", "L10")
def test_the_wrapper_ends_as_the_script_ends(site: Site, place: Path) -> None:
    (place / "run.py").write_text(SCRIPT)
    ask = site.qsub("-v", "WORD=it's", "-o", "out", "-j", "oe", "--wait", nodes=2, ppn=2)
    done = site.grid(*ask, "--", "python", "run.py", "3", "a b")
    assert done.returncode == 3, done.stderr
    assert output(place, bool) == "['3', 'a b'] it's /home/mara/work\n"
    assert site.grid(*ask, "--", "python", "run.py", "0").returncode == 0
    assert site.grid(*ask, "--", "python", "run.py", "kill").returncode == 128 + signal.SIGKILL
    refused = site.grid(*site.qsub("-q", "nosuch", "--", "python", "run.py", "0"))
    assert refused.returncode not in (0, 2) and re.search("partition|queue", refused.stderr), refused
    if site.has_sbatch:
        native = site.grid("sbatch", "-n", "2", "-v", "WORD=x", "--wait", "--", "python", "run.py", "4")
        assert native.returncode == 4, native.stderr
        refused = site.grid("qsub", "-l", "nodes=99", "--", "python", "run.py", "0")
        assert refused.returncode == 1 and "submission failed" in refused.stderr, refused


@pytest.mark.row("B08", "B11", "L07")
def test_a_job_that_is_cancelled_is_told_and_its_wrapper_says_so(site: Site, place: Path) -> None:
    (place / "run.py").write_text(SCRIPT)
    ssh = ["ssh", "-F", str(site.lab.ssh_config), "head"]
    ask = site.qsub("-v", "WORD=x", "-o", "out", "-e", "err", "--wait", "--", "python", "run.py", "wait")
    command = ENVIRONMENT + "exec python3 -m grid " + " ".join(ask)
    waiting = subprocess.Popen([*ssh, command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with waiting:
        assert waiting.stdout is not None
        job = waiting.stdout.readline().strip()
        wait_until((place / "up").exists, "the script to run", limit_s=30)
        shown = status_of(site, job)
        cancelled = site.grid("batch", "cancel", job)
        assert shown["state"] == "running" and re.match("n[123]", str(shown["nodes"])), shown
        assert cancelled.returncode == 0, cancelled
        _, said = waiting.communicate(timeout=60)
        # the script's own word after SIGTERM, where it is given the time for one
        silent = site.kills_at_once and (waiting.returncode, f"job {job} was cancelled: " in said) == (1, True)
        assert waiting.returncode == 9 or silent, (waiting.returncode, said)
    assert status_of(site, job)["state"] == "cancelled"


@pytest.mark.row("L15", "B08")
@pytest.mark.skipif(not NIGHTLY, reason="half a minute each: in scripts/nightly, and on stand-ins in each run")
@pytest.mark.parametrize("site", REAL, indirect=True)
def test_a_server_is_started_again_while_a_job_is_waited_for(site: Site, place: Path) -> None:
    (place / "run.py").write_text(
        "import os, sys, time\nopen('up', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.05)\nsys.exit(3)"
    )
    server = {"slurm": "slurmctld", "gridengine": "sge_qmaster"}[site.system]
    own = {"slurm": "#SBATCH --requeue", "gridengine": "#$ -r y"}[site.system]  # its end is the server's to tell
    ask = site.qsub("--line", shlex.quote(own), "-o", "/dev/null", "-j", "oe", "--wait", "--", "python", "run.py")
    command = f"{ENVIRONMENT} exec python3 -m grid {' '.join(ask)} 2>said"
    with subprocess.Popen(
        ["ssh", "-F", str(site.lab.ssh_config), "head", command], stdout=subprocess.DEVNULL
    ) as waiting:
        wait_until((place / "up").exists, "the script to run", limit_s=30)
        site.head.stop_service(server)
        try:
            wait_until(lambda: "is asked again" in (place / "said").read_text(), "a word about it", limit_s=60)
            (place / "go").touch()
        finally:
            site.head.start_service(server)
        assert waiting.wait(90) == 3, (place / "said").read_text()
    site.lab.cluster.wait_until_idle()
    assert (place / "said").read_text().count("is asked again") == 1


@pytest.mark.row("L16", "L13", "B11")
@pytest.mark.parametrize("site", ["gridengine"], indirect=True)
def test_one_task_of_an_array_is_cancelled_or_all(site: Site, place: Path) -> None:
    (place / "run.py").write_text("import os, time; open(os.environ['SGE_TASK_ID'], 'w'); time.sleep(300)")
    job = site.grid(
        "qsub", "--line", "#$ -t 1-3", "-o", "/dev/null", "-j", "oe", "--", "python", "run.py"
    ).stdout.strip()
    wait_until(lambda: all((place / name).exists() for name in "123"), "the tasks to run")
    assert site.grid("batch", "cancel", f"{job}.2").returncode == 0
    wait_until(lambda: status_of(site, f"{job}.2")["state"] == "cancelled", "the task to end")
    assert [status_of(site, each)["state"] for each in (job, f"{job}.1", f"{job}.3")] == ["running"] * 3
    assert site.grid("batch", "cancel", job).returncode == 0
    site.wait_until_quiet()
    wait_until(lambda: status_of(site, job)["state"] == "cancelled", "the array to end")


def status_of(site: Site, job: str) -> dict[str, object]:
    said = site.grid("batch", "status", job, "--json")
    (row,) = json.loads(said.stdout)
    found: dict[str, object] = row
    return found


def output(place: Path, enough: Callable[[str], object]) -> str:
    """What the job printed, once it is enough: a job's output may come late."""
    wait_until(lambda: (place / "out").exists() and enough((place / "out").read_text()), "the job's output")
    return (place / "out").read_text()


HOLDS = """\
import sys, time
from grid import Grid
from grid.testing.probe import Probe
with Grid.from_allocation(wait="all", output=None) as g:
    sid = g.publish(Probe())
    if sys.argv[1] == "busy":
        waiting = g.broadcast(sid, "wait_for", "/nowhere/never", 300)
        open("up", "w").close()
        g.gather(waiting)
    open("up", "w").close()
    time.sleep(300)
"""


@pytest.mark.row("L06", "L07", "B08", "L10", "L13")
@pytest.mark.parametrize("doing", ["idle", "busy"])
def test_a_job_that_is_cancelled_leaves_nothing_on_its_nodes(doing: str, site: Site, place: Path) -> None:
    (place / "run.py").write_text(HOLDS)
    ask = site.qsub(nodes=2, ppn=2)
    if site.has_sbatch and doing == "busy":
        ask = ["sbatch", "-n", "2", "--ntasks-per-node", "2"]
    done = site.grid(*ask, "-o", "out", "--", "python", "run.py", doing)
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    wait_until((place / "up").exists, "the script to run", limit_s=60)
    assert site.grid("batch", "cancel", job).returncode == 0
    site.wait_until_tidy()
    row = status_of(site, job)
    # TORQUE's own word is 265 or 271, as recorded; Grid Engine has none
    codes = (143, 265, 271, None) if site.kills_at_once else (143,)
    assert row["state"] == "cancelled" and row["exit_status"] in codes, row


@pytest.mark.row("L06", "L07", "B08", "L10", "L13")
@pytest.mark.parametrize("site", [each for each in SYSTEMS if not each.startswith("slurm")], indirect=True)
def test_a_job_whose_time_is_up_leaves_nothing_on_its_nodes(site: Site, place: Path) -> None:
    """Not on Slurm, whose walltimes are whole minutes: it ends such a job as one that is cancelled."""
    (place / "run.py").write_text(HOLDS)
    done = site.grid(*site.qsub("-o", "out", nodes=2, ppn=2, walltime="0:00:25"), "--", "python", "run.py", "busy")
    job = done.stdout.strip()
    wait_until((place / "up").exists, "the script to run", limit_s=60)
    wait_until(lambda: not site.jobs(), "its time to be up", limit_s=90)
    site.wait_until_tidy()
    row = status_of(site, job)
    assert row["state"] == "killed" and "walltime" in str(row["reason"]), row


@pytest.mark.row("B11", "L10")
def test_another_users_job_is_neither_cancelled_nor_said_to_be(site: Site, place: Path) -> None:
    site.head.run(["sh", "-c", "printf '#!/bin/sh\\nexec sleep 300\\n' >x.sh"], user="lena")
    submit = ["sbatch", "--parsable"] if site.has_sbatch else ["qsub", "-terse"] if site.dialect == "sge" else ["qsub"]
    job = site.head.run([*submit, "x.sh"], user="lena", check=True).stdout.strip()
    try:
        refused = site.grid("batch", "cancel", job)
        assert refused.returncode == 1 and "Is it yours?" in refused.stderr, refused
        assert status_of(site, job)["state"] in ("queued", "running", "unknown")
    finally:
        site.head.run(["scancel" if site.has_sbatch else "qdel", job], user="lena", check=True)
        site.wait_until_quiet()
        site.head.run(["sh", "-c", "rm -f *"], user="lena")


# -- inside of a job ---------------------------------------------------------------------------------------------------

WHERE = """\
import socket, sys
from grid import Grid
class Where:
    def name(self): return socket.gethostname()
if __name__ == "__main__":
    with Grid.from_allocation(wait="all", launcher=sys.argv[1], output=None) as g:
        sid = g.publish(Where())
        print(*sorted(g.gather(g.broadcast(sid, "name"))))
        print(*sorted({home["transport"] for home in g.status()["homes"]}))
"""


@pytest.mark.row("B02", "B03", "B04", "B06", "B07", "B10", "B14", "L13")
def test_a_private_kernel_on_the_nodes_of_a_job(site: Site, place: Path) -> None:
    (place / "run.py").write_text(WHERE)
    for launcher in (*site.launchers, "ssh"):
        ask = site.qsub("-o", "out", "-e", "err", "--wait", nodes=3, ppn=2)
        done = site.grid(*ask, "--", "python", "run.py", launcher)
        assert done.returncode == 0, (launcher, (place / "err").read_text())
        assert output(place, lambda text: "local" in text).splitlines() == ["n1 n1 n2 n2 n3 n3", "direct local"]
        (place / "out").unlink()
        site.wait_until_tidy()


@pytest.mark.row("L14")
def test_the_log_in_host_tells_of_a_grid_in_a_job(site: Site, place: Path) -> None:
    (place / "run.py").write_text(HOLDS)
    job = site.grid(*site.qsub("-o", "out"), "--", "python", "run.py", "idle").stdout.strip()
    wait_until((place / "up").exists, "the script to run", limit_s=60)
    (found,) = json.loads(site.grid("status", "--json").stdout)
    assert found["status"] is None and (found["job"], found["error"]) == (job, "") and found["node"] in NODES, found
    shown = site.grid("status", "run.py")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"{found['name']}: in job {job} on {found['node']}, process {found['pid']}, up " in shown.stdout
    written = site.home / f".grid/batch/grid-{found['id']}.json"
    left = written.read_text()
    assert site.grid("batch", "cancel", job).returncode == 0
    site.wait_until_quiet()
    wait_until(lambda: not site.jobs(), "the job to be off the list")
    written.write_text(left)  # as if the script had been killed
    site.head.run(["chown", "mara:", f".grid/batch/{written.name}"], user="root")
    assert site.grid("status", "--json").stdout.strip() == "[]"


@pytest.mark.row("B02", "B08", "D03", "D07")
def test_replica_exchange_in_a_job_unchanged(site: Site, place: Path) -> None:
    ask = site.qsub("-o", "out", "-e", "err", "--wait", nodes=3, ppn=2)
    example = ("python", "/grid/examples/replica_exchange.py", "--plain", "--rounds", "8", "--steps", "6000")
    done = site.grid(*ask, "--", *example)
    assert done.returncode == 0, (place / "err").read_text()
    printed = output(place, lambda text: "difference" in text)
    assert float(re.findall(r"best energy found +(-[\d.]+)", printed)[0]) < -40
    assert re.search(r"exchanges accepted +[1-9]", printed)


# -- pilots, from outside through the login node -----------------------------------------------------------------------


@pytest.mark.row("B01", "B14", "D03")
def test_replica_exchange_through_the_login_node_unchanged(site: Site, tmp_path: Path) -> None:
    more = ",pe=mpi" if site.dialect == "sge" else ""
    command = [sys.executable, "-m", "grid", "run", "--login", "head", "-l", f"nodes=3:ppn=2,walltime=0:03:00{more}"]
    example = [str(EXAMPLES / "replica_exchange.py"), "--plain", "--rounds", "8", "--steps", "6000"]
    done = subprocess.run([*command, *example], capture_output=True, text=True, timeout=180, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(re.findall(r"best energy found +(-[\d.]+)", done.stdout)[0]) < -40
    site.wait_until_tidy()


@pytest.mark.row("B01", "B02", "G61")
def test_pilots_connect_through_the_login_node_and_leave_nothing(site: Site, place: Path) -> None:
    with site.pilots(nodes=3, ppn=2) as g:
        sid = g.publish(Probe())
        assert g.size(sid) == 6
        assert len(set(g.gather(g.broadcast(sid, "where")))) == 6
        g.release_all()
        status = g.status()
        assert {home["transport"] for home in status["homes"]} == {"tunnel"}
        assert sorted(node["node"] for node in status["pilots"][0]["nodes"]) == list(NODES)
        array = os.urandom(5_000_000)
        with g.acquire_service(sid) as proxy:
            assert proxy.echo(array).get(60) == array
    site.wait_until_tidy()


@pytest.mark.row("B13")
def test_servers_move_between_jobs_with_their_state(site: Site, place: Path) -> None:
    with site.pilots(ppn=2, walltime=60, renew=1, ahead_s=59.0, handover_s=57.0) as g:
        sid = g.publish(Traveller())
        proxy = g.acquire_service(sid)
        first = proxy.tell().get(30)[3]
        counts = []
        end = time.monotonic() + 60
        while proxy.tell().get(60)[3] == first and time.monotonic() < end:
            counts.append(proxy.count())
        assert [result.get(30) for result in counts] == list(range(1, len(counts) + 1))
        calls, told, _, job = proxy.tell().get(30)
        assert (calls, told) == (len(counts), 1) and job != first
        g.release_service(proxy)
        states = [pilot["state"] for pilot in g.status()["pilots"]]
        assert states[-1] == "started" and len(states) == 2


@pytest.mark.row("B02", "B11", "G48")
def test_qdel_loses_its_servers_and_nothing_else(site: Site, place: Path) -> None:
    with site.pilots(pilots=2) as g:
        sid = g.publish(Probe())
        one, two = g.acquire_service(sid), g.acquire_service(sid)
        running = [proxy.wait_for("/home/mara/work/go") for proxy in (one, two)]
        jobs = [pilot["job"] for pilot in g.status()["pilots"]]
        site.head.run(["scancel" if site.has_sbatch else "qdel", jobs[0]], check=True)
        wait_until(lambda: any(result.done() for result in running), "a server to be lost", limit_s=60)
        (lost,) = [result for result in running if result.done()]
        with pytest.raises(ServerLost):
            lost.get(0)
        (place / "go").touch()
        (survives,) = [result for result in running if result is not lost]
        survives.get(60)
    site.wait_until_tidy()


@pytest.mark.row("B02", "G63")
def test_a_client_that_is_killed_gives_its_nodes_back(site: Site, place: Path, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(
        "import os, signal, sys\nsys.path.insert(0, sys.argv[1])\nfrom grid import BatchGrid, Limits\n"
        "from grid.testing.probe import Probe\n"
        "limits = Limits(heartbeat_s=1.0, lost_s=3.0, orphan_s=4.0)\n"
        f"more = {{'parallel_environment': 'mpi1'}} if {site.dialect!r} == 'sge' else {{}}\n"
        "g = BatchGrid('head', nodes=2, walltime=120, limits=limits, wait='all', **more)\n"
        "g.publish(Probe())\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, str(script), root], capture_output=True, text=True, timeout=90)
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_until(lambda: not site.jobs(), "its job to end", limit_s=60)
    site.wait_until_tidy()
    with LocalGrid(1):
        pass  # the next grid removes what the killed one left on this machine


@pytest.mark.row("B02", "G68")
def test_two_grids_at_once_never_meet(site: Site, place: Path) -> None:
    with site.pilots() as one, site.pilots() as two:
        sids = [g.publish(Probe(100 * n)) for n, g in enumerate((one, two), 1)]
        proxies = [g.acquire_service(sid) for g, sid in zip((one, two), sids, strict=True)]
        assert [proxy.add().get(30) for proxy in proxies] == [101, 201]
        one.terminate()
        assert proxies[1].add().get(30) == 202


# -- nodes that fail ---------------------------------------------------------------------------------------------------


@pytest.mark.row("B02", "G48", "G63")
def test_a_node_that_is_cut_off_is_lost_alone_and_cleans_itself(site: Site) -> None:
    with Lab([], batch=2, system=site.system) as lab, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
        with Site(lab).pilots(nodes=2, walltime=300) as g:
            sid = g.publish(Probe())
            proxies = [g.acquire_service(sid) for _ in range(2)]
            places = [proxy.where().get(30)[0] for proxy in proxies]
            cut, whole = proxies[places.index("n2")], proxies[places.index("n1")]
            lab.hosts["n2"].cut()
            running = cut.wait_for("/tmp/never", 100)
            with pytest.raises(ServerLost):
                running.get(60)
            assert whole.add().get(30) == 1

            def ended() -> bool:
                running = [command for _, command in lab.hosts["n2"].processes()]
                return not any(map(is_of_kernel, running))

            wait_until(ended, "the node that was cut off to end what it ran", limit_s=60)
