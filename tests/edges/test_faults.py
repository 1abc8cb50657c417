"""The fault matrix: what is done to processes, hosts and networks, and what a running grid makes of it.

Every case has work under way on the victim and on a host beside it. Either nothing is lost, or the calls of the victim
fail with the right error in time; the host beside goes on in any case, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grid import ConnectError, Grid, Host, Limits, LocalGrid, PublishError, ServerLost, SSHGrid, StagingError
from grid.grids.choose import local_host
from grid.services.result import Result
from grid.testing.probe import Probe
from tests.lab import Lab, LabHost
from tests.lab.host import RunningHost
from tests.lab.titles import agent_on
from tests.models import Adder

QUICK = Limits(heartbeat_s=0.5, lost_s=2.0, orphan_s=10.0, stop_s=1.0, start_s=25.0)


def until(condition: Callable[[], Any], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    with Lab([LabHost("victim", wire=True), LabHost("beside"), LabHost("walled", open_ports=(22,))]) as lab:
        yield lab


@pytest.fixture(autouse=True)
def ssh_config(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "net" in request.fixturenames:
        monkeypatch.setenv("GRID_SSH_CONFIG", str(request.getfixturevalue("net").ssh_config))


class Work:
    """Calls on two servers, in order, from before a fault until after it."""

    def __init__(self, g: SSHGrid | LocalGrid, victim: str) -> None:
        self.grid = g
        self.sid = g.publish(Probe(), wait="all")
        self.proxies = {}
        for _ in range(2):
            proxy = g.acquire_service(self.sid, timeout=10)
            self.proxies[proxy._server.host.label] = proxy
        self.victim = victim
        (self.beside,) = set(self.proxies) - {victim}
        self.made: dict[str, list[Result]] = {name: [] for name in self.proxies}
        self.expected = 0

    def more(self, count: int = 40, size: int = 0) -> None:
        """Calls to both; the answer of each tells that all before it ran once."""
        for name, proxy in self.proxies.items():
            for _ in range(count):
                self.made[name].append(proxy.add(1))
                if size:
                    self.made[name].append(proxy.echo(b"x" * size))

    def check(self, name: str, limit_s: float = 40.0) -> None:
        """Every call of that host ran, once and in order."""
        values = [result.get(limit_s) for result in self.made[name]]
        counted = [value for value in values if isinstance(value, int)]
        assert counted == list(range(1, len(counted) + 1))

    def check_all(self) -> None:
        for name in self.made:
            self.check(name)


Fault = Callable[[RunningHost, SSHGrid], Any]


def cut_for(seconds: float) -> Fault:
    def fault(host: RunningHost, g: SSHGrid) -> None:
        host.cut()
        time.sleep(seconds)  # the fault itself
        host.mend()

    return fault


def bad_wire(**what: float) -> Fault:
    def fault(host: RunningHost, g: SSHGrid) -> None:
        host.set_wire(**what)

    return fault


def slow_wire(host: RunningHost, g: SSHGrid) -> None:
    host.limit_rate(256)


def stopped_agent(host: RunningHost, g: SSHGrid) -> None:
    pid = agent_on(host)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2 * QUICK.lost_s)  # the fault itself
    os.kill(pid, signal.SIGCONT)


def killed_sessions(host: RunningHost, g: SSHGrid) -> None:
    host.kill_sessions()


def stopped_sshd(host: RunningHost, g: SSHGrid) -> None:
    host.stop_sshd()
    host.kill_sessions()
    time.sleep(1.5)  # the fault itself
    host.start_sshd()


def jumping_clock(host: RunningHost, g: SSHGrid) -> None:
    """The wall clock of the client; that of the kernels jumps all the time, see the loader below."""


SURVIVED: dict[str, tuple[str, Fault]] = {
    "link down for 2 s": ("victim", cut_for(2)),
    "link down for most of orphan_s": ("victim", cut_for(6)),
    "30 % of frames lost": ("victim", bad_wire(loss_percent=30)),
    "200 ms delay": ("victim", bad_wire(delay_ms=200, jitter_ms=20)),
    "256 kbit per s": ("victim", slow_wire),
    "agent stopped for a while": ("victim", stopped_agent),
    "ssh sessions killed, direct route": ("victim", killed_sessions),
    "ssh sessions killed, tunnel": ("walled", killed_sessions),
    "sshd gone for a while, tunnel": ("walled", stopped_sshd),
}


@pytest.mark.lab
@pytest.mark.row("G48", "G67", "G14")
@pytest.mark.parametrize("fault", SURVIVED)
def test_a_fault_that_passes_loses_nothing(net: Lab, fault: str) -> None:
    name, strike = SURVIVED[fault]
    host = net.hosts[name]
    # Of frames that get lost TCP repeats one after 0.2, 0.4, 0.8, 1.6 s and so on: five in a row are silence for 6 s,
    # which is longer than QUICK waits, and comes about once in twenty runs. The fault is the loss, and not the silence.
    limits = dataclasses.replace(QUICK, lost_s=8.0) if "frames lost" in fault else QUICK
    with SSHGrid([name, "beside"], limits=limits, output=None) as g:
        work = Work(g, name)
        try:
            work.more()
            blocking = work.proxies[name].wait_for("/tmp/go")
            # what is under way must not take as long as a lost cable: heartbeats stand in line behind it
            work.more(size=6_000 if fault.startswith("256") else 300_000 if "delay" in fault else 0, count=5)
            strike(host, g)
            work.more()
            work.check(work.beside)
            host.run(["touch", "/tmp/go"], check=True)
            assert blocking.get(60) == ""
            work.check_all()
            with contextlib.suppress(KeyError):
                assert not [label for label in g.failures if label != "none"], g.failures
        finally:
            host.run(["rm", "-f", "/tmp/go"])
            if name == "victim":
                host.set_wire()
                if fault.startswith("256"):
                    host.limit_rate(1_000_000)


@pytest.mark.lab
@pytest.mark.row("G48", "G67")
@pytest.mark.parametrize("way", ["paramiko", "openssh"])
def test_a_tunnel_that_breaks_is_made_anew_by_either_ssh(net: Lab, way: str) -> None:
    host = net.hosts["walled"]
    with SSHGrid([Host("walled", ssh=way), "beside"], limits=QUICK, output=None) as g:
        work = Work(g, "walled")
        for _ in range(2):
            work.more(count=10)
            host.kill_sessions()
            work.more(count=10)
            work.check_all()
        large = work.proxies["walled"].make_bytes(2_000_000)
        host.kill_sessions()
        assert len(large.get(40)) == 2_000_000, "a large result that was not fetched yet"


@pytest.mark.lab
@pytest.mark.row("G45", "G48")
def test_a_map_goes_on_where_a_host_is_cut_off_for_good(net: Lab) -> None:
    """Packs wait there behind others, are recalled without an answer, and run elsewhere once the host is lost."""
    host = net.hosts["victim"]
    limits = dataclasses.replace(QUICK, orphan_s=4.0, control_s=4.0)
    try:
        with SSHGrid(["victim", "beside"], limits=limits, output=None) as g:
            sid = g.publish(Adder(), wait="all")
            values = g.map(sid, "f", range(6000), retries=2, ahead=1000)  # it stands still behind so many values
            taken = [next(values) for _ in range(500)]
            host.cut()
            taken += values
            assert taken == list(range(1, 6001))
    finally:
        host.mend()


@pytest.mark.row("G48", "G63")
def test_a_client_that_is_suspended_finds_its_calls_answered(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        from grid import Limits, LocalGrid
        from grid.testing.probe import Probe
        with LocalGrid(1, limits=Limits(heartbeat_s=0.5, lost_s=1.0, orphan_s=8.0), output=None) as g:
            with g.acquire_service(g.publish(Probe())) as proxy:
                results = [proxy.add() for _ in range(500)]
                print("now", flush=True)
                sys.stdin.readline()
                results += [proxy.add() for _ in range(500)]
                print([r.get(20) for r in results] == list(range(1, 1001)), flush=True)
        """)
    )
    with subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin is not None and client.stdout is not None
        assert client.stdout.readline() == "now\n"
        client.send_signal(signal.SIGSTOP)
        time.sleep(3)  # the fault itself: three times lost_s
        client.send_signal(signal.SIGCONT)
        client.stdin.write("go on\n")
        client.stdin.flush()
        assert client.stdout.readline() == "True\n"
        assert client.wait(20) == 0


