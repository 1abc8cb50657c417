"""What dies on this machine, and what the caller sees of it: servers, agents, zygotes, clients."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest

from grid import Grid, GridStopped, Host, Limits, LocalGrid, NoServers, PublishError, ServerLost, StagingError
from grid.errors import CallTimeout, ForkError, GridError
from grid.grids.choose import local_host
from grid.grids.home import Home
from grid.grids.register import grids_dir
from grid.services.roster import State
from grid.testing.probe import Probe
from grid.wire.places import runtime_dir

QUICK = Limits(heartbeat_s=0.4, lost_s=1.6, orphan_s=3.0, stop_s=1.0)


def until(condition: Callable[[], Any], limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.row("G48", "G42", "G65", "G69")
def test_a_killed_server_fails_its_calls_with_the_cause_and_the_others_go_on() -> None:
    with LocalGrid(2, limits=QUICK, output=None) as g:
        sid = g.publish(Probe())
        with g.acquire_service(sid) as victim, g.acquire_service(sid) as other:
            victim.say("my last words")
            running, queued = victim.kill(), victim.add()
            with pytest.raises(ServerLost) as caught:
                running.get(10)
            lost = caught.value
            assert (lost.signal, lost.exit_status) == (signal.SIGKILL, None)
            assert lost.host == "localhost" and lost.service_id == sid and lost.server.startswith(f"{sid}/")
            assert "my last words" in str(lost) and "SIGKILL" in str(lost) and "peak memory" in str(lost)
            with pytest.raises(ServerLost):
                queued.get(10)
            assert other.add().get(10) == 1
            assert len(g.servers[sid]) == 1
        assert g.queues[sid].qsize() == 1


@pytest.mark.row("G48")
def test_a_server_that_exits_tells_its_status() -> None:
    with LocalGrid(1, limits=QUICK, output=None) as g:
        sid = g.publish(Probe())
        with g.acquire_service(sid) as proxy, pytest.raises(ServerLost, match="exit status 3") as caught:
            proxy.exit(3).get(10)
        assert caught.value.exit_status == 3


@pytest.mark.row("G12", "G48")
def test_who_waits_for_the_last_server_gets_an_error_when_it_dies() -> None:
    with LocalGrid(1, limits=QUICK, output=None) as g:
        sid = g.publish(Probe())
        proxy = g.acquire_service(sid)
        failed: list[BaseException] = []

        def wait() -> None:
            try:
                g.acquire_service(sid)
            except BaseException as exc:
                failed.append(exc)

        waiter = threading.Thread(target=wait)
        waiter.start()
        until(lambda: g._service(sid).roster.waiting == 1)
        proxy.kill()
        waiter.join(10)
        assert [type(error) for error in failed] == [NoServers]
        with pytest.raises(NoServers, match="SIGKILL"):
            g.acquire_service(sid)


@pytest.mark.row("G48")
def test_a_lost_server_is_replaced_as_often_as_was_asked_for() -> None:
    with LocalGrid(1, limits=QUICK, output=None) as g:
        sid = g.publish(Probe(5), restarts=1)
        with g.acquire_service(sid) as proxy:
            proxy.add().get(10)
            with pytest.raises(ServerLost):
                proxy.kill().get(10)
        with g.acquire_service(sid, timeout=10) as proxy:
            assert proxy.add().get(10) == 6, "not a fresh copy"
            proxy.kill()
        with pytest.raises(NoServers):
            g.acquire_service(sid, timeout=10)


@pytest.mark.row("G48", "G71", "I03")
def test_a_stopped_server_is_noticed_by_its_silence_and_killed() -> None:
    with LocalGrid(2, limits=QUICK, output=None) as g:
        sid = g.publish(Probe())
        with g.acquire_service(sid) as proxy:
            _, pid = proxy.where().get(10)
            os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(ServerLost, match=r"silent .*; its process is stopped \(SIGSTOP"):
                proxy.add().get(20)
            assert time.monotonic() - began < 10
        until(lambda: not alive(pid))
        assert len(g.servers[sid]) == 1


@pytest.mark.row("G63")
def test_a_server_deep_in_c_code_is_alive() -> None:
    with LocalGrid(1, limits=QUICK, output=None) as g:
        sid = g.publish(Busy())
        with g.acquire_service(sid) as proxy:
            assert proxy.hold_the_interpreter().get(60) > 2 * QUICK.lost_s


class Busy:
    def hold_the_interpreter(self) -> float:
        # sorted() of a list of plain integers never lets another thread run
        began, items = time.monotonic(), list(range(3_000_000, 0, -1))
        import random

        random.Random(1).shuffle(items)
        while time.monotonic() - began < 2.2 * QUICK.lost_s:
            sorted(items)
        return time.monotonic() - began


@pytest.mark.row("G48", "G69")
@pytest.mark.parametrize("which", ["agent", "zygote"])
def test_without_its_agent_or_zygote_a_host_is_lost_and_nothing_stays(which: str) -> None:
    with LocalGrid(2, limits=QUICK, output=None) as g:
        sid = g.publish(Probe())
        proxy = g.acquire_service(sid)
        _, pid = proxy.where().get(10)
        call = proxy.wait_for("/never")
        status = g._engine.fleet.homes[0].ask("status")
        os.kill(status["pid" if which == "agent" else "zygote"], signal.SIGKILL)
        with pytest.raises(ServerLost, match="localhost"):
            call.get(10)
        until(lambda: not alive(pid))
        with pytest.raises(NoServers):
            g.acquire_service(sid, timeout=5)
        assert "localhost" in g.failures


@pytest.mark.row("G48", "G69")
@pytest.mark.parametrize("late", [False, True], ids=["", "and-is-dead-when-its-client-comes"])
def test_a_host_whose_zygote_can_not_begin_says_why(
    late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cloudpickle").mkdir()  # hides the one that is installed
    (tmp_path / "cloudpickle" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    join = Home._join

    def join_late(home: Home) -> None:
        until(lambda: "its zygote died" in (Path(home.report["run"]) / "agent.log").read_text())
        join(home)

    if late:
        monkeypatch.setattr(Home, "_join", join_late)
    with LocalGrid(1, limits=QUICK, output=None) as g, pytest.raises(PublishError, match="pip install cloudpickle"):
        g.publish(Probe())


@pytest.mark.row("G06", "G48")
def test_publishing_again_after_a_loss_starts_the_host_anew() -> None:
    with LocalGrid(1, limits=QUICK, output=None) as g:
        g.publish(Probe())
        os.kill(g._engine.fleet.homes[0].ask("status")["pid"], signal.SIGKILL)
        until(lambda: g._engine.fleet.homes[0].gone)
        sid = g.publish(Probe())
        with g.acquire_service(sid, timeout=10) as proxy:
            assert proxy.add().get(10) == 1


SCRIPT = """
import os, sys
from grid import Limits, LocalGrid
from grid.testing.probe import Probe
g = LocalGrid(2, limits=Limits(heartbeat_s=0.4, lost_s=1.6, orphan_s=2.0, stop_s=1.0))
g.start()
sid = g.publish(Probe())
proxy = g.acquire_service(sid)
pids = [proxy.where().get()[1], proxy.child().get()]
status = g._engine.fleet.homes[0].ask("status")
busy = proxy.wait_for("/never")
print(*pids, status["pid"], status["zygote"], flush=True)
{then}
"""


@contextlib.contextmanager
def client(then: str) -> Any:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(then=then)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        line = process.stdout.readline()
        assert line, process.communicate(timeout=60)[1]
        yield process, [int(word) for word in line.split()]
        process.kill()


@pytest.mark.row("G25", "G42", "G63", "D09")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_client_leaves_nothing_behind(how: signal.Signals) -> None:
    with client("busy.get()") as (process, pids):
        process.send_signal(how)
        process.wait(60)
        until(lambda: not any(alive(pid) for pid in pids), 8.0)


@pytest.mark.row("G25")
def test_ctrl_c_ends_the_script_and_all_that_it_started() -> None:
    with client("busy.get()") as (process, pids):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode != 0 and "KeyboardInterrupt" in errors
        until(lambda: not any(alive(pid) for pid in pids), 5.0)


@pytest.mark.row("G25", "G62")
def test_a_script_in_the_background_can_be_stopped_though_it_ignores_ctrl_c() -> None:
    from grid.grids.register import ask, running_grids

    with client(
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print('set', flush=True); busy.get()"
    ) as (
        process,
        pids,
    ):
        assert process.stdout.readline() == "set\n"
        (record,) = [record for record in running_grids() if record["pid"] == process.pid]
        ask(record, "stop")
        _, errors = process.communicate(timeout=20)
        assert "KeyboardInterrupt" in errors
        until(lambda: not any(alive(pid) for pid in pids), 5.0)


@pytest.mark.row("G25")
def test_a_script_that_just_ends_terminates_its_grid() -> None:
    with client("") as (process, pids):
        process.communicate(timeout=20)
        assert process.returncode == 0
        until(lambda: not any(alive(pid) for pid in pids), 5.0)


@pytest.mark.row("G24", "G71")
def test_terminate_lets_short_calls_finish_and_ends_long_ones(tmp_path: Path) -> None:
    with LocalGrid(2, limits=QUICK, output=None) as g:
        sid = g.publish(Probe())
        with g.acquire_service(sid) as short, g.acquire_service(sid) as long:
            finished = [short.note(index) for index in range(200)]
            endless = long.wait_for(str(tmp_path / "never"))
            began = time.monotonic()
            g.terminate(sid)
            assert finished[-1].get(10) == list(range(200))
            with pytest.raises(ServerLost, match="terminated"):
                endless.get(10)
            assert time.monotonic() - began < 8


@pytest.mark.row("G23", "G24")
def test_after_the_end_everything_says_so() -> None:
    g = LocalGrid(1, output=None)
    assert not g.ishalted()
    sid = g.publish(Probe())
    proxy = g.acquire_service(sid)
    waiting = proxy.wait_for("/never")
    g.terminate()
    assert g.ishalted() and g.halted
    for use in (lambda: g.publish(Probe()), lambda: g.acquire_service(sid), g.start):
        with pytest.raises(GridStopped):
            use()
    with pytest.raises((ServerLost, GridStopped)):
        waiting.get(5)
    g.terminate()


@pytest.mark.row("G58", "G24")
def test_terminate_during_publish_is_bounded_and_leaves_nothing() -> None:
    for delay in (0.0, 0.02, 0.05, 0.1, 0.15):
        g = LocalGrid(2, limits=QUICK, output=None)
        timer = threading.Timer(delay, g.terminate)
        timer.start()
        with contextlib.suppress(GridStopped, NoServers, PublishError, ServerLost):
            g.publish(Probe())
        timer.join(20)
        g.terminate()
        assert g.ishalted()


STUCK = """
import os
first = os.open
def slow(path, *more, **named):
    if str(path).endswith("agent.log"):
        import pathlib, time
        pathlib.Path(os.environ["REACHED"]).touch()
        time.sleep(600)
    return first(path, *more, **named)
