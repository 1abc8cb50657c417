"""A server that prints without end, for a client that is stopped: memory and disk on the host stay bounded."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

MEMORY_MB, PRINTED_MB = 64, 150

CLIENT = """
import sys
from grid import LocalGrid, Limits
class Talker:
    def talk(self, megabytes, done):
        line = "x" * 1023
        for _ in range(megabytes * 1024):
            print(line)
        open(done, "w").close()
        return "said"
with LocalGrid(1, limits=Limits(orphan_s=120), output=sys.stdout) as g:
    with g.acquire_service(g.publish(Talker())) as talker:
        result = talker.talk(int(sys.argv[1]), sys.argv[2])
        status = g._engine.fleet.homes[0].ask("status")
        print("AGENT", status["pid"], status["servers"][0]["log"], flush=True)
        sys.stdin.readline()
        print("RESULT", result.get(60), g._engine.fleet.homes[0].ask("status")["pid"], flush=True)
print("ENDED", flush=True)
"""


def resident_mb(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) // 1024 if found else 0


@pytest.mark.row("X07")
def test_output_for_a_client_that_is_stopped_is_bounded_and_said_so(tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(CLIENT)
    done, said = tmp_path / "done", tmp_path / "said"
    with open(said, "wb") as stdout:
        client = subprocess.Popen(
            [sys.executable, str(tmp_path / "client.py"), str(PRINTED_MB), str(done)],
            stdin=subprocess.PIPE,
            stdout=stdout,
            cwd=tmp_path,
        )
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(rb"AGENT (\d+) (\S+)", said.read_bytes())):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        client.send_signal(signal.SIGSTOP)
        agent, log = int(found[1]), Path(os.fsdecode(found[2]))
        before = most = resident_mb(agent)
        while not done.exists():
            most = max(most, resident_mb(agent))
            assert time.monotonic() < deadline + 60
            time.sleep(0.02)
        most = max(most, resident_mb(agent))
        assert most - before <= MEMORY_MB
        on_disk = sum(path.stat().st_size for path in log.parent.iterdir())
        assert on_disk <= 2 * (64 << 20) + 4096
    finally:
        client.send_signal(signal.SIGCONT)
    client.communicate(b"\n", timeout=120)
    text = said.read_bytes()
    assert b"RESULT said" in text and b"ENDED" in text and client.returncode == 0
    told = [int(size) for size in re.findall(rb"\[grid: (\d+) characters of output were dropped", text)]
    assert told
    lines = len(re.findall(rb"x{1023}", text))
    assert lines * 1024 + sum(told) >= PRINTED_MB << 20  # what did not come was told
