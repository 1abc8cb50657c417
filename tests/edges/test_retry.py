"""Calls that are made again, on servers that die and raise."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import CancelledError, as_completed
from pathlib import Path
from typing import Any

import pytest

from grid import GridService, LocalGrid, Retry, ServerLost
from grid.testing.probe import Probe

pytestmark = pytest.mark.row("I08")


class Shaky:
    """Its calls count in a file how often they were made, and fail as long as they are to."""

    def __init__(self) -> None:
        self.here = 0

    def _count(self, path: str) -> int:
        with open(path, "a+") as file:
            file.write("x")
            return file.tell()

    def die(self, path: str, times: int) -> int:
        made = self._count(path)
        if made <= times:
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    def raises(self, path: str, times: int) -> int:
        made = self._count(path)
        if made <= times:
            raise ConnectionResetError(f"attempt {made}")
        return made

    def fail(self) -> None:
        raise KeyError("another one")

    def total(self, path: str, array: Any) -> float:
        if self._count(path) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return sum(memoryview(array))

    def wait_for(self, path: str) -> str:
        return Probe().wait_for(path)

    def sample(self, path: str) -> Iterator[int]:
        self._count(path)
        yield 1
        os.kill(os.getpid(), signal.SIGKILL)

    def __call__(self, path: str) -> int:
        return self.die(path, 1)


@pytest.fixture
def grid() -> Iterator[LocalGrid]:
    with LocalGrid(2, output=None) as g:
        yield g


@pytest.fixture
def sid(grid: LocalGrid) -> str:
    return grid.publish(Shaky(), restarts=1000, retry=Retry(lost=2, on=ConnectionError, raised=2))


@pytest.fixture
def marks(tmp_path: Path) -> str:
    return str(tmp_path / "marks")


def made(path: str) -> int:
    return os.stat(path).st_size


def test_a_call_goes_on_where_its_server_is_lost_and_tells_all_attempts(grid: LocalGrid, sid: str, marks: str) -> None:
    with grid.acquire_service(sid, 60) as proxy:
        result = proxy.die(marks, 2)
        assert result.get(60) == 3 == made(marks)
        lost, again, answered = result.attempts
        assert isinstance(lost.error, ServerLost) and isinstance(again.error, ServerLost) and answered.error is None
        assert len({each.server for each in result.attempts}) == 3 and answered.server == result.server.name
        assert result.cost is not None and result.done() and not result.cancelled()
        # the proxy has lost its server, and its further calls go to others
        assert proxy.die(marks, 0).get(60) == 4 and proxy.call(Shaky.die, marks, 0).get(60) == 5
    with grid.acquire_service(sid, 60) as proxy:
        assert proxy(marks + ".call").get(60) == 2


def test_one_that_dies_too_often_fails_and_says_what_was_before(grid: LocalGrid, sid: str, marks: str) -> None:
    with grid.acquire_service(sid, 60) as proxy, pytest.raises(ServerLost) as caught:
        proxy.die(marks, 99).get(60)
    assert made(marks) == 3 and "3 servers have died with this very call" in str(caught.value)
    assert "This was attempt 3; before it: Shaky." in str(caught.value) and "not repeated" not in str(caught.value)


def test_exceptions_that_are_named_are_forgiven_on_the_same_server(grid: LocalGrid, sid: str, marks: str) -> None:
    with grid.acquire_service(sid, 60) as proxy:
        result = proxy.raises(marks, 2)
        assert result.get(60) == 3 and {each.server for each in result.attempts} == {proxy._server.name}
        with pytest.raises(ConnectionResetError, match="attempt 6"):
            proxy.raises(marks, 99).get(60)
        other = proxy.fail()
        with pytest.raises(KeyError, match="another one"):
            other.get(60)
        assert len(other.attempts) == 1


def test_after_the_release_it_stands_in_line_like_everybody(grid: LocalGrid, sid: str, marks: str) -> None:
    with grid.acquire_service(sid, 60) as proxy:
        result = proxy.raises(marks, 2)
    assert result.get(60) == 3
    proxies = [grid.acquire_service(sid, 60) for _ in range(2)]  # both servers are free again
    for each in proxies:
        grid.release_service(each)


def test_arguments_are_as_they_were_when_the_call_was_made(grid: LocalGrid, sid: str, marks: str) -> None:
    array = bytearray(b"\1" * 100_000)
    with grid.acquire_service(sid, 60) as proxy:
        result = proxy.total(marks, array)
        array[:] = bytes(len(array))
        assert result.get(60) == 100_000 and len(result.attempts) == 2


def test_one_that_waits_for_a_server_can_be_cancelled_and_says_that_it_waits(
    grid: LocalGrid, marks: str, tmp_path: Path
) -> None:
    sid = grid.publish(Shaky(), retry=Retry(lost=9))  # nobody replaces the lost
    with grid.acquire_service(sid, 60) as first, grid.acquire_service(sid, 60) as second:
        busy = second.wait_for(str(tmp_path / "gate"))
        results = [first.die(marks, 1) for _ in range(2)]
        while not all(result._waiter for result in results):
            with pytest.raises(TimeoutError, match="die"):
                results[0].get(0.01)
        with pytest.raises(TimeoutError, match="waits for a server to be made again, after: Shaky"):
            results[0].get(0.01)
        assert results[0].cancel() and results[0].cancelled() and results[0].cancel()
        with pytest.raises(CancelledError):
            results[0].get(60)
        later: list[bool] = []
        results[1].cancel_later(later.append)
        assert set(as_completed(results, 60)) == set(results) and results[1].cancelled()
        (tmp_path / "gate").touch()
        busy.get(60)
    assert made(marks) == 1 and later == [True]
    with grid.acquire_service(sid, 60) as second:  # nobody else stands in the line
        assert second.die(marks, 0).get(60) == 2


def test_calls_that_have_a_state_are_made_once(grid: LocalGrid, sid: str, marks: str) -> None:
    results = grid.broadcast(sid, "die", marks, 1)
    outcomes = [result.exception(60) for result in results]
    assert sum(isinstance(each, ServerLost) for each in outcomes) == 1 and made(marks) == 2
    grid.release_all()
    with grid.acquire_service(sid, 60) as proxy, pytest.raises(ServerLost):
        list(proxy.sample(marks))
    assert made(marks) == 3


def test_a_front_makes_calls_again_unless_parameters_belong_to_them(grid: LocalGrid, sid: str, marks: str) -> None:
    assert GridService(grid, sid).die(marks, 1).get(60) == 2


def test_many_calls_with_servers_that_are_killed_meanwhile_all_have_their_values(
    grid: LocalGrid, sid: str, tmp_path: Path
) -> None:
    with grid.acquire_service(sid, 60) as proxy:
        results = [proxy.die(str(tmp_path / f"of{n}"), n % 3) for n in range(9)]
        outcomes = [result.exception(120) for result in results]
    # each death takes the calls behind it along, and so their attempts may be used up by others
    assert all(error is None or isinstance(error, ServerLost) for error in outcomes)
    assert [result.get() for result, error in zip(results, outcomes, strict=True) if error is None]
    assert all(len(result.attempts) <= 3 for result in results)


def test_where_no_server_is_left_the_last_error_is_raised(marks: str) -> None:
    with LocalGrid(1, output=None) as g:
        sid = g.publish(Shaky(), retry=Retry(lost=5))
        with g.acquire_service(sid) as proxy:
            result = proxy.die(marks, 99)
            with pytest.raises(ServerLost, match="SIGKILL"):
                result.get(60)
        assert made(marks) == 1
        with pytest.raises(ValueError, match="strict=True"):
            g.publish(Probe())
            g.acquire_service(g.publish([], retry=Retry(lost=1)), 60, strict=True)
        with pytest.raises(TypeError, match="retry"):
            g.publish(Probe(), retry=3)  # type: ignore[arg-type]
