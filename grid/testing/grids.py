"""What every grid must do, as checks that anybody's grid can be held to.

Lives here: one function per promise, each given a started grid with two or more servers to a service.
Elsewhere:  faults (`tests/edges`), files and hosts, which not every grid has.

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_grid(check):
        with MyGrid(...) as g:
            check(g)
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from grid.errors import (
    AcquireTimeout,
    NoServers,
    Released,
    RemoteError,
    SerialisationError,
    ServiceError,
    UnknownService,
)
from grid.grids.abstract import AbstractGrid
from grid.services.roster import State
from grid.testing.probe import Probe


@contextlib.contextmanager
def raises(kind: type[BaseException], *words: str) -> Any:
    """The block must raise `kind`, and its message must hold all `words`."""
    try:
        yield
    except kind as exc:
        for word in words:
            assert word in str(exc), f"{word!r} is not in {exc}"
    else:
        raise AssertionError(f"no {kind.__name__} was raised")


def smallest_round_trip(g: AbstractGrid) -> None:
    """Publish, acquire, one call, release."""
    sid = g.publish(Probe())
    proxy = g.acquire_service(sid)
    assert proxy.echo("some text").get(30) == "some text"
    g.release_service(proxy)


def the_usage_runs_as_written(g: AbstractGrid) -> None:
    """The lines of the first page of the docs do what that page says."""
    some_instance = Probe()
    service_id = g.publish(some_instance)
    proxy = g.acquire_service(service_id)
    proxy.note("parameters")
    proxy.note("f")
    last = proxy.note("g")
    g.release_service(proxy)
    assert last.get(30) == ["parameters", "f", "g"]
    assert some_instance.log == [], "the client's own object was changed"


def ids_are_unique_and_tell_the_class(g: AbstractGrid) -> None:
    """Two instances of one class have two ids, each with the class's name."""
    first, second = Probe(), Probe()
    one, two = g.publish(first), g.publish(second)
    assert one != two
    assert one.startswith("Probe.") and two.startswith("Probe.")
    assert g.publish(first) == one, "the same live object got another id"
    g.terminate(two)
    assert g.publish(second) not in (one, two), "an id was used again"


def every_server_has_a_copy_of_its_own(g: AbstractGrid) -> None:
    """What one server's copy is told changes no other copy, and not the original."""
    sid = g.publish(Probe(10))
    assert g.gather(g.broadcast(sid, "add", 1)) == [11] * g.size(sid)
    assert g.gather(g.broadcast(sid, "add", 1)) == [12] * g.size(sid)
    g.release_all()


def acquired_is_exclusive(g: AbstractGrid) -> None:
    """No two holders have the same server; one more than there are times out."""
    sid = g.publish(Probe())
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(g.acquire_service(sid, 30)) for _ in range(_all(g, sid))]
        assert len({proxy.where().get(30) for proxy in proxies}) == len(proxies)
        with raises(AcquireTimeout, sid, "acquired"):
            g.acquire_service(sid, timeout=0.05)
        assert g.queues[sid].qsize() == 0
    assert g.queues[sid].qsize() == len(proxies)


def calls_run_in_order_without_blocking(g: AbstractGrid) -> None:
    """Calls return at once, and run one after the other."""
    sid = g.publish(Probe())
    with g.acquire_service(sid) as proxy:
        began = time.monotonic()
        results = [proxy.note(index) for index in range(1000)]
        issued = time.monotonic() - began
        assert results[-1].get(60) == list(range(1000))
        assert issued < 30
    with g.acquire_service(sid) as proxy:
        assert [r.get(60) for r in [proxy.echo(i) for i in range(200)]] == list(range(200))


def keywords_arrive(g: AbstractGrid) -> None:
    """Positional and keyword arguments reach the method as they were given."""
    sid = g.publish(Probe())
    with g.acquire_service(sid) as proxy:
        assert proxy.add(2, twice=True).get(30) == 4
        assert proxy.echo(1, b=2).get(30) == ((1,), {"b": 2})