os.open = slow
"""


@pytest.mark.row("G06", "G24")
def test_an_agent_that_is_stuck_while_it_makes_its_directories_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(STUCK)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("REACHED", str(tmp_path / "reached"))
    g = LocalGrid(1, limits=QUICK, output=None)
    start = threading.Thread(target=_publish_in_vain, args=(g,))
    start.start()
    until((tmp_path / "reached").exists)
    g.terminate()
    start.join(20)
    assert not start.is_alive()
    assert not list(runtime_dir().glob(f"run-{g.grid_id}*"))


def _publish_in_vain(g: LocalGrid) -> None:
    with pytest.raises(GridError):
        g.publish(Probe())


@pytest.mark.row("G06", "G65")
def test_an_instance_that_cannot_be_rebuilt_says_why() -> None:
    with LocalGrid(1, limits=QUICK, output=None) as g:
        with pytest.raises(PublishError) as caught:
            g.publish(Explosive())
        assert "could not light the fuse" in str(caught.value) and "localhost" in str(caught.value)
        assert g.acquire_service(g.publish(Probe())).add().get(10) == 1


class Explosive:
    def __setstate__(self, state: object) -> None:
        raise RuntimeError("could not light the fuse")

    def __getstate__(self) -> object:
        return {"a": 1}


@pytest.mark.row("G46")
def test_a_timeout_says_what_the_server_does_and_breaks_nothing(tmp_path: Path) -> None:
    with LocalGrid(1, output=None) as g:
        sid = g.publish(Probe())
        with g.acquire_service(sid) as proxy:
            blocking = proxy.wait_for(str(tmp_path / "go"))
            behind = proxy.add()
            with pytest.raises(TimeoutError) as caught:
                behind.get(0.05)
            assert isinstance(caught.value, CallTimeout)
            assert "1 calls before it" in str(caught.value) and "wait_for" in str(caught.value)
            (tmp_path / "go").touch()
            assert blocking.get(10) == "" and behind.get(10) == 1


@pytest.mark.row("G45")
def test_a_call_that_has_not_begun_can_be_cancelled(tmp_path: Path) -> None:
    with LocalGrid(1, output=None) as g:
        sid = g.publish(Probe())
        with g.acquire_service(sid) as proxy:
            blocking = proxy.wait_for(str(tmp_path / "go"), begun=str(tmp_path / "begun"))
            doomed, after = proxy.add(10), proxy.add(1)
            until((tmp_path / "begun").exists)
            assert blocking.running()
            assert doomed.cancel() and doomed.cancelled() and doomed.done()
            assert not blocking.cancel(), "it runs"
            (tmp_path / "go").touch()
            assert after.get(10) == 1, "the cancelled call ran"
            from concurrent.futures import CancelledError

            with pytest.raises(CancelledError):
                doomed.get(1)
        assert g.queues[sid].qsize() == 1


@pytest.mark.row("G22")
def test_another_loader_can_take_the_place_of_ours(tmp_path: Path) -> None:
    (tmp_path / "loader.py").write_text(
        "import os\nos.environ['LOADED_BY'] = __name__\nfrom grid.kernel import agent\nagent.main(config, report)\n"
    )
    with LocalGrid(1, output=None) as g:
        with pytest.raises(StagingError, match="no_such"):
            g.set_loader(tmp_path, "no_such.py")
        g.set_loader(tmp_path, "loader.py")
        assert g.loader_filename == "loader.py"
        with g.acquire_service(g.publish(Probe())) as proxy:
            assert proxy.environment("LOADED_BY").get(10) == "grid_loader"


@pytest.mark.row("G15", "G45")
def test_a_server_whose_last_call_was_cancelled_is_freed(tmp_path: Path) -> None:
    with LocalGrid(1, output=None) as g:
        sid = g.publish(Probe())
        proxy = g.acquire_service(sid)
        blocking = proxy.wait_for(str(tmp_path / "go"), begun=str(tmp_path / "begun"))
        doomed = proxy.add()
        until((tmp_path / "begun").exists)
        assert doomed.cancel()
        g.release_service(proxy)
        assert g.queues[sid].qsize() == 0
        (tmp_path / "go").touch()
        assert blocking.get(10) == ""
        with g.acquire_service(sid, timeout=10) as again:
            assert again.add().get(10) == 1


@pytest.mark.row("G02", "G14")
def test_many_calls_need_no_more_threads() -> None:
    with LocalGrid(1, output=None) as g:
        sid = g.publish(Probe())
        before = threading.active_count()
        with g.acquire_service(sid) as proxy:
            for _ in range(5):
                results = [proxy.add() for _ in range(2000)]
                assert threading.active_count() <= before
                assert results[-1].get(30)
            assert set(proxy.threads().get(10)) <= {"MainThread", "grid-control", "grid-held", "grid-signals"}


@pytest.mark.row("G02")
def test_a_grid_is_refused_in_a_forked_child() -> None:
    with LocalGrid(1, output=None) as g:
        sid = g.publish(Probe())
        reader, writer = os.pipe()
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the fork is what is tested
            pid = os.fork()
        if pid == 0:
            try:
                g.acquire_service(sid)
            except ForkError as exc:
                os.write(writer, str(exc).encode())
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        os.close(writer)
        assert b"parent" in os.read(reader, 1000)
        os.close(reader)
        assert g.servers[sid][0].state is State.FREE


@pytest.mark.row("G11", "F15")
def test_hosts_that_are_added_later_get_every_service_and_every_file(tmp_path: Path) -> None:
    (tmp_path / "word.txt").write_text("staged before")
    with LocalGrid(1, output=None) as g:
        one, two = g.publish(Probe()), g.publish(Probe(5))
        g.copy_files(tmp_path, ["*.txt"])
        g.add_hosts(Host("added", n_cpu=2, ssh="local", python=sys.executable))
        held = [g.acquire_service(sid, timeout=30) for sid in (one, one, one, two, two, two)]
        assert [proxy.read("word.txt").get(30) for proxy in held] == ["staged before"] * 6
        assert [host.name for host in g.hosts] == ["localhost", "added"]


@pytest.mark.row("G24", "D09")
def test_what_a_killed_client_left_here_is_removed_by_the_next_grid(tmp_path: Path) -> None:
    left = [grids_dir() / f"999999-dead{end}" for end in (".json", ".sock")]
    left.append(runtime_dir() / "fwd-999999-abc.sock")
    record = {"id": "999999-dead", "name": "dead", "pid": 999999, "started": 1, "began": 0.0}
    for path in left:
        path.write_text(json.dumps(record))
    with LocalGrid(1, output=None) as g:
        g.publish(Probe())
        assert not [path for path in left if path.exists()]


class Dice:
    """Uses NumPy, which the servers of a host share from the zygote."""

    def __init__(self) -> None:
        self.table = numpy.arange(3.0)

    def throw(self) -> tuple[int, float, float, str]:
        product = numpy.ones((200, 200)) @ numpy.ones((200, 200))  # by BLAS, with its threads
        threads = os.environ.get("OMP_NUM_THREADS", "")
        return int(numpy.random.randint(1 << 30)), float(product.sum()), float(self.table.sum()), threads


@pytest.mark.row("G06")
def test_servers_that_share_numpy_have_random_numbers_of_their_own() -> None:
    here = dataclasses.replace(local_host(4), env={"OMP_NUM_THREADS": "2"})
    with Grid([here], output=None) as g:
        found = g.gather(g.broadcast(g.publish(Dice()), "throw"))
        assert len({number for number, *_ in found}) == 4
        assert [tuple(rest) for _, *rest in found] == [(8e6, 3.0, "2")] * 4
