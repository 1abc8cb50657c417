"""Log-ins that several borrow: made once, shared in their fate, closed by the last."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from grid.launch.pool import Gates, Pool, Shared

pytestmark = pytest.mark.row("H11", "M16")


class Login(Shared):
    def __init__(self) -> None:
        self.lives, self.closed = True, 0

    def alive(self) -> bool:
        return self.lives

    def close(self) -> None:
        self.closed += 1


def test_the_last_to_give_it_back_closes_it() -> None:
    pool: Pool[str, Login] = Pool()
    one = pool.acquire("h", Login, 1)
    assert pool.acquire("h", Login, 1) is one and pool.acquire("other", Login, 1) is not one
    pool.release("h", one)
    assert one.closed == 0
    pool.release("h", one)
    assert one.closed == 1 and pool.acquire("h", Login, 1) is not one


def test_one_that_died_is_made_anew_and_the_old_is_closed_by_its_last() -> None:
    pool: Pool[str, Login] = Pool()
    old = pool.acquire("h", Login, 1)
    old.lives = False
    new = pool.acquire("h", Login, 1)
    assert new is not old
    pool.release("h", old)
    assert old.closed == 1 and new.closed == 0 and pool.acquire("h", Login, 1) is new


def test_a_failure_is_that_of_all_who_waited_and_of_nobody_later() -> None:
    pool: Pool[str, Login] = Pool()
    making, fail = threading.Event(), threading.Event()
    told: list[BaseException] = []

    def make() -> Any:
        making.set()
        assert fail.wait(20)
        raise OSError("no")

    def ask(make_it: Any) -> None:
        try:
            pool.acquire("h", make_it, 20)
        except OSError as exc:
            told.append(exc)

    first = threading.Thread(target=ask, args=(make,))
    first.start()
    assert making.wait(20)
    future = pool._made["h"]
    second = threading.Thread(target=ask, args=(Login,))
    second.start()
    fail.set()
    first.join()
    second.join()
    # The second came before or after the failure: it had the same error, or a new one of its own making.
    assert len(told) == 2 or isinstance(pool.acquire("h", Login, 1), Login)
    assert isinstance(future.exception(), OSError)


def test_who_waits_for_too_long_is_told() -> None:
    pool: Pool[str, Login] = Pool()
    making, go_on = threading.Event(), threading.Event()

    def make() -> Login:
        making.set()
        assert go_on.wait(20)
        return Login()

    thread = threading.Thread(target=lambda: pool.acquire("h", make, 1))
    thread.start()
    assert making.wait(20)
    with pytest.raises(TimeoutError, match=r"longer than 0\.01 s"):
        pool.acquire("h", Login, 0.01)
    go_on.set()
    thread.join()


def test_a_child_has_an_empty_pool() -> None:
    pool: Pool[str, Login] = Pool()
    parents = pool.acquire("h", Login, 1)
    pool._forget()  # as `os.fork` does in the child
    assert pool.acquire("h", Login, 1) is not parents and parents.closed == 0


def test_a_gate_is_as_wide_as_the_first_wanted_it() -> None:
    gates = Gates()
    gate = gates.get("h", 2)
    assert gates.get("h", 9) is gate and gates.get("other", 1) is not gate
    assert [gate.acquire(blocking=False) for _ in range(3)] == [True, True, False]
