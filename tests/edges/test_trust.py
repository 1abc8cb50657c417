"""Directories of other users in the way of ours: planted, renamed, open to all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grid import Host, InventoryError, Limits, LocalGrid, PublishError, SSHGrid, trust
from grid.errors import DiskError
from grid.failures.keeper import Keeper
from grid.hosts import find_hosts_file
from grid.launch.spool import Spool
from grid.testing.probe import Probe
from grid.wire.places import private_dir, runtime_dir, store_dir, trusted
from tests.lab import Lab, LabHost

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory to another user needs root")
EVE = 65534
REPLACE = """
import os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
path = sys.argv[1]
for _ in range(int(sys.argv[2])):
    for attempt in (lambda: os.rename(path, path + ".old"), lambda: os.chmod(path, 0o777), lambda: os.rmdir(path)):
        try:
            attempt()
        except OSError:
            continue
        sys.exit(9)
    path = os.path.dirname(path)
"""
QUICK = Limits(heartbeat_s=0.5, lost_s=2.0, orphan_s=4.0, stop_s=1.0, start_s=20.0)


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    with Lab([LabHost("one")], users=("mara", "eve")) as lab:
        yield lab


@pytest.mark.lab
@pytest.mark.row("X04")
@pytest.mark.parametrize(
    ("what", "word"),
    [
        ("mkdir -m 0777 /tmp/work", "belongs to user"),
        ("mkdir -m 0755 /tmp/work; mkdir -m 0777 /tmp/work/below", "belongs to user"),
        ("mkdir -p /tmp/real; ln -s /tmp/real /tmp/work", "belongs to user"),
    ],
    ids=["hers", "below hers", "a link of hers"],
)
def test_a_temp_path_that_another_user_can_rename_is_refused(
    net: Lab, monkeypatch: pytest.MonkeyPatch, what: str, word: str
) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(net.ssh_config))
    host = net.hosts["one"]
    host.run(["sh", "-c", what], user="eve", check=True)
    try:
        for temp_path in ("/tmp/work", "/tmp/work/below"):
            with SSHGrid([Host("one", temp_path=temp_path)], limits=QUICK, output=None) as g:
                with pytest.raises(PublishError) as caught:
                    g.publish(Probe())
                (error,) = caught.value.failures.values()
                assert isinstance(error, DiskError) and word in str(error) and "temp_path" in str(error)
    finally:
        host.run(["sh", "-c", "rm -rf /tmp/work /tmp/real"], user="root", check=True)


@pytest.mark.lab
@pytest.mark.row("X04")
def test_a_temp_path_of_ours_or_of_the_machine_serves(net: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(net.ssh_config))
    host = net.hosts["one"]
    host.run(["sh", "-c", "mkdir -m 1777 /scratch; mkdir -m 1777 /scratch/all"], user="root", check=True)
    try:
        for temp_path in ("/scratch/all", "~/work", "/var/tmp"):
            with SSHGrid([Host("one", temp_path=temp_path)], limits=QUICK, output=None) as g:
                with g.acquire_service(g.publish(Probe())) as proxy:
                    assert proxy.add().get(10) == 1
        assert host.run(["stat", "-c", "%a", "/scratch/all"]).stdout == "1777\n"
    finally:
        host.run(["rm", "-rf", "/scratch"], user="root")
        host.run(["rm", "-rf", "work"])


@pytest.mark.lab
@pytest.mark.row("X04")
def test_a_runtime_directory_on_a_host_that_another_user_can_rename_is_refused(
    net: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(net.ssh_config))
    host = net.hosts["one"]
    host.run(["sh", "-c", "mkdir -m 0777 /tmp/hers"], user="eve", check=True)
    try:
        there = Host("one", init_cmd="export GRID_RUNTIME_DIR=/tmp/hers/r;")
        with SSHGrid([there], limits=QUICK, output=None) as g, pytest.raises(PublishError, match="belongs to user"):
            g.publish(Probe())
        assert host.run(["ls", "-A", "/tmp/hers"], user="eve").stdout == ""
    finally:
        host.run(["rm", "-rf", "/tmp/hers"], user="root")


@pytest.mark.row("X04")
@root_only
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, EVE]), st.sampled_from([0o700, 0o755, 0o775, 0o777, 0o1777, 0o1775, 0o2750])),
        min_size=1,
        max_size=4,
    )
)
def test_trusted_is_what_nobody_else_can_change(tmp_path: Path, story: list[tuple[int, int]]) -> None:
    """Held against an attempt: another user tries to put something else in place of the last directory's entry."""
    top = tmp_path / os.urandom(6).hex()
    top.mkdir()
    place = top
    for _ in story:
        place = place / "d"
        place.mkdir()
    for number, path in enumerate(reversed([place, *list(place.parents)[: len(story) - 1]])):
        owner, mode = story[number]
        os.chown(path, owner, EVE)
        path.chmod(mode)
    (place / "ours").mkdir()
    try:
        trusted(place, "")
        believed = True
    except DiskError:
        believed = False
    if believed:
        command = [sys.executable, "-I", "-S", "-c", REPLACE, str(place / "ours"), str(len(story) + 1)]
        done = subprocess.run(command, capture_output=True)
        assert done.returncode == 0, (story, done.stderr)


