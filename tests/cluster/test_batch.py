"""Batch jobs, private kernels and pilots on a real batch system: Slurm, by its qsub and by its own commands.

The user sits on this machine and reaches `head` by ssh only; nodes n1, n2, n3 only through it.
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

from grid import BatchGrid, Limits, LocalGrid, ServerLost
from grid.batch import BatchSystem
from grid.hosts import Host
from grid.launch import connect
from grid.testing import batch
from grid.testing.probe import Probe, Traveller
from tests.lab import Lab
from tests.lab.host import wait_until
from tests.lab.titles import is_of_kernel

pytestmark = pytest.mark.slurm

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK = Limits(heartbeat_s=1.0, lost_s=4.0, orphan_s=8.0, stop_s=3.0)
NODES = ("n1", "n2", "n3")
ENVIRONMENT = "export PYTHONPATH=/grid GRID_RUNTIME_DIR=/tmp/gr; cd /home/mara/work; "


@pytest.fixture(autouse=True)
def place(slurm: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that all nodes share, /home/mara/work; and nothing of ours anywhere afterwards."""
    monkeypatch.setenv("GRID_SSH_CONFIG", str(slurm.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    home = slurm.hosts["head"].path("/home/mara")
    slurm.hosts["head"].run(["mkdir", "work"], check=True)
    yield home / "work"
    slurm.hosts["head"].run(["scancel", "--user=mara"])
    wait_until(lambda: not any(slurm.hosts[name].processes() for name in NODES), "jobs to end", limit_s=30)
    slurm.hosts["head"].run(["rm", "-rf", "work", ".grid"])
    for host in slurm.hosts.values():
        host.run(["sh", "-c", "rm -rf /tmp/gr /tmp/grid-* /dev/shm/grid-*"])


def on_head(lab: Lab, command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    ssh = ["ssh", "-F", str(lab.ssh_config), "head", ENVIRONMENT + command]
    return subprocess.run(ssh, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)


def grid_on_head(lab: Lab, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return on_head(lab, "exec python3 -m grid " + shlex.join(words), timeout)


def pilots(**kw: object) -> BatchGrid:
    given = {"walltime": 120, "poll_s": 2.0, "limits": QUICK, "wait": "all", "output": None, **kw}
    return BatchGrid("head", env={"GRID_RUNTIME_DIR": "/tmp/gr"}, **given)  # type: ignore[arg-type]


def litter(lab: Lab) -> list[str]:
    """What is left on the nodes besides empty directories of ours."""
    kept = re.compile(r"/tmp/(gr|grid-\d+)(/(s|leases|grids))?\Z")
    return [f"{name}:{path}" for name in NODES for path in lab.hosts[name].litter() if not kept.match(path)]


# -- the batch system --------------------------------------------------------------------------------------------------


@pytest.mark.row("B01", "B09", "B11", "B12", "B15")
@pytest.mark.parametrize("dialect", ["slurm", "slurm-torque"])
@pytest.mark.parametrize("check", batch.CHECKS, ids=lambda check: check.__name__)
def test_the_real_one_does_what_the_stand_in_does(
    check: Callable[[BatchSystem, str], None], dialect: str, place: Path
) -> None:
    with connect(Host("head")) as connection:
        check(BatchSystem(connection, dialect), "/home/mara/work")


@pytest.mark.row("B01")
def test_which_one_it_is_is_found_out(place: Path) -> None:
    with connect(Host("head")) as connection:
        assert BatchSystem(connection).dialect.name == "slurm"
        assert BatchSystem(connection, prefer="slurm-torque").dialect.name == "slurm-torque"


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


@pytest.mark.row("B08", "B09", "D05")
def test_the_wrapper_ends_as_the_script_ends(slurm: Lab, place: Path) -> None:
    (place / "run.py").write_text(SCRIPT)
    ask = ("qsub", "-l", "nodes=2:ppn=2", "-l", "walltime=0:02:00", "-v", "WORD=it's", "-o", "out", "-j", "oe")
    ask += ("--wait",)
    done = grid_on_head(slurm, *ask, "--", "python", "run.py", "3", "a b")
    assert done.returncode == 3, done.stderr
    assert output(place, bool) == "['3', 'a b'] it's /home/mara/work\n"
    assert grid_on_head(slurm, *ask, "--", "python", "run.py", "0").returncode == 0
    assert grid_on_head(slurm, *ask, "--", "python", "run.py", "kill").returncode == 128 + signal.SIGKILL
    native = grid_on_head(slurm, "sbatch", "-n", "2", "-v", "WORD=x", "--wait", "--", "python", "run.py", "4")
    assert native.returncode == 4, native.stderr
    for request, word in ((("-l", "nodes=99"), "submission failed"), (("-q", "nosuch"), "partition")):
        refused = grid_on_head(slurm, "qsub", *request, "--", "python", "run.py", "0")
        assert refused.returncode == 1 and word in refused.stderr, refused


@pytest.mark.row("B08", "B11")
def test_a_job_that_is_cancelled_is_told_and_its_wrapper_says_so(slurm: Lab, place: Path) -> None:
    (place / "run.py").write_text(SCRIPT)
    ssh = ["ssh", "-F", str(slurm.ssh_config), "head"]
    ask = "exec python3 -m grid qsub -v WORD=x -o out -e err --wait -- python run.py wait"
    waiting = subprocess.Popen([*ssh, ENVIRONMENT + ask], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with waiting:
        assert waiting.stdout is not None
        job = waiting.stdout.readline().strip()
        wait_until((place / "up").exists, "the script to run", limit_s=30)
        (shown,) = [
            row for row in json.loads(grid_on_head(slurm, "batch", "status", "--json").stdout) if row["job"] == job
        ]
        assert (shown["state"], shown["nodes"]) == ("running", "n1")
        assert grid_on_head(slurm, "batch", "cancel", job).returncode == 0
        assert waiting.wait(60) == 9  # the script's own word after SIGTERM


def output(place: Path, enough: Callable[[str], object]) -> str:
    """What the job printed, once it is enough: a job's output may come late."""
    wait_until(lambda: (place / "out").exists() and enough((place / "out").read_text()), "the job's output")
    return (place / "out").read_text()


SHOWS = """\
import socket, subprocess, sys
from grid import Grid
class Where:
    def name(self): return socket.gethostname()
if __name__ == "__main__":
    if sys.argv[1:] == ["submit"]:  # another job from inside this one, which must read its own allocation
        again = [sys.executable, "-m", "grid", "sbatch", "-n", "1", "--ntasks-per-node", "2", "-o", "inner", "--wait"]
        sys.exit(subprocess.call([*again, "--", "python", "run.py"]))
    with Grid.from_allocation(wait="all", output=None) as g:
        sid = g.publish(Where())
        names = sorted(g.gather(g.broadcast(sid, "name")))
        g.release_all()
        print("has", names, flush=True)
"""


@pytest.mark.row("L11", "B03", "B08")
def test_slurm_jobs_of_other_shapes_have_their_own_nodes(slurm: Lab, place: Path) -> None:
    (place / "run.py").write_text(SHOWS)

    def run(*words: str, says: str) -> str:
        done = grid_on_head(slurm, "sbatch", "--wait", "-o", "out", *words, timeout=180)
        assert done.returncode == 0, (done.stderr, (place / "out").read_text() if (place / "out").exists() else "")
        wait_until(lambda: says in (place / "out").read_text(), "the job's output")
        text = (place / "out").read_text()
        (place / "out").unlink()
        return text

    lines = ("#SBATCH hetjob", "#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=1", "#SBATCH --time=0:02:00")
    second = [word for line in lines for word in ("--line", line)]
    run("-n", "1", "--ntasks-per-node", "2", *second, "--", "python", "run.py", says="has ['n1', 'n1', 'n2', 'n3']")
    whole = ("-n", "2", "--line", "#SBATCH --exclusive", "--line", "#SBATCH --mem=500")
    run(*whole, "--", "python", "run.py", says="has ['n1', 'n2']")
    run("-n", "2", "--ntasks-per-node", "1", "--", "srun", "-n1", "-N1", "python3", "run.py", "submit", says="")
    assert (place / "inner").read_text().count("'n") == 2, (place / "inner").read_text()


@pytest.mark.row("L11", "B08")
def test_an_array_ends_with_its_last_task_and_as_its_worst(slurm: Lab, place: Path) -> None:
    (place / "run.py").write_text("import os, sys; sys.exit({'1': 4}.get(os.environ['SLURM_ARRAY_TASK_ID'], 0))")
    ask = ("sbatch", "--wait", "-o", "/dev/null", "--line", "#SBATCH --array=0-2", "--", "python", "run.py")
    done = grid_on_head(slurm, *ask)
    assert done.returncode == 4, done.stderr
    (row,) = json.loads(grid_on_head(slurm, "batch", "status", done.stdout.strip(), "--json").stdout)
    assert (row["state"], row["exit_status"]) == ("failed", 4), row


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


@pytest.mark.row("L06", "L07", "B08")
@pytest.mark.parametrize(("way", "doing"), [("qsub", "idle"), ("sbatch", "busy")])
def test_a_job_that_is_cancelled_leaves_nothing_on_its_nodes(way: str, doing: str, slurm: Lab, place: Path) -> None:
    (place / "run.py").write_text(HOLDS)
    ask = ("qsub", "-l", "nodes=2:ppn=2") if way == "qsub" else ("sbatch", "-n", "2", "--ntasks-per-node", "2")
    done = grid_on_head(slurm, *ask, "-o", "out", "--", "python", "run.py", doing)
    job = done.stdout.strip()
    wait_until((place / "up").exists, "the script to run", limit_s=60)
    assert grid_on_head(slurm, "batch", "cancel", job).returncode == 0
    wait_until(lambda: not any(slurm.hosts[name].processes() for name in NODES), "the job to end", limit_s=30)
    assert litter(slurm) == []
    spool = place.parent / ".grid" / "spool"
    assert not spool.exists() or not list(spool.iterdir())
    (row,) = json.loads(grid_on_head(slurm, "batch", "status", job, "--json").stdout)
    assert (row["state"], row["exit_status"]) == ("cancelled", 143)


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


@pytest.mark.row("B02", "B03", "B04", "B06", "B07", "B10", "B14")
@pytest.mark.parametrize("launcher", ["srun", "ssh"])
def test_a_private_kernel_on_the_nodes_of_a_job(launcher: str, slurm: Lab, place: Path) -> None:
    (place / "run.py").write_text(WHERE)
    ask = ("qsub", "-l", "nodes=3:ppn=2,walltime=0:02:00", "-o", "out", "-e", "err", "--wait")
    done = grid_on_head(slurm, *ask, "--", "python", "run.py", launcher)
    assert done.returncode == 0, (place / "err").read_text()
    assert output(place, lambda text: "local" in text).splitlines() == ["n1 n1 n2 n2 n3 n3", "direct local"]
    wait_until(lambda: not any(slurm.hosts[name].processes() for name in NODES), "the job to end")
    assert litter(slurm) == []


@pytest.mark.row("B02", "B08", "D03", "D07")
def test_replica_exchange_in_a_job_unchanged(slurm: Lab, place: Path) -> None:
    ask = ("qsub", "-l", "nodes=3:ppn=2,walltime=0:03:00", "-o", "out", "-e", "err", "--wait")
    example = ("python", "/grid/examples/replica_exchange.py", "--plain", "--rounds", "8", "--steps", "6000")
    done = grid_on_head(slurm, *ask, "--", *example, timeout=180)
    assert done.returncode == 0, (place / "err").read_text()
    printed = output(place, lambda text: "difference" in text)
    assert float(re.findall(r"best energy found +(-[\d.]+)", printed)[0]) < -40
    assert re.search(r"exchanges accepted +[1-9]", printed)


# -- pilots, from outside through the login node -----------------------------------------------------------------------


@pytest.mark.row("B01", "B14", "D03")
def test_replica_exchange_through_the_login_node_unchanged(slurm: Lab, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grid", "run", "--login", "head", "-l", "nodes=3:ppn=2,walltime=0:03:00"]
    example = [str(EXAMPLES / "replica_exchange.py"), "--plain", "--rounds", "8", "--steps", "6000"]
    done = subprocess.run([*command, *example], capture_output=True, text=True, timeout=180, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(re.findall(r"best energy found +(-[\d.]+)", done.stdout)[0]) < -40
    wait_until(lambda: not any(slurm.hosts[name].processes() for name in NODES), "the pilot to end")
    assert litter(slurm) == []


@pytest.mark.row("B01", "B02", "G61")
def test_pilots_connect_through_the_login_node_and_leave_nothing(slurm: Lab, place: Path) -> None:
    with pilots(nodes=3, ppn=2) as g:
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
    wait_until(lambda: not any(slurm.hosts[name].processes() for name in NODES), "the pilot to end")
    assert litter(slurm) == []
    assert not list((place.parent / ".grid" / "pilots").iterdir())


@pytest.mark.row("B13")
def test_servers_move_between_jobs_with_their_state(slurm: Lab, place: Path) -> None:
    with pilots(ppn=2, walltime=60, renew=1, ahead_s=59.0, handover_s=57.0) as g:
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
def test_qdel_loses_its_servers_and_nothing_else(slurm: Lab, place: Path) -> None:
    with pilots(pilots=2) as g:
        sid = g.publish(Probe())
        one, two = g.acquire_service(sid), g.acquire_service(sid)
        running = [proxy.wait_for("/tmp/never") for proxy in (one, two)]
        jobs = [pilot["job"] for pilot in g.status()["pilots"]]
        slurm.hosts["head"].run(["scancel", jobs[0]], check=True)
        lost = [result for result in running if _fails(result)]
        assert len(lost) == 1
        survivor = two if lost[0] is running[0] else one
        survivor._grid.terminate()
    wait_until(lambda: not any(slurm.hosts[name].processes() for name in NODES), "the pilots to end", limit_s=30)
    assert litter(slurm) == []


def _fails(result: object) -> bool:
    try:
        result.get(20)  # type: ignore[attr-defined]
    except ServerLost:
        return True
    except TimeoutError:
        return False
    raise AssertionError("it ended well")


@pytest.mark.row("B02", "G63")
def test_a_client_that_is_killed_gives_its_nodes_back(slurm: Lab, place: Path, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(
        "import os, signal, sys\nsys.path.insert(0, sys.argv[1])\nfrom grid import BatchGrid, Limits\n"
        "from grid.testing.probe import Probe\n"
        "limits = Limits(heartbeat_s=1.0, lost_s=3.0, orphan_s=4.0)\n"
        "g = BatchGrid('head', nodes=2, walltime=120, limits=limits, wait='all')\n"
        "g.publish(Probe())\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, str(script), root], capture_output=True, text=True, timeout=90)
    assert done.returncode == -signal.SIGKILL, done.stderr
    idle = ["squeue", "--noheader", "--user=mara", "--states=PD,R,CG"]
    wait_until(lambda: not slurm.hosts["head"].run(idle).stdout.strip(), "its job to end", limit_s=60)
    assert litter(slurm) == []
    assert not list((place.parent / ".grid" / "pilots").iterdir())
    with LocalGrid(1):
        pass  # the next grid removes what the killed one left on this machine


@pytest.mark.row("B02", "G68")
def test_two_grids_at_once_never_meet(slurm: Lab, place: Path) -> None:
    with pilots() as one, pilots() as two:
        sids = [g.publish(Probe(100 * n)) for n, g in enumerate((one, two), 1)]
        proxies = [g.acquire_service(sid) for g, sid in zip((one, two), sids, strict=True)]
        assert [proxy.add().get(30) for proxy in proxies] == [101, 201]
        one.terminate()
        assert proxies[1].add().get(30) == 202


# -- nodes that fail ---------------------------------------------------------------------------------------------------


@pytest.mark.row("B02", "G48", "G63")
def test_a_node_that_is_cut_off_is_lost_alone_and_cleans_itself() -> None:
    with Lab([], batch=2) as lab, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
        with pilots(nodes=2, walltime=300) as g:
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
