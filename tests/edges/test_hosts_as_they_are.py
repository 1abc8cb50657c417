"""Hosts as they are set up in the world: shells that talk, variables of others, restrictions, IPv6, ssh's own words."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from grid import ConnectError, DiskError, Grid, Host, HostError, Limits, LocalGrid, PublishError, SSHGrid
from grid.batch import BatchSystem, JobSpec, JobState
from grid.care.doctor import diagnose
from grid.cli.main import main
from grid.grids.home import Home
from grid.launch import connect
from grid.testing.probe import Probe
from tests.lab import Lab, LabHost, MissingPart

WAYS = ("paramiko", "openssh")
LARGE = 8_000_000


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    hosts = [
        LabHost("talks"),
        LabHost("one", sshd={"MaxSessions": "1"}),
        LabHost("closed", sshd={"AllowTcpForwarding": "no", "AllowStreamLocalForwarding": "no"}, open_ports=(22,)),
        LabHost("small", tmpfs={"/dev/shm": "size=1m"}),
        LabHost("another", sshd={"SetEnv": "PYTHONPATH=/home/mara/py2"}),
        LabHost("inner", behind="talks"),
    ]
    with Lab(hosts) as lab, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        lab.hosts["another"].run(["sh", "-c", "mkdir py2; echo 'raise ImportError(\"for Python 2\")' >py2/enum.py"])
        yield lab


def works(host: Host, size: int = LARGE) -> None:
    """A grid on this host alone carries large values in and out."""
    with SSHGrid([host], output=None, limits=Limits(start_s=30)) as g, g.acquire_service(g.publish(Probe())) as probe:
        assert len(probe.echo(bytes(size)).get(60)) == size


# ---- login shells ------------------------------------------------------------------------------------------

TALK = {
    "a window title": r"printf '\033]0;mara@talks\007'",
    "bytes that are no text": r"printf '\377\376\000\001'",
    "megabytes without an end of line": "head -c 3000000 /dev/zero | tr '\\0' x",
    "what looks like our words": "printf 'GRID1 {\"ready\": grid-out-0 grid-probe {nonsense grid-pid x'",
    "on both streams, before and after": "printf title; printf title >&2; trap 'printf farewell; printf bye >&2' EXIT",
    "a question": "read answer; read -n1 key; printf 'you said %s' \"$answer\"",
}


@pytest.fixture
def bashrc(net: Lab) -> Iterator[Any]:
    talks = net.hosts["talks"]

    def write(text: str) -> None:
        talks.path("/home/mara/.bashrc").write_text(text + "\n")

    yield write
    talks.path("/home/mara/.bashrc").unlink(missing_ok=True)
    talks.run(["sh", "-c", "rm -rf ~/.grid"])


@pytest.mark.lab
@pytest.mark.row("M12")
@pytest.mark.parametrize(
    ("what", "ssh"), [*((what, "paramiko") for what in TALK), *((what, "openssh") for what in [*TALK][2:])]
)
def test_a_login_shell_may_say_what_it_likes(what: str, ssh: Any, net: Lab, bashrc: Any) -> None:
    bashrc(TALK[what])
    works(Host("talks", ssh=ssh), size=1000)
    found = diagnose(Host("talks", ssh=ssh))
    assert found.ok, found
    with connect(Host("talks", ssh=ssh)) as connection:
        assert connection.run("echo x").text.startswith("x\n" if "after" in what else "x")
        assert connection.run("exit 3").returncode == 3


PROFILES = {
    "prints": "echo Welcome; echo warning >&2",
    "exits": "echo no interactive use; exit 0",
    "exits with a status": "exit 3",
    "asks": "read answer; read -n1 key 2>/dev/null || true",
    "goes elsewhere": "cd /; set -e; false",
    "returns early": "return 1",
}
SYSTEM = {
    "qsub": """\\