@pytest.mark.row("X04")
@root_only
def test_the_rule_holds_for_every_place_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hers = tmp_path / "hers"
    hers.mkdir()
    os.chown(hers, EVE, EVE)
    for make in (private_dir, store_dir, lambda path: trusted(path, "")):
        with pytest.raises(DiskError, match=f"belongs to user {EVE}"):
            make(hers / "below")
    monkeypatch.setenv("GRID_RUNTIME_DIR", str(hers / "r"))
    with pytest.raises(DiskError, match="GRID_RUNTIME_DIR"):
        runtime_dir()
    monkeypatch.setenv("GRID_SPOOL", str(hers / "s"))
    with pytest.raises(DiskError, match="GRID_SPOOL"):
        Spool.local()
    with pytest.raises(ValueError, match="belongs to user"):
        Keeper(hers / "failures")
    assert list(hers.iterdir()) == []


@pytest.mark.row("X04", "H08")
@root_only
@pytest.mark.parametrize("whose", ["the file", "the directory", "open to all", "a link to hers"])
def test_a_hosts_file_that_somebody_else_put_there_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    here, proof = tmp_path / "here", tmp_path / "proof"
    here.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GRID_HOSTS", raising=False)
    text = f"hosts: [{{name: x, ssh: local, init_cmd: 'id > {proof};'}}]"
    file = here / "hosts.yaml"
    if whose == "a link to hers":
        (tmp_path / "theirs.yaml").write_text(text)
        os.chown(tmp_path / "theirs.yaml", EVE, EVE)
        file.symlink_to(tmp_path / "theirs.yaml")
    else:
        file.write_text(text)
    if whose == "the file":
        os.chown(file, EVE, EVE)
    elif whose == "the directory":
        os.chown(here, EVE, EVE)
    elif whose == "open to all":
        file.chmod(0o666)
    monkeypatch.chdir(here)
    with pytest.raises(InventoryError, match="somebody else could have written it"):
        find_hosts_file()
    done = subprocess.run([sys.executable, "-m", "grid", "hosts", "check"], capture_output=True, text=True, timeout=60)
    assert done.returncode and "somebody else" in done.stderr + done.stdout and not proof.exists()
    monkeypatch.setenv("GRID_HOSTS", str(file))  # named
    assert find_hosts_file() == file


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with room for the path of a socket in it."""
    with tempfile.TemporaryDirectory(prefix="t") as path:
        yield Path(path)


@pytest.mark.row("X05")
@pytest.mark.parametrize("mode", [0o1777, 0o755, 0o777])
def test_a_directory_that_exists_keeps_its_mode(short: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    place = short / "p"
    place.mkdir()
    place.chmod(mode)
    monkeypatch.setenv("GRID_RUNTIME_DIR", str(place))
    if mode == 0o777:  # anybody could rename what we made there
        with pytest.raises(DiskError, match="everybody may write there"):
            runtime_dir()
    else:
        assert runtime_dir() == runtime_dir() == place / f"grid-{os.getuid()}"
        assert trust.is_private(str(runtime_dir()))
        with LocalGrid(1, output=None) as g, g.acquire_service(g.publish(Probe())) as proxy:
            assert proxy.add().get(20) == 1
        assert store_dir(place) == place / "grid-jobs"
        (place / "jobs.sqlite").touch()  # restored from a backup, say: not to be passed over in silence
        with pytest.raises(DiskError, match="chmod 700"):
            store_dir(place)
    assert stat.S_IMODE(place.stat().st_mode) == mode
    monkeypatch.setenv("GRID_RUNTIME_DIR", str(place.parent / "new" / "one"))
    assert runtime_dir() == place.parent / "new" / "one" and trust.is_private(str(runtime_dir()))
