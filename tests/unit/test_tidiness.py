"""The check after each test: does it see what a test can leave behind, and nothing else?"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.tidiness import Scene

pytestmark = pytest.mark.row("D09")


def test_nothing_left_is_nothing_said() -> None:
    scene = Scene()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    assert scene.left_behind(0) == []


def test_a_child_is_seen_and_killed() -> None:
    scene = Scene()
    child = subprocess.Popen(["sleep", "1000"])
    seen = scene.left_behind(0)
    scene.clear_up()
    child.returncode = -9  # it was reaped behind its back
    assert seen == [f"process {child.pid}: sleep 1000"]
    assert scene.left_behind(1) == []


def test_a_daemon_that_left_the_family_is_known_by_its_mark() -> None:
    scene = Scene()
    text = subprocess.check_output(["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"], text=True)
    try:
        deadline = time.monotonic() + 20
        place = Path(f"/proc/{int(text)}")  # it has yet to become that; for a moment it has the name and no variables
        while (place / "comm").read_text() != "sleep\n" or not (place / "environ").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert f"process {int(text)}: sleep 1000" in scene.left_behind(0.5)
    finally:
        os.kill(int(text), 9)
    assert scene.left_behind(5) == []


def test_a_thread_a_socket_and_a_file_are_seen() -> None:
    scene = Scene()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="left-over", daemon=True)
    thread.start()
    path = Path(os.environ["GRID_RUNTIME_DIR"], "left-over")
    with socket.socket() as left_socket, open(path, "w") as left_file:
        lines = scene.left_behind(0)
        assert "thread left-over" in lines
        assert any(line.startswith(f"open file {left_socket.fileno()}: socket:") for line in lines)
        assert f"open file {left_file.fileno()}: {path}" in lines
        assert str(path) in lines
    path.unlink()
    end.set()
    assert scene.left_behind(5) == []


def test_a_look_is_quick() -> None:
    scene = Scene()
    start = time.process_time()
    for _ in range(10):
        scene.left_behind(0)
    assert (time.process_time() - start) / 10 < 0.1  # 5 ms on a quiet machine


def test_psutil_sees_the_same_children() -> None:
    psutil = pytest.importorskip("psutil")
    with subprocess.Popen(["sleep", "1000"]) as child:
        try:
            seen = {process.pid for process in Scene()._before.processes}
            family = {other.pid for other in psutil.Process().children(recursive=True)}
        finally:
            child.kill()
    assert child.pid in seen
    assert seen <= family  # psutil also counts what runs inside test hosts
