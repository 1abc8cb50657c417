"""Diagnosing, trusting and setting up real hosts."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid.care.doctor import STEPS, Diagnosis, diagnose
from grid.care.environment import setup_host
from grid.care.trust import fetch_key, trust
from grid.care.wheels import pack_installed
from grid.errors import DiskError, HostError, HostKeyError, PythonError
from grid.hosts import Host
from grid.launch import ConnectLimits, connect
from grid.launch.known_hosts import Verdict
from tests.lab import LOGIN_SHELLS, Lab, LabHost, shell_path

QUICK = ConnectLimits(connect_s=2, banner_s=2, auth_s=10)
OTHER = "3.12" if sys.version_info[:2] != (3, 12) else "3.11"


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    hosts = [
        LabHost("ready"),
        LabHost("inner", behind="ready"),
        LabHost("bare", packages=(), open_ports=(22,)),
        LabHost("none", pythons=()),
        LabHost("full", tmpfs={"/scratch": "size=64k"}, readonly=("/srv",)),
        *(LabHost(f"shell-{name}", shell=path) for name in LOGIN_SHELLS if (path := shutil.which(name))),
    ]
    with Lab(hosts) as lab:
        yield lab


@pytest.fixture
def other_net() -> Iterator[Lab]:
    """A host with another minor version than ours, and without what a kernel needs."""
    with Lab([LabHost("other", pythons=(OTHER,), packages=())]) as lab:
        yield lab


@pytest.fixture(autouse=True)
def ssh_config(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("net", "other_net"):
        if name in request.fixturenames:
            monkeypatch.setenv("GRID_SSH_CONFIG", str(request.getfixturevalue(name).ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def clean_bare(net: Lab) -> Iterator[None]:
    """The home of `bare` is as before the test."""
    yield
    net.hosts["bare"].run(["sh", "-c", "rm -rf ~/.grid ~/my* /tmp/*"])


def details(found: Diagnosis) -> dict[str, str]:
    return {step.name: step.detail for step in found.steps}


# ---- doctor ----------------------------------------------------------------------------------------------


@pytest.mark.lab
@pytest.mark.row("H09", "H12")
@pytest.mark.parametrize("ssh", ["paramiko", "openssh"])
def test_a_host_that_is_ready(ssh: str, net: Lab) -> None:
    found = diagnose(Host("ready", ssh=ssh))  # type: ignore[arg-type]
    assert found.ok and found.failed is None, found
    assert [step.name for step in found.steps] == [name for name in STEPS if name not in ("way", "packages")]
    said = details(found)
    assert said["log-in"] == f"by {ssh} to {net.hosts['ready'].address}"
    assert said["shell"] == "/bin/bash"
    assert f"{sys.version_info[0]}.{sys.version_info[1]}." in said["python"]
    assert "pyzmq" in said["environment"] and "dill" in said["environment"]
    assert said["clock"].startswith("agrees")
    assert said["route"] == f"direct to {net.hosts['ready'].address}"
    assert found.facts is not None and found.facts.skew_s is not None and abs(found.facts.skew_s) < 1


@pytest.mark.row("H09")
def test_this_machine() -> None:
    found = diagnose(Host("here", ssh="local", python=sys.executable))
    assert found.ok, found
    assert details(found)["route"] == "this machine"


@pytest.mark.lab
@pytest.mark.row("H09")
def test_where_only_ssh_gets_through_the_tunnel_is_announced(net: Lab) -> None:
    walled = details(diagnose(Host("bare")))["route"]
    assert walled == f"tunnel through ssh: no direct connection to {net.hosts['bare'].address}"
    assert details(diagnose(Host("inner")))["route"] == "tunnel through ssh"


@pytest.mark.lab
@pytest.mark.row("H09")
@pytest.mark.parametrize(
    ("host", "step", "says"),
    [
        (Host("no-such-host.invalid"), "name", "unknown"),
        (Host("ready", port=2222), "port", "refused"),
        (Host("ready", user="stranger"), "log-in", "'stranger'"),
        (Host("inner", jump="ready:2222"), "way", "jump host 'ready:2222'"),
        (Host("none"), "python", "none was found"),
        (Host("ready", python="python2"), "python", "'python2' did not run"),
        (Host("bare"), "environment", "pyzmq"),
        (Host("full", temp_path="/scratch/x"), "temp disk", "64 kB free|65 kB free|66 kB free"),
        (Host("full", temp_path="/srv/x"), "temp disk", "Read-only file system"),
        (Host("ready", init_cmd="exit 3;"), "shell", "no shell ran our commands"),
    ],
    ids=lambda value: value.label if isinstance(value, Host) else None,
)
@pytest.mark.parametrize("ssh", ["paramiko", "openssh"])
def test_the_step_that_fails_is_named(host: Host, step: str, says: str, ssh: str, net: Lab) -> None:
    host.ssh = ssh  # type: ignore[assignment]
    found = diagnose(host, QUICK)
    assert not found.ok and found.failed is not None
    assert found.failed.name == step, found
    assert any(words in found.failed.detail for words in says.split("|")), found.failed
    assert found.failed.hint
    names = [one.name for one in found.steps]
    assert names == sorted(names, key=STEPS.index)


@pytest.mark.lab
@pytest.mark.row("H09")
def test_an_unknown_key_is_a_step_of_its_own(net: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = net.ssh_config.read_text().replace(str(net.known_hosts), str(tmp_path / "none"))
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("GRID_SSH_CONFIG", str(tmp_path / "config"))
    failed = diagnose(Host("ready"), QUICK).failed
    assert failed is not None and failed.name == "host key" and "grid hosts trust ready" in failed.hint


@pytest.mark.lab
@pytest.mark.row("H09")
def test_a_login_shell_that_prints_is_noticed_and_no_obstacle(net: Lab) -> None:
    ready = net.hosts["ready"]
    ready.run(["sh", "-c", "echo 'echo Welcome, dear user; echo warning >&2' >~/.bashrc"])
    try:
        found = diagnose(Host("ready"))
        assert found.ok and "Welcome, dear user" in details(found)["shell"]
        with connect(Host("ready")) as connection:
            assert connection.run("echo x", timeout=5).text.endswith("x")
    finally:
        ready.run(["rm", "-f", ".bashrc"])


@pytest.mark.lab
@pytest.mark.row("H09")
def test_a_login_shell_that_hangs_is_a_step(net: Lab) -> None:
    ready = net.hosts["ready"]
    ready.run(["sh", "-c", "echo 'exec sleep 987' >~/.bashrc"])
    try:
        failed = diagnose(Host("ready"), ConnectLimits(command_s=2)).failed
        assert failed is not None and failed.name == "shell" and "no answer from its shell" in failed.detail
    finally:
        ready.run(["rm", "-f", ".bashrc"])
        for pid, command in ready.processes():
            if command == "sleep 987":
                os.kill(pid, signal.SIGKILL)


@pytest.mark.lab
@pytest.mark.row("H06", "H09")
@pytest.mark.parametrize("ssh", ["paramiko", "openssh"])
@pytest.mark.parametrize("shell", LOGIN_SHELLS)
def test_any_login_shell_will_do(shell: str, ssh: str, net: Lab) -> None:
    shell_path(shell)
    for init_cmd in ("", "echo it\\'s! >/dev/null;", "nice -n 1 !"):
        found = diagnose(Host(f"shell-{shell}", ssh=ssh, init_cmd=init_cmd))  # type: ignore[arg-type]
        assert found.ok, found
    text = "a'b\"c\\d!e $HOME\n`x`"
    with connect(Host(f"shell-{shell}", ssh=ssh)) as connection:  # type: ignore[arg-type]
        assert connection.run("printf %s '" + text.replace("'", "'\\''") + "'").stdout.decode() == text
        with pytest.raises(HostError):
            connection.run("sleep 1000; :", timeout=0.5)


# ---- trust -----------------------------------------------------------------------------------------------


@pytest.mark.lab
@pytest.mark.row("H11")
def test_a_key_is_shown_recorded_and_then_known(net: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = tmp_path / "ssh" / "known_hosts"
    text = net.ssh_config.read_text().replace(str(net.known_hosts), str(records))
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("GRID_SSH_CONFIG", str(tmp_path / "config"))
    ready = net.hosts["ready"]

    with pytest.raises(HostKeyError, match="jump host 'ready': its key is unknown"):
        fetch_key(Host("inner"))
    shown = fetch_key(Host("ready"))
    assert (shown.verdict, shown.name, shown.file) == (Verdict.UNKNOWN, ready.address, str(records))
    assert not records.exists()
    with pytest.raises(HostKeyError) as caught:
        connect(Host("ready"))
    assert shown.fingerprint in caught.value.what

    trust(shown)
    assert records.read_text() == f"{ready.address} {' '.join(ready.public_key.split()[:2])}\n"
    connect(Host("ready")).close()
    assert fetch_key(Host("ready")).verdict is Verdict.KNOWN
    trust(fetch_key(Host("ready")))
    assert len(records.read_text().splitlines()) == 1
    trust(fetch_key(Host("inner")))
    for ssh in ("paramiko", "openssh"):
        connect(Host("inner", ssh=ssh)).close()  # type: ignore[arg-type]

    other = net.hosts["bare"].public_key
    records.write_text(f"{ready.address} {other}\n")
    with pytest.raises(HostKeyError, match="ssh-keygen -R"):
        trust(fetch_key(Host("ready")))
    assert records.read_text() == f"{ready.address} {other}\n"


# ---- set-up ----------------------------------------------------------------------------------------------


@pytest.mark.lab
@pytest.mark.row("H09")
def test_a_ready_host_is_left_as_it_is(net: Lab) -> None:
    with connect(Host("ready")) as connection:
        result = setup_host(connection)
    assert result.actions == [] and result.warnings == []
    assert set(result.packages) == {"zmq", "dill"} and result.version[:2] == sys.version_info[:2]


@pytest.mark.lab
@pytest.mark.row("H02", "H09", "H12")
@pytest.mark.parametrize("ssh", ["paramiko", "openssh"])
def test_set_up_makes_what_is_missing_once(ssh: str, net: Lab, clean_bare: None) -> None:
    """The host has no network but ours: everything goes over ssh."""
    bare, minor = net.hosts["bare"], sys.version_info[1]
    host = Host("bare", ssh=ssh, temp_path="~/my files/grid")  # type: ignore[arg-type]
    failed = diagnose(host).failed
    assert failed is not None and failed.name == "environment" and "grid hosts setup bare" in failed.hint
    with connect(host) as connection:
        result = setup_host(connection)
        assert [action.split(" with ")[0] for action in result.actions[:2]] == [
            "made the temp directory ~/my files/grid",
            f"made ~/.grid/env/py3{minor}",
        ]
        assert result.actions[2].startswith("installed pyzmq ") and len(result.actions) == 3
        assert diagnose(host).ok
        again = setup_host(connection)
        assert again.actions == [] and again.packages == result.packages
    assert bare.path("/home/mara/my files/grid").is_dir()
    assert bare.run(["sh", "-c", "ls -A ~/.grid/env"]).stdout.split() == [f"py3{minor}"]


@pytest.mark.lab
@pytest.mark.row("H09")
def test_set_up_repairs_what_was_broken(net: Lab, clean_bare: None) -> None:
    place = f"~/.grid/env/py3{sys.version_info[1]}"
    with connect(Host("bare")) as connection:
        setup_host(connection)
        connection.run(f"rm -rf {place}/lib/python*/site-packages/zmq")
        assert any("installed" in action for action in setup_host(connection).actions)
        assert connection.run(f"{place}/bin/python -c 'import zmq, dill'").returncode == 0


@pytest.mark.lab
@pytest.mark.row("H09")
def test_a_python_without_venv_gets_a_directory_and_a_script(net: Lab, clean_bare: None) -> None:
    """As on Debian without python3-venv: modules that fail to import, found before the real ones."""
    minor = sys.version_info[1]
    with connect(Host("bare", init_cmd="export PYTHONPATH=$HOME/my-broken;")) as connection:
        broken = "echo 'raise ImportError' >~/my-broken/$m.py"
        connection.run(f"mkdir ~/my-broken; for m in venv ensurepip; do {broken}; done")
        result = setup_host(connection)
        assert len(result.actions) == 2
        environment = f"$HOME/.grid/env/py3{minor}"
        assert connection.run(f"head -c 9 {environment}/bin/python").text == "#!/bin/sh"
        where = connection.run(f"{environment}/bin/python -c 'import zmq, dill; print(zmq.__file__)'").text
        assert where == f"/home/mara/.grid/env/py3{minor}/lib/zmq/__init__.py"
        assert setup_host(connection).actions == []


@pytest.mark.lab
@pytest.mark.row("H09")
def test_wheels_may_be_given(net: Lab, clean_bare: None, tmp_path: Path) -> None:
    for file in pack_installed(tmp_path):
        name, version, _ = file.name.split("-", 2)
        python = f"cp3{sys.version_info[1]}"
        tag = f"{python}-{python}-manylinux_2_17_{platform.machine()}" if name == "pyzmq" else "py3-none-any"
        file.rename(tmp_path / f"{name}-{version}-{tag}.whl")
    with connect(Host("bare")) as connection:
        result = setup_host(connection, wheels=tmp_path)
    assert result.actions[-1].endswith(f"from wheels of {tmp_path}, sent by ssh")


@pytest.mark.lab
@pytest.mark.row("H09")
def test_a_failed_set_up_says_what_was_tried_and_leaves_nothing(net: Lab, clean_bare: None, tmp_path: Path) -> None:
    bare = net.hosts["bare"]
    with connect(Host("bare")) as connection:
        with pytest.raises(PythonError, match="pip download failed") as caught:
            setup_host(connection, wheels=tmp_path)
        assert "name their directory" in caught.value.hint
    assert bare.run(["sh", "-c", "ls -A ~/.grid/env"]).stdout == ""


@pytest.mark.lab
@pytest.mark.row("H05", "H09")
@pytest.mark.parametrize(
    ("host", "kind", "says"),
    [
        (Host("none"), PythonError, "no Python 3.10 or newer; found: none"),
        (Host("bare", python="python3"), PythonError, "`python3 -m pip install pyzmq dill`"),
        (Host("bare", python="nonsense"), PythonError, "'nonsense' can't run a kernel"),
        (Host("full", temp_path="/srv/x"), DiskError, "can't make the temp directory /srv/x"),
    ],
)  # fmt: skip
def test_what_set_up_can_not_do(host: Host, kind: type[HostError], says: str, net: Lab) -> None:
    with connect(host) as connection, pytest.raises(kind) as caught:
        setup_host(connection)
    assert says in str(caught.value)


@pytest.mark.lab
@pytest.mark.row("H09", "H12")
def test_another_minor_version_gets_wheels_of_its_own_and_a_warning(other_net: Lab, tmp_path: Path) -> None:
    """The wheels come from this machine's index: skipped where there is none."""
    with connect(Host("other")) as connection:
        try:
            result = setup_host(connection)
        except PythonError as exc:
            if "pip download failed" in str(exc):
                pytest.skip("no package index here")
            raise
    assert result.version[:2] == tuple(int(part) for part in OTHER.split("."))
    assert "functions and classes of a script can't go there" in result.warnings[0]
    found = diagnose(Host("other"))
    assert found.ok and f".grid/env/py{OTHER.replace('.', '')}/" in details(found)["python"]