def an_idle_proxy_frees_its_server_at_once(g: AbstractGrid) -> None:
    """A proxy with no call under way is free as soon as it is released."""
    sid = g.publish(Probe())
    total = _all(g, sid)
    for use in (lambda proxy: None, lambda proxy: proxy.add().get(30)):
        proxy = g.acquire_service(sid)
        use(proxy)
        assert g.queues[sid].qsize() == total - 1
        g.release_service(proxy)
        assert g.queues[sid].qsize() == total
        g.release_service(proxy)
        assert g.queues[sid].qsize() == total, "a second release did something"


def release_is_late(g: AbstractGrid) -> None:
    """A released proxy's server is free when its last call has ended, and not before."""
    sid = g.publish(Probe())
    total = _all(g, sid)
    proxy = g.acquire_service(sid)
    results = [proxy.echo(index) for index in range(300)]
    g.release_service(proxy)
    assert results[-1].get(30) == 299
    assert g.queues[sid].qsize() == total, "not free when the last call had finished"


def a_released_proxy_refuses_calls(g: AbstractGrid) -> None:
    """The error names the method and the service."""
    sid = g.publish(Probe())
    proxy = g.acquire_service(sid)
    g.release_service(proxy)
    with raises(Released, "add", sid):
        proxy.add()


def servers_are_served_first_come_first_served(g: AbstractGrid) -> None:
    """The caller that waits longest gets the next free server."""
    sid = g.publish(Probe())
    held = [g.acquire_service(sid, 30) for _ in range(_all(g, sid))]
    order: list[int] = []

    def take(index: int) -> None:
        with g.acquire_service(sid, 30):
            order.append(index)

    threads = []
    for index in range(4):
        thread = threading.Thread(target=take, args=(index,))
        thread.start()
        threads.append(thread)
        _until_waiting(g, sid, index + 1)
    g.release_service(held[0])
    for thread in threads:
        thread.join(30)
    for proxy in held[1:]:
        g.release_service(proxy)
    assert order == [0, 1, 2, 3]


def remote_exceptions_come_home(g: AbstractGrid) -> None:
    """As the class that was raised, with its text and the remote traceback."""
    sid = g.publish(Probe())
    with g.acquire_service(sid) as proxy:
        failed = proxy.fail("what it said")
        with raises(ValueError, "what it said"):
            failed.get(30)
        assert "in fail" in str(failed.exception().__cause__), "no remote traceback"
        with raises(RemoteError, "Awkward"):
            proxy.fail_badly().get(30)
        with raises(RemoteError, "SystemExit"):
            proxy.system_exit().get(30)
        with raises(SerialisationError, "result"):
            proxy.unserialisable().get(30)
        assert proxy.add().get(30) == 1, "the server did not survive"
    assert _all(g, sid) == g.queues[sid].qsize()


def values_of_a_generator_come_one_by_one(g: AbstractGrid) -> None:
    """As many as are wanted, an error behind those before it, and the server is free after the last stream."""
    sid = g.publish(Probe())
    proxy = g.acquire_service(sid)
    assert proxy.count_up(40).get(30) == list(range(40))
    stream = proxy.count_up(10**9)
    assert [stream.next(30) for _ in range(3)] == [0, 1, 2]
    stream.close()
    stream = proxy.count_up(2, fail=True)
    assert [stream.next(30), stream.next(30)] == [0, 1]
    with raises(ValueError, "no more numbers"):
        stream.next(30)
    assert proxy.log == ["ended"] * 3
    stream = proxy.count_up(2)
    g.release_service(proxy)
    assert stream.get(30) == [0, 1]
    _until(lambda: _all(g, sid) == g.queues[sid].qsize())  # what was asked for in advance is answered as well


def attributes_follow_their_rules(g: AbstractGrid) -> None:
    """Reading waits, writing waits for the server's word, methods are methods."""
    sid = g.publish(Probe(7))
    with g.acquire_service(sid) as proxy:
        assert proxy.count == 7
        assert proxy.greeting == "hello"
        proxy.count = 8
        proxy.brand_new = {"a": 1}
        assert proxy.add().get(30) == 9
        assert proxy.brand_new == {"a": 1}
        proxy.set("count", 1)
        assert proxy.get("count").get(30) == 1
        with raises(AttributeError, "nonsense"):
            _ = proxy.nonsense
        with raises(AttributeError, "_private"):
            _ = proxy._private
        with raises(AttributeError, "add"):
            proxy.add = 3


