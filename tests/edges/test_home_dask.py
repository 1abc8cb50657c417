"""A grid over a real Dask cluster: the promises that every grid keeps, and what is told when Dask fails."""

from __future__ import annotations

import asyncio
import copyreg
import importlib.util
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from grid import AbstractGrid, ConnectError, GridStopped, HostError, PublishError, ServerLost
from grid.ensemble import Ensemble, geometric
from grid.testing.grids import CHECKS
from grid.testing.probe import Probe
from tests.lab import MissingPart
from tests.models import Coin, banana
from tests.tidiness import Scene

GRACE_S = 2.0
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def dask_is_here() -> None:
    """A machine without it skips these tests at a desk, and fails them where CI=true."""
    if importlib.util.find_spec("distributed") is None:
        raise MissingPart("Dask is not installed (extra `dask`)")


@pytest.fixture(scope="module", autouse=True)
def tidy() -> Iterator[None]:
    """As that of all tests, but for all of these together: Dask keeps connections until its cluster ends."""
    scene, pickled = Scene([]), dict(copyreg.dispatch_table)
    yield
    # Dask has all exceptions pickled by tblib, which hosts of other tests have not
    copyreg.dispatch_table.clear()
    copyreg.dispatch_table.update(pickled)
    # what the libraries keep for the life of the process: one thread of Dask's, one process of multiprocessing's
    kept = ("thread Dask-Offload", "multiprocessing.resource_tracker", "pipe:")
    left = [line for line in scene.left_behind(GRACE_S) if not any(words in line for words in kept)]
    if left:
        scene.clear_up()
        pytest.fail("the tests left behind:\n" + "\n".join(f"  {line}" for line in left), pytrace=False)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    import dask
    from distributed import LocalCluster

    quiet = {
        "distributed.admin.system-monitor.gil.enabled": False,
        "temporary-directory": str(tmp_path_factory.mktemp("dask")),
    }
    with (
        dask.config.set(quiet),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def client(cluster: Any) -> Iterator[Any]:
    from distributed import Client

    with Client(cluster) as made:
        warm_up(made)
        yield made


@pytest.fixture(scope="module")
def g(client: Any) -> Iterator[AbstractGrid]:
    from grid.grids.dask import DaskGrid

    with DaskGrid(client) as made:
        made.terminate(made.publish(Probe()))  # connections that stay are there before the tests look
        yield made


def warm_up(client: Any) -> None:
    client.run(os.getpid)


@pytest.fixture
def sid(g: AbstractGrid) -> Iterator[str]:
    made = g.publish(Probe(), republish=True)  # type: ignore[call-arg]
    yield made
    g.terminate(made)


@pytest.mark.row("G01", "G45")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_promises_of_every_grid(g: AbstractGrid, check: Callable[[AbstractGrid], None]) -> None:
    check(g)
    for service_id in list(g.servers):
        g.terminate(service_id)


class Late:
    """An actor whose answers come late, but for the last: Dask promises no order."""

    def __init__(self, actor: Any, last: int) -> None:
        self.actor, self.last = actor, last

    async def call(self, turn: int, frame: bytes) -> bytes:
        raw = bytes(await self.actor.call(turn, frame))
        if turn != self.last:
            await asyncio.sleep(0.05)
        return raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self.actor, name)


@pytest.mark.row("G17", "G45")
def test_calls_are_done_in_their_order_whatever_order_dask_brings_the_answers_in(g: AbstractGrid, sid: str) -> None:
    proxy = g.acquire_service(sid, 30)
    server = proxy._server
    server.actor = Late(server.actor, server._turn + 20)
    try:
        results = [proxy.echo(number) for number in range(20)]
        assert results[-1].get(30) == 19 and all(each.done() for each in results) and server.idle
    finally:
        server.actor = server.actor.actor
        g.release_service(proxy)


@pytest.mark.row("G45")
def test_maps_pools_executors_and_ensembles_run_on_it(g: AbstractGrid, sid: str) -> None:
    assert g.map(sid, "echo", range(200)).get(60) == list(range(200))
    with g.pool() as pool:
        assert pool.map(banana, [(0.0, 0.0), (1.0, 1.0)]) == [1.0, 0.0]
    with g.executor() as executor:
        assert executor.submit(banana, (1.0, 1.0)).result(30) == 0.0
    coins = g.publish(Coin())
    with Ensemble(g, coins, lambda count: geometric(1.0, 2.0, count), rng=Random(1)) as replicas:
        replicas.each("start", lambda replica: (replica,))
        replicas.run("walk", 5, lambda replica: (10,), report=lambda answer: answer[1], timeout=50)
        assert replicas.ladder.tried[0] >= 1
    g.terminate(coins)


