"""Stopping a call on a server: only the call whose ticket is named, only on its machine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid.kernel.stop import Stopper, heed

pytestmark = pytest.mark.row("T06", "P13")


class Stopped(BaseException):
    pass


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GRID_ROOT", str(tmp_path))
    monkeypatch.setenv("GRID_SERVER", "Model.0/3")
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(("ticket", "stops"), [(7, True), (8, False), (None, False)])
def test_only_the_call_that_is_meant_is_stopped(ticket: int | None, stops: bool, tmp_path: Path) -> None:
    machine, pid = heed(lambda: ticket, Stopped)
    raised = False
    try:
        assert Stopper().stop([("Model.0/3", machine, pid, 7)]) == 1
        signal.getsignal(signal.SIGUSR1)  # byte codes at which the handler runs
    except Stopped:
        raised = True
    assert raised is stops and list(tmp_path.iterdir()) == []  # the order is used up


def test_a_signal_without_an_order_or_with_a_torn_one_does_nothing(tmp_path: Path) -> None:
    heed(lambda: 1, Stopped)
    os.kill(os.getpid(), signal.SIGUSR1)
    (tmp_path / ".grid-stop-Model.0-3").write_text("x")
    os.kill(os.getpid(), signal.SIGUSR1)


def test_another_machine_and_a_dead_process_are_not_told(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        child = ended.pid
    orders = [("a", "another machine", os.getpid(), 1), ("b/1", os.uname().nodename, child, 1)]
    assert Stopper().stop(orders) == 0
    assert list(tmp_path.iterdir()) == []
