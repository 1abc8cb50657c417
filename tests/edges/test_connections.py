"""Ways into hosts, on a real network with real sshds: what works, and what is said when it doesn't."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import paramiko
import pytest
from paramiko.common import cMSG_CHANNEL_EOF

from grid.errors import ConnectError, HostError, HostKeyError, LoginError
from grid.hosts import Host
from grid.launch import ConnectLimits, connect
from grid.launch.connection import Connection
from grid.launch.known_hosts import record_name
from grid.launch.paramiko_ssh import ParamikoConnection
from grid.launch.transport import Outlet
from grid.testing.connections import CHECKS, DAEMON_CHECKS
from tests.lab import Lab, LabHost
from tests.lab.host import RunningHost

WAYS = ("paramiko", "openssh")
QUICK = ConnectLimits(connect_s=2, banner_s=2, auth_s=6, keepalive_s=1, silence_s=3, close_s=3)


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    hosts = [
        LabHost("plain"),
        LabHost("inner", behind="plain"),
        LabHost("deep", behind="inner"),
        LabHost("walled", open_ports=(22,)),
        LabHost("narrow", sshd={"MaxStartups": "2:100:2", "MaxSessions": "3", "LoginGraceTime": "20"}),
        LabHost("closed", sshd={"AllowTcpForwarding": "no"}),
    ]
    with Lab(hosts) as lab:
        yield lab


@pytest.fixture(autouse=True)
def ssh_config(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "net" in request.fixturenames:
        monkeypatch.setenv("GRID_SSH_CONFIG", str(request.getfixturevalue("net").ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def config(net: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Makes an ssh config with one entry, `x`, for a host of the lab; returns the path of its known_hosts."""

    def write(host: RunningHost, known: str | None = None, **settings: object) -> str:
        records = tmp_path / "known_hosts"
        records.write_text(net.known_hosts.read_text() if known is None else known)
        entry = {
            "HostName": host.address,
            "User": net.user,
            "IdentityFile": net.key,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": records,
            "GlobalKnownHostsFile": "/dev/null",
            **settings,
        }
        file = tmp_path / "config"
        file.write_text("Host x\n" + "".join(f"  {key} {value}\n" for key, value in entry.items()))
        monkeypatch.setenv("GRID_SSH_CONFIG", str(file))
        return str(records)

    return write


def sshd_sessions(host: RunningHost) -> int:
    return sum("sshd: mara" in command and "priv" not in command for _, command in host.processes())


# ---- what every way does ---------------------------------------------------------------------------------


@pytest.mark.row("B06")
@pytest.mark.parametrize("check", CHECKS + DAEMON_CHECKS, ids=lambda check: check.__name__)
def test_local(check: Callable[[Connection], None]) -> None:
    with connect(Host("here", ssh="local", python=sys.executable)) as connection:
        check(connection)


