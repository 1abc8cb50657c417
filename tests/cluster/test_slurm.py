"""What only Slurm has: heterogeneous jobs, jobs from inside a job, its native arrays. On the real one.

Elsewhere: what all batch systems do (`test_batch.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid import Needs, PublishError
from grid.testing.probe import Traveller
from tests.cards import A, B, Card, make_devices
from tests.cluster.site import Site
from tests.lab.host import wait_until
from tests.readme import SAYS, closing_the_laptop

pytestmark = pytest.mark.parametrize("site", ["slurm"], indirect=True)


@pytest.fixture
def place(site: Site) -> Iterator[Path]:
    """A directory that all nodes share, and nothing of ours anywhere afterwards."""
    site.head.run(["mkdir", "work"], check=True)
    yield site.home / "work"
    site.clear()


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
def test_slurm_jobs_of_other_shapes_have_their_own_nodes(site: Site, place: Path) -> None:
    (place / "run.py").write_text(SHOWS)

    def run(*words: str, says: str) -> str:
        done = site.grid("sbatch", "--wait", "-o", "out", *words, timeout=180)
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
def test_an_array_ends_with_its_last_task_and_as_its_worst(site: Site, place: Path) -> None:
    (place / "run.py").write_text("import os, sys; sys.exit({'1': 4}.get(os.environ['SLURM_ARRAY_TASK_ID'], 0))")
    ask = ("sbatch", "--wait", "-o", "/dev/null", "--line", "#SBATCH --array=0-2", "--", "python", "run.py")
    done = site.grid(*ask)
    assert done.returncode == 4, done.stderr
    (row,) = json.loads(site.grid("batch", "status", done.stdout.strip(), "--json").stdout)
    assert (row["state"], row["exit_status"]) == ("failed", 4), row


ALIGNS = """\
import hashlib, pathlib
from grid import Grid, In, Out
if __name__ == "__main__":
    inputs = [In(path) for path in sorted(pathlib.Path(".").glob("*.fa"))]
    with Grid.from_allocation(wait="all", output=None) as g:
        hosts, kept = set(), []
        mafft = "mafft --quiet --thread 1 {i} > {o}"
        for run in g.map_commands(mafft, inputs, o=Out("*.aln"), shell=True, keep=True):
            hosts.add(run.host)
            kept += run.kept
        for path in kept:  # on to a command on another node, and here
            other = next(host for host in sorted(hosts) if host != path.host)
            there = g.command("sha256sum {i}", i=In(path), where=other, show=False).get(60)
            data = path.fetch("out").read_bytes()
            assert there.host == other and there.text.split()[0] == hashlib.sha256(data).hexdigest()
        print("aligned", len(kept), "on", len(hosts), flush=True)
"""


@pytest.mark.row("A06", "A12")
def test_alignments_of_a_job_are_those_of_a_serial_run_and_go_from_node_to_node(site: Site, place: Path) -> None:
    if shutil.which("mafft") is None:
        pytest.skip("mafft is not installed: apt-get install mafft")
    letters = random.Random(2)
    serial = {}
    for number in range(6):
        parent = [letters.choice("ACGT") for _ in range(60)]
        records = []
        for name in "abcd":
            own = "".join(letters.choice("ACGT") if letters.random() < 0.1 else base for base in parent)
            records.append(f">{name}\n{own}\n")
        (place / f"f{number}.fa").write_text("".join(records))
        command = ["mafft", "--quiet", "--thread", "1", str(place / f"f{number}.fa")]
        serial[f"f{number}.aln"] = subprocess.run(command, capture_output=True, check=True).stdout
    (place / "run.py").write_text(ALIGNS)
    ask = ("sbatch", "--wait", "-o", "out.txt", "-n", "2", "--ntasks-per-node", "2", "--", "python", "run.py")
    done = site.grid(*ask, timeout=180)
    text = (place / "out.txt").read_text() if (place / "out.txt").exists() else ""
    assert done.returncode == 0 and "aligned 6 on 2" in text, (done.stderr, text)

    def hashes(files: dict[str, bytes]) -> dict[str, str]:
        return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}

    assert hashes({path.name: path.read_bytes() for path in (place / "out").iterdir()}) == hashes(serial)


HOLDS = """\
import time
from grid import Grid
from grid.testing.probe import Probe
with Grid.from_allocation(wait="all", output=None) as g:
    g.publish(Probe())
    with open("runs", "a") as file:
        file.write("up\\n")
    time.sleep(300)