[ "$SITE" = ours ] && grep -q "#PBS -N" "$1" && echo 12.vm""",
    "qstat": "printf 'Job Id: 12.vm\\n    job_state = R\\n'",
    "qdel": ":",
    "sbatch": "echo slurm 99.11",  # others are on the PATH without the profile
}


@pytest.fixture
def profile(net: Lab) -> Iterator[Any]:
    """A batch system whose commands are on the PATH of log-in shells only; and a file beside the one that says so."""
    talks, place = net.hosts["talks"], "/home/mara/system"
    talks.run(["mkdir", "-p", place])
    for name, text in SYSTEM.items():
        talks.path(f"{place}/{name}").write_text(f"#!/bin/sh\n{text}\n")
        talks.path(f"{place}/{name}").chmod(0o755)
    directory = talks.path("/etc/profile.d")
    (directory / "a-site.sh").write_text(f'export PATH="{place}:$PATH" SITE=ours\nNOT_EXPORTED=1\n')

    def write(text: str) -> None:
        (directory / "b-site.sh").write_text(text + "\n")

    yield write
    for name in ("a-site.sh", "b-site.sh"):
        (directory / name).unlink(missing_ok=True)
    talks.run(["sh", "-c", f"rm -rf ~/.grid {place}"])


@pytest.mark.lab
@pytest.mark.row("M12", "L03", "H09")
@pytest.mark.parametrize("what", PROFILES)
def test_a_profile_may_print_exit_or_set_the_path(what: str, net: Lab, profile: Any, tmp_path: Path) -> None:
    profile(PROFILES[what])
    found = diagnose(Host("talks"))
    assert found.ok, found
    assert any(step.name == "batch" and "Slurm 99.11" in step.detail for step in found.steps), found
    with connect(Host("talks")) as connection:
        system = BatchSystem(connection, "torque")
        assert system.status(["12.vm"])["12.vm"].state is JobState.RUNNING
        assert system.submit(JobSpec(command=":")) == "12.vm", "what the profile exports, and the script on its input"
        system.cancel("12.vm")
    (tmp_path / "hosts.yaml").write_text("hosts: [talks]\n")
    crashed = "umask 077; d=/tmp/grid-$(id -u)/run-999999-0a1b2c3d-1; mkdir -p $d; touch -d '1 hour ago' $d"
    net.hosts["talks"].run(["sh", "-c", crashed])
    done = CliRunner().invoke(main, ["clean", "--hosts", str(tmp_path / "hosts.yaml"), "--yes", "--json"])
    assert done.exit_code == 0, done.output
    report = next(each for each in json.loads(done.stdout)["machines"] if each["machine"] == "talks")
    assert [os.path.basename(path) for path in report["removed"]] == ["run-999999-0a1b2c3d-1"], report


@pytest.mark.lab
@pytest.mark.row("M12")
@pytest.mark.parametrize("ssh", WAYS)
def test_a_start_up_file_that_ends_the_shell_is_named_at_once(ssh: Any, net: Lab, bashrc: Any) -> None:
    bashrc("echo no interactive use; exit 0")
    with pytest.raises(PublishError) as caught:
        works(Host("talks", ssh=ssh))
    said = str(caught.value)
    assert "login shell ended before our command began (exit status 0)" in said and "start-up file" in said
    assert "no interactive use" in said
    with pytest.raises(ConnectError, match="before our command began"), connect(Host("talks", ssh=ssh)) as connection:
        connection.run("rm -rf /nothing")  # that it was not run is no success
    failed = diagnose(Host("talks", ssh=ssh)).failed
    assert failed is not None and failed.name == "shell" and "start-up file" in failed.hint


@pytest.mark.lab
@pytest.mark.row("M13")
def test_a_variable_of_another_python_is_named_and_the_remedy_works(net: Lab) -> None:
    with pytest.raises(PublishError) as caught:
        works(Host("another"))
    assert "PYTHONPATH is '/home/mara/py2'" in str(caught.value)
    remedy = str(caught.value).partition("init_cmd: '")[2].partition("'")[0]
    assert remedy == "unset PYTHONPATH;"
    works(Host("another", init_cmd=remedy), size=1000)


# ---- restrictions ------------------------------------------------------------------------------------------


@pytest.mark.lab
@pytest.mark.row("M16")
@pytest.mark.parametrize("ssh", WAYS)
def test_one_session_is_enough(ssh: Any, net: Lab) -> None:
    works(Host("one", ssh=ssh))
    assert diagnose(Host("one", ssh=ssh)).ok


@pytest.mark.lab
@pytest.mark.row("M16")
@pytest.mark.parametrize("ssh", WAYS)
def test_a_host_without_any_way_to_its_servers_is_named_and_the_doctor_finds_it(ssh: Any, net: Lab) -> None:
    with pytest.raises(PublishError) as caught:
        works(Host("closed", ssh=ssh))
    assert "AllowTcpForwarding" in str(caught.value) and "Try transport" not in str(caught.value)
    failed = diagnose(Host("closed", ssh=ssh)).failed
    assert failed is not None and failed.name == "route" and "AllowTcpForwarding" in failed.hint


@pytest.mark.lab
@pytest.mark.row("M16")
def test_what_a_small_shared_memory_has_no_room_for_goes_to_the_disk(net: Lab) -> None:
    works(Host("small"))


@pytest.mark.lab
@pytest.mark.row("M16")
def test_a_second_grid_on_such_a_host_can_publish_what_does_not_fit(net: Lab) -> None:
    works(Host("small"))
    with SSHGrid([Host("small", n_cpu=2)], output=None) as g:
        sid = g.publish(bytearray(LARGE), wait="all")  # an instance that does not fit either
        with g.acquire_service(sid) as array:
            assert array.count(b"\0").get(60) == LARGE


# ---- names and places --------------------------------------------------------------------------------------


@pytest.mark.row("M17")
@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("node", {"user": "jane@corp.org"}, ("node", "jane@corp.org", None)),
        ("jane@corp.org@node:2222", {}, ("node", "jane@corp.org", 2222)),
        ("node", {"user": "CORP\\jane"}, ("node", "CORP\\jane", None)),
        ("CORP\\jane@node", {}, ("node", "CORP\\jane", None)),
    ],
)
def test_account_names_of_a_directory_service(name: str, fields: Any, expected: tuple[Any, ...]) -> None:
    host = Host(name, **fields)
    assert (host.name, host.user, host.port) == expected
    assert Host(host.label).user == host.user


@pytest.mark.row("M17")
@pytest.mark.parametrize("user", ["-oProxyCommand=x", "a b", "a;b", "$(x)", "CORP\\", "a'b", "@", ""])
def test_other_account_names_are_refused_as_ssh_refuses_them(user: str) -> None:
    with pytest.raises(ValueError, match="user"):
        Host("node", user=user)


@pytest.mark.lab
@pytest.mark.row("M17")
def test_a_jump_host_may_be_an_address_of_ssh(net: Lab) -> None:
    works(Host("inner", jump="ssh://mara@talks:22"), size=1000)


@pytest.mark.row("M18")
def test_a_runtime_directory_that_is_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_RUNTIME_DIR", str(tmp_path / ("x" * 90)))
    with pytest.raises(DiskError, match="GRID_RUNTIME_DIR is too long"):
        LocalGrid(1).start()


@pytest.mark.row("M18")
def test_news_of_a_server_may_come_while_its_connection_is_given_up() -> None:
    """The agent tells of a server's end in one thread, another gives the connection up: neither may stumble."""

    class OurHome(Home):
        def __init__(self) -> None:
            self.transport, self._tunnels = "tunnel", {1: ("tcp://127.0.0.1:1", "tcp://127.0.0.1:2")}
            self.seen: list[Any] = []
            self.looks = 0

        @property
        def connection(self) -> Any:
            self.looks += 1
            return self if self.looks == 1 else None  # given up right after the look

        def unforward(self, address: str, port: int) -> None:
            self.seen.append(port)
            raise ConnectError("it was cut", host="x", hint="Try again")

    class Peer:
        number = 1

    home = OurHome()
    home.detach(Peer())  # type: ignore[arg-type]
    assert home.seen == [1, 2]