@pytest.mark.row("G48")
def test_wall_clocks_that_jump_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kernel.py").write_text(
        textwrap.dedent("""
        import random, time
        real = time.time
        time.time = lambda: real() + random.choice((-86_400, 0, 86_400))
        from grid.kernel import agent
        agent.main(config, report)
        """)
    )
    real = time.time
    with LocalGrid(2, limits=Limits(heartbeat_s=0.2, lost_s=1.0, orphan_s=2.0), output=None) as g:
        g.set_loader(tmp_path, "kernel.py")
        sid = g.publish(Probe())
        monkeypatch.setattr(time, "time", lambda: real() + random.choice((-86_400, 0, 86_400)))
        ends = time.monotonic() + 3.5
        with g.acquire_service(sid) as proxy:
            count = 0
            while time.monotonic() < ends:
                count += 1
                assert proxy.add().get(10) == count
        assert not g.failures


@pytest.mark.lab
@pytest.mark.row("G06", "G70", "H11")
@pytest.mark.parametrize("kind", ["a shell that never ends", "an sshd that stops in the handshake"])
def test_a_host_that_never_starts_is_named_and_the_others_serve(net: Lab, kind: str) -> None:
    host = net.hosts["victim"]
    limits = Limits(heartbeat_s=0.5, lost_s=2.0, start_s=6.0, stop_s=1.0)
    stopped = []
    victim = Host("victim", init_cmd="sleep 600") if kind.startswith("a shell") else Host("victim")
    if not kind.startswith("a shell"):
        stopped = [pid for pid, command in host.processes(everything=True) if "sshd" in command]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
    try:
        with SSHGrid([victim, "beside"], limits=limits, output=None) as g:
            began = time.monotonic()
            sid = g.publish(Probe(), wait="all", missing="ok")
            assert time.monotonic() - began < 60
            assert g.servers[sid][0].host.label == "beside" and g.size(sid) == 1
            error = g.failures["victim"]
            assert "victim" in str(error) and ("answered within 6 s" in str(error) or isinstance(error, ConnectError))
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.row("G48")
def test_out_of_memory_is_told_as_such() -> None:
    """A real kill by the kernel: the server is put into a memory cgroup that is too small for it."""
    top = Path("/sys/fs/cgroup/memory")
    second = not top.is_dir()
    if second:
        top = Path("/sys/fs/cgroup")
    group = top / f"grid-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as exc:
        pytest.skip(f"no memory cgroup can be made here ({exc})")
    limit = group / ("memory.max" if second else "memory.limit_in_bytes")
    try:
        with LocalGrid(2, output=None) as g:
            if not limit.exists():
                pytest.skip("this kernel has no memory controller for us")
            sid = g.publish(Probe())
            with g.acquire_service(sid) as proxy:
                _, pid = proxy.where().get(10)
                (group / "cgroup.procs").write_text(str(pid))
                limit.write_text("100000000")
                with contextlib.suppress(OSError):
                    (group / "memory.swap.max").write_text("0")
                with pytest.raises(ServerLost, match="lack of memory") as caught:
                    proxy.hoard(2_000_000_000).get(60)
            error = caught.value
            assert error.signal == signal.SIGKILL and error.oom_kills >= 1 and error.call == "hoard"
            with g.acquire_service(sid) as other:
                assert other.add().get(10) == 1, "the server beside it goes on"
    finally:
        until(lambda: _removed(group))


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return not group.exists()
    return True


