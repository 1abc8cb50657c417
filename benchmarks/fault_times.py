"""How long until a user is told that a worker was killed, was stopped, or left; and what stays of a killed client.

grid beside dask and ipyparallel where they are installed (`pip install distributed ipyparallel`), two workers of this
machine, with the time limits that each has by default; "never" means not within 60 s. Prints the seconds until the
caller of a running call has an error, and what it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

LIMIT_S = 60


class Worker:
    """The work."""

    def pid(self) -> int:
        return os.getpid()

    def busy(self, seconds: float) -> str:
        """In C code that keeps the interpreter to itself."""
        ctypes.PyDLL(None).sleep(int(seconds))
        return "done"

    def sleep(self, seconds: float) -> str:
        time.sleep(seconds)
        return "done"

    def leave(self) -> None:
        os._exit(3)


Peer = tuple[Callable[..., Any], Callable[[Any, float], Any]]
"""call(method, *args) without waiting; fetch(future, limit)"""


@contextlib.contextmanager
def grid() -> Iterator[Peer]:
    from grid import LocalGrid

    with LocalGrid(2, output=None) as g:
        proxy = g.acquire_service(g.publish(Worker()))
        yield (lambda method, *args: getattr(proxy, method)(*args)), lambda future, limit: future.get(limit)


@contextlib.contextmanager
def dask() -> Iterator[Peer]:
    from distributed import Client, LocalCluster

    with LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        actor = client.submit(Worker, actor=True).result()
        yield (lambda method, *args: getattr(actor, method)(*args)), lambda future, limit: future.result(limit)


@contextlib.contextmanager
def ipyparallel() -> Iterator[Peer]:
    import ipyparallel as ipp

    with ipp.Cluster(n=2, log_level=40) as client:
        view = client[0]

        def call(method: str, *args: Any) -> Any:
            return view.apply_async(on_worker, method, *args)

        yield call, lambda future, limit: future.get(limit)


def on_worker(method: str, *args: Any) -> Any:
    """For peers that have functions and no objects."""
    from benchmarks import fault_times

    return getattr(fault_times.Worker(), method)(*args)


PEERS = {f.__name__: f for f in (grid, dask, ipyparallel)}


def told(fetch: Callable[[Any, float], Any], future: Any) -> str:
    """Seconds and error of a call whose worker is in trouble."""
    began = time.monotonic()
    try:
        fetch(future, LIMIT_S)
    except BaseException as exc:
        took = time.monotonic() - began
        if took > LIMIT_S - 1:
            return "never"
        return f"{took:.2f} s {type(exc).__name__} ({str(exc).strip().splitlines()[-1][:50]})"
    return "no error"


def measure(peer: str, fault: str) -> str:
    """One fault on one peer; run in a process of its own."""
    with PEERS[peer]() as (call, fetch):
        pid = fetch(call("pid"), 30)
        if fault == "exits by itself":
            return told(fetch, call("leave"))
        if fault == "40 s in C code that holds the interpreter":
            return told(fetch, call("busy", 40))
        future = call("sleep", 100)
        time.sleep(0.5)  # it has begun
        if fault == "killed (SIGKILL)":
            os.kill(pid, signal.SIGKILL)
            return told(fetch, future)
        if fault == "stopped (SIGSTOP)":
            os.kill(pid, signal.SIGSTOP)
            try:
                return told(fetch, future)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if fault == "killed with 3 calls behind it":
            behind = [call("pid") for _ in range(3)]
            os.kill(pid, signal.SIGKILL)
            first = told(fetch, future)
            return f"{first}; behind: {', '.join(told(fetch, each) for each in behind)}"
    raise ValueError(fault)


def left_behind(peer: str) -> str:
    """The client is killed: how long do its workers live on?"""
    code = (
        f"import time; from benchmarks.fault_times import PEERS\nwith PEERS[{peer!r}]() as (call, fetch):\n"
        "    print(fetch(call('pid'), 30), flush=True)\n    call('sleep', 100); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        said = client.stdout.readline()
        if not said.strip().isdigit():
            return "not measured: it did not start"
        pid = int(said)
        time.sleep(0.5)  # the call has begun
        client.kill()
        began = time.monotonic()
        while time.monotonic() - began < LIMIT_S:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return f"{time.monotonic() - began:.2f} s"
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        return "never"


FAULTS = (
    *("killed (SIGKILL)", "exits by itself", "killed with 3 calls behind it", "stopped (SIGSTOP)"),
    "40 s in C code that holds the interpreter",
)


def main() -> None:
    if len(sys.argv) == 3:
        print(measure(*sys.argv[1:]), flush=True)
        os._exit(0)  # some peers wait for their dead
    for peer in sys.argv[1:2] or PEERS:
        for fault in FAULTS:
            try:
                command = [sys.executable, "-m", "benchmarks.fault_times", peer, fault]
                done = subprocess.run(command, capture_output=True, text=True, timeout=4 * LIMIT_S + 60)
                said = done.stdout.strip().splitlines()[-1:] or done.stderr.strip().splitlines()[-1:]
            except subprocess.TimeoutExpired:
                said = ["the measuring script itself hung"]
            print(f"{peer:12} a worker is {fault:32} {said[0][:110] if said else '?'}", flush=True)
        print(f"{peer:12} {'the client is killed; its workers end after':44} {left_behind(peer)}", flush=True)


if __name__ == "__main__":
    main()
