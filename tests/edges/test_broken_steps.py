"""Every step of a grid's life broken once: it ends in a named error or in success, in time, and nothing is left.

A run starts a grid on this machine, publishes, acquires, calls, copies files and terminates. `GRID_ALL_FAULTS=1` breaks
all steps; without it the suite takes a sample where there are many.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from grid import GridError, Limits, LocalGrid
from grid.errors import AcquireTimeout
from grid.testing.faults import faults
from grid.testing.probe import Probe
from tests.tidiness import Scene

LIMITS = Limits(start_s=10, publish_s=15, heartbeat_s=1, lost_s=5, orphan_s=8, stop_s=2, control_s=5, send_s=5)
LONGEST_S = 60.0
SAMPLE = 45


def life(folder: Path) -> None:
    """All that a script does with a grid."""
    with LocalGrid(2, limits=LIMITS, src_path=str(folder), output=None, wait="all") as g:
        service_id = g.publish(Probe())
        proxy = g.acquire_service(service_id, timeout=10)
        small, large = proxy.add(), proxy.echo(bytes(1 << 20))
        g.release_service(proxy)
        assert small.get(10) == 1 and large.get(10) == bytes(1 << 20)
        g.copy_files(str(folder), ["*.txt"])
        with g.group(service_id, timeout=10):
            g.gather(g.broadcast(service_id, "add"), 10)
        g.terminate(service_id)


def folder_with_files(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name in ("a.txt", "data/b.txt"):
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.row("G24", "G48", "G58")
def test_any_step_may_fail_and_nothing_is_left_behind(tmp_path: Path) -> None:
    folder = folder_with_files(tmp_path)
    with faults() as steps:
        life(folder)
    assert len(set(steps.seen)) >= 10, f"steps that no run takes: {set(steps.seen)}"
    numbers = list(range(1, steps.count + 1))
    if len(numbers) > SAMPLE and not os.environ.get("GRID_ALL_FAULTS"):
        numbers = sorted(random.Random(7).sample(numbers, SAMPLE))
    wrong = []
    for number in numbers:
        scene, began = Scene(), time.monotonic()
        with faults(at=number) as broken:
            try:
                life(folder)
                outcome = "success"
            except AcquireTimeout as exc:
                outcome = f"{type(exc).__name__}: {exc}"
                wrong.append(f"step {number}, {broken.raised}: somebody waits for what never comes: {outcome}")
            except GridError as exc:
                outcome = f"{type(exc).__name__}: {exc}"
            except Exception as exc:
                outcome = f"{type(exc).__name__}: {exc}"
                wrong.append(f"step {number}, {broken.raised}: no error of ours: {outcome}")
        took = time.monotonic() - began
        if took > LONGEST_S:
            wrong.append(f"step {number}, {broken.raised}: took {took:.0f} s")
        left = scene.left_behind(5.0)
        if left:
            wrong.append(f"step {number}, {broken.raised} ({outcome}): left {left}")
            scene.clear_up()
        if os.environ.get("GRID_ALL_FAULTS"):
            print(f"{number:4d} {took:5.1f} s  {broken.raised}  ->  {outcome[:120]}")
    assert not wrong, "\n".join(wrong)