@pytest.mark.lab
@pytest.mark.row("H11", "B06")
@pytest.mark.parametrize("ssh", WAYS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_ssh(check: Callable[[Connection], None], ssh: str, net: Lab) -> None:
    with connect(Host("plain", ssh=ssh)) as connection:
        check(connection)


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("check", DAEMON_CHECKS, ids=lambda check: check.__name__)
def test_paramiko_and_daemons(check: Callable[[Connection], None], net: Lab) -> None:
    with connect(Host("plain")) as connection:
        check(connection)


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
@pytest.mark.parametrize("name", ["inner", "deep"])
def test_through_jump_hosts(name: str, ssh: str, net: Lab) -> None:
    with connect(Host(name, ssh=ssh)) as connection:
        assert connection.run("hostname").text == name
        assert connection.server_address() is None
        for check in CHECKS:
            if check.__name__ in ("run_carries_much", "forwards_carry_bytes_intact"):
                check(connection)


@pytest.mark.lab
@pytest.mark.row("H01", "H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_the_fields_of_a_host_come_before_the_config(ssh: str, net: Lab, config: Callable[..., str]) -> None:
    plain, inner = net.hosts["plain"], net.hosts["inner"]
    config(plain, User="nobody", Port=1, IdentityFile="/nowhere")
    with connect(Host("x", ssh=ssh, user=net.user, port=22, key=str(net.key))) as connection:
        assert connection.run("echo $USER").text == net.user
    config(inner, ProxyJump="nowhere.invalid")
    entry = f"Host {plain.address}\n  IdentityFile {net.key}\n  UserKnownHostsFile {net.known_hosts}\n"
    with open(os.environ["GRID_SSH_CONFIG"], "a") as file:
        file.write(entry)
    with connect(Host("x", ssh=ssh, jump=f"{net.user}@{plain.address}:22")) as connection:
        assert connection.run("hostname").text == "inner"


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_a_proxy_command_is_used_and_ended(ssh: str, net: Lab, config: Callable[..., str]) -> None:
    command = f"ssh -F {net.ssh_config} -W %h:%p plain"
    config(net.hosts["inner"], ProxyCommand=command)
    with connect(Host("x", ssh=ssh)) as connection:
        assert connection.run("hostname").text == "inner"
        assert connection.server_address() is None


@pytest.mark.lab
@pytest.mark.row("H11")
def test_keys_of_the_agent_are_offered(
    net: Lab, config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the private key can't be read here: its public half names the one that the agent holds."""
    sock, locked = tmp_path / "agent", tmp_path / "locked"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", sock], stdout=subprocess.DEVNULL)
    try:
        wait_for(sock.exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
        subprocess.run(["ssh-add", "-q", net.key], check=True, capture_output=True)
        config(net.hosts["plain"], IdentityFile="none", IdentitiesOnly="no")
        connect(Host("x")).close()

        shutil.copy(f"{net.key}.pub", f"{locked}.pub")
        shutil.copy(net.key, locked)
        subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", locked], check=True, capture_output=True)
        config(net.hosts["plain"], IdentityFile=locked)
        connect(Host("x")).close()

        monkeypatch.delenv("SSH_AUTH_SOCK")
        assert f"ssh-add {locked}" in fails(LoginError, Host("x")).what
    finally:
        agent.terminate()
        agent.wait()


@pytest.mark.lab
@pytest.mark.row("H11")
def test_openssh_asks_at_the_terminal(net: Lab, config: Callable[..., str], tmp_path: Path) -> None:
    """A passphrase here, a second factor elsewhere: ssh asks while it logs in, and never again."""
    locked = tmp_path / "locked"
    shutil.copy(net.key, locked)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", locked], check=True, capture_output=True)
    config(net.hosts["plain"], IdentityFile=locked)
    program = (
        "from grid.hosts import Host; from grid.launch import connect\n"
        "with connect(Host('x', ssh='openssh')) as c, connect(Host('x', ssh='openssh')) as d:\n"
        "    print('in:', c.run('hostname').text, d.run('hostname').text)\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", program])
    said = b""
    with open(terminal, "r+b", buffering=0) as stream:
        with contextlib.suppress(OSError):  # Linux: the end of a terminal is an error
            while chunk := stream.read(4096):
                said += chunk
                if said.endswith(b"locked': "):
                    stream.write(b"secret\n")
    os.waitpid(pid, 0)
    assert said.count(b"passphrase") == 1 and b"in: plain plain" in said, said


# ---- one log-in for all ----------------------------------------------------------------------------------


@pytest.mark.lab
@pytest.mark.row("H11", "H03")
@pytest.mark.parametrize("ssh", WAYS)
def test_connections_to_one_host_share_a_login(ssh: str, net: Lab) -> None:
    plain = net.hosts["plain"]
    hosts = [Host("plain", ssh=ssh), Host("plain", ssh=ssh, n_cpu=2), Host("plain", ssh=ssh)]
    with ThreadPoolExecutor(3) as threads, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connection) for connection in threads.map(connect, hosts)]
        assert [connection.host for connection in connections] == hosts
        assert [connection.run("hostname").text for connection in connections] == ["plain"] * 3
        assert sshd_sessions(plain) == 1
        connections[0].close()
        connections[1].close()
        assert connections[2].run("echo still here").text == "still here"


@pytest.mark.lab
@pytest.mark.row("H11")
def test_hosts_behind_one_jump_host_share_its_login(net: Lab) -> None:
    with connect(Host("inner")) as one, connect(Host("plain")) as two, connect(Host("deep")) as three:
        assert [c.run("hostname").text for c in (one, two, three)] == ["inner", "plain", "deep"]
        assert sshd_sessions(net.hosts["plain"]) == 1
        assert sshd_sessions(net.hosts["inner"]) == 1


@pytest.mark.lab
@pytest.mark.row("H11")
def test_a_live_master_of_the_user_is_used_and_left_alone(net: Lab, config: Callable[..., str], tmp_path: Path) -> None:
    control = tmp_path / "c"
    config(net.hosts["plain"], ControlPath=control)
    ssh = ["ssh", "-F", os.environ["GRID_SSH_CONFIG"]]
    subprocess.run([*ssh, "-o", "ControlMaster=yes", "-o", "ControlPersist=60", "x", "true"], check=True)
    try:
        with connect(Host("x", ssh="openssh")) as connection:
            assert connection.run("hostname").text == "plain"
            assert sshd_sessions(net.hosts["plain"]) == 1
        subprocess.run([*ssh, "-O", "check", "x"], check=True, capture_output=True)
    finally:
        subprocess.run([*ssh, "-O", "exit", "x"], capture_output=True, check=True)


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_a_lost_login_is_replaced_by_the_next_connect(ssh: str, net: Lab) -> None:
    plain = net.hosts["plain"]
    with connect(Host("plain", ssh=ssh), QUICK) as old:
        process = old.start("echo up; read x")
        assert process.read_line(10) == b"up\n"
        plain.kill_sessions()
        assert process.read_line(10) == b""
        wait_for(lambda: not old.alive())
        with connect(Host("plain", ssh=ssh), QUICK) as new:
            assert new.run("hostname").text == "plain"
        with pytest.raises(ConnectError, match="no connection any more"):
            old.run("true")


# ---- limits of sshd --------------------------------------------------------------------------------------


@pytest.mark.lab
@pytest.mark.row("H11", "G70")
@pytest.mark.parametrize("ssh", WAYS)
def test_a_burst_of_logins_passes_max_startups(
    ssh: str, net: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sshd drops every handshake beyond two at once; other connections that we open at once are tried again."""
    text = net.ssh_config.read_text().split("Host narrow\n")[1].split("\nHost")[0]
    # Different time limits make them different targets, which share nothing.
    entries = [f"Host n{n}\n{text.replace('ConnectTimeout 10', f'ConnectTimeout {20 + n}')}\n" for n in range(8)]
    (tmp_path / "config").write_text("".join(entries))
    monkeypatch.setenv("GRID_SSH_CONFIG", str(tmp_path / "config"))

    def visit(number: int) -> str:
        with connect(Host(f"n{number}", ssh=ssh)) as connection:
            return connection.run("hostname").text

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(visit, range(8))) == ["narrow"] * 8


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_commands_take_turns_where_sshd_allows_few_sessions(ssh: str, net: Lab) -> None:
    with connect(Host("narrow", ssh=ssh)) as connection, ThreadPoolExecutor(6) as threads:
        assert list(threads.map(lambda n: connection.run(f"echo {n}").text, range(6))) == list("012345")


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_a_firewall_that_lets_only_ssh_through_is_no_obstacle(ssh: str, net: Lab) -> None:
    walled = net.hosts["walled"]
    with connect(Host("walled", ssh=ssh)) as connection:
        assert connection.server_address() == walled.address
        with pytest.raises(OSError):
            socket.create_connection((walled.address, 45454), timeout=0.3)
        next(check for check in CHECKS if check.__name__ == "forwards_carry_bytes_intact")(connection)


# ---- what is said when it fails --------------------------------------------------------------------------


def fails(kind: type[HostError], host: Host, limits: ConnectLimits = QUICK) -> HostError:
    """The error of a connect that must fail; it names the host and the next step, and comes within the limits."""
    before = time.monotonic()
    with pytest.raises(kind) as caught:
        connect(host, limits).close()
    error = caught.value
    assert type(error) is kind and error.host == host.label and error.hint and error.hint in str(error)
    assert time.monotonic() - before < 12, "it took too long to fail"
    return error


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_an_unknown_key_is_refused_with_the_command_that_accepts_it(
    ssh: str, net: Lab, config: Callable[..., str]
) -> None:
    records = config(net.hosts["plain"], known="")
    error = fails(HostKeyError, Host("x", ssh=ssh))
    assert "grid hosts trust x" in error.hint
    if ssh == "paramiko":
        assert "SHA256:" in error.what
    assert Path(records).read_text() == ""


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
@pytest.mark.parametrize("setting", ["ask", "accept-new", "no"])
def test_a_changed_key_is_refused_whatever_the_config_says(
    setting: str, ssh: str, net: Lab, config: Callable[..., str]
) -> None:
    plain, other = net.hosts["plain"], net.hosts["walled"]
    records = config(plain, known=f"{plain.address} {other.public_key}\n", StrictHostKeyChecking=setting)
    before = Path(records).read_text()
    error = fails(HostKeyError, Host("x", ssh=ssh))
    assert "not the one on record" in error.what and f"ssh-keygen -R '{plain.address}'" in error.hint
    assert Path(records).read_text() == before


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_the_user_may_have_told_ssh_to_record_new_keys(ssh: str, net: Lab, config: Callable[..., str]) -> None:
    records = config(net.hosts["plain"], known="", StrictHostKeyChecking="accept-new")
    connect(Host("x", ssh=ssh)).close()
    assert net.hosts["plain"].public_key.split()[1] in Path(records).read_text()


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_hashed_records_are_read(ssh: str, net: Lab, config: Callable[..., str]) -> None:
    records = config(net.hosts["plain"])
    subprocess.run(["ssh-keygen", "-H", "-f", records], check=True, capture_output=True)
    assert net.hosts["plain"].address not in Path(records).read_text()
    connect(Host("x", ssh=ssh)).close()


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_a_refused_login_names_user_and_what_sshd_takes(ssh: str, net: Lab) -> None:
    error = fails(LoginError, Host("plain", ssh=ssh, user="stranger"))
    assert "'stranger'" in error.what and "publickey" in error.what
    assert error.user == "stranger"  # type: ignore[attr-defined]  # a fact of this error


@pytest.mark.lab
@pytest.mark.row("H11")
def test_a_refused_login_names_the_keys_offered(net: Lab, config: Callable[..., str], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(wrong)], check=True)
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(locked)], check=True)
    config(net.hosts["plain"], IdentityFile=f"{wrong}\n  IdentityFile {locked}\n  IdentityFile {tmp_path}/absent")
    error = fails(LoginError, Host("x"))
    assert f"keys offered: {wrong};" in error.what
    assert f"ssh-add {locked}" in error.what


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_an_unknown_name(ssh: str, net: Lab) -> None:
    assert "'no-such-host.invalid' is unknown" in fails(ConnectError, Host("no-such-host.invalid", ssh=ssh)).what


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_nobody_listens(ssh: str, net: Lab) -> None:
    error = fails(ConnectError, Host("plain", ssh=ssh, port=2222))
    assert "refused" in error.what and "is the port right?" in error.hint


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_nobody_answers(ssh: str, net: Lab, config: Callable[..., str]) -> None:
    config(net.hosts["walled"], Port=2222)
    error = fails(ConnectError, Host("x", ssh=ssh))
    assert "no answer" in error.what and "firewall" in error.hint


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_sshd_hangs(ssh: str, net: Lab, config: Callable[..., str]) -> None:
    walled = net.hosts["walled"]
    config(walled)
    listeners = [pid for pid, command in walled.processes(everything=True) if "sshd" in command and "-D" in command]
    for pid in listeners:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert "sent no ssh greeting" in fails(ConnectError, Host("x", ssh=ssh)).what
    finally:
        for pid in listeners:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
@pytest.mark.parametrize(
    ("greeting", "says"), [(b"HTTP/1.0 400 Bad Request\r\n" * 4000, "no sshd|ssh failed|hung up"), (b"", "hung up")]
)
def test_something_else_listens(
    greeting: bytes, says: str, ssh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("Host x\n  HostName 127.0.0.1\n")
    monkeypatch.setenv("GRID_SSH_CONFIG", str(tmp_path / "config"))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    stream, _ = server.accept()
                    with stream:
                        stream.sendall(greeting)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            limits = ConnectLimits(connect_s=2, banner_s=2, auth_s=5, retries=1, backoff_s=0.1)
            error = fails(ConnectError, Host("x", ssh=ssh, port=server.getsockname()[1]), limits)
            assert any(words in error.what for words in says.split("|")), error
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_faults_on_the_way_name_the_jump_host(ssh: str, net: Lab) -> None:
    net.hosts["inner"].stop_sshd()
    try:
        error = fails(ConnectError, Host("inner", ssh=ssh))
        assert "jump host" in error.what and "can't connect" in error.what
        assert "jump host" in fails(ConnectError, Host("deep", ssh=ssh)).what
    finally:
        net.hosts["inner"].start_sshd()


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_a_jump_host_may_forbid_forwarding(ssh: str, net: Lab) -> None:
    error = fails(ConnectError, Host("plain", ssh=ssh, jump="closed"))
    assert "forbids forwarding" in error.what


# ---- a cut link ------------------------------------------------------------------------------------------


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
@pytest.mark.parametrize("name", ["walled", "inner"])
def test_a_cut_link_is_noticed(name: str, ssh: str, net: Lab) -> None:
    """Directly the kernel could tell, behind a jump host only the missing answers do."""
    host = net.hosts[name]
    with connect(Host(name, ssh=ssh), QUICK) as connection:
        with connection.start("echo up; read x") as process:
            assert process.read_line(10) == b"up\n"
            host.cut()
            try:
                assert process.read_line(15) == b""
                wait_for(lambda: not connection.alive())
                code = process.wait(5)
                assert code is not None and code < 0
                with pytest.raises(ConnectError):
                    connection.run("true")
            finally:
                host.mend()
    wait_for(lambda: not sshd_left_behind(host))


def sshd_left_behind(host: RunningHost) -> bool:
    """sshd learns of a cut only by its own TCP limits; we need not wait for them."""
    host.kill_sessions()
    for pid, command in host.processes():
        if "grid-pid" in command:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return bool(host.processes())


@pytest.mark.lab
@pytest.mark.row("H11")
@pytest.mark.parametrize("ssh", WAYS)
def test_a_client_that_is_killed_leaves_nothing(ssh: str, net: Lab) -> None:
    """kill -9 of the client: its connection ends, and on the host the end of input reaches what it started."""
    program = (
        "import sys; from grid.hosts import Host; from grid.launch import connect\n"
        f"c = connect(Host('plain', ssh={ssh!r})); p = c.start('echo up; read x')\n"
        "print(p.read_line(20).decode(), flush=True); sys.stdin.read()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin and child.stdout
    with child.stdin, child.stdout:
        assert child.stdout.readline() == b"up\n"
        child.kill()
        child.wait()
    wait_for(lambda: sshd_sessions(net.hosts["plain"]) == 0 and not net.hosts["plain"].processes())
    runtime = Path(os.environ["GRID_RUNTIME_DIR"])
    for path in runtime.glob(f"ssh-{child.pid}-*"):
        shutil.rmtree(path)  # an empty directory is all that can stay, and `grid clean` knows whose it was


def test_names_in_known_hosts() -> None:
    assert record_name("n", 22) == "n" and record_name("n", 2222) == "[n]:2222"


def wait_for(done: Callable[[], bool], limit_s: float = 15) -> None:
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@pytest.mark.lab
@pytest.mark.row("H11")
def test_paramiko_sends_nothing_after_a_channels_close(net: Lab) -> None:
    """An end-of-input that is overtaken by the far side's close must not reach sshd: it would end the connection."""
    with connect(Host("plain")) as connection:
        assert isinstance(connection, ParamikoConnection)
        transport = connection._line.transport
        for word in "one", "two", "three":
            channel = transport.open_channel("session", timeout=10)
            channel.exec_command(f"echo {word}")
            outlet = cast(Outlet, channel.transport)
            wait_for(lambda outlet=outlet: outlet.closed)  # the far side's close is answered
            late = paramiko.Message()
            late.add_byte(cMSG_CHANNEL_EOF)
            late.add_int(channel.remote_chanid)
            outlet._send_user_message(late)
            assert connection.run("echo here").text == "here"
        assert connection.alive()