def results_are_futures(g: AbstractGrid) -> None:
    """`done`, `get`, call-backs and the standard library's `wait` work on them."""
    sid = g.publish(Probe())
    called = threading.Event()
    with g.acquire_service(sid) as proxy:
        results = [proxy.echo(index) for index in range(20)]
        done, pending = concurrent.futures.wait(results, timeout=30)
        assert not pending and {r.result() for r in done} == set(range(20))
        assert [r.get(0) for r in results] == list(range(20)), "a second get"
        more = [proxy.echo(index) for index in range(20)]
        assert {r.result() for r in concurrent.futures.as_completed(more, timeout=30)} == set(range(20))
        late = proxy.echo("x")
        late.add_done_callback(lambda r: called.set())
        assert called.wait(30), "the call-back was not called though nobody waits"
        assert late.done() and not late.cancelled() and late.exception() is None
        with raises(TypeError):
            late.set_result(1)

        async def fetch() -> list[Any]:
            return list(await asyncio.gather(*[proxy.echo(index) for index in range(5)], proxy.add(5)))

        assert asyncio.run(fetch()) == [0, 1, 2, 3, 4, 5]


def many_threads_may_wait_for_one_result(g: AbstractGrid) -> None:
    """Each of them gets the value."""
    sid = g.publish(Probe())
    with g.acquire_service(sid) as proxy:
        result = proxy.echo("shared")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda _: result.get(30), range(8))) == ["shared"] * 8


def threads_share_a_grid(g: AbstractGrid) -> None:
    """Many threads acquire, call and release at once."""
    sid = g.publish(Probe())

    def work(seed: int) -> int:
        total = 0
        for index in range(20):
            with g.acquire_service(sid, 60) as proxy:
                first, second = proxy.echo(seed + index), proxy.echo(index)
                total += second.get(60) + first.get(60)
        return total

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        sums = list(pool.map(work, range(8)))
    assert sums == [20 * seed + 2 * 190 for seed in range(8)]
    assert _all(g, sid) == g.queues[sid].qsize()


def arguments_that_cannot_travel_are_named(g: AbstractGrid) -> None:
    """The error names the call and the argument; the proxy goes on."""
    sid = g.publish(Probe())
    total = _all(g, sid)
    with g.acquire_service(sid) as proxy:
        with raises(SerialisationError, "echo", "generator"):
            proxy.echo([1, {"deep": iter_nothing()}])
        assert proxy.add().get(30) == 1
    assert g.queues[sid].qsize() == total
    broken = Probe()
    broken.log.append({"engine": iter_nothing()})
    with raises(SerialisationError, "log", "engine"):
        g.publish(broken)


def dill_carries_what_pickle_cannot(g: AbstractGrid) -> None:
    """Lambdas, closures and local classes travel both ways."""
    sid = g.publish(Probe())
    factor = 3

    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Local) and other.value == self.value

        __hash__ = None  # type: ignore[assignment]

    with g.acquire_service(sid) as proxy:
        assert proxy.echo(lambda x: x * factor).get(30)(2) == 6
        assert proxy.echo(Local(5)).get(30) == Local(5), "the class that came back is another one"


def group_calls_reach_every_server_in_order(g: AbstractGrid) -> None:
    """Results stand in the order of the servers."""
    sid = g.publish(Probe())
    size = _all(g, sid)
    first = g.gather(g.broadcast(sid, "where"))
    assert len(set(first)) == size
    assert g.gather(g.broadcast(sid, "where")) == first, "server order changed"
    assert g.queues[sid].qsize() == 0, "the group is not reserved"
    assert g.gather(g.scatter(sid, "echo", [(index, "x") for index in range(size)])) == [
        ((index, "x"), {}) for index in range(size)
    ]
    assert g.gather(g.scatter(sid, "echo", ["text"] * size)) == ["text"] * size
    assert g.gather(g.scatter(sid, "echo", [b"bytes"])) == [b"bytes"], "too few elements use the first servers"
    assert g.gather(g.scatter(sid, "echo", [{"a": 1}])) == [{"a": 1}]
    assert g.gather(g.scatter(sid, "add", [1] * size, [{"twice": True}] * size)) == [2] * size
    with raises(ServiceError, sid, str(size + 1)):
        g.scatter(sid, "echo", [0] * (size + 1))
    assert g.gather(g.scatter(sid, "echo", list(range(size + 1)), cycle=True)) == list(range(size + 1))
    with raises(ServiceError, "keywords"):
        g.scatter(sid, "echo", [1], [{}, {}])
    g.release_all()
    g.release_all()
    assert g.queues[sid].qsize() == size


