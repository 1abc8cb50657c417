"""What others on the machine can read, replace or pretend: files, directories, secrets."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid import DiskError, LocalGrid, SSHGrid
from grid.testing.probe import Probe
from grid.wire.keys import make_keys
from grid.wire.places import private_dir
from tests.lab import Lab


def ours(*tops: Path) -> Iterator[Path]:
    for top in tops:
        yield top
        yield from top.rglob("*")


def open_to_others(top: Path) -> list[str]:
    """What others could read or change below `top`, which shuts them out as a whole."""
    found = [] if stat.S_IMODE(top.stat().st_mode) == 0o700 and top.stat().st_uid == os.getuid() else [str(top)]
    for path in ours(top):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(mode) or mode & 0o002:
            found.append(f"{path}: {stat.filemode(mode)}")
    return found


@pytest.mark.row("G68", "F14")
def test_nothing_of_a_running_grid_is_open_to_others(tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text("data")
    with LocalGrid(2, output=None) as g:
        sid = g.publish(Probe())
        g.copy_files(tmp_path, ["*.txt"])
        with g.acquire_service(sid) as proxy:
            large = proxy.make_bytes(1_000_000)
            large.exception(20)  # it lies in shared memory now
            tops = [Path(os.environ["GRID_RUNTIME_DIR"]), Path(g._engine.fleet.homes[0].report["blobs"])]
            assert [open_to_others(top) for top in tops] == [[], []]
            assert len(large.get(20)) == 1_000_000


@pytest.mark.row("G68")
@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory to another user needs root")
def test_a_directory_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(DiskError, match="symbolic link"):
        private_dir(link)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    os.chown(foreign, 65534, 65534)
    with pytest.raises(DiskError, match="belongs to user 65534"):
        private_dir(foreign)
    loose = tmp_path / "loose"
    loose.mkdir(mode=0o777)
    loose.chmod(0o777)
    with pytest.raises(DiskError, match="everybody may write there"):
        private_dir(loose)
    loose.chmod(0o755)
    with pytest.raises(DiskError, match="others may read"):
        private_dir(loose)
    assert stat.S_IMODE(loose.stat().st_mode) == 0o755  # nobody's mode is changed
    with pytest.raises(DiskError, match="can't make"):
        private_dir(Path("/proc/nowhere"))


@pytest.mark.lab
@pytest.mark.row("G68", "F14")
def test_no_secret_is_in_a_file_a_log_a_command_line_or_an_environment(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    caplog.set_level("DEBUG")
    host = lab.hosts["s1"]
    with SSHGrid(["s1"], debug=True, output=None) as g:
        with g.acquire_service(g.publish(Probe())) as proxy:
            assert proxy.add().get(20) == 1
            home = g._engine.fleet.homes[0]
            secrets = [keys.secret.decode() for keys in home._keys]
            assert all(len(secret) == 40 for secret in secrets)
            places = []
            for pid, command in host.processes():
                places.append(("command line", command))
                environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
                places.append((f"environment of {command}", environment))
            grep = ["grep", "-rlaF", *(word for secret in secrets for word in ("-e", secret)), "/tmp", "/dev/shm"]
            found = host.run(grep, user="root").stdout
            assert found == "", f"secrets are in files: {found}"
            places += [("log", record.getMessage()) for record in caplog.records]
            places += [("repr", repr(g)), ("repr", repr(home._keys)), ("status", str(g.status()))]
            told = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
            places.append(("ps", told))
            for where, text in places:
                for secret in secrets:
                    assert secret not in text, f"a secret is in: {where}"


@pytest.mark.row("G68")
def test_keys_do_not_show_themselves() -> None:
    for keys in make_keys():
        assert keys.secret.decode() not in repr(keys) + str(keys) + f"{keys}"