# ---- an sshd of our own at a loopback address --------------------------------------------------------------


@contextlib.contextmanager
def sshd(place: Path, address: str, *lines: str) -> Iterator[int]:
    """An OpenSSH server that lets this user in with `place/user`; gives its port."""
    if not os.path.exists("/usr/sbin/sshd"):
        raise MissingPart("no sshd on this machine")
    os.makedirs("/run/sshd", exist_ok=True)
    port = 22_000 + os.getpid() % 10_000
    text = f"Port {port}\nListenAddress {address}\nHostKey {place}/host\nPidFile none\nStrictModes no\nUsePAM no\n"
    (place / "sshd").write_text(f"{text}PermitRootLogin yes\n" + "\n".join(lines) + "\n")
    server = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", str(place / "sshd")], stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if "listening on" in line:
                break
        yield port
    finally:
        server.terminate()
        server.wait(20)
        server.stderr.close()


def keygen(*words: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *words], check=True, capture_output=True)


def public(file: Path) -> str:
    return " ".join(file.read_text().split()[:2])


@pytest.mark.lab
@pytest.mark.row("M14")
def test_a_host_with_an_ipv6_address_is_reached_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("host", "user"):
        keygen("-t", "ed25519", "-N", "", "-f", str(tmp_path / name))
    with sshd(tmp_path, "::1", f"AuthorizedKeysFile {tmp_path}/user.pub") as port:
        (tmp_path / "known").write_text(f"[::1]:{port} {public(tmp_path / 'host.pub')}\n")
        (tmp_path / "config").write_text(
            f"Host six\n HostName ::1\n Port {port}\n User {getpass.getuser()}\n IdentityFile {tmp_path}/user\n"
            f" UserKnownHostsFile {tmp_path}/known\n"
        )
        monkeypatch.setenv("GRID_SSH_CONFIG", str(tmp_path / "config"))
        for ssh, transport in (("paramiko", "tunnel"), ("paramiko", "auto"), ("openssh", "direct")):
            works(Host("six", python=sys.executable, transport=transport, ssh=ssh))  # type: ignore[arg-type]
        found = diagnose(Host("six", python=sys.executable))
        assert found.ok and "direct to ::1" in str(found)
        hosts = [Host("six", python=sys.executable), Host("here", ssh="local")]
        with Grid(hosts, output=None) as g:  # values go from one to the other
            sid = g.publish(Probe(), wait="all")
            assert g.gather(g.broadcast(sid, "echo", bytes(LARGE)), 60)
            g.release_all()