@pytest.mark.row("G48")
def test_a_call_that_kills_is_known_by_its_deaths() -> None:
    with LocalGrid(1, output=None) as g:
        sid = g.publish(Probe(), restarts=5)
        for deaths in 1, 2, 3:
            with g.acquire_service(sid, timeout=20) as proxy:
                assert proxy.add(deaths).get(10) == deaths
                with pytest.raises(ServerLost) as caught:
                    proxy.exit(7).get(20)
            assert caught.value.deaths == deaths and caught.value.call == "exit" and caught.value.exit_status == 7
            assert (f"{deaths} servers have died with this very call" in str(caught.value)) == (deaths > 1)
        with g.acquire_service(sid, timeout=20) as proxy, pytest.raises(ServerLost) as caught:
            proxy.exit(8).get(20)
        assert caught.value.deaths == 1, "another call"


@pytest.mark.row("G42", "G48", "G69")
def test_two_hundred_servers_that_crash_leave_nothing() -> None:
    with LocalGrid(4, output=None) as g:
        g.publish([])
        sid = g.publish(Probe(), restarts=200)
        agent = g._engine.fleet.homes[0].report["pid"]
        before = len(os.listdir(f"/proc/{agent}/fd")), len(os.listdir("/proc/self/fd"))
        for _ in range(200):
            with g.acquire_service(sid, timeout=30) as proxy:
                error = proxy.exit(1).exception(30)
                assert isinstance(error, ServerLost)
        until(lambda: g.queues[sid].qsize() == 4)
        after = len(os.listdir(f"/proc/{agent}/fd")), len(os.listdir("/proc/self/fd"))
        assert after[0] <= before[0] + 4 and after[1] <= before[1] + 4, (before, after)
        with g.acquire_service(sid, timeout=10) as proxy:
            proxy.exit(1).exception(30)
        until(lambda: g.size(sid) == 3, 10)  # no more restarts


