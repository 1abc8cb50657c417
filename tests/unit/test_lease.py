"""Leases: which processes of which grid live on a host, and until when."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid.kernel import held
from grid.kernel.lease import Lease, inherit, lease_dir, read_leases, start_ticks

pytestmark = pytest.mark.row("X06", "G63")


@pytest.fixture
def lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lease]:
    (tmp_path / "run").mkdir()
    with tempfile.TemporaryDirectory(prefix="gl-", dir="/tmp") as short:  # paths of sockets have few bytes
        monkeypatch.setenv("GRID_RUNTIME_DIR", short)
        one = Lease("g1", {"run": str(tmp_path / "run")})
        yield one
        one.end()
        one.end()
        assert not one.path.exists()


def dead() -> int:
    with subprocess.Popen(["true"]) as child:
        return child.pid


def test_a_process_is_known_by_its_start() -> None:
    assert start_ticks(os.getpid()) == start_ticks(os.getpid()) is not None
    assert start_ticks(dead()) is None
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie is dead
        assert start_ticks(child.pid) is None


def test_what_lives_is_told_and_what_ended_is_not(lease: Lease) -> None:
    lease.name_zygote(os.getpid())
    lease.renew(60.0, {"a.0/1": os.getpid(), "a.0/2": dead()})
    (found,) = read_leases()
    assert found["alive"] == [os.getpid()] * 3 and not found["expired"] and found["native"] and found["held"] is None
    assert found["grid"] == "g1" and found["path"] == str(lease.path)


def test_a_lease_expires_and_a_lock_says_that_it_lives(lease: Lease, tmp_path: Path) -> None:
    lease.renew(-1.0, {})
    fd = held.hold(tmp_path / "run")
    assert fd is not None
    (found,) = read_leases()
    assert found["expired"] and found["held"]
    os.close(fd)


def test_process_ids_of_another_namespace_mean_nothing(lease: Lease) -> None:
    lease.renew(60.0, {})
    record = {**json.loads(lease.path.read_text()), "namespace": "another boot"}
    lease.path.write_text(json.dumps(record))
    (found,) = read_leases()
    assert found["alive"] == [] and not found["native"]


def test_what_is_torn_or_of_another_host_is_passed_over(lease: Lease) -> None:
    lease.renew(60.0, {})
    record = json.loads(lease.path.read_text())
    for number, text in enumerate(("", "{", "[]", '{"host": 1}', json.dumps({**record, "host": "another"}))):
        (lease_dir() / f"x{number}.json").write_text(text)
    (lease_dir() / "y.json").write_text(json.dumps({**record, "servers": 5}))
    assert len(read_leases()) == 1


def test_an_agent_inherits_what_a_dead_client_left() -> None:
    client = {"pid": os.getpid(), "started": start_ticks(os.getpid()), "leaves": ["/a"]}
    assert inherit({"client": client}) == []
    assert inherit({"client": {**client, "started": 1}}) == ["/a"]
