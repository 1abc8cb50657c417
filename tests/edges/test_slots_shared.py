"""Two users of one workstation with two GPUs: a test host with a made /proc and /sys and a stand-in for nvidia-smi."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from grid import Grid, Host, Needs, PublishError
from grid.cli.main import main
from grid.kernel.title import script_name
from grid.slots.resources import ranges
from tests.cards import A, B, Card, make_devices
from tests.lab import Lab, LabHost

pytestmark = pytest.mark.lab

ROOT = "/opt/made"
PATH = f"{ROOT}/bin:/usr/local/bin:/usr/bin:/bin"


@pytest.fixture(scope="module")
def desk() -> Iterator[Lab]:
    cores = sorted(os.sched_getaffinity(0))
    half = max(1, len(cores) // 2)
    with Lab([LabHost("desk", packages=("pyzmq", "dill"))], users=("mara", "lena")) as lab:
        root: Path = lab.hosts["desk"].path(ROOT)
        make_devices(root, [ranges(cores[:half]), ranges(cores[half:] or cores)])
        (root / "bin").mkdir()
        tells = [f"echo '{device}, 8192, Stand-in, 00000000:{bus}:00.0'" for device, bus in ((A, "01"), (B, "41"))]
        (root / "bin/nvidia-smi").write_text("\n".join(["#!/bin/sh", *tells, ""]))
        (root / "bin/nvidia-smi").chmod(0o755)
        yield lab


@pytest.fixture(autouse=True)
def ssh_config(desk: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(desk.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def invoke(*words: str) -> str:
    """What a command prints."""
    return CliRunner(env={"COLUMNS": "400"}).invoke(main, words).output


def at_desk(user: str, servers: int = 4) -> Grid:
    env = {"GRID_HOST_ROOT": ROOT, "PATH": PATH}
    return Grid([Host("desk", n_cpu=servers, user=user, env=env, tags=("gpu",))], output=None)


@pytest.mark.row("O11", "O10", "O15")
def test_two_users_never_have_the_same_device_and_the_second_hears_who_has_it(desk: Lab, tmp_path: Path) -> None:
    hosts_file = tmp_path / "hosts.yaml"
    hosts_file.write_text(f"hosts:\n  - desk: {{user: lena, env: {{GRID_HOST_ROOT: {ROOT}, PATH: '{PATH}'}}}}\n")
    cores = sorted(os.sched_getaffinity(0))
    half = max(1, len(cores) // 2)
    with at_desk("mara") as first, at_desk("lena") as second:
        service_id = first.publish(Card(), needs=Needs(gpus=1), where="gpu", wait="all")
        slots = sorted(first.gather(first.broadcast(service_id, "slot")))
        first.release_all()
        assert [(device, where) for device, where, _ in slots] == [(A, cores[:half]), (B, cores[half:] or cores)]
        with pytest.raises(PublishError) as caught:
            second.publish(Card(), needs=Needs(gpus=1), wait="all")
        assert "1 device is needed, and none of 2 is free" in str(caught.value)
        for device, _, pid in slots:
            assert f"{device} is used by mara ({script_name()} of " in str(caught.value)
            assert f"process {pid})" in str(caught.value) or f"process {pid}," in str(caught.value)
        shown = invoke("hosts", "check", "--hosts", str(hosts_file))
        for device, _, _ in slots:
            assert re.search(rf"lena@desk +{device} +Stand-in .* mara \({re.escape(script_name())} of ", shown)
        doctor = invoke("doctor", "lena@desk", "--hosts", str(hosts_file))
        assert f"{A} (Stand-in, 8G), used by mara ({script_name()} of " in doctor
        assert "memory limits are watched (this system has no cgroups)" in doctor
        # the file is mara's, and only root and she can remove it; lena can take it all the same
        assert desk.hosts["desk"].run(["kill", "-9", str(slots[1][2])], user="mara").returncode == 0
        taken = second.publish(Card(), needs=Needs(gpus=1), wait="all", busy="wait", timeout=60)
        assert [slot[0] for slot in second.gather(second.broadcast(taken, "slot"))] == [B]
        second.release_all()


@pytest.mark.row("O11")
def test_a_lock_that_another_user_has_spoiled_is_named_with_his_name(desk: Lab) -> None:
    host, path = desk.hosts["desk"], f"/tmp/grid-device-nvidia-{A}"
    host.run(["ln", "-s", "/home/mara/.bashrc", path], user="lena", check=True)
    try:
        with at_desk("mara") as g:
            service_id = g.publish(Card(), needs=Needs(gpus=1), wait="all")
            assert [slot[0] for slot in g.gather(g.broadcast(service_id, "slot"))] == [B]  # that one can be had
            g.release_all()
            with pytest.raises(PublishError) as caught:
                g.publish(Card(), needs=Needs(gpus=2))
        assert f"{A} can't be locked: {path} is a link (it belongs to lena)" in str(caught.value)
    finally:
        host.run(["rm", path], user="lena", check=True)
    host.run(["sh", "-c", f"umask 077; touch {path}"], user="lena", check=True)
    try:
        with at_desk("mara") as g, pytest.raises(PublishError) as caught:
            g.publish(Card(), needs=Needs(gpus=2))
        assert f"{path} can't be opened: Permission denied (it belongs to lena)" in str(caught.value)
    finally:
        host.run(["rm", path], user="lena", check=True)
