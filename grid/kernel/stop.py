"""Stopping a call that runs on a server, without ending the server.

A busy server hears nothing but signals. So the order lies in a file of the run's directory: the ticket of the call that
is meant. A signal then makes the server read it. A call that ended meanwhile has another ticket, and nothing happens.

Lives here: `heed`, for the instance that shall be stoppable; `Stopper`, published beside it on the same hosts.
Elsewhere:  who decides that a call is stopped (`grid/grids/leftover.py`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


def heed(ticket: Callable[[], int | None], stopped: Callable[[], BaseException]) -> tuple[str, int]:
    """Be ready for a request to stop: `stopped()` is raised in the call whose `ticket()` is named.

    Returns:
        Name of the machine and process id, for orders to `Stopper`.
    """

    told: list[int] = []  # the ticket that was stopped last

    def on_signal(*_: Any) -> None:
        order = _order(os.environ["GRID_SERVER"])
        try:
            wanted = int(order.read_text())
            order.unlink()
        except (OSError, ValueError):
            return
        # once: each server of the stopping service gives the order, and a second error would end the clearing up
        if wanted == ticket() and wanted not in told:
            told[:] = [wanted]
            raise stopped()

    try:
        signal.signal(signal.SIGUSR1, on_signal)
    except ValueError:
        pass  # not in the main thread: then it can't be stopped before its time
    return os.uname().nodename, os.getpid()


class Stopper:
    """Published beside the instance whose calls have to be stopped: it sits on the same hosts, and is not busy."""

    def stop(self, orders: list[tuple[str, str, int, int]]) -> int:
        """Stop calls, given as (server, machine, process id, ticket), where they run; how many got the signal."""
        told = 0
        for name, machine, pid, ticket in orders:
            if machine != os.uname().nodename:
                continue
            order = _order(name)
            try:
                order.write_text(str(ticket))
                os.kill(pid, signal.SIGUSR1)
                told += 1
            except OSError:  # the server has ended
                order.unlink(missing_ok=True)
        return told


def _order(server: str) -> Path:
    return Path(os.environ["GRID_ROOT"], f".grid-stop-{server.replace('/', '-')}")
