"""Replica exchange as IMP's macros use it: the ten methods, over a communicator of threads."""

from __future__ import annotations

import math
import pickle
import queue
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.compat.imp import ReplicaExchange
from grid.errors import RankError

pytestmark = pytest.mark.row("Q07")

Ways = dict[tuple[int, int], "queue.Queue[Any]"]


class ThreadComm:
    """What a communicator does, between threads: `boards` has a place for each rank, all wait for all.

    `sendrecv` concerns a pair alone, by a queue for each direction. `all_got` is what came by `allgather`.
    """

    def __init__(self, rank: int, size: int, boards: list[Any], barrier: threading.Barrier, ways: Ways) -> None:
        self.rank, self.size, self._boards, self._barrier, self._ways = rank, size, boards, barrier, ways
        self.all_got: list[Any] = []

    def allgather(self, obj: Any) -> list[Any]:
        self._boards[self.rank] = obj
        self._barrier.wait(60)
        found = list(self._boards)
        self._barrier.wait(60)
        self.all_got += found
        return found

    def bcast(self, obj: Any) -> Any:
        return self.allgather(obj)[0]

    def sendrecv(self, obj: Any, dest: int, source: int) -> Any:
        assert dest == source
        self._ways[self.rank, dest].put(obj)
        return self._ways[source, self.rank].get(timeout=60)


def on_ranks(size: int, main: Callable[[Any], Any]) -> list[Any]:
    boards, barrier, values = [None] * size, threading.Barrier(size), [None] * size
    ways: Ways = {(one, other): queue.Queue() for one in range(size) for other in range(size)}

    def run(rank: int) -> None:
        try:
            values[rank] = main(ThreadComm(rank, size, boards, barrier, ways))
        except BaseException as exc:
            values[rank] = exc
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for value in values:
        if isinstance(value, BaseException) and not isinstance(value, threading.BrokenBarrierError):
            raise value
    return values


def test_one_replica_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases of IMP's own test of its stand-in for one process."""
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    alone = ReplicaExchange()
    assert alone.get_number_of_replicas() == 1 and alone.create_temperatures(100.0, 200.0, 45) == [100.0]
    assert alone.get_my_index() == alone.get_friend_index(0) == alone.get_friend_index(1) == 0
    alone.set_my_parameter("temp", ["foo", "bar"])  # type: ignore[list-item]
    assert alone.get_my_parameter("temp") == alone.get_friend_parameter("temp", 0) == ["foo", "bar"]
    assert alone.do_exchange(0, 0, 0) is False and alone.get_exchange_array() == []
    alone.set_was_used(True)
    assert alone.get_was_used()
    with pytest.raises(TypeError, match="can't be sent"):
        pickle.dumps(alone)
    with pytest.raises(KeyError):
        alone.get_my_parameter("nobody")


def test_parameters_change_places_where_scores_are_equal() -> None:
    """The cases of IMP's test of the class for MPI: each rank has twice its index; equal scores always exchange."""

    def main(comm: Any) -> tuple[float, ...]:
        replica = ReplicaExchange(comm)
        replica.set_my_parameter("test", [2.0 * replica.get_my_index()])
        friend = replica.get_friend_index(0)
        before = replica.get_my_parameter("test")[0], replica.get_friend_parameter("test", friend)[0]
        assert before[1] == 2.0 * friend and replica.do_exchange(0.0, 0.0, friend)
        after = replica.get_my_parameter("test")[0]
        return (*before, after, replica.get_friend_parameter("test", replica.get_friend_index(0))[0])

    for mine, theirs, now, theirs_now in on_ranks(4, main):
        assert (now, theirs_now) == (theirs, mine)


def test_parameters_go_to_the_partner_alone() -> None:
    """Of six ranks each learns the scores of all, and the parameters of one."""

    def main(comm: Any) -> tuple[list[float], int]:
        replica = ReplicaExchange(comm, 5)
        replica.set_my_parameter("coordinates", [float(comm.rank)] * 10_000)
        before = len(comm.all_got)
        assert replica.do_exchange(0.0, 0.0, replica.get_friend_index(1))
        return replica.get_my_parameter("coordinates")[:1], len(pickle.dumps(comm.all_got[before:]))

    found = on_ranks(6, main)
    assert [first for first, _ in found] == [[5.0], [2.0], [1.0], [4.0], [3.0], [0.0]]
    assert all(size < 1000 for _, size in found), found


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(0, 12), st.integers(0, 2**30))
def test_indices_stay_a_permutation_and_parameters_follow_them(pairs: int, steps: int, seed: int) -> None:
    size = 2 * pairs

    def main(comm: Any) -> tuple[Any, ...]:
        replica, own = ReplicaExchange(comm, seed), random.Random(seed + comm.rank)
        ladder = replica.create_temperatures(1.0, 4.0, size)
        assert len(ladder) == size and math.isclose(ladder[0], 1) and math.isclose(ladder[-1], 4)
        replica.set_my_parameter("temp", [ladder[replica.get_my_index()]])
        done = 0
        for step in range(steps):
            friend = replica.get_friend_index(step)
            score, mine = own.gauss(0, 3), replica.get_my_parameter("temp")[0]
            theirs = replica.get_friend_parameter("temp", friend)[0]
            assert theirs == ladder[friend]
            before = replica.get_my_index()
            if replica.do_exchange(score / mine, score / theirs, friend):
                done += 1
                assert (replica.get_my_index(), replica.get_my_parameter("temp")) == (friend, [theirs])
            else:
                assert (replica.get_my_index(), replica.get_my_parameter("temp")) == (before, [mine])
        return replica.get_my_index(), replica._indices, replica.get_exchange_array(), done

    found = on_ranks(size, main)
    assert sorted(index for index, *_ in found) == list(range(size))
    assert all(each[1:3] == found[0][1:3] for each in found), "all ranks know the same"
    assert sum(done for *_, done in found) >= 2 * sum(found[0][2])


def test_it_accepts_as_often_as_metropolis_says() -> None:
    """Two replicas whose scores lose 1 in all: exp(-1) = 0.368 of 4,000 tries."""

    def main(comm: Any) -> int:
        replica = ReplicaExchange(comm, 11)
        return sum(replica.do_exchange(0.0, 0.5, replica.get_friend_index(0)) for _ in range(4000))

    first, second = on_ranks(2, main)
    assert first == second and abs(first / 4000 - math.exp(-1)) < 5 * math.sqrt(0.233 / 4000)


def test_what_can_not_be_is_named() -> None:
    with pytest.raises(RankError, match="an even number of ranks, not 3"):
        on_ranks(3, ReplicaExchange)
    with pytest.raises(RankError, match="no replica of index 7"):
        on_ranks(2, lambda comm: ReplicaExchange(comm).do_exchange(0, 0, 7))
    with pytest.raises(RankError, match="which exchanges with rank"):
        on_ranks(
            4, lambda comm: (each := ReplicaExchange(comm)).do_exchange(0, 0, each.get_friend_index(comm.rank // 2))
        )
    with pytest.raises(ValueError, match="above 0"):
        ReplicaExchange().create_temperatures(0.0, 2.0, 4)
