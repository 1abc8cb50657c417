"""Break every step once: count what a run does to the world around it, then make the n-th step of another run fail.

    with faults() as steps: run()                     # how many are there? steps.count, steps.seen
    for number in range(1, steps.count + 1):
        with faults(at=number): run()                 # the n-th raises what it could really raise

Threads take their steps in no fixed order, so that the n-th may be another one in the next run; `raised` says which it
was.

Lives here: which operations are steps, and what each can raise.
Elsewhere:  what a run is, and what must hold after it (`tests/edges/test_broken_steps.py`).
"""

from __future__ import annotations

import errno
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import zmq

from grid.errors import Backlog, ConnectError
from grid.grids import home, stager
from grid.launch.local import LocalConnection
from grid.launch.pipes import PipeProcess
from grid.staging import manifest
from grid.wire.bulk import BlobStore
from grid.wire.link import Link


def _no(number: int) -> Callable[[], BaseException]:
    return lambda: OSError(number, os.strerror(number))


def _unreachable() -> BaseException:
    return ConnectError("it refused, on purpose", host="localhost", hint="A fault was planted")


def _late() -> BaseException:
    return TimeoutError("nothing came, on purpose")


def _backlog() -> BaseException:
    return Backlog("too many calls wait, on purpose", hint="A fault was planted")


def _no_sockets() -> BaseException:
    return zmq.ZMQError(errno.EMFILE)


STEPS: tuple[tuple[Any, str, str, tuple[Callable[[], BaseException], ...]], ...] = (
    (home, "connect", "open a connection", (_unreachable, _no(errno.EMFILE))),
    (LocalConnection, "start", "start a command", (_no(errno.EAGAIN), _unreachable)),
    (PipeProcess, "write", "write to the launch channel", (_late,)),
    (PipeProcess, "read", "read from the launch channel", (_late, _no(errno.EIO))),
    (home.Home, "ask_later", "ask the agent", (_unreachable,)),
    (Link, "connect", "connect to a process", (_no_sockets,)),
    (Link, "call", "send a call", (_backlog,)),
    (BlobStore, "_open", "open a blob", (_no(errno.EMFILE), _no(errno.ENOSPC))),
    (manifest, "_hash", "read a file to be staged", (_no(errno.EACCES),)),
    (manifest._Blocks, "_write", "write to an archive", (_no(errno.ENOSPC),)),
    (stager, "write_archive", "make an archive", (_no(errno.EIO),)),
    (stager.Stager, "scratch", "make a temporary directory", (_no(errno.ENOSPC), _no(errno.EROFS))),
)
"""(owner, name, what it is, what it can raise)"""


class Steps:
    """What happened within `faults`."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.seen: list[str] = []
        self.raised: str | None = None
        """What failed, and how; None if the run had no such step."""
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many steps there were."""
        return len(self.seen)

    def take(self, what: str, errors: tuple[Callable[[], BaseException], ...]) -> None:
        """One step; raises if it is the one."""
        with self._lock:
            self.seen.append(what)
            number = len(self.seen)
        if number == self.at:
            error = errors[number % len(errors)]()
            self.raised = f"{what}: {type(error).__name__}: {error}"
            raise error


@contextmanager
def faults(at: int | None = None) -> Iterator[Steps]:
    """Count the steps of what runs in this block, in all threads; the one with number `at` (from 1) fails."""
    steps = Steps(at)
    originals: list[tuple[Any, str, Any]] = []
    for owner, name, what, errors in STEPS:
        original = getattr(owner, name)
        originals.append((owner, name, original))
        setattr(owner, name, _watched(original, steps, what, errors))
    try:
        yield steps
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def _watched(original: Any, steps: Steps, what: str, errors: tuple[Callable[[], BaseException], ...]) -> Any:
    @functools.wraps(original)
    def step(*args: Any, **kwargs: Any) -> Any:
        steps.take(what, errors)
        return original(*args, **kwargs)

    return step
