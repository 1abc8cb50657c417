"""How long does one small call take, against the same bytes over bare pyzmq with pickle? Median and p99, in us.

The limit is a process with a PULL and a PUSH socket over UNIX sockets that unpickles (method, args, kwargs), adds, and
pickles the answer: no numbering, no acknowledgement, no futures, no identity of classes.
"""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile

import zmq

from benchmarks.measure import in_turn, table
from grid import LocalGrid
from grid.testing.probe import Probe


def serve(inlet: str, outlet: str) -> None:
    """The limit's other end."""
    context = zmq.Context()
    pull, push = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    pull.rcvhwm = push.sndhwm = 0
    pull.bind(inlet)
    push.bind(outlet)
    count = 0
    while True:
        _, args, _ = pickle.loads(pull.recv())
        count += args[0]
        push.send(pickle.dumps(count, 5))


def main() -> None:
    with tempfile.TemporaryDirectory() as place, LocalGrid(1, output=None) as g:
        inlet, outlet = f"ipc://{place}/i", f"ipc://{place}/o"
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(inlet, outlet), daemon=True)
        process.start()
        context = zmq.Context()
        push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
        push.sndhwm = pull.rcvhwm = 0
        push.connect(inlet)
        pull.connect(outlet)

        def bare() -> None:
            push.send(pickle.dumps(("add", (1,), {}), 5))
            pickle.loads(pull.recv())

        sid = g.publish(Probe())
        proxy = g.acquire_service(sid)

        def ours() -> None:
            proxy.add(1).get()

        for warm in (bare, ours):
            for _ in range(300):
                warm()
        one = in_turn(ours, bare, rounds=20, calls=200)

        def burst_bare() -> None:
            for _ in range(BURST):
                push.send(pickle.dumps(("add", (1,), {}), 5))
            for _ in range(BURST):
                pickle.loads(pull.recv())

        def burst_ours() -> None:
            for result in [proxy.add(1) for _ in range(BURST)]:
                result.get()

        many = in_turn(burst_ours, burst_bare, rounds=5, calls=1)
        table(
            "small calls on this machine",
            [("one at a time", *one, 2.0), (f"{BURST} in flight, per call", *per_call(many), 2.5)],
        )
        process.kill()
        process.join()
        push.close(0)
        pull.close(0)
        context.term()


BURST = 10_000


def per_call(times: tuple[list[float], ...]) -> tuple[list[float], list[float]]:
    """Seconds per call of bursts."""
    ours, limit = ([value / BURST for value in side] for side in times)
    return ours, limit


if __name__ == "__main__":
    main()
