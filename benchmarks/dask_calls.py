"""What does a small call cost on a Dask cluster, through `DaskGrid` and through a bare actor, beside a grid of our own?

    python -m benchmarks.dask_calls

One worker on this machine; medians of five rounds, per call.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from grid import DaskGrid, LocalGrid

COUNT = 300


class Echo:
    def echo(self, x: int) -> int:
        return x


def each(work: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times) / COUNT * 1e6


def main() -> None:
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        actor = client.submit(Echo, actor=True).result()
        bare = each(lambda: [actor.echo(x).result() for x in range(COUNT)])
        burst = each(lambda: [future.result() for future in [actor.echo(x) for x in range(COUNT)]])
        print(f"a bare actor          {bare:7.0f} us one at a time, {burst:7.0f} us in a burst (in no order)")
        with DaskGrid(client) as g, g.acquire_service(g.publish(Echo())) as proxy:
            show("DaskGrid", proxy)
    with LocalGrid(1, output=None) as g, g.acquire_service(g.publish(Echo())) as proxy:
        show("LocalGrid", proxy)


def show(name: str, proxy: object) -> None:
    echo = proxy.echo  # type: ignore[attr-defined]
    one = each(lambda: [echo(x).get() for x in range(COUNT)])
    burst = each(lambda: [result.get() for result in [echo(x) for x in range(COUNT)]])
    print(f"{name:20s}  {one:7.0f} us one at a time, {burst:7.0f} us in a burst (in order)")


if __name__ == "__main__":
    main()
