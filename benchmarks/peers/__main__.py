"""One small call, calls in flight, 16 MB in, start to first result: grid beside its peers, each in its own process.

Every peer gets two workers of this machine and is used as its manual shows. In flight means: 2,000 calls handed over
before the first answer is asked for, each with a result of its own.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

CALLS, FLIGHT = 300, 2000


def add(one: int, other: int) -> int:
    """The work."""
    return one + other


def length(array: np.ndarray) -> int:
    """Take an array."""
    return len(array)


class Adder:
    """The work as a class, where a peer has actors or proxies."""

    def add(self, one: int, other: int) -> int:
        return add(one, other)

    def length(self, array: np.ndarray) -> int:
        return length(array)


Peer = tuple[Callable[..., Any], Callable[..., Any], Callable[[Any], Any]]
"""submit add, submit length, fetch"""


@contextlib.contextmanager
def grid() -> Iterator[Peer]:
    from grid import LocalGrid

    with LocalGrid(2, output=None) as g:
        sid = g.publish(Adder())
        with g.acquire_service(sid) as proxy:
            yield proxy.add, proxy.length, lambda result: result.get()


@contextlib.contextmanager
def futures() -> Iterator[Peer]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as pool:
        yield (lambda *a: pool.submit(add, *a)), (lambda a: pool.submit(length, a)), lambda future: future.result()


@contextlib.contextmanager
def loky() -> Iterator[Peer]:
    from loky import get_reusable_executor

    pool = get_reusable_executor(max_workers=2)
    yield (lambda *a: pool.submit(add, *a)), (lambda a: pool.submit(length, a)), lambda future: future.result()
    pool.shutdown()


@contextlib.contextmanager
def pathos() -> Iterator[Peer]:
    from pathos.multiprocessing import ProcessPool

    pool = ProcessPool(2)
    yield (lambda *a: pool.apipe(add, *a)), (lambda a: pool.apipe(length, a)), lambda result: result.get()
    pool.close()
    pool.join()


@contextlib.contextmanager
def dask() -> Iterator[Peer]:
    from distributed import Client, LocalCluster

    with LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        actor = client.submit(Adder, actor=True).result()
        yield actor.add, actor.length, lambda future: future.result()


@contextlib.contextmanager
def ipyparallel() -> Iterator[Peer]:
    import ipyparallel as ipp

    with ipp.Cluster(n=2, log_level=40) as client:
        view = client[0]
        yield (lambda *a: view.apply_async(add, *a)), (lambda a: view.apply_async(length, a)), lambda r: r.get()


@contextlib.contextmanager
def pyro() -> Iterator[Peer]:
    import Pyro5.api

    code = (
        "import Pyro5.api, sys; from benchmarks.peers.__main__ import Adder\n"
        "d = Pyro5.api.Daemon(); print(d.register(Pyro5.api.expose(Adder)), flush=True); d.requestLoop()"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    proxy = Pyro5.api.Proxy(server.stdout.readline().strip())
    yield (lambda *a: proxy.add(*a)), (lambda a: proxy.length(a.tobytes())), lambda value: value
    server.kill()
    server.wait()


PEERS = {f.__name__: f for f in (grid, futures, loky, pathos, dask, ipyparallel, pyro)}


def measure(name: str) -> dict[str, float]:
    """Figures of one peer, in seconds, calls per second and MB per second."""
    began = time.perf_counter()
    with PEERS[name]() as (submit, send, fetch):
        assert fetch(submit(1, 2)) == 3
        first = time.perf_counter() - began
        single = []
        for _ in range(CALLS):
            began = time.perf_counter()
            fetch(submit(1, 2))
            single.append(time.perf_counter() - began)
        began = time.perf_counter()
        for result in [submit(1, n) for n in range(FLIGHT)]:
            fetch(result)
        rate = FLIGHT / (time.perf_counter() - began)
        array = np.ones(16_000_000, np.uint8)
        fetch(send(array))
        began = time.perf_counter()
        for _ in range(5):
            fetch(send(array))
        bandwidth = 5 * 16 / (time.perf_counter() - began)
    return {"first": first, "call": statistics.median(single), "rate": rate, "bandwidth": bandwidth}


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    head = ("start, first result [s]", "one call [us]", "in flight [1/s]", "16 MB in [MB/s]")
    print(f"{'':14} {head[0]:>24} {head[1]:>14} {head[2]:>16} {head[3]:>16}")
    for name in PEERS:
        command = [sys.executable, "-m", "benchmarks.peers", name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        except subprocess.TimeoutExpired:
            print(f"{name:14} did not end within 180 s")
            continue
        if done.returncode:
            print(f"{name:14} {done.stderr.strip().splitlines()[-1][:100]}")
            continue
        f = json.loads(done.stdout.splitlines()[-1])
        figures = f"{1e6 * f['call']:14.0f} {f['rate']:16,.0f} {f['bandwidth']:16.0f}"
        print(f"{name:14} {f['first']:24.2f} {figures}", flush=True)


if __name__ == "__main__":
    main()
