"""Grids over ssh where something is not as it should be: hosts, networks, interpreters, directories."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grid import (
    ConnectError,
    DiskError,
    Grid,
    Host,
    HostKeyError,
    Limits,
    LoginError,
    NoServers,
    PublishError,
    PythonError,
    ServerLost,
    SSHGrid,
    VersionError,
)
from grid.testing.probe import Probe
from tests.lab import Lab, LabHost
from tests.lab.host import RunningHost
from tests.lab.titles import agent_on, is_of_kernel

pytestmark = pytest.mark.lab

QUICK = Limits(heartbeat_s=0.5, lost_s=2.0, orphan_s=6.0, stop_s=1.0, start_s=20.0)
OTHER = next((minor for minor in ("3.12", "3.13", "3.10") if minor != f"3.{sys.version_info[1]}"), "3.12")


def until(condition: Callable[[], Any], limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    hosts = [
        LabHost("one"),
        LabHost("two"),
        LabHost("walled", open_ports=(22,)),
        LabHost("inner", behind="one"),
        LabHost("deep", behind="inner"),
        LabHost("bare", packages=()),
        LabHost("none", pythons=()),
        LabHost("tiny", tmpfs={"/tiny": "size=16k"}, readonly=("/srv",)),
    ]
    with Lab(hosts) as lab:
        yield lab


@pytest.fixture(autouse=True)
def ssh_config(net: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(net.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def ours(host: RunningHost) -> list[str]:
    """Command lines of processes of ours on a host."""
    return [command for _, command in host.processes() if "grid" in command or "i=getattr" in command]


@pytest.mark.row("G06", "G70")
def test_one_dead_host_of_three_is_named_and_the_others_serve(net: Lab) -> None:
    with SSHGrid(["one", "no-such-host.invalid", "two"], limits=QUICK, output=None) as g:
        sid = g.publish(Probe(), wait="all", missing="ok", timeout=30)
        assert len(g.servers[sid]) == 2
        (label,) = g.failures
        assert label == "no-such-host.invalid" and isinstance(g.failures[label], ConnectError)
        assert g.gather(g.broadcast(sid, "add")) == [1, 1]
        g.release_all()


@pytest.mark.row("G06")
def test_publish_raises_only_if_no_host_comes_up_and_says_why_for_each(net: Lab) -> None:
    with SSHGrid(["nowhere.invalid", "bare"], limits=QUICK, output=None) as g:
        with pytest.raises(PublishError) as caught:
            g.publish(Probe())
        assert set(caught.value.failures) == {"nowhere.invalid", "bare"}
        assert "nowhere.invalid" in str(caught.value) and "lacks pyzmq and dill" in str(caught.value)


@pytest.mark.row("H05", "H12")
@pytest.mark.parametrize(
    ("host", "words"),
    [
        (Host("bare"), ["lacks pyzmq and dill", "grid hosts setup"]),
        (Host("none"), ["no Python", "python:"]),
        (Host("one", python="/opt/nowhere/python"), ["nowhere"]),
    ],
    ids=["without pyzmq", "without Python", "named wrongly"],
)
def test_a_host_that_cannot_run_a_kernel_says_what_it_lacks(net: Lab, host: Host, words: list[str]) -> None:
    with SSHGrid([host], limits=QUICK, output=None) as g:
        with pytest.raises(PublishError) as caught:
            g.publish(Probe())
        (error,) = caught.value.failures.values()
        assert isinstance(error, PythonError)
        for word in words:
            assert word in str(error)


@pytest.mark.row("H02", "H10", "F12")
@pytest.mark.parametrize("path", ["/srv/x", "/tiny/x"])
def test_a_temp_path_that_cannot_be_written_is_named(net: Lab, path: str) -> None:
    if path.startswith("/tiny"):
        net.hosts["tiny"].run(["sh", "-c", "chmod 777 /tiny; head -c 16384 /dev/zero >/tiny/full"], user="root")
    with SSHGrid([Host("tiny", path)], limits=QUICK, output=None) as g:
        with pytest.raises(PublishError) as caught:
            g.publish(Probe())
        (error,) = caught.value.failures.values()
        assert isinstance(error, DiskError) and path in str(error) and "'tiny'" in str(error)
    assert ours(net.hosts["tiny"]) == []


@pytest.mark.row("H11")
def test_unknown_and_changed_keys_and_refused_log_ins_are_told_apart(net: Lab, tmp_path: Path) -> None:
    text = net.ssh_config.read_text()
    records = net.known_hosts.read_text()
    for known, kind, user in (
        ("", HostKeyError, None),
        (records, LoginError, "nobody"),
    ):
        (tmp_path / "known").write_text(known)
        config = tmp_path / "config"
        config.write_text(text.replace(str(net.known_hosts), str(tmp_path / "known")))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GRID_SSH_CONFIG", str(config))
            with (
                SSHGrid([Host("one", user=user)], limits=QUICK, output=None) as g,
                pytest.raises(PublishError) as caught,
            ):
                g.publish(Probe())
            (error,) = caught.value.failures.values()
            assert isinstance(error, kind), error


@pytest.mark.row("G67", "H11", "G59")
@pytest.mark.parametrize(
    ("name", "transport"), [("one", "direct"), ("walled", "tunnel"), ("inner", "tunnel"), ("deep", "tunnel")]
)
def test_auto_finds_a_way_to_every_host(net: Lab, name: str, transport: str) -> None:
    with SSHGrid([Host(name, n_cpu=2)], limits=QUICK, output=None) as g:
        sid = g.publish(Probe(), wait="all")
        assert g._engine.fleet.homes[0].transport == transport
        assert g.gather(g.broadcast(sid, "where"), 20)[0][0] == name
        g.release_all()
        with g.acquire_service(sid) as proxy:
            assert len(proxy.make_bytes(3_000_000).get(20)) == 3_000_000
            assert proxy.echo(bytearray(2_000_000)).get(20) == bytearray(2_000_000)
    until(lambda: not ours(net.hosts[name]), 5.0)


@pytest.mark.row("G24", "G58", "D09")
@pytest.mark.parametrize("ssh", ["paramiko", "openssh"])
def test_a_grid_that_ends_while_a_kernel_starts_leaves_nothing(net: Lab, ssh: str) -> None:
    host = net.hosts["two"]
    with SSHGrid(["one", Host("two", ssh=ssh, init_cmd="sleep 3;")], output=None) as g:
        g.publish(Probe())
        until(lambda: any("sleep 3" in command for _, command in host.processes()))
    until(lambda: not host.processes())  # its input has ended when it begins: no need to wait for a client


@pytest.mark.row("H11", "G67")
def test_the_users_own_ssh_does_the_same(net: Lab) -> None:
    hosts = [Host("one", ssh="openssh"), Host("walled", ssh="openssh"), Host("inner", ssh="openssh")]
    with SSHGrid(hosts, limits=QUICK, output=None) as g:
        sid = g.publish(Probe(), wait="all")
        assert [name for name, _ in g.gather(g.broadcast(sid, "where"), 20)] == ["one", "walled", "inner"]
        g.release_all()


@pytest.mark.row("H12", "G43")
def test_another_python_runs_modules_and_refuses_code_by_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_model.py").write_text("class Model:\n    def double(self, x):\n        return 2 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_model

    with Lab([LabHost("other", pythons=(OTHER,))]) as lab:
        monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
        with SSHGrid(["other"], limits=QUICK, output=None) as g:
            sid = g.publish(my_model.Model())
            assert g._engine.fleet.homes[0].report["python"].startswith(OTHER)
            with g.acquire_service(sid) as proxy:
                assert proxy.double(21).get(20) == 42
                with pytest.raises(VersionError, match=r"other.*module"):
                    proxy.double(lambda: 1)
            with pytest.raises(PublishError, match="byte code"):
                g.publish(_local_instance())


def _local_instance() -> Any:
    class Local:
        pass

    return Local()


@pytest.mark.row("H05")
def test_a_python_that_is_too_old_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with Lab([LabHost("old", pythons=("3.9",))]) as lab:
        monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
        with SSHGrid(["old"], limits=QUICK, output=None) as g, pytest.raises(PublishError, match=r"3\.9.*too old"):
            g.publish(Probe())


@pytest.mark.row("H03", "H04", "H06", "G28", "G64", "G60")
def test_servers_follow_their_hosts_entry(net: Lab) -> None:
    hosts = [
        Host("one", n_cpu=3, niceness=7, init_cmd="export COLOUR=red; cd /", env={"FLAVOUR": "sweet"}),
        Host("two", n_cpu=1, init_cmd="env COLOUR=blue !"),
        Host("two", n_cpu=1, init_cmd="env COLOUR=blue !"),
    ]
    hosts[0].use_n_cpu = 2
    with SSHGrid(hosts, limits=QUICK, output=None) as g:
        sid = g.publish(Probe(), wait="all")
        assert [server.name for server in g.servers[sid]] == [f"{sid}/{index}" for index in range(4)]
        assert [server.host.name for server in g.servers[sid]] == ["one", "one", "two", "two"]
        assert g.gather(g.broadcast(sid, "environment", "COLOUR"), 20) == ["red", "red", "blue", "blue"]
        assert g.gather(g.broadcast(sid, "environment", "FLAVOUR"), 20) == ["sweet", "sweet", None, None]
        assert g.gather(g.broadcast(sid, "niceness"), 20) == [7, 7, 0, 0]
        g.release_all()
        assert g.n_hosts == 4


@pytest.mark.row("G20", "G27", "G65")
def test_what_servers_print_arrives_with_its_host(net: Lab) -> None:
    import io

    shown = io.StringIO()
    with SSHGrid(["one"], limits=QUICK, output=shown) as g:
        sid = g.publish(Probe())
        with g.acquire_service(sid) as proxy:
            proxy.say("one line\nand another").get(10)
            until(lambda: "another" in shown.getvalue())
        assert f"[{sid}/0 one] one line\n[{sid}/0 one] and another\n" in shown.getvalue()


CLIENT = """
import sys
from grid import Host, Limits, SSHGrid
from grid.testing.probe import Probe
g = SSHGrid([Host("one", n_cpu=2), Host("walled")], limits=Limits(heartbeat_s=0.5, lost_s=2, orphan_s=3, stop_s=1))
g.start()
sid = g.publish(Probe(), wait="all")
proxy = g.acquire_service(sid)
proxy.child().get()
busy = proxy.wait_for("/never")
print("up", flush=True)
busy.get()
"""


@pytest.mark.row("G63", "G42", "D09")
def test_a_killed_client_leaves_nothing_on_its_hosts(net: Lab) -> None:
    process = subprocess.Popen([sys.executable, "-c", CLIENT], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        assert len(ours(net.hosts["one"])) >= 4
        process.kill()
        process.wait()
    until(lambda: not ours(net.hosts["one"]) and not ours(net.hosts["walled"]), 20.0)
    subprocess.run([sys.executable, "-m", "grid", "clean", "--yes"], check=True, timeout=30, capture_output=True)


@pytest.mark.row("G48", "G63")
def test_a_host_that_is_switched_off_fails_its_calls_and_the_others_go_on() -> None:
    with Lab([LabHost("on"), LabHost("off")]) as lab, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
        limits = Limits(heartbeat_s=0.5, lost_s=2.0, orphan_s=3.0, stop_s=1.0)
        with SSHGrid(["on", "off"], limits=limits, output=None) as g:
            sid = g.publish(Probe(), wait="all")
            proxies = {proxy.where().get(10)[0]: proxy for proxy in g._service(sid).hold_group(10)}
            call = proxies["off"].wait_for("/never")
            lab.hosts["off"].kill()
            with pytest.raises(ServerLost, match="'off'"):
                call.get(30)
            assert proxies["on"].add().get(10) == 1
            g.release_all()
            assert [server.host.name for server in g.servers[sid]] == ["on"]
            assert isinstance(g.failures["off"], ConnectError)


@pytest.mark.row("G48", "G63")
@pytest.mark.parametrize("cut_s", [1.0, 4.0])
def test_a_cut_cable_that_is_mended_in_time_loses_nothing(net: Lab, cut_s: float) -> None:
    host = net.hosts["two"]
    with SSHGrid(["two"], limits=QUICK, output=None) as g:
        sid = g.publish(Probe())
        with g.acquire_service(sid) as proxy:
            before = [proxy.note(index) for index in range(50)]
            before[-1].get(10)
            host.cut()
            try:
                during = [proxy.note(50 + index) for index in range(50)]
                if cut_s > QUICK.lost_s:
                    until(lambda: g._engine.fleet.homes[0].outage() is not None)
                    with pytest.raises(TimeoutError, match="not answered"):
                        during[-1].get(0.1)
                threading.Event().wait(cut_s)
            finally:
                host.mend()
            after = proxy.note(100)
            assert after.get(30) == list(range(101)), "a call was lost, doubled or out of order"
            assert [r.get(1)[-1] for r in during] == list(range(50, 100))
        until(lambda: g.queues[sid].qsize() == 1)


@pytest.mark.row("G48")
def test_a_cable_that_stays_cut_ends_the_wait_and_the_servers(net: Lab) -> None:
    host = net.hosts["two"]
    limits = Limits(heartbeat_s=0.5, lost_s=2.0, orphan_s=3.0, stop_s=1.0)
    with SSHGrid(["two"], limits=limits, output=None) as g:
        sid = g.publish(Probe())
        proxy = g.acquire_service(sid)
        call = proxy.wait_for("/never")
        host.cut()
        try:
            with pytest.raises(ServerLost, match="'two'"):
                call.get(30)
            with pytest.raises(NoServers):
                g.acquire_service(sid, timeout=10)
            until(lambda: not any(map(is_of_kernel, ours(host))), 15.0)
        finally:
            host.mend()


@pytest.mark.row("D03", "H08")
def test_a_script_with_its_own_class_runs_on_hosts_of_a_file(net: Lab, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def square(x):\n    return x * x\n")
    (tmp_path / "hosts.yaml").write_text(
        "defaults: {n_cpu: 2}\nhosts: [one, walled, inner]\ngroups: {some: [one, inner]}\n"
    )
    (tmp_path / "script.py").write_text(
        textwrap.dedent("""
        from dataclasses import dataclass
        from grid import Grid
        import helper

        OFFSET = 100

        @dataclass
        class Answer:
            host: str
            value: int

        class Model:
            def __init__(self, scale):
                self.scale = scale
            def compute(self, x):
                import socket
                return Answer(socket.gethostname(), shift(helper.square(x) * self.scale))

        def shift(x):
            return x + OFFSET

        if __name__ == "__main__":
            with Grid.from_file("hosts.yaml", group="some") as g:
                sid = g.publish(Model(10), wait="all")
                answers = g.gather(g.scatter(sid, "compute", [1, 2, 3, 4]))
                assert all(isinstance(a, Answer) for a in answers)
                assert answers[0] == Answer("one", 110), answers
                print(sorted({a.host for a in answers}), [a.value for a in answers])
        """)
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['inner', 'one'] [110, 140, 190, 260]\n"


@pytest.mark.row("G68")
def test_strangers_get_no_answer(net: Lab) -> None:
    import socket

    import zmq

    with SSHGrid(["one"], limits=QUICK, output=None) as g:
        sid = g.publish(Probe())
        home = g._engine.fleet.homes[0]
        inlet, outlet = home.report["ready"]
        for keyed in (False, True):
            with zmq.Context() as context, context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
                pull.linger = push.linger = 0
                if keyed:  # knows the server's public key, but is not the client
                    for end in (pull, push):
                        end.curve_publickey, end.curve_secretkey = zmq.curve_keypair()
                        end.curve_serverkey = home._keys[1].public
                push.connect(inlet)
                pull.connect(outlet)
                from grid.wire.frames import Kind, pack

                push.send(pack(Kind.HELLO, home.peer.number, 0, 0), zmq.NOBLOCK)
                pull.rcvtimeo = 700
                with pytest.raises(zmq.Again):
                    pull.recv()
        address = inlet[6:].rpartition(":")[0]
        with socket.create_connection((address, home.report["lane_port"]), 5) as plain:
            plain.sendall(b'{"op": "drop", "name": "0"}\n' * 10)
            plain.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                assert b"ok" not in plain.recv(1000)
        with g.acquire_service(sid) as proxy:
            assert proxy.add().get(10) == 1


@pytest.mark.row("G68")
def test_no_key_stands_on_a_command_line_or_in_an_environment(net: Lab) -> None:
    with SSHGrid(["one"], limits=QUICK, output=None) as g:
        g.publish(Probe())
        secrets = [g._engine.fleet.homes[0]._keys[0].secret.decode(), g._engine.fleet.homes[0]._keys[1].secret.decode()]
        for pid, command in net.hosts["one"].processes():
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
            assert not any(secret in command + environment for secret in secrets)


@pytest.mark.row("G70", "G03")
def test_hosts_start_side_by_side_and_a_constructor_touches_no_network(net: Lab) -> None:
    hosts = [Host(name, n_cpu=2) for name in ("one", "two", "walled", "inner")]
    grid = Grid(hosts, limits=QUICK, output=None)
    assert not grid._engine.fleet.has_begun and not grid._engine.fleet.homes
    with grid as g:
        sid = g.publish(Probe(), wait="all", timeout=60)
        assert len(g.servers[sid]) == 8


@pytest.mark.row("G11", "G06")
def test_servers_that_come_later_join_the_queue(net: Lab) -> None:
    host = net.hosts["two"]
    with SSHGrid(["one", "two"], limits=QUICK, output=None) as g:
        host.stop_sshd()
        try:
            sid = g.publish(Probe())
            with g.acquire_service(sid, timeout=20) as proxy:
                assert proxy.where().get(10)[0] == "one"
        finally:
            host.start_sshd()
        again = g.publish(Probe(), wait="all", timeout=40)
        assert {server.host.name for server in g.servers[again]} == {"one", "two"}


@pytest.mark.row("G42", "G69")
def test_agent_killed_on_a_host_takes_its_servers_along(net: Lab) -> None:
    host = net.hosts["one"]
    with SSHGrid(["one"], limits=QUICK, output=None) as g:
        sid = g.publish(Probe())
        proxy = g.acquire_service(sid)
        proxy.child().get(10)
        call = proxy.wait_for("/never")
        os.kill(agent_on(host), signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(ServerLost, match="agent died"):
            call.get(20)
        assert time.monotonic() - began < QUICK.lost_s + 1.0, "a refused port was taken for a cut cable"
        until(lambda: not ours(host))