@pytest.mark.lab
@pytest.mark.row("M15")
def test_words_of_ssh_config_are_obeyed_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = getpass.getuser()
    for name in ("host", "user", "plain", "ca"):
        keygen("-t", "ed25519", "-N", "", "-f", str(tmp_path / name))
    keygen("-s", str(tmp_path / "ca"), "-I", "h", "-h", "-n", "127.0.0.1", str(tmp_path / "host.pub"))
    keygen("-s", str(tmp_path / "ca"), "-I", "u", "-n", user, str(tmp_path / "user.pub"))
    (tmp_path / "user-cert.pub").rename(tmp_path / "elsewhere-cert.pub")
    (tmp_path / "key-of-token").write_bytes((tmp_path / "plain").read_bytes())
    (tmp_path / "key-of-token").chmod(0o600)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("MY_PLACE", str(tmp_path))
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "a")], stdout=subprocess.PIPE, text=True)
    lines = (
        f"HostCertificate {tmp_path}/host-cert.pub",
        f"TrustedUserCAKeys {tmp_path}/ca.pub",
        f"AuthorizedKeysFile {tmp_path}/plain.pub",
    )
    try:
        assert agent.stdout is not None and agent.stdout.readline()  # it listens
        env = {**os.environ, "SSH_AUTH_SOCK": str(tmp_path / "a")}
        subprocess.run(["ssh-add", "-q", str(tmp_path / "plain")], env=env, check=True, capture_output=True)
        with sshd(tmp_path, "127.0.0.1", *lines) as port:
            (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {public(tmp_path / 'host.pub')}\n")
            (tmp_path / "known_ca").write_text(f"@cert-authority * {public(tmp_path / 'ca.pub')}\n")
            common = f" HostName 127.0.0.1\n Port {port}\n User {user}\n GlobalKnownHostsFile /dev/null\n"
            known, plain = f" UserKnownHostsFile {tmp_path}/known\n", f" IdentityFile {tmp_path}/plain\n"
            (tmp_path / "config").write_text(
                f"Host agent\n{common}{known} IdentityFile none\n IdentityAgent ${{MY_PLACE}}/a\n"
                f"Host certificate\n{common}{known} IdentityFile {tmp_path}/user\n"
                f" CertificateFile {tmp_path}/elsewhere-cert.pub\n"
                f"Host authority\n{common}{plain} UserKnownHostsFile {tmp_path}/known_ca\n"
                f"Host jump\n{common}{known}{plain} ProxyJump ssh://{user}@gate:{port}\n"
                f"Host gate\n{common}{known}{plain}"
                f"Host token\n{common}{known} IdentityFile {tmp_path}/key-of-%n\n"
                f"Host refused\n{common}{known} IdentityFile none\n IdentityAgent none\n"
            )
            monkeypatch.setenv("GRID_SSH_CONFIG", str(tmp_path / "config"))
            for name in ("agent", "certificate", "jump", "token"):
                for ssh in WAYS:
                    connect(Host(name, ssh=ssh)).close()  # type: ignore[arg-type]
            for name in ("authority", "refused"):
                with pytest.raises(HostError, match=r"[Ss]et `ssh: openssh`") as caught:
                    connect(Host(name))
                assert "grid hosts trust" not in str(caught.value)
            connect(Host("authority", ssh="openssh")).close()
    finally:
        agent.terminate()
        agent.wait(20)
        if agent.stdout is not None:
            agent.stdout.close()
