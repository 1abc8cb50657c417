"""Log-ins that several borrowers share: one per key, made once, closed by the last to give it back.

Lives here: the counting, and who makes what while others wait.
Elsewhere:  what is shared (`lines.py` for paramiko, `masters.py` for OpenSSH).
"""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Shared(ABC):
    """What a pool lends. `loans` and `key` are the pool's."""

    loans: int = 0

    @abstractmethod
    def alive(self) -> bool:
        """False once it can't be lent any more."""

    @abstractmethod
    def close(self) -> None:
        """The last loan was given back."""


S = TypeVar("S", bound=Shared)


class Pool(Generic[K, S]):
    """The first thread that asks makes it; the others wait for it and share its fate."""

    def __init__(self) -> None:
        self._forget()
        _pools.add(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[K, Future[S]] = {}

    def acquire(self, key: K, make: Callable[[], S], patience_s: float) -> S:
        """A living one for `key`, made if there is none.

        Raises:
            TimeoutError: Somebody else has been making it for longer than `patience_s`.
            Exception: What `make` raised; all who waited for it get the same.
        """
        while True:
            with self._lock:
                future = self._made.get(key)
                first = future is None
                if future is None:
                    future = self._made[key] = Future()
            if first:
                return self._make(key, make, future)
            try:
                item = future.result(patience_s)
            except FutureTimeout as exc:
                raise TimeoutError(f"made by another thread for longer than {patience_s:g} s") from exc
            with self._lock:
                if item.loans and item.alive():
                    item.loans += 1
                    return item
                if self._made.get(key) is future:
                    del self._made[key]  # it died; whoever still holds it gives it back to be closed

    def release(self, key: K, item: S) -> None:
        """Give a loan back; the last one closes it."""
        with self._lock:
            item.loans -= 1
            if item.loans:
                return
            future = self._made.get(key)
            if future is not None and future.done() and not future.exception() and future.result() is item:
                del self._made[key]
        item.close()

    def _make(self, key: K, make: Callable[[], S], future: Future[S]) -> S:
        try:
            item = make()
        except BaseException as exc:
            with self._lock:
                self._made.pop(key, None)
            future.set_exception(exc)
            raise
        item.loans = 1
        future.set_result(item)
        return item


class Gates:
    """So many at once per key, and no more: one semaphore each."""

    def __init__(self) -> None:
        self._forget()
        _pools.add(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._gates: dict[Hashable, threading.BoundedSemaphore] = {}

    def get(self, key: Hashable, width: int) -> threading.BoundedSemaphore:
        """The gate of `key`, as wide as who asked first wanted it."""
        with self._lock:
            return self._gates.setdefault(key, threading.BoundedSemaphore(width))


_pools: weakref.WeakSet[Any] = weakref.WeakSet()


def _after_fork() -> None:
    # The connections are the parent's: a child that used or closed them would break them for both.
    for pool in _pools:
        pool._forget()


os.register_at_fork(after_in_child=_after_fork)
