"""Keys that lie nowhere, and a session that lends nothing."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid import AllocationError, Host, Limits, SSHGrid
from grid.batch import DIALECTS, JobSpec
from grid.launch.limits import DEFAULT_LIMITS
from grid.launch.spool import Spool, SpooledProcess
from grid.testing.probe import Probe
from grid.wire.keys import make_keys
from tests.lab import Lab, LabHost

QUICK = Limits(heartbeat_s=0.5, lost_s=2.0, orphan_s=4.0, stop_s=1.0, start_s=20.0)


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    with Lab([LabHost("one", sshd={"AllowAgentForwarding": "yes"})]) as lab:
        yield lab


@pytest.mark.row("X08")
def test_keys_for_tls_are_written_to_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def trap(*_: object, **__: object) -> None:
        raise AssertionError("a file was made")

    keys = make_keys()
    for name in ("mkstemp", "NamedTemporaryFile", "TemporaryFile", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, trap)
    before = set(os.listdir("/proc/self/fd"))
    for end in keys:
        for server in (True, False):
            end.tls(server=server)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.row("X08")
def test_spooled_input_is_gone_as_soon_as_it_is_open(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    process = SpooledProcess(
        spool,
        lambda script: subprocess.Popen(["/bin/sh", script], start_new_session=True),
        "cat; echo read; exec sleep 60",
        DEFAULT_LIMITS,
        ended=lambda _: None,
    )
    try:
        process.write(b"secret\n", 5)
        process.close_stdin()
        got = b""
        while b"read" not in got and (more := process.read(20)):
            got += more
        assert got == b"secret\nread\n"
        assert not list(tmp_path.rglob("stdin"))
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"secret\n"]
    finally:
        process.close()


@pytest.mark.lab
@pytest.mark.row("X08")
def test_no_agent_of_the_user_is_lent_to_a_host(net: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config"
    config.write_text("ForwardAgent yes\n" + net.ssh_config.read_text())
    socket = tmp_path / "a"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        monkeypatch.setenv("GRID_SSH_CONFIG", str(config))
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        with SSHGrid([Host("one", ssh="openssh")], limits=QUICK, output=None) as g:
            with g.acquire_service(g.publish(Probe())) as proxy:
                assert proxy.add().get(10) == 1
            look = ["find", "/tmp", "/home", "-type", "s", "-name", "agent.*"]
            assert net.hosts["one"].run(look, user="root").stdout == ""
    finally:
        agent.terminate()
        agent.wait(10)


@pytest.mark.row("X08")
@pytest.mark.parametrize("fields", [{"variables": {"A": "one\n#$ -l h=evil\ntwo"}}, {"command": "echo 'a\n#$ -q x'"}])
def test_what_grid_engine_would_take_for_a_directive_is_refused(fields: dict[str, object]) -> None:
    spec = JobSpec(**{"name": "job", "command": "true", **fields})  # type: ignore[arg-type]
    with pytest.raises(AllocationError, match="SGE would take for a directive"):
        DIALECTS["sge"].script(spec)
    assert "-N job" in DIALECTS["sge"].script(JobSpec(name="job", command="true", lines=("#$ -l mem=1G",)))
