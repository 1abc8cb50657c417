"""Batch jobs and pilots on a stand-in for TORQUE on this machine. On a real batch system: `cluster/test_batch.py`."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from grid import AllocationError, BatchGrid, Limits, Needs, NoServers, PublishError, ServerLost, SubmitError
from grid.batch import JobState, JobStatus
from grid.cli.main import main
from grid.grids.plan import PilotStage
from grid.testing.probe import Probe, Traveller
from grid.testing.standins import stand_in
from tests.models import Late

QUICK = Limits(heartbeat_s=0.5, lost_s=3.0, orphan_s=4.0, stop_s=2.0)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.setenv("HOME", str(path))
    return path


@pytest.fixture
def torque(tmp_path: Path, home: Path) -> Iterator[Path]:
    with stand_in("torque", tmp_path / "torque", server="fake"):
        yield tmp_path


def until(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def pilots(**kw: object) -> BatchGrid:
    return BatchGrid(walltime=120, poll_s=1.0, **{"limits": QUICK, "wait": "all", **kw})  # type: ignore[arg-type]


def end_is_near(g: BatchGrid, handover_s: float = 118.0) -> None:
    """The first pilot is to be left now, and not when the most of its walltime is over."""
    g.ahead_s, g.handover_s = 120.0, handover_s


@pytest.mark.row("B01", "B02", "B07", "B14", "B15", "G61")
def test_pilots_hold_nodes_and_leave_nothing(torque: Path, home: Path) -> None:
    with pilots(nodes=2, ppn=2, pilots=2) as g:
        sid = g.publish(Probe())
        assert g.size(sid) == 8 == len(set(g.gather(g.broadcast(sid, "where"))))
        g.release_all()
        shown = g.status()["pilots"]
        assert [pilot["state"] for pilot in shown] == ["started"] * 2
        assert {node["state"] for pilot in shown for node in pilot["nodes"]} == {"connected"}
        keys = list((home / ".grid" / "pilots").glob("*/*/stdin"))
        assert keys == []  # what held keys is gone as soon as it was read
    assert list((home / ".grid" / "pilots").iterdir()) == []


@pytest.mark.row("O20")
def test_one_grid_holds_pilots_of_two_kinds(torque: Path) -> None:
    cards = {"ppn": 2, "tags": ["gpu"], "resources": ["mem=1gb"], "job_name": "cards"}
    with pilots(kinds=[cards]) as g:
        on_cards = g.publish(Probe(), where="gpu")
        assert g.size(on_cards) == 2 and {server.host.tags for server in g.servers[on_cards]} == {("gpu",)}
        assert g.size(g.publish(Probe())) == 3
        with pytest.raises(TypeError, match=r"a kind of pilots has no 'ppm'; .*Did you mean 'ppn'"):
            g.grow(1, ppm=2)
        g.grow(1, tags=["gpu"], job_name="more")
        until(lambda: g.size(on_cards) == 3)
        names = {pilot["nodes"][0]["state"] for pilot in g.status()["pilots"]}
        assert names == {"connected"} and len(g.status()["pilots"]) == 3


@pytest.mark.row("Z10", "B13")
def test_servers_leave_a_node_of_which_somebody_says_that_it_ends(torque: Path) -> None:
    with pilots(ppn=2, renew=1) as g:
        sid = g.publish(Traveller())
        proxy = g.acquire_service(sid)
        assert proxy.count().get(60) == 1
        began = proxy.tell().get(60)[3]
        job = g.status()["pilots"][0]["job"]
        with pytest.raises(ValueError, match="no pilot of this grid has a node 'nowhere'; there are "):
            g.evacuate("nowhere", 60)
        g.evacuate(job, within_s=100.0)  # well before what its walltime asks for
        until(lambda: proxy.tell().get(60)[3] != began)
        assert proxy.count().get(60) == 2
        until(lambda: [each["state"] for each in g.status()["pilots"] if each["job"] == job] == ["ended"])
        assert g.size(sid) == 2


@pytest.mark.row("B13")
def test_a_server_that_will_not_live_long_enough_is_not_handed_out(torque: Path) -> None:
    with pilots() as g:
        sid = g.publish(Probe())
        with g.acquire_service(sid, expect_s=60, timeout=10) as proxy:
            assert proxy.add().get() == 1
        with pytest.raises(TimeoutError, match=r"its allocation ends in 1\d\d s"):
            g.acquire_service(sid, expect_s=600, timeout=0.2)
        g.grow()  # others may have it meanwhile
        with g.acquire_service(sid, timeout=10) as proxy:
            assert proxy.add().get() == 2


@pytest.mark.row("B13", "G14")
def test_servers_move_to_the_next_pilot_with_their_state_while_their_proxies_go_on(torque: Path) -> None:
    with pilots(ppn=2, renew=1) as g:
        sid = g.publish(Traveller())
        one, two = g.acquire_service(sid), g.acquire_service(sid)
        began = {proxy.tell().get(60)[3] for proxy in (one, two)}
        end_is_near(g)
        counts = []
        while one.tell().get(60)[1] == 0:  # until it was warned of its end
            counts.append(one.count())
        g.handover_s = 10.0  # the next pilot is not to be left as well, however slow this machine is
        counts += [one.count() for _ in range(20)]
        assert [result.get(30) for result in counts] == list(range(1, len(counts) + 1))
        calls, warned, saved, job = one.tell().get(30)
        assert calls == len(counts) and began == {"12.fake"} and job in ("13.fake", "14.fake")
        # once when it was published, once with each move; a slow machine warns of the next end before we forbid that
        for often, moved in ((warned, saved), two.tell().get(30)[1:3]):
            assert often in (1, 2) and 2 <= moved <= often + 1
        g.release_service(one)
        g.release_service(two)
        assert g.size(sid) == 2


@pytest.mark.row("B13", "G14")
def test_servers_that_come_up_when_their_pilot_is_being_left_move_too(torque: Path) -> None:
    with pilots(ppn=1, renew=1) as g:
        early = g.publish(Traveller())
        with ThreadPoolExecutor(1) as pool:
            try:
                publishing = pool.submit(g.publish, Late(str(torque / "gate")))
                until(lambda: g._engine.fleet.processes._starting)
                end_is_near(g)
                until(lambda: g._engine.source.held[0].stage is PilotStage.LEAVING)
            finally:
                (torque / "gate").touch()
            late = publishing.result(60)
        with g.acquire_service(early, timeout=60) as one, g.acquire_service(late, timeout=60) as other:
            until(lambda: one.tell().get(60)[3] == "13.fake" == other.job().get(60))


@pytest.mark.row("B13", "G48")
@pytest.mark.parametrize("room", [1, 0])
def test_with_nothing_better_to_come_servers_move_to_a_pilot_that_ends_soon_too_or_are_lost(
    torque: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    with pilots(ppn=1, renew=1) as g:
        sid = g.publish(Traveller())
        monkeypatch.setattr(g._engine.mover, "room", lambda home, service_id: room)
        with g.acquire_service(sid, timeout=60) as proxy:
            end_is_near(g, 120.0)  # for the new pilot as well
            until(lambda: g._engine.source.held[0].stage is PilotStage.LEAVING)
            if room:
                until(lambda: proxy.tell().get(60)[3] == "13.fake")
            else:
                with pytest.raises(ServerLost, match="no other host has room for it, and none is to come"):
                    until(lambda: not proxy.tell().get(60))


@pytest.mark.row("O17", "B13")
def test_a_server_that_the_next_pilot_cant_have_goes_on_where_it_was(
    torque: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meminfo = torque / "root/proc/meminfo"
    meminfo.parent.mkdir(parents=True)
    meminfo.write_text("MemTotal: 8388608 kB\n")
    with pilots(ppn=1, renew=1, env={"GRID_HOST_ROOT": str(torque / "root")}) as g:
        sid = g.publish(Traveller(), needs=Needs(memory="4G", cores=1))
        with g.acquire_service(sid, timeout=60) as proxy:
            assert proxy.count().get(60) == 1
            meminfo.write_text("MemTotal: 2097152 kB\n")  # so the next one has
            end_is_near(g)
            until(lambda: g._engine.source.held[0].stage is PilotStage.LEAVING)
            g.handover_s = 10.0  # the next pilot is not to be left as well
            until(lambda: "goes on at" in caplog.text)
            assert "4G of memory is needed, and it has 2G" in caplog.text
            assert proxy.count().get(60) == 2
            assert proxy.tell().get(60) == (2, 1, 2, "12.fake")  # its state went and came back
            until(lambda: any("13.fake" in str(pilot["job"]) for pilot in g.status()["pilots"]))
            assert g.size(sid) == 1 and "4G of memory" in g.status()["services"][sid]["servers"][0]["slot"]


@pytest.mark.row("B02", "B13", "G48")
def test_qdel_is_an_ordinary_event(torque: Path) -> None:
    with pilots(renew=1) as g:
        sid = g.publish(Probe())
        proxy = g.acquire_service(sid)
        running = proxy.wait_for(str(torque / "never"))
        assert CliRunner().invoke(main, ["batch", "cancel", "12.fake"]).exit_code == 0
        with pytest.raises(ServerLost):
            running.get(30)
        g.release_service(proxy)
        with g.acquire_service(sid, timeout=60) as fresh:  # of the pilot that took its place
            assert fresh.add().get() == 1
        assert [pilot["state"] for pilot in g.status()["pilots"]] == ["ended", "started"]


@pytest.mark.row("L04")
def test_a_pilot_whose_kernels_answer_is_alive_whatever_qstat_says(
    torque: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pilots() as g:
        g._engine.source.poll_s = 0.01
        sid = g.publish(Probe())
        asked = []

        def forgetful(ids: list[str]) -> dict[str, JobStatus]:
            asked.append(ids)
            return {job: JobStatus(job, JobState.UNKNOWN if len(asked) % 2 else JobState.DONE) for job in ids}

        monkeypatch.setattr(g._engine.source.machine.system, "status", forgetful)
        until(lambda: g._engine.source._wake.set() or len(asked) > 8)
        with g.acquire_service(sid, timeout=10) as proxy:
            assert proxy.add().get(10) == 1
        assert [pilot["state"] for pilot in g.status()["pilots"]] == ["started"]
        monkeypatch.undo()


@pytest.mark.row("B02", "G24")
def test_grow_and_shrink(torque: Path) -> None:
    with pilots() as g:
        sid = g.publish(Probe())
        g.copy_files(os.path.dirname(__file__), ["test_batch.py"])
        g.grow(2)
        held = [g.acquire_service(sid, timeout=60) for _ in range(3)]  # one on each pilot
        assert all("stand-in" in proxy.read("test_batch.py").get() for proxy in held)  # what was staged before it came
        g.shrink(2)
        assert [proxy.add().get() for proxy in held] == [1, 1, 1]  # who has a server keeps it
        for proxy in held:
            g.release_service(proxy)
        with g._engine.fleet.changed:
            assert g._engine.fleet.changed.wait_for(lambda: g.size(sid) == 1, 30)
        g.shrink(1)
        with g._engine.fleet.changed:
            assert g._engine.fleet.changed.wait_for(lambda: g.size(sid) == 0, 30)
        with pytest.raises(NoServers, match="no server is left"):
            g.acquire_service(sid, timeout=30)


@pytest.mark.row("B02", "B09")
def test_a_job_that_is_refused_and_no_batch_system_at_all(torque: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SubmitError, match="exceeds queue resource limits"), pilots(nodes=9):
        pass
    (torque / "empty").mkdir()
    monkeypatch.setenv("PATH", str(torque / "empty"))
    monkeypatch.delenv("GRID_DIALECT")
    with pytest.raises(AllocationError, match=r"no batch system was found \(looked for"):
        pilots().publish(Probe())  # which starts it


@pytest.mark.row("B02", "G70")
def test_a_node_whose_kernel_does_not_start_is_told_of_and_the_others_go_on(torque: Path) -> None:
    with pilots(nodes=2, init_cmd='[ "$PBS_NODENUM" = 0 ] || { echo no modules here >&2; exit 7; };') as g:
        with pytest.raises(PublishError, match=r"1 of 2 servers came up(.|\n)*no modules here"):
            g.publish(Probe())  # which wanted all
        sid = g.publish(Probe(), missing="ok")
        assert g.size(sid) == 1
        (error,) = g.failures.values()
        assert "no modules here" in str(error) and "status 7" in str(error)
        assert [node["state"] for node in g.status()["pilots"][0]["nodes"]] == ["connected", "lost"]


@pytest.mark.row("B08", "D05", "B11")
def test_the_wrapper(torque: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "run.py").write_text("import os, sys; print(os.environ['A'], sys.argv[1:]); sys.exit(int(sys.argv[1]))")
    command = ["qsub", "-l", "nodes=1:ppn=2", "-l", "walltime=0:01:00", "-v", r"A=x\,y", "-o", "out", "-j", "oe"]
    dry = CliRunner().invoke(main, [*command, "--dry-run", "--", "python", "run.py", "3"])
    assert dry.exit_code == 0 and "#PBS -l nodes=1:ppn=2,walltime=00:01:00\n" in dry.stdout
    done = CliRunner().invoke(main, [*command, "--wait", "--", "python", "run.py", "3", "a b"])
    assert (done.exit_code, done.stdout) == (3, "12.fake\n"), done.output
    assert (home / "out").read_text() == "x,y ['3', 'a b']\n"
    shown = CliRunner().invoke(main, ["batch", "status"])
    assert "12.fake" in shown.stdout and re.search(r"failed +3 ", shown.stdout), shown.stdout
    for words, status, said in (
        (["qsub", "--", "python", "nosuch.py"], 2, "no script 'nosuch.py'"),
        (["qsub", "-l", "nodes=900", "--", "python", "run.py"], 190, "exceeds queue resource limits"),
        (["qsub", "-l", "walltime=1h", "--", "python", "run.py"], 2, "walltime '1h'"),
        (["batch", "cancel", "12.fake"], 0, ""),
    ):
        failed = CliRunner().invoke(main, words)
        assert failed.exit_code == status and said in failed.output, failed.output