def values_go_from_server_to_server(g: AbstractGrid) -> None:
    """Large and small ones, without a copy at the client."""
    sid = g.publish(Probe())
    _all(g, sid)
    large, small = bytes(range(256)) * 4096, {"a": lambda x: x + 1}
    with g.group(sid) as (one, two, *_):
        for value in (large, small):
            with g.keep(one, "echo", value, twice=True) as kept:
                (came,), words = kept.to(two, "echo").get(30)
                assert words == {"twice": True}
                assert came == value if value is large else came["a"](1) == 2
                assert kept.to(one, "note").get(30)[-1][1] == words, "once more, to the server that made it"
                assert kept.get(30)[1] == words, "and here"
            with raises(Released, "dropped"):
                kept.to(two, "echo")
        with g.keep(one, "fail", "as asked") as kept, raises(ValueError, "as asked"):
            kept.to(two, "echo")
    with raises(Released, "echo"):
        g.keep(one, "echo", 1)


def two_services_in_turn(g: AbstractGrid) -> None:
    """One service's servers know nothing of the other's."""
    one, two = g.publish(Probe(1)), g.publish(Probe(2))
    assert set(g.gather(g.broadcast(one, "add", 0))) == {1}
    assert set(g.gather(g.broadcast(two, "add", 0))) == {2}
    g.release_all(one)
    with g.acquire_service(one, 30) as proxy:
        assert proxy.add(0).get(30) == 1
    with g.group(one) as proxies:
        assert len(proxies) == _all(g, one)
    assert g.queues[two].qsize() == 0
    g.release_all()


def gather_waits_for_all_before_it_raises(g: AbstractGrid) -> None:
    """No call is under way any more when the first error comes."""
    sid = g.publish(Probe())
    with g.acquire_service(sid) as proxy:
        results = [proxy.echo(1), proxy.fail("first"), proxy.fail("second"), proxy.echo(4)]
        with raises(ValueError, "first"):
            g.gather(results, 30)
        assert all(result.done() for result in results)
        one, *errors, four = g.gather(results, return_exceptions=True)
        assert (one, four) == (1, 4) and [str(error) for error in errors] == ["first", "second"]


def load_is_recorded(g: AbstractGrid) -> None:
    """Each server counts its calls and their seconds."""
    sid = g.publish(Probe())
    with g.acquire_service(sid) as proxy:
        (server,) = [server for server in g.servers[sid] if server.proxy is proxy]
        assert list(server.load.time) == [0.0] and server.load.jobs == 1 and server.load.acquired
        assert server.state is State.BUSY
        for _ in range(60):
            last = proxy.echo(1)
        last.get(30)
        assert len(server.load.time) == 50 and server.load.calls == 60
        assert last.seconds > 0 and server.load.time[0] == last.seconds
        g.add_time(proxy, 99.0)
        assert server.load.time[0] == 99.0
    assert not server.load.acquired and server.state is State.FREE
    assert "mean" in repr(server)


def unknown_services_are_refused(g: AbstractGrid) -> None:
    """By every method that takes a service id."""
    uses: list[Callable[[str], Any]] = [g.acquire_service, g.find_server, g.terminate, g.servers.__getitem__]
    uses.append(lambda sid: g.broadcast(sid, "x"))
    for use in uses:
        with raises(UnknownService, "nonsense"):
            use("nonsense")
        with raises(KeyError):
            use("nonsense")


