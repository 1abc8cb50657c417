"""What users do to a grid and nobody had tried: call-backs that wait, groups that fail, dropped proxies, forks.

Lives here: sequences on a LocalGrid. Elsewhere: exceptions at any place (`test_torn.py`), losses (`test_losses.py`).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import time
import unittest.mock
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from grid import Grid, Host, Limits, LocalGrid
from grid.errors import AcquireTimeout, ForkError, GridError, SerialisationError, ServerLost, ServiceError
from grid.grids.choose import local_host
from grid.kernel import logs
from tests.lab.host import wait_until
from tests.models import Decorated, Redecorated


class Model:
    def __init__(self) -> None:
        self.temperature = 1.0

    def f(self, x: int) -> int:
        return x + 1

    def slow(self, seconds: float) -> None:
        time.sleep(seconds)

    def set_temperature(self, value: float) -> None:
        if value > 2:
            raise ValueError("too hot")
        self.temperature = value

    def energy(self) -> float:
        return self.temperature

    def array(self) -> bytes:
        return b"x" * 3_000_000

    def wait_for(self, path: str) -> None:
        while not os.path.exists(path):
            time.sleep(0.005)

    def pid(self) -> int:
        return os.getpid()


@pytest.mark.row("U04")
def test_callbacks_may_wait_publish_acquire_and_outlive_losses(tmp_path: Path) -> None:
    with LocalGrid(2, output=None) as g:
        sid = g.publish(Model(), wait="all")
        one, two = g.acquire_service(sid), g.acquire_service(sid)
        pid = two.pid().get(10)
        seen: list[Any] = []
        over = threading.Event()

        def wait_for_the_dead(done: Any) -> None:
            try:
                two.slow(60.0).get()
            except ServerLost:
                seen.append("lost")
            other = g.publish(Model(), republish=True)
            with g.acquire_service(other, timeout=20) as third:
                seen.append(third.f(1).get(10))
            over.set()

        gate = tmp_path / "gate"
        gated = one.wait_for(str(gate))
        gated.add_done_callback(wait_for_the_dead)  # of a call that is done already it would run here and now
        gate.touch()
        quick = threading.Event()
        one.f(2).add_done_callback(lambda done: quick.set())
        assert quick.wait(20), "one call-back that waits holds up another"
        os.kill(pid, 9)
        assert over.wait(40) and seen == ["lost", 2]
        ended = threading.Event()
        one.f(3).add_done_callback(lambda done: (g.terminate(), ended.set()))
        assert ended.wait(40) and g.ishalted()


@pytest.mark.row("U05")
def test_a_group_whose_body_raises_gives_its_servers_back() -> None:
    with LocalGrid(2, output=None) as g:
        sid = g.publish(Model(), wait="all")
        with pytest.raises(KeyError), g.group(sid, 10):
            raise KeyError
        assert len(g.queues[sid]) == 2


@pytest.mark.row("U05")
def test_broadcast_and_scatter_say_whom_they_wait_for_and_hold_no_lock(caplog: pytest.LogCaptureFixture) -> None:
    with LocalGrid(2, output=None) as g:
        sid = g.publish(Model(), wait="all")
        proxy = g.acquire_service(sid)
        with pytest.raises(ServiceError, match="this thread holds"):
            g.broadcast(sid, "f", 1)
        with pytest.raises(AcquireTimeout, match="acquired"):
            g.broadcast(sid, "f", 1, timeout=0.1)
        with pytest.raises(AcquireTimeout):
            g.scatter(sid, "f", [1, 2], timeout=0.1)
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.extend(g.broadcast(sid, "f", 1)))
        thread.start()
        wait_until(lambda: g.status()["services"][sid]["waiting"], "the broadcast in line")
        began = time.monotonic()
        g.release_all(sid)
        assert time.monotonic() - began < 5, "release_all waits for a broadcast"
        g.release_service(proxy)
        thread.join(20)
        assert [result.get(10) for result in results] == [2, 2]
        with caplog.at_level(logging.WARNING), pytest.raises(AcquireTimeout):
            g.acquire_service(sid, timeout=4.0)
        assert "until release_all" in caplog.text, "a wait that the caller made himself says so"


@pytest.mark.row("U05")
def test_a_dropped_proxy_gives_its_server_back_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with LocalGrid(1, output=None) as g, caplog.at_level(logging.WARNING):
        sid = g.publish(Model())
        assert g.acquire_service(sid).f(1).get(10) == 2
        with g.acquire_service(sid, timeout=20) as proxy:
            assert proxy.f(2).get(10) == 3
        assert "test_hard_use.py" in caplog.text and "dropped without release_service" in caplog.text


@pytest.mark.row("U06")
def test_results_that_were_received_outlive_the_grid() -> None:
    with LocalGrid(1, output=None) as g:
        with g.acquire_service(g.publish(Model())) as proxy:
            small, large, late = proxy.f(1), proxy.array(), proxy.array()
            wait_until(large.done, "the large value")
    assert small.get(0) == 2 and large.get(0) == b"x" * 3_000_000
    try:
        assert late.get(0) == b"x" * 3_000_000
    except GridError as exc:
        assert "grid" in str(exc)


@pytest.mark.row("U07")
def test_an_end_that_nobody_waits_for_comes_back_at_once() -> None:
    g = LocalGrid(1, output=None)
    g.start()
    proxy = g.acquire_service(g.publish(Model()))
    proxy.slow(0.5)
    began = time.monotonic()
    g.terminate(wait=False)
    assert time.monotonic() - began < 0.4
    wait_until(lambda: g.ishalted() and not g.is_alive(), "its end")


@pytest.mark.row("U08")
def test_a_forked_child_is_refused_at_once_and_ends_quickly() -> None:
    with LocalGrid(1, output=None) as g:
        sid = g.publish(Model())
        with g.acquire_service(sid) as proxy:
            pending = proxy.slow(1.0)
            deeds = [
                lambda: proxy.f(1),
                lambda: pending.get(30),
                lambda: g.acquire_service(sid, 30),
                lambda: g.release_service(proxy),
                lambda: g.publish(Model()),
                lambda: list(g.map(sid, "f", [1])),
            ]
            for number, deed in enumerate(deeds):
                began = time.monotonic()
                child = os.fork()
                if not child:
                    status = 1
                    try:
                        deed()
                    except ForkError:
                        status = 0
                    finally:
                        os._exit(status)
                assert os.waitpid(child, 0)[1] == 0, number
                assert time.monotonic() - began < 10, number
            assert proxy.f(2).get(20) == 3


@pytest.mark.row("U09")
def test_ids_are_unique_and_proxies_belong_to_their_grid() -> None:
    with LocalGrid(1, output=None) as one, LocalGrid(1, output=None) as two:
        first, second = one.publish(Model()), two.publish(Model())
        assert first != second
        with one.acquire_service(first) as proxy:
            with pytest.raises(ServiceError, match="another grid"):
                two.release_service(proxy)
            assert proxy.f(1).get(10) == 2


@pytest.mark.row("U09")
def test_an_object_that_two_threads_publish_is_published_once() -> None:
    with LocalGrid(1, output=None) as g:
        model, ids = Model(), []
        threads = [threading.Thread(target=lambda: ids.append(g.publish(model))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(ids) == 4 and len(set(ids)) == 1 and len(g.servers) == 1


@pytest.mark.row("U10")
def test_a_failed_call_that_nobody_asked_about_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), LocalGrid(1, output=None) as g:
        with g.acquire_service(g.publish(Model())) as proxy:
            proxy.set_temperature(3.0)
            assert proxy.energy().get(10) == 1.0
            asked = proxy.set_temperature(4.0)
            with pytest.raises(ValueError, match="too hot"):
                asked.get(10)
            kept = proxy.set_temperature(5.0)
            wait_until(kept.done, "its failure")
    told = [record.getMessage() for record in caplog.records if "nobody asked" in record.getMessage()]
    assert len(told) == 2, told
    for line in told:
        assert "'set_temperature'" in line and "localhost" in line and "too hot" in line and "test_hard_use.py" in line


@pytest.mark.row("U10")
def test_a_strict_proxy_raises_what_an_earlier_call_raised() -> None:
    with LocalGrid(1, output=None) as g:
        with g.acquire_service(g.publish(Model()), strict=True) as proxy:
            proxy.set_temperature(3.0)
            with pytest.raises(ValueError, match="too hot"):
                proxy.energy().get(10)
            assert proxy.energy().get(10) == 1.0, "once"
            failed = proxy.set_temperature(4.0)
            wait_until(failed.done, "its failure")
            with pytest.raises(ValueError, match="too hot"):
                proxy.energy()


@pytest.mark.row("U11")
def test_what_is_no_proxy_or_no_number_is_refused_by_name() -> None:
    with LocalGrid(1, output=None) as g:
        sid = g.publish(Model())
        with pytest.raises(ServiceError, match="None"):
            g.release_service(None)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="nan"):
            g.acquire_service(sid, timeout=float("nan"))
        with pytest.raises(TypeError, match="'soon'"):
            g.acquire_service(sid, timeout="soon")  # type: ignore[arg-type]
        with g.acquire_service(sid) as proxy:
            with pytest.raises(ValueError, match="nan"):
                proxy.slow(0.5).get(float("nan"))


@pytest.mark.row("U12")
def test_a_method_is_the_one_that_was_asked_for_whatever_its_function_is_called() -> None:
    one, other = Decorated(), Redecorated()
    methods = [one.a, one.b, one.wrapper, one.secret(), other.a, other.b, other.above(), other.plainly_above()]
    methods += [Decorated.of_class, other.of_class]
    expected = [method() for method in methods]
    with LocalGrid(1, output=None) as g, g.acquire_service(g.publish(Redecorated())) as proxy:
        assert [proxy.use(method).get() for method in methods] == expected, "a method as an argument is another one"
        assert [proxy.use(partial(method)).get() for method in methods] == expected
        for name in ("a", "b", "of_class", "wrapper"):
            assert getattr(proxy, name)().get() == getattr(other, name)()
            back = proxy.give(name).get()
            assert back() == getattr(other, name)(), "a method as a result is another one"
        with g.acquire_service(g.publish(one.b)) as published:
            assert published().get() == "b", "a method that is published is another one"
    with LocalGrid(1, output=None) as g, g.executor() as executor:
        assert [executor.submit(method).result(20) for method in methods] == expected


class Giver:
    def deep(self, depth: int) -> Any:
        nested: list[Any] = []
        for _ in range(depth):
            nested = [nested]
        return nested

    def give(self, name: str) -> Any:
        with tempfile.NamedTemporaryFile() as temporary:
            things: dict[str, Any] = {
                "threading.Thread": threading.Thread(),
                "unittest.mock.Mock": {"of it": unittest.mock.Mock()},
                "tempfile._TemporaryFileWrapper": [temporary],
            }
        return things[name]


def _no_services() -> list[Any]:
    threads: list[Any] = [threading.Lock(), threading.RLock(), threading.Event(), threading.Condition()]
    threads += [threading.Semaphore(), threading.Barrier(2), threading.current_thread(), threading.Thread()]
    mocks: list[Any] = [unittest.mock.Mock(), unittest.mock.MagicMock(), unittest.mock.create_autospec(Model)()]
    return [*threads, *mocks]


@pytest.mark.row("U13")
def test_what_is_of_no_use_elsewhere_is_refused_by_its_kind(tmp_path: Path) -> None:
    with LocalGrid(1, output=None) as g:
        with open(tmp_path / "written", "w") as text, open(tmp_path / "written", "rb+") as data:
            for each in [*_no_services(), text, data]:
                with pytest.raises(SerialisationError) as refused:
                    g.publish(each)
                assert f"{type(each).__module__}.{type(each).__qualname__} can't" in str(refused.value)
        assert not g._services, "what was refused is published"
        with g.acquire_service(g.publish(Giver())) as proxy:
            for depth in (900, 20_000):
                with pytest.raises(SerialisationError, match="nested too deeply"):
                    proxy.deep(depth).get(20)
            for name in ("threading.Thread", "unittest.mock.Mock", "tempfile._TemporaryFileWrapper"):
                with pytest.raises(SerialisationError, match=name):
                    proxy.give(name).get(20)
            with tempfile.NamedTemporaryFile() as temporary:
                for each in (unittest.mock.Mock(), temporary):
                    with pytest.raises(SerialisationError, match=f"{type(each).__qualname__} can't travel"):
                        proxy.give({"deep": [each]})
                assert os.path.exists(temporary.name), "a copy has removed the caller's file"


@pytest.mark.row("U13")
def test_hosts_that_are_changed_in_place_are_taken_or_refused() -> None:
    given = [local_host(1)]
    with Grid(given, output=None) as g:
        given.append(Host("nowhere", ssh="local"))
        assert g.n_hosts == 1, "the caller's list is the grid's"
        g.publish(Model())
        for change in ("append", "insert", "remove"):
            with pytest.raises(GridError, match="add_hosts"):
                getattr(g.hosts, change)(*([0] if change == "insert" else []), Host("nowhere"))
        with pytest.raises(GridError, match="add_hosts"):
            g.hosts += [Host("nowhere")]
        with pytest.raises(GridError, match="add_hosts"):
            g.hosts[0] = Host("nowhere")
        assert g.hosts == given[:1] and g.hosts[:1] == [given[0]]
        for field, value in (
            ("n_cpu", 4),
            ("use_n_cpu", 0),
            ("niceness", 3),
            ("env", {"A": "b"}),
            ("temp_path", "/tmp"),
        ):
            with pytest.raises(GridError, match=rf"its {field} can't be changed to .*add_hosts\(Host\('localhost'"):
                setattr(g.hosts[0], field, value)
        assert given[0].n_cpu == 1 and given[0].env == {}
    given[0].n_cpu = 4  # the grid has ended
    assert given[0].n_cpu == 4


@pytest.mark.row("X03")
def test_more_requests_than_an_agent_takes_in_wait_with_the_client_and_are_answered() -> None:
    with LocalGrid(1, output=None, limits=Limits(lost_s=60.0)) as g:
        g.publish(Model())
        home = g._engine.fleet.homes[0]
        agent = home.report["pid"]
        os.kill(agent, signal.SIGSTOP)
        try:
            asked = [home.ask_later("missing_modules", ["sys", f"no_module_{n}"], timeout=60) for n in range(1_000)]
            long = home.ask_later("missing_modules", ["sys", "no_" * 1_000_000], timeout=60)  # it goes as a blob
        finally:
            os.kill(agent, signal.SIGCONT)
        assert [answer() for answer in asked] == [[f"no_module_{n}"] for n in range(1_000)]
        assert long() == ["no_" * 1_000_000]


@pytest.mark.row("X07")
def test_what_an_agent_says_of_itself_is_bounded_on_disk() -> None:
    with LocalGrid(1, output=None) as g:
        g.publish(Model())
        home = g._engine.fleet.homes[0]
        log = Path(home.report["run"]) / "agent.log"
        with open(log, "ab", buffering=0) as writer:  # as its zygote has it
            for _ in range(3):
                writer.write(b"x" * logs.AGENT_FULL + b"y\n")
                wait_until(lambda: home.ask("status") and log.stat().st_size < 1000, "the log is not turned")
        assert 0 < logs.turned(log).stat().st_size <= logs.AGENT_FULL
        with pytest.raises(AttributeError):
            home.ask("nonsense")
        assert b"a call of the client failed" in log.read_bytes(), "it goes on in the same file"


class Told:
    def pid(self) -> int:
        return os.getpid()

    def be_told(self) -> None:
        """Once the main thread waits for the next call another one gets SIGTERM."""
        threading.Thread(target=self._tell, daemon=True).start()

    def _tell(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        at = 0
        while at < 20:
            time.sleep(0.002)
            at = at + 1 if sys._current_frames()[main].f_code.co_name == "receive" else 0
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)


def _ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.row("U14")
def test_an_idle_server_hears_sigterm_at_once_whichever_thread_has_got_it() -> None:
    seconds = []
    with LocalGrid(4, output=None) as g:
        sid = g.publish(Told(), wait="all")
        for proxy in [g.acquire_service(sid) for _ in range(4)]:
            pid = proxy.pid().get(10)
            proxy.be_told().get(10)
            began = time.monotonic()
            wait_until(lambda pid=pid: _ended(pid), "the end of a server that was told")
            seconds.append(time.monotonic() - began)
    assert min(seconds) < 0.3, f"they hear of it when they look next, after half a second: {seconds}"


@pytest.mark.row("U14")
def test_a_directory_that_grid_made_goes_at_the_end_and_one_that_was_there_stays(tmp_path: Path) -> None:
    there, made = tmp_path / "there", tmp_path / "made" / "below"
    there.mkdir()
    for place in (there, made, made):
        with Grid([Host("localhost", n_cpu=1, ssh="local", temp_path=str(place))], output=None) as g:
            g.publish(Model())
            assert any(place.iterdir())
            if place is made:
                with Grid([Host("localhost", n_cpu=1, ssh="local", temp_path=str(place))], output=None) as other:
                    other.publish(Model())
                assert any(place.iterdir()), "another one has removed it"
    assert os.listdir(tmp_path) == ["there"] and not os.listdir(there)
    first = Grid([Host("localhost", n_cpu=1, ssh="local", temp_path=str(made))], output=None)
    first.publish(Model())
    with Grid([Host("localhost", n_cpu=1, ssh="local", temp_path=str(made))], output=None) as last:
        last.publish(Model())
        first.terminate()
        (made / "note").write_text("of the user")
    assert sorted(os.listdir(made))[-1] == "note", "what is not ours was removed"
    (made / "note").unlink()
    with Grid([Host("localhost", n_cpu=1, ssh="local", temp_path=str(made))], output=None) as g:
        sid = g.publish(Model())
        with g.acquire_service(sid) as proxy:
            os.kill(g._engine.fleet.homes[0].report["pid"], signal.SIGKILL)
            with pytest.raises(GridError):
                proxy.slow(60.0).get(30)
    wait_until(lambda: os.listdir(tmp_path) == ["there"], "the zygote, which removes what the agent had")
