"""How fast a grid is on somebody's own hosts: what a call costs, how many go at once, how fast bulk data move.

Lives here: the measurements, one host after the other, as plain figures.
Elsewhere:  the table (`cli/bench.py`), comparisons with other software (`benchmarks/`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pickle import PickleBuffer
from typing import Any

from grid.errors import GridError
from grid.grids.abstract import AbstractGrid
from grid.services.proxy import Proxy


class Anvil:
    """What is published to be struck."""

    def nothing(self) -> None:
        """As short as a call gets."""

    def same(self, value: int) -> int:
        """A tiny call."""
        return value

    def swallow(self, data: Any) -> int:
        """Take bulk data; their length."""
        return len(data)

    def make(self, size: int) -> Any:
        """Give `size` bytes of bulk data."""
        return PickleBuffer(bytearray(size))


@dataclass
class Figures:
    """Of one host. Times in seconds, rates per second, bandwidths in bytes per second."""

    host: str
    servers: int
    transport: str
    latency_s: float
    latency_p99_s: float
    calls: float
    mapped: float
    bytes_in: float
    bytes_out: float


def measure(g: AbstractGrid, *, size: int, calls: int) -> Iterator[Figures | tuple[str, GridError]]:
    """Figures host by host, in the order of the servers; or (host, error) where one fails.

    Args:
        g: A started grid.
        size: Bytes of the bulk data.
        calls: Calls one after the other; five times as many are made in flight.
    """
    sid = g.publish(Anvil())
    with g.group(sid) as proxies:
        by_host: dict[str, list[Proxy]] = {}
        for proxy in proxies:
            by_host.setdefault(proxy._server.host.label, []).append(proxy)
        for label, servers in by_host.items():
            try:
                yield _one(label, servers, size, calls)
            except GridError as exc:
                yield label, exc


def _one(label: str, servers: list[Proxy], size: int, calls: int) -> Figures:
    proxy = servers[0]
    for _ in range(50):
        proxy.nothing().get(60)
    single = []
    for _ in range(calls):
        began = time.perf_counter()
        proxy.nothing().get(60)
        single.append(time.perf_counter() - began)
    began = time.perf_counter()
    for result in [servers[n % len(servers)].same(n) for n in range(5 * calls)]:
        result.get(60)
    in_flight = 5 * calls / (time.perf_counter() - began)
    items = list(range(100 * calls))
    began = time.perf_counter()
    parts = [each._call("@map", ("same", items[n :: len(servers)], False), {}) for n, each in enumerate(servers)]
    for part in parts:
        part.get(120)
    mapped = len(items) / (time.perf_counter() - began)
    data = PickleBuffer(bytearray(size))
    there, back = [], []
    for _ in range(3):
        began = time.perf_counter()
        assert proxy.swallow(data).get(600) == size
        there.append(time.perf_counter() - began)
        began = time.perf_counter()
        assert len(proxy.make(size).get(600)) == size
        back.append(time.perf_counter() - began)
    single.sort()
    return Figures(
        host=label,
        servers=len(servers),
        transport=str(getattr(getattr(proxy._server, "home", None), "transport", "")),
        latency_s=statistics.median(single),
        latency_p99_s=single[int(0.99 * len(single))],
        calls=in_flight,
        mapped=mapped,
        bytes_in=size / min(there),
        bytes_out=size / min(back),
    )