@pytest.mark.row("G46", "G47")
def test_a_call_that_has_not_begun_can_be_cancelled(g: AbstractGrid, sid: str, tmp_path: Path) -> None:
    with g.acquire_service(sid) as proxy:
        first = proxy.wait_for(str(tmp_path / "gate"), begun=str(tmp_path / "begun"))
        behind = [proxy.echo(n) for n in range(60)]  # more than travel at once
        wait_until((tmp_path / "begun").exists)
        assert behind[0].cancel() and behind[-1].cancel() and behind[0].cancelled()
        assert not first.cancel() and "running 'wait_for'" in proxy._server.doing()
        (tmp_path / "gate").touch()
        assert [result.get(30) for result in behind[1:-1]] == list(range(1, 59))
        assert first.get(30) == "" and not first.cancelled()


@pytest.mark.row("G44")
def test_large_arrays_arrive_writable(g: AbstractGrid, sid: str) -> None:
    np = pytest.importorskip("numpy")
    with g.acquire_service(sid) as proxy:
        back = proxy.fill(np.zeros(1_000_000), 2.0).get(60)
        back += 1
        assert back.sum() == 3_000_000


@pytest.mark.row("R01", "G48")
def test_a_worker_that_dies_fails_its_calls_and_the_others_go_on(cluster: Any, client: Any) -> None:
    from grid.grids.dask import DaskGrid

    before = set(client.nthreads())
    with DaskGrid(client) as g:
        sid = g.publish(Probe())
        with g.acquire_service(sid) as doomed, g.acquire_service(sid) as other:
            died, behind = doomed.exit(3), doomed.echo(1)
            with pytest.raises(ServerLost, match=r"worker .* is gone|left the cluster"):
                died.get(30)
            with pytest.raises(ServerLost):
                behind.get(30)
            assert doomed._server.name in g.failures
            assert other.echo(2).get(30) == 2
        assert g.size(sid) == 1
    wait_until(lambda: len(set(client.nthreads())) == 2 and set(client.nthreads()) != before)  # the nanny's work
    warm_up(client)


@pytest.mark.row("G13", "G48")
def test_at_its_end_nothing_of_it_is_left_on_the_cluster(client: Any) -> None:
    from grid.grids.dask import DaskGrid

    before = client.run(actors)
    g = DaskGrid(client)
    sid = g.publish(Probe())
    assert client.run(actors) != before
    proxy = g.acquire_service(sid)
    last = proxy.echo("last")
    g.terminate()
    assert last.get(0) == "last" and client.status == "running"
    with pytest.raises(GridStopped):
        g.publish(Probe())
    with pytest.raises((ServerLost, GridStopped)):
        proxy.echo(1).get(10)
    wait_until(lambda: client.run(actors) == before)


def actors(dask_worker: Any) -> list[str]:
    return sorted(dask_worker.state.actors)


@pytest.mark.row("G45", "R01")
def test_what_can_not_be_is_named(client: Any) -> None:
    from grid.grids import dask as dask_grid
    from grid.grids.dask import DaskGrid

    with pytest.raises(ConnectError, match="no scheduler answers"):
        DaskGrid("tcp://127.0.0.1:9", timeout_s=0.5)
    with pytest.raises(HostError, match="no workers"):
        DaskGrid(client, workers=[])
    told = {"grid": "0.0.1", "python": (3, 9), "host": "w", "pid": 1}
    assert "runs Python 3.9 and this is" in str(dask_grid._objection("tcp://w:1", told))
    told["python"] = os.sys.version_info[:2]  # type: ignore[attr-defined]
    assert "has grid 0.0.1" in str(dask_grid._objection("tcp://w:1", told))
    assert "can't import grid" in str(dask_grid._objection("tcp://w:1", ModuleNotFoundError("No module named 'grid'")))
    with DaskGrid(client) as g, pytest.raises(PublishError, match="unpicklable here"):
        g.publish(OnlyHere())


class OnlyHere:
    """Can be sent, and not received."""

    def __reduce__(self) -> Any:
        return _refuse, (os.getpid(),)


def _refuse(pid: int) -> Any:
    if os.getpid() != pid:
        raise RuntimeError("unpicklable here")
    return OnlyHere()


def wait_until(done: Callable[[], Any], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.02)


@pytest.mark.row("U16")
def test_arguments_that_do_not_fit_are_refused_at_once() -> None:
    from grid.grids.dask import DaskGrid

    wrong: list[tuple[dict[str, Any], str]] = [
        ({"cluster": 3}, "cluster must be a client, an address"),
        ({"workers": "w"}, "workers must be a list of texts or None"),
        ({"timeout_s": "1"}, "timeout_s must be a number"),
        ({"debug": "x"}, "debug must be True or False"),
        ({"stop_s": 2}, r"DaskGrid\(\.\.\., limits=Limits\(stop_s=2\)\)"),
    ]
    for given, said in wrong:
        with pytest.raises(TypeError, match=said):  # nobody listens there, and nobody is asked
            DaskGrid(**{"cluster": "tcp://127.0.0.1:1", **given})
