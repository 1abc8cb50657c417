"""The command line on real grids, here and over ssh. What crashed is cleaned, what lives is not."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.cli import exits
from grid.kernel.lease import read_leases
from tests.lab import Lab, LabHost

SCRIPT = """
import subprocess, sys
from grid import Grid

class Talker:
    def say(self, text):
        print(text, flush=True)
        return text
    def leave_a_child(self):
        return subprocess.Popen(["sleep", "1000"], start_new_session=True).pid

if __name__ == "__main__":
    with Grid.auto(output=None, wait="all") as g:
        print("up", flush=True)
        for line in sys.stdin:
            word, _, rest = line.strip().partition(" ")
            if word == "publish":
                service_id = g.publish(Talker())
                print(service_id, flush=True)
            elif word == "say":
                print([result.get() for result in g.broadcast(service_id, "say", rest)], flush=True)
            elif word == "child":
                with g.acquire_service(service_id) as talker:
                    print(talker.leave_a_child().get(), flush=True)
            elif word == "exit":
                sys.exit(int(rest))
"""


def grid(*words: str, timeout: float = 180, input: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "grid", *words],
        input=input,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **variables},
    )


def data_of(*words: str) -> Any:
    return json.loads(grid(*words, "--json").stdout)


class Running:
    """A script under way; each word it is told is answered with a line."""

    def __init__(self, path: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "grid", "run", *options, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        assert self.read() == "up", self.process.stderr and self.process.stderr.read()

    def tell(self, words: str) -> str:
        assert self.process.stdin
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def end(self) -> int:
        status = self.process.wait(120)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream
            stream.close()
        return status


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    path = tmp_path / "talk.py"
    path.write_text(SCRIPT)
    started: list[Running] = []

    def start(*options: str) -> Running:
        started.append(Running(path, *options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.end()


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GRID_HOSTS", "GRID_GROUP", "GRID_LOCAL", "SSH_AUTH_SOCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def wait_until(done: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + 120  # no outcome hangs on it: a busy machine takes what it takes
    while not done():
        assert time.monotonic() < end, f"no {what} in time"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


# ---- on this machine ---------------------------------------------------------------------------------------


@pytest.mark.row("D04")
def test_run_gives_the_script_its_grid_and_takes_its_exit_status(start: Callable[..., Running]) -> None:
    script = start("--local", "2")
    assert script.tell("publish") == "Talker.0"
    assert script.tell("say hello") == "['hello', 'hello']"
    script.tell("exit 7")
    assert script.end() == 7


@pytest.mark.row("D04", "G25")
def test_run_passes_signals_on(start: Callable[..., Running]) -> None:
    script = start("--local", "1")
    script.tell("publish")
    script.process.send_signal(signal.SIGTERM)
    assert script.end() == -signal.SIGTERM
    wait_until(lambda: not read_leases(), "end of its agent")
    grid("clean", "--yes")  # the registration of the killed client


@pytest.mark.row("D04", "G09")
def test_status_shows_what_runs(start: Callable[..., Running]) -> None:
    script = start("--local", "2")
    assert grid("status").stdout.splitlines()[1].split()[:2] == [f"talk.py-{script.pid}", str(script.pid)]
    script.tell("publish")
    (one,) = data_of("status", "talk.py")
    assert (one["pid"], one.get("alive", True), one["error"]) == (script.pid, True, "")
    service = one["status"]["services"]["Talker.0"]
    assert (service["free"], service["acquired"], len(service["servers"])) == (2, 0, 2)
    done = grid("status", "tolk.py")
    assert done.returncode == exits.FAILED and f"talk.py-{script.pid}" in done.stderr

    watch = subprocess.Popen(
        [sys.executable, "-m", "grid", "status", "--watch", "--json", "--interval", "0.1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert watch.stdout and watch.stderr
    with watch.stdout, watch.stderr:
        assert json.loads(watch.stdout.readline())[0]["calls_per_s"] is None
        assert json.loads(watch.stdout.readline())[0]["calls_per_s"] == {"Talker.0": 0.0}
        watch.send_signal(signal.SIGINT)
        assert watch.wait(60) == exits.INTERRUPTED
        assert "Traceback" not in watch.stderr.read()
    assert grid("stop", str(script.pid)).returncode == exits.OK
    assert script.end() != 0


@pytest.mark.row("D04", "G62")
def test_two_grids_must_be_told_apart_and_all_can_be_stopped(start: Callable[..., Running]) -> None:
    scripts = [start("--local", "1"), start("--local", "1")]
    for command in ("stop", "logs"):
        done = grid(command)
        assert done.returncode == exits.USAGE and all(f"talk.py-{one.pid}" in done.stderr for one in scripts)
    assert "2 grids are called 'talk.py'" in grid("stop", "talk.py").stderr
    assert len(data_of("status")) == 2
    done = grid("stop", "--all", "--json")
    assert done.returncode == exits.OK
    assert {one["pid"]: (one["stopped"], one["process_gone"]) for one in json.loads(done.stdout)} == {
        one.pid: (True, True) for one in scripts
    }
    for one in scripts:
        assert one.end() != 0


@pytest.mark.row("D04")
def test_a_grid_that_does_not_stop_in_time_is_told(start: Callable[..., Running]) -> None:
    script = start("--local", "1")
    script.process.send_signal(signal.SIGSTOP)
    try:
        done = grid("stop", "--timeout", "0.5")
        assert done.returncode == exits.FAILED and f"`kill {script.pid}`" in done.stderr
        done = grid("status")
        assert done.returncode == exits.FAILED and "no answer" in done.stdout
    finally:
        script.process.send_signal(signal.SIGCONT)
    assert grid("stop").returncode == exits.OK
    script.end()


@pytest.mark.row("D04", "G27")
def test_logs_are_labelled_and_followed_to_the_end(start: Callable[..., Running]) -> None:
    script = start("--local", "2")
    assert "no server has printed anything" in grid("logs").stderr
    script.tell("publish")
    script.tell("say one")
    script.tell("say two")
    everything = grid("logs").stdout.splitlines()
    assert sorted(everything) == [f"[Talker.0/{n}] {word}" for n in (0, 1) for word in ("one", "two")]
    assert grid("logs", "talk.py", "Talker.0/1", "-n", "1").stdout == "[Talker.0/1] two\n"
    assert grid("logs", "Talker.0/1", "-n", "1").stdout == "[Talker.0/1] two\n", "one grid runs: its name is not needed"
    assert len(grid("logs", "talk.py", "Talker.0", "-n", "1").stdout.splitlines()) == 2
    told = [json.loads(line) for line in grid("logs", "--json", "-n", "1").stdout.splitlines()]
    assert {key: told[0][key] for key in ("server", "text")} == {"server": "Talker.0/0", "text": "two"}
    done = grid("logs", "talk.py", "Talker.0/7")
    assert done.returncode == exits.FAILED and "Did you mean 'Talker.0/" in done.stderr and "Talker.0/1" in done.stderr

    follow = subprocess.Popen(
        [sys.executable, "-m", "grid", "logs", "-f", "-n", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert follow.stdout and follow.stderr
    with follow.stdout, follow.stderr:
        assert sorted(follow.stdout.readline() for _ in (0, 1)) == ["[Talker.0/0] two\n", "[Talker.0/1] two\n"]
        script.tell("publish")  # new servers, after we began to follow: their first lines count
        script.tell("say three")
        assert sorted(follow.stdout.readline() for _ in (0, 1)) == ["[Talker.1/0] three\n", "[Talker.1/1] three\n"]
        grid("stop")
        assert follow.wait(60) == exits.OK
        assert follow.stdout.read() == ""
        assert "has ended" in follow.stderr.read()
    script.end()


@pytest.mark.row("D04", "G63")
def test_a_crashed_run_is_shown_and_removed_and_a_living_one_stays(start: Callable[..., Running]) -> None:
    crashed, living = start("--local", "2"), start("--local", "1")
    for script in (crashed, living):
        script.tell("publish")
    child = int(crashed.tell("child"))
    wait_until(lambda: all(lease["servers"] for lease in read_leases()), "lease with servers")
    before = {lease["grid"]: lease for lease in data_of("ps")["leases"]}
    assert {lease["orphan"] for lease in before.values()} == {None}
    mine = next(lease for name, lease in before.items() if name.startswith(f"{crashed.pid}-"))
    named = {process["name"]: process["pid"] for process in mine["processes"]}
    assert {"agent", "zygote", "Talker.0/0", "Talker.0/1"} <= set(named)
    assert (mine["servers_alive"], mine["owner"].partition("@")[2]) == (2, os.uname().nodename)

    for name in ("agent", "zygote"):  # or they would clean up behind the client
        os.kill(named[name], signal.SIGSTOP)
    for pid in (crashed.pid, named["agent"], named["zygote"]):
        os.kill(pid, signal.SIGKILL)
    assert crashed.end() == -signal.SIGKILL
    wait_until(lambda: all(gone(pid) for pid in named.values() if pid != child), "end of the agent")
    assert not gone(child)

    after = {lease["grid"]: lease for lease in data_of("ps")["leases"]}
    assert (after[mine["grid"]]["orphan"], after[mine["grid"]]["agent_alive"]) == ("agent dead", False)
    dry = grid("clean", "--dry-run")
    assert dry.returncode == exits.OK and str(child) in dry.stdout and str(living.pid) not in dry.stdout
    assert "nothing was removed" in grid("clean", input="n\n").stderr
    assert not gone(child)

    done = grid("clean", "--yes", "--json")
    assert done.returncode == exits.OK, done.stderr
    (report,) = json.loads(done.stdout)["machines"]
    assert child in [one["pid"] for one in report["killed"]]
    assert any("/run-" in path for path in report["removed"]) and any("/grids/" in path for path in report["removed"])
    assert report["kept"] == []
    assert gone(child)
    assert "nothing left behind" in grid("clean", "--yes").stderr
    assert [lease["grid"] for lease in data_of("ps")["leases"]] == [name for name in before if name != mine["grid"]]
    assert living.tell("say still here") == "['still here']"
    living.tell("exit 0")
    assert living.end() == 0


@pytest.mark.row("D04", "G63")
def test_what_no_lease_lists_is_removed_once_it_is_old() -> None:
    runtime, name = Path(os.environ["GRID_RUNTIME_DIR"]), "999999999-0123abcd-1"
    shm = Path(f"/dev/shm/grid-{os.getuid()}-{name}")
    places = [runtime / f"run-{name}", runtime / "code-abc", runtime / "s" / name, shm]
    for path in places:
        path.mkdir(parents=True)
        (path / "x").touch()
    others = [runtime / "run-of-the-mill", runtime / "code"]
    for path in others:
        path.mkdir(exist_ok=True)
    try:
        assert "nothing left behind" in grid("clean", "--yes").stderr, "a run that starts has no lease yet"
        for path in (*places, *others):
            os.utime(path, (0, time.time() - 3600))
        os.utime(runtime / "s", (0, time.time() - 3600))
        (report,) = json.loads(grid("clean", "--yes", "--json").stdout)["machines"]
        assert sorted(report["removed"]) == sorted(map(str, places))
        assert others[0].is_dir()
    finally:
        for path in (*places, others[0]):
            shutil.rmtree(path, ignore_errors=True)


@pytest.mark.row("D04", "G63")
def test_a_damaged_lease_leads_nowhere_else(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / "run-999999999-0123abcd-1").symlink_to(precious)
    record = {
        "grid": "999999999-0123abcd", "host": os.uname().nodename, "agent": 999999999, "agent_started": 1,
        "owner": "x@y", "began": 0, "renewed": 0, "expires": 0, "servers": {}, "run": "",
        "directories": [str(precious), str(tmp_path / "run-999999999-0123abcd-1")],
    }  # fmt: skip
    path = Path(os.environ["GRID_RUNTIME_DIR"], "leases", "999999999-0123abcd-x-1.json")
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(json.dumps(record))
    done = grid("clean", "--yes")
    assert done.returncode == exits.FAILED
    assert "this is no name that grid gives" in done.stderr and "it is not ours" in done.stderr
    assert precious.is_dir() and not path.exists()


# ---- on hosts ----------------------------------------------------------------------------------------------


@pytest.fixture
def over_ssh(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lab:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    (tmp_path / "hosts.yaml").write_text("hosts: [s1, s2, s3]\ngroups: {two: [s1, s2]}\n")
    return lab


@pytest.mark.row("D04", "H09")
def test_check_tells_all_in_one_table(over_ssh: Lab, tmp_path: Path) -> None:
    done = grid("hosts", "check")
    assert done.returncode == exits.OK, done.stderr
    header, *rows = [re.split(r"  +", line) for line in done.stdout.splitlines()]
    assert [row[:3] for row in rows] == [[name, "fine", "known"] for name in ("s1", "s2", "s3")]
    assert header == [
        "host", "state", "key", "python", "found", "cores", "load", "memory", "disk", "clock", "route", "batch",
    ]  # fmt: skip
    assert rows[0][header.index("clock")] == "agrees" and rows[0][header.index("route")] == "direct"
    (one,) = data_of("hosts", "check", "s2")
    assert one["ok"] and one["temp_free_bytes"] > 0 and one["pythons"] and one["route"] == "direct"

    (tmp_path / "hosts.yaml").write_text("hosts: [s1, nowhere.invalid, {name: s2, python: python2}]\n")
    done = grid("hosts", "check")
    assert done.returncode == exits.FAILED
    assert [re.split(r"  +", line)[1] for line in done.stdout.splitlines()[1:]] == ["fine", "name", "python"]
    assert "'nowhere.invalid' is unknown" in done.stderr and "'python2' did not run" in done.stderr
    assert grid("hosts", "check", "nowhere.invalid").returncode == exits.NOTHING_USABLE


@pytest.mark.row("D04", "H09")
def test_doctor_names_the_first_step_that_fails(over_ssh: Lab) -> None:
    done = grid("doctor", "s1")
    assert done.returncode == exits.OK, done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]].count("ok") == 14
    done = grid("doctor", "stranger@s1")
    assert done.returncode == exits.FAILED
    assert re.search(r"FAIL  log-in .*'stranger'.*\n +remedy: \S", done.stdout)
    assert data_of("doctor", "s1:2222")["failed"] == "port"
    assert "Did you mean 's3'?" in grid("doctor", "s33").stderr


@pytest.mark.lab
@pytest.mark.row("D04", "H09")
def test_setup_says_what_it_did_and_then_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Lab([LabHost("ready"), LabHost("bare", packages=())]) as lab:
        monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
        names = ("--hosts", "ready,bare,nowhere.invalid")
        done = grid("hosts", "setup", "--check", *names)
        assert done.returncode == exits.FAILED
        assert [re.split(r"  +", line)[1] for line in done.stdout.splitlines()[1:]] == ["ready", "needs it", "failed"]
        assert lab.hosts["bare"].run(["sh", "-c", "ls -A ~/.grid 2>/dev/null"]).stdout == "", "it only looked"
        ready, bare, nowhere = json.loads(grid("hosts", "setup", *names, "--json", timeout=200).stdout)
        assert (ready["ok"], ready["actions"], bare["ok"], nowhere["ok"]) == (True, [], True, False)
        assert any("installed pyzmq" in action for action in bare["actions"]) and "unknown" in nowhere["error"]
        again = grid("hosts", "setup", "--hosts", "ready,bare")
        assert again.returncode == exits.OK and again.stdout.count("nothing") == 2
        assert grid("hosts", "check", "--hosts", "ready,bare").returncode == exits.OK


@pytest.mark.row("D04", "H11")
def test_trust_shows_asks_and_records(over_ssh: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = tmp_path / "known"
    (tmp_path / "config").write_text(over_ssh.ssh_config.read_text().replace(str(over_ssh.known_hosts), str(records)))
    monkeypatch.setenv("GRID_SSH_CONFIG", str(tmp_path / "config"))
    assert "grid hosts trust s1" in grid("hosts", "check", "s1").stderr

    done = grid("hosts", "trust", "s1", input="n\n")
    assert done.returncode == exits.FAILED and "SHA256:" in done.stdout and not records.exists()
    assert grid("hosts", "trust", "s1").returncode == exits.FAILED, "nobody there to agree"
    done = grid("hosts", "trust", "s1", input="y\n")
    assert done.returncode == exits.OK and f"recorded in {records}" in done.stderr
    assert grid("hosts", "check", "s1").returncode == exits.OK
    assert data_of("hosts", "trust", "s1")["verdict"] == "known"
    told = json.loads(grid("hosts", "trust", "s2", "--yes", "--json").stdout)
    assert (told["verdict"], told["recorded"], len(records.read_text().splitlines())) == ("unknown", True, 2)

    records.write_text(f"{over_ssh.hosts['s1'].address} {over_ssh.hosts['s3'].public_key}\n")
    done = grid("hosts", "trust", "s1", "--yes")
    assert done.returncode == exits.FAILED and "ssh-keygen -R" in done.stderr


@pytest.mark.row("D04", "G63")
def test_leases_on_hosts_are_listed_from_anywhere_and_dead_ones_removed(
    over_ssh: Lab, start: Callable[..., Running], tmp_path: Path
) -> None:
    hosts = over_ssh.hosts
    crashed, living = start("--group", "two"), start("--hosts", "s2,s3")
    for script in (crashed, living):
        script.tell("publish")
    leases = data_of("ps")["leases"]
    held = {(lease["grid"].partition("-")[0], lease["machine"]): lease for lease in leases}
    assert set(held) == {(str(crashed.pid), name) for name in ("s1", "s2")} | {
        (str(living.pid), name) for name in ("s2", "s3")
    }
    assert all(lease["orphan"] is None and lease["servers_alive"] == 1 for lease in leases)

    crashed.process.kill()
    crashed.end()
    gone_client = [one["orphan"] for one in data_of("ps")["leases"] if one["grid"].startswith(f"{crashed.pid}-")]
    assert gone_client == ["client gone", "client gone"]
    # On s2 only what belongs to the crashed run: its lease has the pids as that host counts them.
    for name in ("s1", "s2"):
        processes = held[str(crashed.pid), name]["processes"]
        pids = [str(one["pid"]) for one in processes if one["name"] in ("agent", "zygote")]
        assert len(pids) == 2, processes
        for which in ("STOP", "KILL"):  # one after the other they would clean up
            hosts[name].run(["kill", f"-{which}", *pids], check=True)

    orphans = {lease["machine"]: lease["orphan"] for lease in data_of("ps")["leases"]}
    assert orphans["s1"] == "agent dead"
    (tmp_path / "hosts.yaml").write_text("hosts: [s1, s2, s3, nowhere.invalid]\n")
    done = grid("ps", "--json")
    assert done.returncode == exits.FAILED
    assert [one["machine"] for one in json.loads(done.stdout)["unreachable"]] == ["nowhere.invalid"]
    assert grid("clean", "--dry-run").returncode == exits.FAILED

    done = grid("clean", "--hosts", "s1,s2,s3", "--yes", "--json")
    assert done.returncode == exits.OK, done.stderr
    reports = {one["machine"]: one for one in json.loads(done.stdout)["machines"]}
    assert set(reports) == {"(this machine)", "s1", "s2"} and not any(one["kept"] for one in reports.values())
    assert any("/code-" in path for path in reports["s1"]["removed"])
    assert not [path for path in hosts["s1"].litter() if "run-" in path or "code-" in path]
    assert "nothing left behind" in grid("clean", "--hosts", "s1,s2,s3", "--yes").stderr
    assert living.tell("say still here") == "['still here', 'still here']"
    living.tell("exit 0")
    assert living.end() == 0


@pytest.mark.row("D04", "G63")
def test_on_a_shared_disk_another_hosts_run_is_not_taken_for_rubbish(over_ssh: Lab, tmp_path: Path) -> None:
    s1 = over_ssh.hosts["s1"]
    (tmp_path / "hosts.yaml").write_text("defaults: {temp_path: /shared/tmp}\nhosts: [s1, s2]\n")
    for number, host in enumerate(("s1", "elsewhere")):
        path = f"/shared/tmp/run-999999999-0123abcd-{number}"
        s1.run(["sh", "-c", f"mkdir -p {path} && echo {host} >{path}/host && touch -d '1 hour ago' {path}"], check=True)
    try:
        (report,) = json.loads(grid("clean", "--yes", "--json").stdout)["machines"]
        assert (report["machine"], report["removed"]) == ("s1", ["/shared/tmp/run-999999999-0123abcd-0"])
        assert s1.run(["ls", "/shared/tmp"]).stdout == "run-999999999-0123abcd-1\n"
    finally:
        s1.run(["rm", "-rf", "/shared/tmp"])


@pytest.mark.row("D04", "G66")
def test_bench_measures_and_leaves_nothing() -> None:
    facts = data_of("bench", "--local", "2", "--size", "1", "--calls", "20")
    (host,) = facts["hosts"]
    assert (host["host"], host["servers"], host["transport"]) == ("localhost", 2, "local") and facts["failed"] == {}
    assert 0 < host["latency_s"] <= host["latency_p99_s"] < 10
    assert min(host["calls"], host["mapped"], host["bytes_in"], host["bytes_out"], facts["start_s"]) > 0
    shown = grid("bench", "--local", "1", "--size", "1", "--calls", "10")
    assert shown.returncode == 0 and "in flight [1/s]" in shown.stdout and "from nothing to servers" in shown.stderr
    assert grid("bench", "--local", "1", "--hosts", "x").returncode == 2
    nowhere = grid("bench", "nowhere.invalid", "--hosts", "nowhere.invalid", "--calls", "10", GRID_START_S="10")
    assert nowhere.returncode == 3 and "nowhere.invalid" in nowhere.stderr
