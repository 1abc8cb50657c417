"""Kept grids over pilots, on a stand-in for TORQUE on this machine. On a real Slurm: `cluster/test_batch.py`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grid import BatchGrid, Grid
from grid.errors import ServerLost
from grid.keeping.places import names
from tests.edges.session_client import LIMITS, Counter
from tests.edges.test_batch import home, torque, until  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[2]
CLIENT = """
import json, os, sys
from grid import BatchGrid
from tests.edges.session_client import LIMITS, Counter
os.environ["CLIENT"] = str(os.getpid())
words = json.loads(sys.argv[1])
early = words.pop("early", False)
g = BatchGrid(walltime=120, poll_s=1.0, name="lab", keep="10m", limits=LIMITS, output=None, wait="all", **words)
if early:
    g.start()
    print(json.dumps(""), flush=True)
else:
    sid = g.publish(Counter(""))
    a, b = g.acquire_service(sid), g.acquire_service(sid)
    b.add(1).get()
    slow, quick = a.add(3, 1.0).named("slow"), [proxy.add(number) for proxy in (a, b) for number in range(5)]
    print(json.dumps([sid, [b.where().get()]]), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SESSIONS", str(tmp_path / "sessions"))


def killed_client(**words: Any) -> list[Any]:
    """What a client printed that was killed then."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, json.dumps(words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin is not None and process.stdout is not None
    told: list[Any] = json.loads(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    return told


def attached() -> BatchGrid:
    g = Grid.attach("lab")
    assert isinstance(g, BatchGrid)
    return g


@pytest.mark.row("Z09")
def test_pilots_wait_for_another_client_with_their_servers_and_results(torque: Path, home: Path) -> None:  # noqa: F811
    sid, _ = killed_client(nodes=2)
    with attached() as g:
        assert g.named("slow").get(30) == (3, 9)
        assert sorted(result.get(30) for result in g.results() if result.method == "add")[-2:] == [(4, 16), (4, 16)]
        with g.acquire_service(sid, timeout=20) as one, g.acquire_service(sid, timeout=20) as other:
            assert sorted([one.value().get(10), other.value().get(10)]) == [11, 13]
        (pilot,) = g.status()["pilots"]
        assert pilot["state"] == "started" and {node["state"] for node in pilot["nodes"]} == {"connected"}
        g.grow()  # it can have more
        until(lambda: len(g.status()["homes"]) == 4)
        assert g.size(g.publish(Counter(""), wait="all")) == 4
    assert names() == [] and list((home / ".grid" / "pilots").iterdir()) == []


@pytest.mark.row("Z09")
def test_what_a_killed_client_had_not_submitted_the_next_one_does(torque: Path, home: Path) -> None:  # noqa: F811
    """It is killed by the batch system's own command, at the moment of its second job."""
    qsub, real = torque / "bin" / "qsub", shutil.which("qsub")
    qsub.parent.mkdir()
    count = f"echo x >>{torque}/calls; [ $(wc -l <{torque}/calls) = 2 ] && kill -9 $CLIENT && exit 1"
    qsub.write_text(f'#!/bin/sh\n{count}\nexec {real} "$@"\n')
    qsub.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{qsub.parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", CLIENT, json.dumps({"pilots": 2})]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with attached() as g:
        assert g.size(g.publish(Counter(""), wait="all")) == 2
    assert names() == [] and list((home / ".grid" / "pilots").iterdir()) == []


@pytest.mark.row("Z09")
def test_a_pilot_that_begins_while_no_client_is_there_waits_for_one(torque: Path, home: Path) -> None:  # noqa: F811
    killed_client(nodes=2, early=True)
    until(lambda: len(list((home / ".grid" / "pilots").glob("*/*/pid"))) == 2)
    with attached() as g:
        sid = g.publish(Counter(""), wait="all")
        assert g.size(sid) == 2
        g.detach()
    with attached() as g:
        assert g.gather(g.broadcast(sid, "add", 5), 20) == [(5, 25)] * 2
    assert names() == [] and list((home / ".grid" / "pilots").iterdir()) == []


@pytest.mark.row("Z09")
def test_where_the_job_has_ended_meanwhile_what_was_answered_is_there_and_the_rest_is_lost_with_that_word(
    torque: Path,  # noqa: F811
    home: Path,  # noqa: F811
) -> None:
    with BatchGrid(
        walltime=120, poll_s=1.0, name="lab", keep="10m", limits=LIMITS, output=None, wait="all", ppn=2
    ) as g:
        sid = g.publish(Counter(""))
        one, other = g.acquire_service(sid), g.acquire_service(sid)
        until(one.add(7).named("before").done)
        job = g.status()["pilots"][0]["job"]
        for number in range(50):
            other.add(number, 5.0).named(f"slow {number}")
        g.detach()
    subprocess.run(["qdel", job], check=True)
    until(lambda: " C " in subprocess.run(["qstat", job], capture_output=True, text=True, check=False).stdout)
    with attached() as g:
        assert g.named("before").get(10) == (7, 49)
        error = g.named("slow 40").exception(30)
        assert isinstance(error, ServerLost) and f"its job {job} ended" in str(error), error
        assert [pilot["state"] for pilot in g.status()["pilots"]] == ["ended"] and g.size(sid) == 0
        g.detach()
    with attached() as g:  # and once more
        error = g.named("slow 39").exception(30)
        assert isinstance(error, ServerLost) and f"its job {job} ended" in str(error), error
    assert names() == [] and list((home / ".grid" / "pilots").iterdir()) == []


@pytest.mark.row("Z09", "B13")
def test_servers_that_moved_to_the_next_job_have_their_results_and_move_on_for_the_next_client(
    torque: Path,  # noqa: F811
    home: Path,  # noqa: F811
) -> None:
    words: Any = {"walltime": 120, "poll_s": 1.0, "renew": True, "limits": LIMITS, "output": None}
    with BatchGrid(**words, name="lab", keep="60s") as g:
        proxy = g.acquire_service(g.publish(Counter("")))
        before = proxy.where().get(20)
        until(proxy.add(1).named("in the first").done)
        hand_over(g)
        until(lambda: proxy.where().get(20) != before)
        until(proxy.add(2).named("in the second").done)
        where = proxy.where().get(20)
        g.detach()
    with attached() as g:
        assert g.named("in the first").get(20) == (1, 1) and g.named("in the second").get(20) == (2, 4)
        (sid,) = g.servers
        with g.acquire_service(sid, timeout=20) as proxy:
            assert proxy.where().get(20) == where and proxy.value().get(20) == 3
            hand_over(g)
            until(lambda: proxy.where().get(20) != where)
            assert proxy.add(4).get(20) == (4, 16) and proxy.value().get(20) == 7
        assert len(g.status()["pilots"]) >= 2
    assert names() == [] and list((home / ".grid" / "pilots").iterdir()) == []


def hand_over(g: BatchGrid) -> None:
    """All pilots that there are come to their end as the grid sees it, and their successors live on."""
    pilots: Any = g._engine.source

    def left_s() -> list[float]:
        return [each["left_s"] for each in g.status()["pilots"] if each["left_s"] and each["state"] == "started"]

    until(left_s)
    for held in pilots.held:
        held.request = held.request.kind({"walltime": 4 * held.request.walltime_s})
    g.ahead_s = g.handover_s = max(left_s()) + 1.0


@pytest.mark.row("Z09")
def test_a_walltime_that_can_not_meet_what_is_to_be_kept_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    BatchGrid(walltime=120, name="lab", keep="10m", output=sys.stderr)
    assert "longer than a job of 120 s" in capsys.readouterr().err
