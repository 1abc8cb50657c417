"""Kept grids: clients are killed, and others take their places."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter as Tally
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid import Grid, GridStopped, LocalGrid
from grid.errors import SessionError
from grid.keeping.places import SessionPlace, names
from grid.kernel.lease import read_leases
from tests.edges.session_client import LIMITS, Counter

CLIENT = str(Path(__file__).with_name("session_client.py"))
NIGHTLY = bool(os.environ.get("GRID_NIGHTLY"))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("GRID_SESSIONS", str(tmp_path / "sessions"))
    (tmp_path / "notes").mkdir()
    yield tmp_path
    for name in names():  # of a test that failed
        with contextlib.suppress(SessionError):
            Grid.attach(name, steal=True).terminate()


@contextlib.contextmanager
def client(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A client; killed at the end, if it was not before."""
    environment = {**os.environ, "PYTHONPATH": str(Path(CLIENT).parents[2])}
    process = subprocess.Popen(
        [sys.executable, CLIENT, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def run_of(notes: Path) -> Tally[str]:
    """How often each call ran, by the servers' own word."""
    return Tally(line for file in notes.iterdir() for line in file.read_text().split())


@pytest.mark.row("Z02", "Z03")
def test_after_kill_9_another_process_has_servers_with_their_state_and_every_result(place: Path) -> None:
    with client("work", "lab", str(place / "notes"), "10m") as process:
        sid, _ = json.loads(first_line(process))
        os.kill(process.pid, signal.SIGKILL)
    began = time.monotonic()
    g = Grid.attach("lab")
    attached_s = time.monotonic() - began
    try:
        assert list(g.servers) == [sid] and len(g.servers[sid]) == 2
        assert g.named("running").get(30) == (7, 49)
        results = g.results()
        unnamed = {result.get(30) for result in results if result.name is None}
        assert unnamed - {(5, 25)} == {(number, number * number) for number in range(20)} - {(5, 25)}
        assert len(g.named("large").get(30)) == 600_000
        with pytest.raises(ValueError, match="on purpose"):
            g.named("failing").get(30)
        with pytest.raises(SessionError, match="no result is named 'other'"):
            g.named("other")
        del results
        busy = [server for server in g.servers[sid] if server.load.calls]
        with g.acquire_service(sid, timeout=10) as one, g.acquire_service(sid, timeout=10) as other:
            assert sorted([one.value().get(10), other.value().get(10)]) == [0, 5 + 7 + sum(range(20))]
            assert one.add(100).named("running").get(10) == (100, 10_000)  # the name is free again
        assert len(busy) == 1 and attached_s < 10
        fresh = g.publish(Counter(str(place / "notes")), republish=True)
        assert fresh != sid
    finally:
        g.terminate()
    assert run_of(place / "notes") == Tally(map(str, [*range(20), 5, 7, 100]))


@pytest.mark.row("Z02", "Z03")
def test_who_detaches_leaves_all_as_it_is_and_what_was_fetched_is_not_there_again(place: Path) -> None:
    g = LocalGrid(1, name="lab", keep="10m", limits=LIMITS, output=None)
    sid = g.publish(Counter(str(place / "notes")))
    with g.acquire_service(sid) as proxy:
        fetched, waiting = proxy.add(1).named("one"), proxy.add(2, 0.5).named("two")
        assert fetched.get(10) == (1, 1)
        with pytest.raises(ValueError, match="another call is named 'two'"):
            proxy.add(3).named("two")
    del fetched
    g.detach()
    g.detach()
    with pytest.raises(GridStopped, match="detached"):
        waiting.get(1)
    with pytest.raises(GridStopped):
        g.publish(Counter("x"))
    assert names() == ["lab"] and not SessionPlace("lab").is_used()
    for _ in range(2):  # in this process; and once more, nobody has fetched it
        again = Grid.attach("lab")
        assert [result.name for result in again.results()] == ["two", None]
        again.detach()
    with Grid.attach("lab") as last:
        assert last.named("two").get(10) == (2, 4)
        with last.acquire_service(sid, timeout=10) as proxy:
            assert proxy.value().get(10) == 6
    assert names() == [] and read_leases() == []


@pytest.mark.row("Z03")
def test_a_second_client_is_refused_or_the_first_one_hands_over(place: Path) -> None:
    with client("stay", "lab", str(place / "notes"), "10m") as process:
        sid, _ = json.loads(first_line(process))
        with pytest.raises(SessionError, match=f"process {process.pid} on .* has the session 'lab', and lives"):
            Grid.attach("lab")
        with pytest.raises(SessionError, match="a living process has the session 'lab'"):
            LocalGrid(1, name="lab", keep=60).start()
        with Grid.attach("lab", steal=True) as g:
            assert g.named("running").get(30) == (7, 49)
            with g.acquire_service(sid, timeout=20) as proxy:
                assert proxy.value().get(10) in (0, 5 + 7 + sum(range(20)))
        assert process.poll() is None


@pytest.mark.row("Z02")
def test_at_the_stated_hour_all_ends_by_itself_and_leaves_nothing(place: Path) -> None:
    with client("work", "lab", str(place / "notes"), "3.5s") as process:
        first_line(process)
        os.kill(process.pid, signal.SIGKILL)
    leases = read_leases()
    assert len(leases) == 2 and all(0 < lease["kept_until"] - time.time() < 120 for lease in leases)
    deadline = time.monotonic() + 60
    while read_leases():
        assert time.monotonic() < deadline, "it did not end"
        time.sleep(0.1)
    SessionPlace("lab").log.stat()
    os.utime(SessionPlace("lab").log, (time.time() - 120, time.time() - 120))
    with pytest.raises(SessionError, match="the time of session 'lab' has passed at"):
        Grid.attach("lab")
    assert names() == []


@pytest.mark.row("Z06")
def test_what_can_t_be_attached_to_says_why_and_what_can_be_saved_is(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SessionError, match="there is no session 'lab' on this machine"):
        Grid.attach("lab")
    with pytest.raises(ValueError, match="needs a name"):
        LocalGrid(1, keep="12h")
    with LocalGrid(1, output=None) as plain:
        with pytest.raises(SessionError, match="this grid is not kept"):
            plain.detach()
        with pytest.raises(SessionError, match="not kept"):
            plain.results()
    g = LocalGrid(1, name="lab", keep="10m", limits=LIMITS, output=None)
    sid = g.publish(Counter(str(place / "notes")))
    with g.acquire_service(sid) as proxy:
        made = [proxy.add(number).named(f"run{number}") for number in range(10)]
        made[-1].get(10)
        del made
    g.detach()
    log = SessionPlace("lab").log
    data = bytearray(log.read_bytes())
    good = bytes(data)
    log.write_bytes(b"nothing")
    with pytest.raises(SessionError, match="another version, or damaged at its beginning"):
        Grid.attach("lab")
    log.write_bytes(good.replace(b'"version"', b'"vexsion"', 1))
    with pytest.raises(SessionError, match="damaged: it does not say what it was"):
        Grid.attach("lab")
    at = data.index(b'[4, "run3"]')
    data[at] ^= 1
    log.write_bytes(data)
    with Grid.attach("lab") as again:
        assert "are damaged" in caplog.text
        assert {result.name for result in again.results()} == {*(f"run{n}" for n in range(9) if n != 3), None}
        assert again.named("run8").get(10) == (8, 64)
        with again.acquire_service(sid, timeout=10) as proxy:
            assert proxy.value().get(10) == 45


@pytest.mark.row("Z03")
def test_a_log_that_lost_calls_and_replies_still_leads_to_its_servers(place: Path) -> None:
    """As after a power cut: the servers know more than the log."""
    g = LocalGrid(1, name="lab", keep="10m", limits=LIMITS, output=None)
    sid = g.publish(Counter(str(place / "notes")))
    log = SessionPlace("lab").log
    with g.acquire_service(sid) as proxy:
        assert proxy.add(1).get(10) == (1, 1)
        early = log.read_bytes()
        late = [proxy.add(number) for number in range(2, 50)]
        assert late[-1].get(10)[0] == 49
    g.detach()
    log.write_bytes(early)
    with Grid.attach("lab") as again:
        with again.acquire_service(sid, timeout=10) as proxy:
            assert proxy.add(100).get(10) == (100, 10_000)
            assert proxy.value().get(10) == sum(range(50)) + 100
    assert max(run_of(place / "notes").values()) == 1


@pytest.mark.row("Z03")
def test_servers_that_died_meanwhile_fail_their_calls_with_the_cause(place: Path) -> None:
    with client("idle", "lab", str(place / "notes"), "10m") as process:
        sid, pid = json.loads(first_line(process))
        os.kill(process.pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    g = Grid.attach("lab")
    try:
        late = g._engine.fleet.limits.lost_s + 20
        deadline = time.monotonic() + late
        while len(g.servers[sid]) != 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert g.named("running").get(10) == (7, 49)
        with g.acquire_service(sid, timeout=10) as proxy:
            assert proxy.add(3).get(10) == (3, 9)
    finally:
        g.terminate()


@pytest.mark.row("Z03")
@pytest.mark.parametrize("seed", range(50 if NIGHTLY else 1))
def test_a_thousand_calls_and_a_client_that_is_killed_at_random_moments(place: Path, seed: int) -> None:
    calls, chance, got = 1000, random.Random(seed), place / "got"
    words = ["storm", "lab", str(place / "notes"), str(got), str(calls)]
    for kill in range(5):
        with client(*words, "again" if kill else "new") as process:
            assert first_line(process) == "up"
            if kill < 4:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.random() * 0.4)  # the moment
                os.kill(process.pid, signal.SIGKILL)
            else:
                assert first_line(process) == "through"
    values = [json.loads(line) for line in got.read_text().splitlines()]
    assert sorted(values) == [[number, number * number] for number in range(calls)]
    runs = run_of(place / "notes")
    assert len(runs) == calls and set(runs.values()) == {1}
    with Grid.attach("lab"):
        pass
    assert names() == [] and read_leases() == []


@pytest.mark.row("Z04")
def test_commands_list_attach_to_and_end_sessions(place: Path) -> None:
    def command(*words: str, said: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(CLIENT).parents[2])}
        whole = [sys.executable, "-m", "grid", *words]
        return subprocess.run(whole, input=said, capture_output=True, text=True, timeout=60, env=environment)

    assert "no session of yours" in command("sessions").stderr
    assert "there is no session 'lab'" in command("end", "lab").stderr
    g = LocalGrid(1, name="lab", keep="2h", limits=LIMITS, output=None)
    sid = g.publish(Counter(str(place / "notes")))
    with g.acquire_service(sid) as proxy:
        proxy.add(3).named("three")
    (shown,) = json.loads(command("sessions", "--json").stdout)
    assert shown["client_alive"] and shown["servers"] == 1 and shown["services"] == [sid]
    refused = command("end", "lab")
    assert refused.returncode == 1 and "and lives" in refused.stderr
    g.detach()
    listed = command("sessions").stdout
    assert "lab" in listed and "gone" in listed and "2.0 h" in listed
    held = command("ps").stdout
    assert "kept for" in held and "client gone" not in held
    script = place / "collect.py"
    script.write_text("from grid import Grid\ng = Grid.auto()\nprint(g.named('three').get(10), g.results())\n")
    ran = command("attach", "lab", "--", sys.executable, str(script))
    assert ran.stdout.startswith("(3, 9) []"), ran.stderr
    asked = command("attach", "lab", "--", sys.executable, "-i", said="print(len(g.servers))\nexit()\n")
    assert f"services {sid}" in asked.stdout and asked.stdout.rstrip().endswith("1"), asked
    assert names() == ["lab"]  # an interpreter leaves it
    ended = command("end", "lab")
    assert (ended.stdout, ended.stderr) == ("ended lab\n", "")
    assert names() == [] and read_leases() == []
