"""The test hosts themselves: are they as separate, as real and as tidy as the other tests believe?

Elsewhere: what grid does with them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import Lab, LabHost, MissingPart
from tests.lab.host import wait_until
from tests.lab.pythons import CLIENT

pytestmark = pytest.mark.lab


def ssh(lab: Lab, host: str, command: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ssh", "-F", str(lab.ssh_config), host, command],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def answers(host: object, port: int, within: float = 1.0) -> bool:
    try:
        socket.create_connection((host.address, port), timeout=within).close()  # type: ignore[attr-defined]
    except OSError:
        return False
    return True


@contextmanager
def killed_at_the_end(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()


@pytest.fixture(scope="module")
def world() -> Iterator[Lab]:
    """One lab for the tests that leave it as it was."""
    hosts = [
        LabHost("a", shares={"/shared": "common"}, wire=True),
        LabHost("b", shares={"/shared": "common"}, tmpfs={"/small": "size=64k"}, readonly=("/sealed",)),
        LabHost("bare", packages=()),
        LabHost("nothing", pythons=()),
        LabHost("walled", open_ports=(22,)),
        LabHost("jump"),
        LabHost("inner", behind="jump"),
        LabHost("deep", behind="inner"),
    ]
    with Lab(hosts) as lab:
        yield lab


def test_each_host_answers_openssh_with_its_own_name(world: Lab) -> None:
    for name in world.hosts:
        done = ssh(world, name, "hostname; id -un; pwd")
        assert (done.returncode, done.stdout) == (0, f"{name}\nmara\n/home/mara\n"), done.stderr


def test_a_host_sees_its_own_tmp_processes_and_memory_only(world: Lab) -> None:
    assert ssh(world, "a", "echo here > /tmp/file; echo here > /dev/shm/file").returncode == 0
    try:
        seen = ssh(world, "b", "ls /tmp /dev/shm; ls -d /proc/[0-9]* | wc -l").stdout
        assert "file" not in seen
        assert int(seen.split()[-1]) < 10
        assert not Path("/tmp/file").exists()
        assert world.hosts["a"].path("/tmp/file").read_text() == "here\n"
    finally:
        ssh(world, "a", "rm /tmp/file /dev/shm/file")


def test_hosts_reach_each_other_by_name(world: Lab) -> None:
    done = ssh(world, "a", "ssh b hostname")
    assert (done.returncode, done.stdout) == (0, "b\n"), done.stderr


def test_the_only_python_is_the_one_that_the_host_has(world: Lab) -> None:
    look = f"command -v python3 python python{CLIENT}; ls /usr/bin | grep -c '^python'"
    assert ssh(world, "a", look).stdout.split() == [
        "/usr/local/bin/python3",
        "/usr/local/bin/python",
        f"/usr/local/bin/python{CLIENT}",
        "0",
    ]
    assert ssh(world, "nothing", look).stdout.split() == ["0"]
    assert ssh(world, "a", "python3 -c 'import zmq, dill'").returncode == 0
    assert ssh(world, "bare", "python3 -c 'import zmq'").stderr.endswith("No module named 'zmq'\n")
    assert ssh(world, "bare", "python3 -c 'import dill'").stderr.endswith("No module named 'dill'\n")


@pytest.mark.parametrize("minor", ["3.9", "3.10", "3.12", "3.13"])
def test_a_host_may_have_another_python(minor: str) -> None:
    try:
        with Lab([LabHost("other", pythons=(minor,))]) as lab:
            done = ssh(lab, "other", "python3 -c 'import sys, zmq, dill; print(sys.version_info[:2])'")
    except MissingPart as missing:
        pytest.skip(str(missing))
    assert done.stdout.strip() == f"({minor.replace('.', ', ')})", done.stderr


def test_a_shared_directory_is_the_same_on_both(world: Lab) -> None:
    ssh(world, "a", "echo word > /shared/x")
    assert ssh(world, "b", "cat /shared/x; rm /shared/x").stdout == "word\n"
    assert ssh(world, "bare", "ls /shared").returncode != 0


def test_small_and_sealed_directories_refuse(world: Lab) -> None:
    assert "No space left" in ssh(world, "b", "head -c 100000 /dev/zero > /small/x; rm /small/x").stderr
    assert "Read-only" in ssh(world, "b", "touch /sealed/x").stderr


def test_root_on_a_host_cannot_change_the_machine(world: Lab) -> None:
    done = world.hosts["a"].run(["touch", "/usr/share/grid-was-here"], user="root")
    assert done.returncode != 0
    assert not Path("/usr/share/grid-was-here").exists()


def test_hosts_behind_a_jump_host_are_reachable_through_it_only(world: Lab) -> None:
    assert not answers(world.hosts["inner"], 22)
    assert not answers(world.hosts["deep"], 22)
    assert ssh(world, "a", f"ssh -o ConnectTimeout=1 {world.hosts['inner'].address} true").returncode == 255
    assert ssh(world, "deep", "hostname").stdout == "deep\n"


def test_a_walled_host_drops_everything_but_ssh(world: Lab) -> None:
    assert answers(world.hosts["walled"], 22)
    with pytest.raises(TimeoutError):
        socket.create_connection((world.hosts["walled"].address, 2222), timeout=0.3)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((world.hosts["a"].address, 2222), timeout=0.3)
    assert ssh(world, "walled", "ssh a hostname").stdout == "a\n"


def test_a_cut_wire_carries_nothing_until_it_is_mended(world: Lab) -> None:
    for name in ("b", "inner"):
        host = world.hosts[name]
        command = f"exec 3<>/dev/tcp/{host.address}/22"
        host.cut()
        try:
            assert ssh(world, "jump", f"timeout 0.3 bash -c '{command}'").returncode == 124
        finally:
            host.mend()
        assert ssh(world, name, "hostname").stdout == f"{name}\n"


def test_a_wire_can_delay(world: Lab) -> None:
    host = world.hosts["a"]
    start = time.monotonic()
    assert answers(host, 22)
    quick = time.monotonic() - start
    host.set_wire(delay_ms=1000)  # each way
    try:
        start = time.monotonic()
        assert answers(host, 22, within=20)
        slow = time.monotonic() - start
    finally:
        host.set_wire()
    assert quick < 2 <= slow


def test_sshd_and_its_sessions_stop_and_start(world: Lab) -> None:
    host = world.hosts["jump"]
    session = subprocess.Popen(
        ["ssh", "-F", str(world.ssh_config), "jump", "echo up; exec sleep 60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    with session, killed_at_the_end(session):
        assert session.stdout is not None and session.stdout.readline() == "up\n"
        wait_until(lambda: any(found[1] == "sleep 60" for found in host.processes()), "the command to start")
        host.stop_sshd()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host.address, 22), timeout=5)
        assert session.poll() is None
        host.kill_sessions()
        assert session.wait(10) == 255
    [(pid, command)] = [found for found in host.processes() if not found[1].startswith("sshd")]
    assert command == "sleep 60"  # without a terminal it outlives its channel
    os.kill(pid, signal.SIGKILL)
    host.start_sshd()
    assert ssh(world, "jump", "hostname").stdout == "jump\n"
    wait_until(lambda: not host.processes(), "the host to be quiet")


def test_power_off_ends_everything_on_a_host_and_keeps_its_disk() -> None:
    with Lab([LabHost("front"), LabHost("back", behind="front")]) as lab:
        host = lab.hosts["front"]
        ssh(lab, "front", "echo kept > /tmp/kept; setsid sleep 1000 </dev/null >/dev/null 2>&1 &")
        wait_until(lambda: [found[1] for found in host.processes()] == ["sleep 1000"], "sshd's session to end")
        [(pid, _)] = host.processes()
        host.kill()
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the dead to be buried")
        assert not host.is_on and host.processes() == []
        assert not answers(host, 22, within=0.3)
        host.power_on()
        assert ssh(lab, "front", "cat /tmp/kept").stdout == "kept\n"
        assert ssh(lab, "back", "hostname").stdout == "back\n"


def traces(*words: str) -> list[str]:
    """What on this machine names one of the words: links, routes, directories, claims, processes, mounts, cgroups."""
    lines = [link["ifname"] for link in json.loads(subprocess.check_output(["ip", "-json", "link", "show"]))]
    lines += subprocess.getoutput("ip route").splitlines()
    lines += Path("/proc/mounts").read_text().splitlines()
    for path in (*Path("/proc").glob("[0-9]*/cmdline"), *Path("/run/grid-lab").glob("*")):
        try:
            lines.append(f"{path} {path.read_bytes().decode(errors='replace')}")
        except OSError:
            continue
    lines += [str(path) for place in ("/tmp", "/sys/fs/cgroup/freezer") for path in Path(place).glob("gl*")]
    return [line for line in lines if any(word in line for word in words)]


def names_of(lab: Lab) -> tuple[str, ...]:
    """By these its traces can be told from those of other labs that stand on this machine."""
    links = [lab.bridge, *(host.outer_link for host in lab.hosts.values())]
    return (*links, str(lab.ground.block.network_address), str(lab.directory))


def test_two_labs_stand_side_by_side_and_leave_nothing() -> None:
    with Lab([LabHost("same")]) as one, Lab([LabHost("same")]) as two:
        assert one.hosts["same"].address != two.hosts["same"].address
        ssh(one, "same", "echo one > /tmp/which")
        ssh(two, "same", "echo two > /tmp/which")
        assert ssh(one, "same", "cat /tmp/which").stdout == "one\n"
        ssh(two, "same", "setsid sleep 1000 </dev/null >/dev/null 2>&1 &")
        names = names_of(one) + names_of(two)
        assert traces(*names)
    assert [line for line in traces(*names) if "/tmp/gl-" in line or not line.startswith("/proc")] == []


def test_what_a_killed_owner_left_is_cleared_by_the_next_lab() -> None:
    program = """
        import sys, time
        from tests.lab import Lab, LabHost
        with Lab([LabHost("orphan", wire=True)]) as lab:
            print(lab.directory, flush=True)
            time.sleep(1000)
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with owner:
        assert owner.stdout is not None
        directory = owner.stdout.readline().strip()
        owner.kill()
    with Lab([LabHost("next")]):
        assert traces(directory) == []


def test_a_name_twice_or_a_jump_host_that_comes_later_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Lab([LabHost("x"), LabHost("x")])
    with pytest.raises(ValueError, match="before"):
        Lab([LabHost("x", behind="y"), LabHost("y")])