class Stillborn:
    """Dies while it is made on the server."""

    def __setstate__(self, state: object) -> None:
        os._exit(3)

    def __getstate__(self) -> object:
        return {"a": 1}


@pytest.mark.row("G06", "G48")
def test_servers_that_die_at_birth_end_the_publication() -> None:
    with LocalGrid(4, output=None) as g:
        with pytest.raises(PublishError, match="exit status 3"):
            g.publish(Stillborn(), restarts=200)
        assert g.gather(g.broadcast(g.publish(Probe()), "add")) == [1] * 4


@pytest.mark.row("F12", "H10")
@pytest.mark.parametrize("options", ["nr_inodes=12", "size=64k"])
def test_a_temp_directory_without_inodes_or_room_is_named(tmp_path: Path, options: str) -> None:
    if os.geteuid():
        pytest.skip("mounting needs root")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], check=True)
    try:
        (tmp_path / "data").mkdir()
        for number in range(40):
            (tmp_path / "data" / f"f{number}").write_bytes(os.urandom(4096))
        here = replace(local_host(1), temp_path=str(place))
        with Grid([here], output=None, limits=QUICK) as g, pytest.raises((PublishError, StagingError)) as caught:
            g.publish(Probe())
            g.copy_files(tmp_path / "data", ["*"])
        assert str(place) in str(caught.value) and "No space left" in str(caught.value)
    finally:
        subprocess.run(["umount", place], check=True)


STAGES = ("start", "publish", "acquire", "call", "release", "copy", "terminate")


@pytest.mark.row("G25", "G58")
@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_at_every_stage_ends_everything(stage: str, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("x" * 100_000)
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, signal, sys, threading
        from grid import LocalGrid
        from grid.testing.probe import Probe

        def at(stage):
            if stage == {stage!r}:
                delay = float(sys.argv[1])
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()

        at("start")
        with LocalGrid(2, output=None) as g:
            at("publish")
            sid = g.publish(Probe())
            at("acquire")
            proxies = [g.acquire_service(sid) for _ in range(2)]
            at("call")
            results = [proxy.echo(b"x" * 100_000) for proxy in proxies for _ in range(50)]
            results += [proxy.wait_for("/never", 20) for proxy in proxies if {stage!r} == "call"]
            g.gather(results)
            at("release")
            for proxy in proxies:
                g.release_service(proxy)
            at("copy")
            g.copy_files({str(tmp_path)!r}, ["*.txt"])
            at("terminate")
            g.terminate(sid)
        """)
    )
    for delay in ("0", "0.01", "0.1"):
        done = subprocess.run([sys.executable, script, delay], capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, -signal.SIGINT, 130), done.stderr
        assert done.returncode == 0 or "KeyboardInterrupt" in done.stderr
        assert "Error" not in done.stderr.replace("KeyboardInterrupt", ""), done.stderr
    # the fixture `tidy` looks for what is left
