"""From a host and an ssh config to a target."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from pathlib import Path

import pytest

from grid.errors import ConnectError
from grid.hosts import Host
from grid.launch.ssh_config import SshTarget, resolve


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return lambda text: (tmp_path / "config").write_text(text) and None


def chain(target: SshTarget) -> list[str]:
    """The hosts on the way, the nearest first."""
    via = target.via
    return [] if via is None else [*chain(via), f"{via.user}@{via.hostname}:{via.port}"]


@pytest.mark.row("H01", "H11")
def test_without_a_config(config: Callable[[str], None], tmp_path: Path) -> None:
    target = resolve(Host("n"))
    assert (target.hostname, target.port, target.user) == ("n", 22, getpass.getuser())
    assert target.keys[0] == f"{tmp_path}/.ssh/id_ed25519" and not target.keys_only and target.agent
    assert f"{tmp_path}/.ssh/known_hosts" in target.known_hosts
    assert (target.via, target.proxy_command, target.accept_new) == (None, None, False)


@pytest.mark.row("H01", "H11")
def test_the_config_answers_where_the_host_says_nothing(config: Callable[[str], None], tmp_path: Path) -> None:
    config(
        "Host n\n  HostName 10.0.0.7\n  User mara\n  Port 2222\n  IdentityFile ~/k1\n  IdentityFile ~/k2\n"
        "  IdentitiesOnly yes\n  UserKnownHostsFile ~/a ~/b\n  GlobalKnownHostsFile none\n  ConnectTimeout 3\n"
        "  HostKeyAlias it\n"
        "Host *\n  User other\n  StrictHostKeyChecking accept-new\n"
    )
    target = resolve(Host("n"))
    assert (target.hostname, target.port, target.user, target.connect_s) == ("10.0.0.7", 2222, "mara", 3.0)
    assert target.keys == (f"{tmp_path}/k1", f"{tmp_path}/k2") and target.keys_only
    assert target.known_hosts == (f"{tmp_path}/a", f"{tmp_path}/b")
    assert target.key_name == "it" and target.accept_new
    target = resolve(Host("n", user="me", port=22, key="~/mine"))
    assert (target.user, target.port, target.keys, target.keys_only) == ("me", 22, (f"{tmp_path}/mine",), True)


@pytest.mark.row("H11")
def test_includes_are_read_in_their_place(config: Callable[[str], None], tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "1").write_text("Host a\n  User from-file\n")
    (tmp_path / "more" / "2").write_text("Port 2200\n")
    config("Include more/*\nHost b\n  User b\n  Include more/1\n  HostName b.example\nHost *\n  Port 2300\n")
    assert (resolve(Host("a")).user, resolve(Host("a")).port) == ("from-file", 2200)
    assert (resolve(Host("b")).user, resolve(Host("b")).hostname) == ("b", "b.example")
    assert resolve(Host("a")).hostname == "a"


@pytest.mark.row("H11")
def test_a_file_that_includes_itself_ends(config: Callable[[str], None]) -> None:
    config("Include config\nHost n\n  Port 2222\n")
    assert resolve(Host("n")).port == 2222


@pytest.mark.row("H11")
def test_chains_of_jump_hosts(config: Callable[[str], None]) -> None:
    config(
        "Host gate\n  HostName gate.example\n  User g\n"
        "Host inner\n  ProxyJump gate\n  User i\n"
        "Host deep\n  ProxyJump inner\n  User d\n"
        "Host listed\n  ProxyJump x@one:1,two\n  User l\n"
        "Host two\n  ProxyJump inner\n  User t\n"
        "Host commanded\n  ProxyCommand nc %h %p\n  User c\n"
    )
    assert chain(resolve(Host("deep"))) == ["g@gate.example:22", "i@inner:22"]
    # `a,b`: b is reached through a whatever the config says of b; as `ssh -J` does it.
    assert chain(resolve(Host("listed"))) == ["x@one:1", "t@two:22"]
    assert chain(resolve(Host("deep", jump="none"))) == []
    assert chain(resolve(Host("gate", jump="deep"))) == ["g@gate.example:22", "i@inner:22", "d@deep:22"]
    target = resolve(Host("commanded"))
    assert target.proxy_command == "nc commanded 22" and target.via is None
    target = resolve(Host("commanded", jump="gate"))
    assert target.proxy_command is None and chain(target) == ["g@gate.example:22"]


@pytest.mark.row("H11")
def test_a_jump_host_for_all_is_not_its_own(config: Callable[[str], None]) -> None:
    config("Host *\n  ProxyJump gate\n  User u\n")
    assert chain(resolve(Host("n"))) == ["u@gate:22"]
    assert chain(resolve(Host("gate"))) == []


@pytest.mark.row("H11")
def test_a_circle_of_jump_hosts_is_an_error(config: Callable[[str], None]) -> None:
    config("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    with pytest.raises(ConnectError, match="in a circle"):
        resolve(Host("a"))


@pytest.mark.row("H11")
@pytest.mark.parametrize("text", ["Host n\n  Port many\n", "Host n\n  ???\n"])
def test_a_config_that_can_not_be_used(text: str, config: Callable[[str], None]) -> None:
    config(text)
    with pytest.raises(ConnectError, match="ssh config can't be used") as caught:
        resolve(Host("n"))
    assert "ssh -G n" in caught.value.hint


@pytest.mark.row("H11")
def test_what_decides_a_shared_connection(config: Callable[[str], None]) -> None:
    config("Host n m\n  HostName 10.0.0.7\n")
    assert resolve(Host("n")) == resolve(Host("m")) == resolve(Host("n", n_cpu=4, python="x", transport="tunnel"))
    assert hash(resolve(Host("n"))) == hash(resolve(Host("m")))
    for other in (Host("n", user="x"), Host("n", port=3), Host("n", key="k"), Host("n", jump="j"), Host("k")):
        assert resolve(other) != resolve(Host("n"))