"""


@pytest.mark.row("L05", "L06", "L11")
def test_a_job_is_requeued_only_if_it_asked_for_it_and_nothing_of_its_first_run_is_left(
    site: Site, place: Path
) -> None:
    (place / "run.py").write_text(HOLDS)
    ask = ("-n", "2", "--ntasks-per-node", "1", "-o", "out")

    def runs() -> str:
        return (place / "runs").read_text() if (place / "runs").exists() else ""

    job = site.grid("sbatch", *ask, "--", "python", "run.py").stdout.strip()
    wait_until(lambda: runs() == "up\n", "the script to run")
    refused = site.head.run(["scontrol", "requeue", job])
    assert refused.returncode != 0 and "disabled" in refused.stderr, refused
    assert site.grid("batch", "cancel", job).returncode == 0
    site.wait_until_tidy()
    (place / "runs").unlink()

    job = site.grid("sbatch", *ask, "--line", "#SBATCH --requeue", "--", "python", "run.py").stdout.strip()
    wait_until(lambda: runs() == "up\n", "the script to run")
    site.head.run(["scontrol", "requeue", job], check=True)
    site.wait_until_tidy()

    def told() -> dict[str, object]:
        (row,) = json.loads(site.grid("batch", "status", job, "--json").stdout)
        return dict(row)

    row = told()
    while row["state"] == "exiting":  # Slurm is completing its first run
        row = told()
    assert (row["state"], row["exit_status"]) == ("queued", None), row  # Slurm lets it wait for two minutes
    assert site.grid("batch", "cancel", job).returncode == 0
    (row,) = json.loads(site.grid("batch", "status", job, "--json").stdout)
    assert row["state"] == "cancelled" and runs() == "up\n", row


@pytest.mark.row("L11", "B11")
def test_one_task_of_an_array_is_cancelled_or_all(site: Site, place: Path) -> None:
    (place / "run.py").write_text("import os, time; open(os.environ['SLURM_ARRAY_TASK_ID'], 'w'); time.sleep(300)")
    ask = ("sbatch", "-o", "/dev/null", "--line", "#SBATCH --array=0-2", "--", "python", "run.py")
    job = site.grid(*ask).stdout.strip()
    wait_until(lambda: all((place / name).exists() for name in "012"), "the tasks to run")

    def state(task: str) -> object:
        (row,) = json.loads(site.grid("batch", "status", task, "--json").stdout)
        return row["state"]

    assert site.grid("batch", "cancel", f"{job}_1").returncode == 0
    wait_until(lambda: state(f"{job}_1") == "cancelled", "the task to end")
    assert (state(f"{job}_0"), state(job)) == ("running", "running")
    assert site.grid("batch", "cancel", job).returncode == 0
    site.wait_until_quiet()
    assert state(job) == "cancelled"


# ---- devices ---------------------------------------------------------------------------------------------------------

WITH_CARD = """\
import os, sys, time
from cards import Card
from grid import Grid, Needs, PublishError
if __name__ == "__main__":
    mine, other = sys.argv[1:]
    with Grid.from_allocation(servers_per_node=2, output=None) as g:
        sid = g.publish(Card(), needs=Needs(gpus=1), wait="all")
        found = [slot[0] for slot in g.gather(g.broadcast(sid, "slot"))]
        g.release_all()
        try:
            g.publish(Card(), needs=Needs(gpus=2))
        except PublishError as exc:
            print(*found, exc, flush=True)
        with open(mine, "w"):
            pass
        until = time.monotonic() + 100
        while not os.path.exists(other) and time.monotonic() < until:
            time.sleep(0.05)
