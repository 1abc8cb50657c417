"""Children of a server by multiprocessing: what they find of the script, and how they end."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from grid import LocalGrid

SCRIPT = """
import concurrent.futures
import multiprocessing
import sys

from grid import LocalGrid

FACTOR = 3


class Item:
    def __init__(self, value):
        self.value = value


def times(item):
    return Item(item.value * FACTOR)


def put(queue, value):
    queue.put((value, FACTOR))


class Worker:
    def pool(self, how):
        with multiprocessing.get_context(how).Pool(2) as pool:
            return [item.value for item in pool.map_async(times, [Item(1), Item(2)]).get(60)]

    def executor(self, how):
        context = multiprocessing.get_context(how)
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            done = list(pool.map(times, [Item(5)], timeout=60))
        return [type(done[0]) is Item, done[0].value]

    def process(self, how, factor):
        global FACTOR
        FACTOR = factor
        context = multiprocessing.get_context(how)
        queue = context.SimpleQueue()
        child = context.Process(target=put, args=(queue, Item))
        child.start()
        child.join(60)
        kind, seen = queue.get()
        return [kind is Item, seen]


if __name__ == "__main__":
    how = sys.argv[1]
    with LocalGrid(1) as g, g.acquire_service(g.publish(Worker())) as worker:
        print(worker.pool(how).get(90), worker.executor(how).get(90))
        print(worker.process(how, 7).get(90), worker.process(how, 8).get(90))
"""


@pytest.mark.row("M25")
@pytest.mark.parametrize("how", ["spawn", "forkserver", "fork"])
def test_processes_in_a_server_find_functions_and_classes_of_the_script(how: str, tmp_path: Path) -> None:
    script = tmp_path / "inner.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script, how], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.splitlines() == ["[3, 6] [True, 15]", "[True, 7] [True, 8]"]


class Pools:
    """Starts pools and terminates them at once."""

    def terminate(self, rounds: int) -> int:
        for _ in range(rounds):
            pool = multiprocessing.get_context("fork").Pool(2)
            pool.map(abs, [1])
            pool.terminate()  # one of the two may not have run yet
        return rounds


@pytest.mark.row("M25")
def test_a_pool_by_fork_ends_when_it_is_terminated_before_its_workers_run() -> None:
    with LocalGrid(1) as g, g.acquire_service(g.publish(Pools())) as pools:
        assert pools.terminate(60).get(60) == 60
