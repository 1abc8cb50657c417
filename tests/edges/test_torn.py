"""A real grid whose user is interrupted at every place of what he does: nothing stays locked, nothing is lost.

Places: all where the interpreter looks for signals (`tests/torn.py`), one at a time; and storms of real signals. With
`GRID_STORM=2000` every place and the long storm (`scripts/nightly`).
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from grid import Limits, LocalGrid, SSHGrid
from grid.hosts import Host
from tests.lab import Lab
from tests.lab.host import wait_until
from tests.models import Adder
from tests.torn import Torn, torn_at

STORM = int(os.environ.get("GRID_STORM", "150"))
ANSWER_S = 1.0


class Model:
    def f(self, x: int) -> int:
        return x + 1


@pytest.fixture(scope="module")
def grid() -> Iterator[LocalGrid]:
    with LocalGrid(2, output=None, limits=Limits(heartbeat_s=0.1)) as g:  # it looks after what was torn off every 25 ms
        g.publish(Model(), wait="all")
        yield g


def is_whole(g: LocalGrid, sid: str, torn: Torn | str) -> None:
    """Everybody is served: both servers come back, and calls are answered."""
    place = torn if isinstance(torn, str) else torn.place
    wait_until(lambda: len(g.queues[sid]) == 2, f"both servers are free again after {place}", limit_s=8.0)
    with g.acquire_service(sid, timeout=5) as one, g.acquire_service(sid, timeout=5) as two:
        began = time.monotonic()
        assert one.f(1).get(10) == 2 == two.f(1).get(10), place
        assert time.monotonic() - began < 5 * ANSWER_S, place  # other work runs beside
    done: list[int] = []
    threads = [threading.Thread(target=lambda: done.append(use(g, sid))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert done == [5, 5], f"another thread was not served after {place}"


def use(g: LocalGrid, sid: str) -> int:
    with g.acquire_service(sid, timeout=10) as proxy:
        return int(proxy.f(4).get(10))


def call(g: LocalGrid, sid: str) -> None:
    with g.acquire_service(sid, timeout=5) as proxy:
        assert proxy.f(1).get(5) == 2


def acquire_and_release(g: LocalGrid, sid: str) -> None:
    g.release_service(g.acquire_service(sid, timeout=5))


def everyone(g: LocalGrid, sid: str) -> None:
    with g.group(sid, 5) as group:
        assert [each.f(1).get(5) for each in group] == [2, 2]


def a_map(g: LocalGrid, sid: str) -> None:
    assert list(g.map(sid, "f", range(10), timeout=10)) == list(range(1, 11))


@pytest.mark.row("U02")
@pytest.mark.parametrize("deed", [call, acquire_and_release, everyone, a_map])
def test_wherever_a_user_is_torn_off_all_are_served(grid: LocalGrid, deed: Callable[[LocalGrid, str], None]) -> None:
    sid = grid.publish(Model(), wait="all", republish=True)
    deed(grid, sid)
    with torn_at(0) as torn:
        deed(grid, sid)
    assert torn.count > 50
    step = 1 if STORM > 1000 else max(1, torn.count // 15)  # every place once in the nightly run
    for at in range(random.randint(1, step), torn.count + 1, step):
        with torn_at(at) as torn:
            deed(grid, sid)
        if torn.place:
            is_whole(grid, sid, torn)
    grid.terminate(sid)


@pytest.mark.row("U02")
def test_a_publication_that_is_torn_off_leaves_no_server() -> None:
    with LocalGrid(1, output=None) as g:
        keeps = g.publish(Model())
        with torn_at(0) as torn:
            g.terminate(g.publish(Model()))
        for at in range(1, torn.count + 1, 1 if STORM > 1000 else max(1, torn.count // 8)):
            model = Model()
            with torn_at(at) as torn:
                g.terminate(g.publish(model))
            if torn.place:  # whatever became of the first one, this is a service that lives
                again = g.publish(model)
                assert use(g, again) == 5, torn.place
                g.terminate(again)
            wait_until(lambda: list(g.servers) == [keeps], f"withdrawal after {torn.place}")
            assert use(g, keeps) == 5, torn.place


@pytest.mark.row("U02", "U09")
def test_an_object_whose_service_is_just_withdrawn_gets_another_one(grid: LocalGrid) -> None:
    """Interrupted in `terminate` one publishes once more, while another thread is still ending the service."""
    model, reached, on = Model(), threading.Event(), threading.Event()
    old = grid.publish(model)
    end_servers = grid._terminate_servers

    def slowly(servers: Any) -> None:
        reached.set()
        assert on.wait(20)
        end_servers(servers)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(grid, "_terminate_servers", slowly)
        ending = threading.Thread(target=grid.terminate, args=(old,))
        ending.start()
        assert reached.wait(20)
        new = grid.publish(model)
        on.set()
        ending.join(20)
    assert new != old and use(grid, new) == 5
    grid.terminate(new)


@pytest.mark.row("U02", "U09")
def test_a_service_of_an_interrupted_caller_stays_if_another_one_has_it(grid: LocalGrid) -> None:
    model, publisher = Model(), grid._engine.publisher
    sid = grid.publish(model)
    assert grid.publish(model) == sid
    publisher._give_back([sid])
    assert use(grid, sid) == 5, "the other caller has it"
    publisher._give_back([sid])
    assert sid not in grid.servers, "nobody has it"


@pytest.mark.row("U02")
def test_an_end_that_is_torn_off_is_an_end() -> None:
    with torn_at(0) as torn:
        g = LocalGrid(1, output=None)
        g.start()
        g.terminate()
    count = torn.count
    for at in range(1, count + 1, max(1, count // 5)):
        g = LocalGrid(1, output=None)
        g.start()
        with torn_at(at):
            g.terminate()
        wait_until(g.ishalted, "the end") if g._ending.under_way is not None else g.terminate()
        g.terminate()
        wait_until(lambda g=g: not g.is_alive(), "the end of its thread")  # type: ignore[misc]


class Alarm(Exception):
    """An exception like any other, raised by a handler."""


def _raise(number: int, frame: FrameType | None) -> None:
    raise Alarm


def storm(work: Callable[[], object], check: Callable[[], None], count: int) -> None:
    """Have `work` done over and over while signals come; after each of them `check`."""
    chance = random.Random(count)
    before = signal.signal(signal.SIGALRM, _raise)
    try:
        for _ in range(count):
            try:
                # again, where one came in a destructor, of which the interpreter makes nothing
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0002, 0.006), 0.02)
                while True:
                    work()
            except Alarm:
                pass
            while True:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    break
                except Alarm:  # one that was under way; `check` is never torn off
                    pass
            check()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def at_once(answers: list[float]) -> None:
    """Every call was answered within the second; `-rP` shows the figures."""
    answers.sort()
    median, late = answers[len(answers) // 2], answers[len(answers) * 99 // 100]
    print(f"{len(answers)} calls, each after a signal: {median:.4f} s, p99 {late:.4f} s, longest {answers[-1]:.4f} s")
    assert answers[-1] < ANSWER_S, answers[-5:]


@pytest.mark.row("U02", "U03")
def test_after_each_signal_of_a_storm_the_next_call_is_answered_at_once(grid: LocalGrid) -> None:
    sid = grid.publish(Model(), wait="all", republish=True)
    with grid.acquire_service(sid) as proxy:
        slow: list[float] = []

        def check() -> None:
            began = time.monotonic()
            assert proxy.f(7).get(20) == 8
            slow.append(time.monotonic() - began)

        storm(lambda: proxy.f(1).get(), check, STORM)
        storm(lambda: [result.get() for result in [proxy.f(i) for i in range(200)]], check, STORM)
    storm(lambda: call(grid, sid), lambda: None, STORM // 2)
    is_whole(grid, sid, "the storm")
    at_once(slow)
    grid.terminate(sid)


@pytest.mark.row("U02", "U03")
@pytest.mark.lab
def test_a_storm_of_signals_over_ssh(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    host = Host("s1", n_cpu=2)
    with SSHGrid([host], output=None) as g:
        sid = g.publish(Adder(), wait="all")
        with g.acquire_service(sid) as proxy:
            slow: list[float] = []

            def check() -> None:
                began = time.monotonic()
                assert proxy.f(7).get(20) == 8
                slow.append(time.monotonic() - began)

            storm(lambda: proxy.f(1).get(), check, STORM)
            storm(lambda: [result.get() for result in [proxy.f(i) for i in range(200)]], check, STORM)
        at_once(slow)


@pytest.mark.row("U02")
def test_a_release_that_was_torn_off_after_its_first_word_is_done_by_the_watch() -> None:
    with LocalGrid(2, output=None, limits=Limits(heartbeat_s=0.1)) as g:
        sid = g.publish(Model(), wait="all")
        proxy = g.acquire_service(sid)
        assert proxy.f(1).get(10) == 2
        proxy._hold.released = True  # an exception came right behind this
        is_whole(g, sid, "the torn release")