"""


@pytest.fixture
def cards(site: Site, place: Path) -> Path:
    """The node n1 has two devices, as far as Slurm and a made /proc and /sys say so."""
    (place / "cards.py").write_text((Path(__file__).parents[1] / "cards.py").read_text())
    root = make_devices(place / "made", ["0", "1"])
    site.head.run(["chown", "-R", "mara", "/home/mara/work"], user="root")
    return root


@pytest.mark.row("O12")
def test_two_jobs_on_one_node_have_the_device_that_slurm_gave_to_each(site: Site, place: Path, cards: Path) -> None:
    """Slurm 22.05 with `gres.conf`; its word for a device is its number."""
    (place / "run.py").write_text(WITH_CARD)
    ask = ("-n", "1", "--ntasks-per-node", "2", "--line", "#SBATCH --gres=gpu:1")
    ask = (*ask, "--line", "#SBATCH --export=ALL,GRID_HOST_ROOT=/home/mara/work/made")
    first = site.grid("sbatch", *ask, "-o", "one", "--", "python", "run.py", "a", "b")
    second = site.grid("sbatch", "--wait", *ask, "-o", "two", "--", "python", "run.py", "b", "a")
    assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
    wait_until(lambda: (place / "one").exists() and "needed" in (place / "one").read_text(), "the first job's output")
    texts = [(place / name).read_text() for name in ("one", "two")]
    assert {text.split()[0] for text in texts} == {A, B}
    for text in texts:
        assert "2 devices are needed" in text and "it has 1" in text, text
    site.wait_until_quiet()


@pytest.mark.row("O20", "O12")
def test_pilots_of_a_kind_with_devices_have_them_and_others_none(
    site: Site, place: Path, cards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(site.lab.ssh_config))
    kind = {"resources": ["--gres=gpu:2"], "tags": ["gpu"], "ppn": 2}
    with site.pilots(kinds=[kind], init_cmd="export GRID_HOST_ROOT=/home/mara/work/made;") as g:
        try:
            sid = g.publish(Card(), needs=Needs(gpus=1), where="gpu", wait="all", missing="fail")
        except PublishError as exc:  # seen once, on a busy machine
            with g.acquire_service(g.publish(Card(), where="gpu")) as proxy:
                raise AssertionError(f"{exc}\n{proxy.environment().get(20)}") from exc
        assert sorted(slot[0] for slot in g.gather(g.broadcast(sid, "slot"))) == [A, B]
        assert {server.host.label.partition(".")[0] for server in g.servers[sid]} == {"n1"}
        with pytest.raises(PublishError, match="device"):
            g.publish(Card(), needs=Needs(gpus=1), where="not gpu")
    site.wait_until_quiet()


# ---- sessions --------------------------------------------------------------------------------------------------------


@pytest.mark.row("Z09", "D04")
def test_the_laptop_is_closed_over_jobs_as_the_readme_says(site: Site, place: Path, tmp_path: Path) -> None:
    places = {"GRID_SSH_CONFIG": str(site.lab.ssh_config), "GRID_SESSIONS": str(tmp_path / "sessions")}
    environment = {**os.environ, **places, "PYTHONPATH": str(Path(__file__).parents[2])}
    first, second = closing_the_laptop("BatchGrid", {"mara@cluster": "head"})
    (tmp_path / "first.py").write_text(first)
    (tmp_path / "second.py").write_text(second)
    words = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 120}
    killed = subprocess.run([sys.executable, "first.py"], **words)  # type: ignore[call-overload]
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = subprocess.run([sys.executable, "second.py"], **words)  # type: ignore[call-overload]
    assert done.stdout == SAYS, done.stderr
    wait_until(lambda: not site.jobs(), "its job to end")
    site.wait_until_quiet()


@pytest.mark.row("Z10", "B13")
def test_slurms_signal_to_the_script_of_a_pilot_has_its_servers_move(
    site: Site, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(site.lab.ssh_config))
    with site.pilots(renew=1, resources=["--signal=B:USR1@100"]) as g:
        proxy = g.acquire_service(g.publish(Traveller()))
        assert proxy.count().get(60) == 1
        began = proxy.tell().get(60)[3]
        (job,) = [pilot["job"] for pilot in g.status()["pilots"]]
        site.head.run(["scancel", "--batch", "--signal=USR1", job], check=True)
        wait_until(lambda: proxy.tell().get(60)[3] != began, "the server to move")
        assert proxy.count().get(60) == 2
    site.wait_until_quiet()
