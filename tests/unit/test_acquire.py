"""The abstract grid by itself: a grant and the end of patience that cross; a grid that could not be made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from grid.errors import AcquireTimeout
from grid.grids.abstract import AbstractGrid
from grid.hosts import Host
from grid.services.roster import Action
from grid.services.server import Server
from grid.services.service import Service


class Idle(Server):
    """A server that never has a call."""

    idle = True  # type: ignore[assignment]


class Told(AbstractGrid):
    """A grid whose waiting is told by the test: it calls `then` instead of waiting."""

    def __init__(self) -> None:
        super().__init__(["here"])
        self.then: Callable[[Any], bool] = lambda waiter: waiter.done_flag
        self.add_server(Idle("s", "s/0", Host("here")))

    def ishalted(self) -> bool:
        return False

    def terminate(self, service_id: str | None = None) -> None:
        pass

    def _wait(self, waiter: Any, timeout: float | None) -> bool:
        return self.then(waiter)

    def _rouse(self, waiter: Any) -> None:
        pass

    def granted_but_not_told(self) -> tuple[Service, list[Action]]:
        """The part of a release that happens under the lock; another thread will carry the rest out."""
        service = self._service("s")
        return service, service.roster.release("s/0")


def carry_out(service: Service, actions: list[Action]) -> None:
    service.carry_out(actions)


@pytest.mark.row("G12")
def test_a_server_that_is_granted_as_patience_ends_is_taken() -> None:
    g = Told()
    g.acquire_service("s")  # somebody has it
    actions: list[Any] = []

    def out_of_time(waiter: Any) -> bool:
        if not actions:
            actions.append(g.granted_but_not_told())
            return False
        carry_out(*actions[0])
        return bool(waiter.done_flag)

    g.then = out_of_time
    with g.acquire_service("s", timeout=0.1):
        pass
    assert g.queues["s"].qsize() == 1


@pytest.mark.row("G12", "G25")
@pytest.mark.parametrize("told", [True, False])
def test_ctrl_c_at_the_moment_of_the_grant_loses_no_server(told: bool) -> None:
    g = Told()
    g.acquire_service("s")
    later: list[Any] = []

    def interrupted(waiter: Any) -> bool:
        if later:
            carry_out(*later.pop())
            return True
        later.append(g.granted_but_not_told())
        if told:
            carry_out(*later[0])
        raise KeyboardInterrupt

    g.then = interrupted
    with pytest.raises(KeyboardInterrupt):
        g.acquire_service("s")
    assert g.queues["s"].qsize() == 1


@pytest.mark.row("G12")
def test_who_gives_up_leaves_the_line() -> None:
    g = Told()
    g.acquire_service("s")
    with pytest.raises(AcquireTimeout, match=r"within 0.1 s.*s/0 on here"):
        g.acquire_service("s", timeout=0.1)
    assert g._service("s").roster.waiting == 0


@pytest.mark.row("G03", "G25")
def test_a_grid_that_could_not_be_made_says_nothing_at_exit() -> None:
    script = "from grid import LocalGrid\ntry: LocalGrid(1, shared_temp_path=True)\nexcept ValueError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert "shared_temp_path" in done.stdout and done.stderr == ""