def one_service_can_be_withdrawn(g: AbstractGrid) -> None:
    """Its id is unknown then, and the others serve on."""
    keep, drop = g.publish(Probe()), g.publish(Probe())
    with contextlib.ExitStack() as stack:
        for _ in range(_all(g, drop)):
            stack.enter_context(g.acquire_service(drop, 30))
        refused: list[BaseException] = []

        def wait() -> None:
            try:
                g.acquire_service(drop, 30)
            except BaseException as exc:
                refused.append(exc)

        thread = threading.Thread(target=wait)
        thread.start()
        _until_waiting(g, drop, 1)
        g.terminate(drop)
        thread.join(30)
    assert [type(error) for error in refused] == [NoServers]
    assert drop not in g.servers and drop not in g.queues
    with g.acquire_service(keep, 30) as proxy:
        assert proxy.add().get(30) == 1


def iter_nothing() -> Iterator[int]:
    """An iterator that is empty."""
    yield from ()


def _all(g: AbstractGrid, sid: str) -> int:
    """Wait until no server is starting any more; how many there are."""
    _until(lambda: not g._service(sid).roster.names(State.STARTING))
    return g.size(sid)


def _until_waiting(g: AbstractGrid, sid: str, count: int) -> None:
    _until(lambda: g._service(sid).roster.waiting == count)


def _until(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


CHECKS: list[Callable[[AbstractGrid], None]] = [
    smallest_round_trip,
    the_usage_runs_as_written,
    ids_are_unique_and_tell_the_class,
    every_server_has_a_copy_of_its_own,
    acquired_is_exclusive,
    calls_run_in_order_without_blocking,
    keywords_arrive,
    an_idle_proxy_frees_its_server_at_once,
    release_is_late,
    a_released_proxy_refuses_calls,
    servers_are_served_first_come_first_served,
    remote_exceptions_come_home,
    values_of_a_generator_come_one_by_one,
    attributes_follow_their_rules,
    results_are_futures,
    many_threads_may_wait_for_one_result,
    threads_share_a_grid,
    arguments_that_cannot_travel_are_named,
    dill_carries_what_pickle_cannot,
    group_calls_reach_every_server_in_order,
    values_go_from_server_to_server,
    two_services_in_turn,
    gather_waits_for_all_before_it_raises,
    load_is_recorded,
    unknown_services_are_refused,
    one_service_can_be_withdrawn,
]

ROWS: dict[str, tuple[str, ...]] = {
    "smallest_round_trip": ("G66", "G13"),
    "the_usage_runs_as_written": ("D03", "G06", "G14", "G15"),
    "ids_are_unique_and_tell_the_class": ("G07", "G08", "G24"),
    "every_server_has_a_copy_of_its_own": ("G06", "G53"),
    "acquired_is_exclusive": ("G10", "G12", "G13"),
    "calls_run_in_order_without_blocking": ("G14", "G45"),
    "keywords_arrive": ("G14", "G43"),
    "an_idle_proxy_frees_its_server_at_once": ("G16", "G17"),
    "release_is_late": ("G15", "G17"),
    "a_released_proxy_refuses_calls": ("G17",),
    "servers_are_served_first_come_first_served": ("G10", "G12"),
    "remote_exceptions_come_home": ("G47",),
    "values_of_a_generator_come_one_by_one": ("A09",),
    "attributes_follow_their_rules": ("G44",),
    "results_are_futures": ("G45", "G46"),
    "many_threads_may_wait_for_one_result": ("G46",),
    "threads_share_a_grid": ("G11", "G13"),
    "arguments_that_cannot_travel_are_named": ("G43",),
    "dill_carries_what_pickle_cannot": ("G43",),
    "group_calls_reach_every_server_in_order": ("G53", "G54", "G56"),
    "values_go_from_server_to_server": ("G53", "G43"),
    "two_services_in_turn": ("G53", "G56"),
    "gather_waits_for_all_before_it_raises": ("G55",),
    "load_is_recorded": ("G18", "G40", "G41", "G72"),
    "unknown_services_are_refused": ("G12",),
    "one_service_can_be_withdrawn": ("G24",),
}
"""Rows of the specification that each check shows."""
