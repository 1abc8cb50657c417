"""Strangers at the port of a job server, idle, slow, greedy, by thousands: who has a token is served."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from grid.web.arrivals import Seldom
from grid.web.door import Door, share_of
from grid.web.limits import WebLimits
from grid.web.slowing import Slowing
from tests.edges.alone_server import Alone
from tests.edges.jobs_services import Square
from tests.edges.web_readers import Reader

MB = 1 << 20
LIMIT_S = 60.0


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def strangers(port: int, count: int, say: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections of nobody; those that are cut stay in the list."""
    held: list[socket.socket] = []
    try:
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
            held.append(connection)
            with contextlib.suppress(OSError):  # cut already
                connection.sendall(say)
        yield held
    finally:
        for connection in held:
            connection.close()


def in_time(api: httpx.Client) -> float:
    """What counts as at once here and now: a second, or ten times what it takes on this machine without strangers."""
    return max(1.0, 10 * slowest(api))


def slowest(api: httpx.Client, rounds: int = 20) -> float:
    times = []
    for _ in range(rounds):
        began = time.monotonic()
        assert api.get("/me").status_code == 200
        times.append(time.monotonic() - began)
    return max(times)


@pytest.mark.row("Y05")
def test_two_thousand_idle_strangers_hold_up_nobody_and_cost_no_memory(tmp_path: Path, many_files: None) -> None:
    with Alone(tmp_path, tls=True) as server, server.api() as api:
        limit_s = in_time(api)
        before = server.memory()
        for say in (b"", b"\x16\x03\x01\x02"):  # some begin TLS, and never go on
            with strangers(server.port, 1_000, say):
                assert slowest(api, 5) < limit_s
        with strangers(server.port, 2_000):
            assert slowest(api, 5) < limit_s
            with server.api() as fresh:  # one who connects only now
                assert slowest(fresh, 5) < limit_s
            assert server.memory() - before < 64 * MB
            assert server.log.stat().st_size < 100_000
        assert slowest(api, 5) < limit_s


@pytest.mark.row("Y05")
def test_fifty_streams_get_all_changes_within_a_second_beside_two_thousand_strangers(
    tmp_path: Path, many_files: None
) -> None:
    n_jobs, n_streams = 20, 50
    with Alone(tmp_path) as server, server.api() as api:
        limit_s = in_time(api)
        before = server.memory()

        async def follow() -> list[Reader]:
            until = asyncio.Event()
            readers = [Reader(server.port, server.token) for _ in range(n_streams)]
            following = [asyncio.ensure_future(reader.follow(until)) for reader in readers]
            await asyncio.gather(*(asyncio.wait_for(reader.ready.wait(), LIMIT_S) for reader in readers))
            with strangers(server.port, 2_000):
                for value in range(n_jobs):
                    await asyncio.to_thread(submit, api, value)
                done = time.monotonic() + LIMIT_S
                while not all(complete(reader) for reader in readers) and time.monotonic() < done:
                    await asyncio.sleep(0.02)
            until.set()
            await asyncio.gather(*following)
            return readers

        def complete(reader: Reader) -> bool:
            return sum(job["state"] == "complete" for job in reader.jobs.values()) == n_jobs

        readers = asyncio.run(follow())
        assert all(map(complete, readers)) and not any(reader.wrong for reader in readers)
        assert all(reader.connections == 1 for reader in readers), "no stream was cut"
        late = [when - happened for reader in readers for happened, when in changes(reader)]
        assert late and max(late) < limit_s
        assert server.memory() - before < 64 * MB


def submit(api: httpx.Client, value: int) -> None:
    answer = api.post("/jobs", json={"request": Square.request(value=value).to_plain()})
    assert answer.status_code == 201, answer.text


def changes(reader: Reader) -> Iterator[tuple[float, float]]:
    """(when a job ended, when the reader heard of it)."""
    heard = dict(reader.times)  # the last change of each
    for job in reader.jobs.values():
        if job["id"] in heard:
            yield job["ended"], heard[job["id"]]


@pytest.mark.row("Y05")
def test_strangers_send_bodies_that_nobody_reads(tmp_path: Path) -> None:
    with Alone(tmp_path) as server, server.api() as api:
        limit_s = in_time(api)
        before = server.memory()
        head = b"%s HTTP/1.1\r\nhost: x\r\ncontent-length: 15000000\r\n\r\n"
        for line in (b"POST /", b"POST /api/v1/jobs", b"POST /api/v1/openapi.json", b"PUT /nothing"):
            with strangers(server.port, 10, head % line) as held:
                for connection in held:
                    with contextlib.suppress(OSError):  # it is closed while we send
                        connection.sendall(b"x" * 3_000_000)
                    answer = whole(connection)
                    assert answer == b"" or answer.split()[1] in (b"401", b"413", b"405", b"404"), answer[:100]
        assert server.memory() - before < 64 * MB
        assert slowest(api, 5) < limit_s


def one(connection: socket.socket) -> bytes:
    """One answer."""
    answer = connection.recv(1 << 16)
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(1 << 16)
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"content-length: " in head.lower():
        size = int(head.lower().split(b"content-length: ")[1].split()[0])
        while len(body) < size:
            body += connection.recv(1 << 16)
    return head + body


def whole(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


@pytest.mark.row("Y05")
def test_a_body_has_one_deadline_and_not_one_for_each_piece(tmp_path: Path) -> None:
    limits = {"header_s": 1.0, "bytes_per_s": 1 << 20}
    with Alone(tmp_path, limits=limits) as server:
        head = f"POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.token}\r\n"
        with strangers(server.port, 1, f"{head}content-length: 1048576\r\n\r\n".encode()) as (slow,):
            slow.settimeout(0.3)
            end = time.monotonic() + LIMIT_S
            answer = b""
            while not answer and time.monotonic() < end:
                slow.sendall(b"x")  # well within a second each
                with contextlib.suppress(TimeoutError):
                    answer = slow.recv(1 << 16)
            assert answer.split()[1] == b"408"


@pytest.mark.row("Y05")
def test_who_shows_no_token_gets_one_answer_on_a_connection_and_who_does_keeps_it(tmp_path: Path) -> None:
    with Alone(tmp_path) as server:
        ask = b"GET %s HTTP/1.1\r\nhost: x\r\n%s\r\n"
        for path in (b"/", b"/api/v1/me", b"/api/v1/openapi.json", b"/nothing"):
            with strangers(server.port, 1, ask % (path, b"")) as (connection,):
                answer = whole(connection)  # it ends
                assert b"connection: close" in answer.lower() and answer.count(b"HTTP/1.1 ") == 1
        right = f"authorization: Bearer {server.token}\r\n".encode()
        with strangers(server.port, 1) as (connection,):
            for _ in range(3):
                connection.sendall(ask % (b"/api/v1/me", right))
                answer = one(connection)
                assert answer.split()[1] == b"200" and b"connection: close" not in answer.lower()


@pytest.mark.row("Y05")
def test_a_stranger_has_not_long_and_can_not_lengthen_it(tmp_path: Path) -> None:
    limits = {"header_s": 0.7, "stranger_s": 2.0}
    with Alone(tmp_path, tls=True, limits=limits) as server:
        context = ssl._create_unverified_context()
        with strangers(server.port, 1) as (silent,):  # never begins TLS
            assert whole(silent) == b""
        with strangers(server.port, 1) as (connection,):
            wrapped = context.wrap_socket(connection)
            assert whole(wrapped) == b""  # and no request
            wrapped.close()
        with strangers(server.port, 1, b"\x16\x03\x01") as (half,):
            end = time.monotonic() + LIMIT_S
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < end:
                    half.sendall(b"\x02")  # a hello that never ends
                    time.sleep(0.1)
            assert time.monotonic() < end


@pytest.mark.row("Y05")
def test_more_connections_than_there_are_files_end_strangers_and_fill_no_log(
    tmp_path: Path, many_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400) if hard == 400 else (400, hard))
    try:
        server = Alone(tmp_path, tls=True, limits={"strangers": 300})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with server, server.api() as api:
        # what the process may have at most is lowered behind its back: as if it were full of other files
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (200, hard))
        with strangers(server.port, 300):
            assert slowest(api, 3) < LIMIT_S / 2
        assert slowest(api, 3) < LIMIT_S / 2
        assert server.log.stat().st_size < 100_000, server.log.read_text()[-2000:]


@pytest.mark.row("Y05")
def test_one_user_can_not_take_all_places_and_idle_ones_make_room(tmp_path: Path) -> None:
    with Alone(tmp_path, limits={"connections": 12, "connections_each": 8}) as server:
        ask = b"GET /api/v1/me HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n\r\n"
        with contextlib.ExitStack() as stack:
            held = []
            for _ in range(30):
                (connection,) = stack.enter_context(strangers(server.port, 1, ask % server.token.encode()))
                assert one(connection).split()[1] == b"200"  # the longest idle one of mara made room
                held.append(connection)
            (ole,) = stack.enter_context(strangers(server.port, 1, ask % server.other.encode()))
            assert one(ole).split()[1] == b"200"
            ole.sendall(ask % server.other.encode())
            assert one(ole).split()[1] == b"200"
            streams = []
            for _ in range(9):  # who listens is not idle
                listen = ask.replace(b"/me", b"/events") % server.token.encode()
                (stream,) = stack.enter_context(strangers(server.port, 1, listen))
                streams.append(one(stream).split()[1])
            assert streams == [b"200"] * 8 + [b"503"]


@pytest.mark.row("Y06")
def test_wrong_tokens_are_slowed_down_and_right_ones_never(tmp_path: Path) -> None:
    with Alone(tmp_path, limits={"wrong_wait_s": 0.8}) as server, server.api() as api:
        wrong = {"authorization": f"Bearer grid_{'a' * 10}_{'b' * 43}"}
        times = []
        with httpx.Client(base_url=f"{server.url}/api/v1", headers=wrong, trust_env=False, timeout=LIMIT_S) as guess:
            for _ in range(16):
                began = time.monotonic()
                assert guess.get("/me").status_code == 401
                times.append(time.monotonic() - began)
            assert times[-1] > 0.75 > 0.4 > min(times[:10])
        assert min(_timed(api) for _ in range(5)) < 0.4  # from the same address


def _timed(api: httpx.Client) -> float:
    began = time.monotonic()
    assert api.get("/me").status_code == 200
    return time.monotonic() - began


@pytest.mark.row("Y06")
def test_waits_for_wrong_tokens_grow_per_address_are_bounded_and_forgotten() -> None:
    now = [0.0]
    limits = WebLimits()
    slowing = Slowing(limits, lambda: now[0])
    waits = [slowing.wrong("192.0.2.1") for _ in range(40)]
    assert waits[: limits.wrong_free] == [0.0] * limits.wrong_free and waits == sorted(waits)
    assert waits[-1] == limits.wrong_wait_s and slowing.wrong("192.0.2.2") == 0.0
    now[0] = 3600.0
    assert slowing.wrong("192.0.2.1") == 0.0
    for n in range(2 * limits.wrong_addresses):
        slowing.wrong(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert len(slowing._tries) == limits.wrong_addresses


@pytest.mark.row("Y05")
def test_the_door_takes_from_the_address_with_the_most_and_never_from_who_proved_himself() -> None:
    limits = WebLimits(strangers=10, connections=3, connections_each=2)
    door = Door(limits)
    assert [door.came(f"far-{n}", "192.0.2.1") for n in range(10)] == [None] * 10
    assert door.came("near", "198.51.100.7") == "far-0"
    door.left("far-0")
    for n in range(100):  # they come ever anew, and only displace each other
        victim = door.came(f"more-{n}", "192.0.2.1")
        assert victim is not None and victim != "near"
        door.left(victim)
    assert door.proved("near", "mara") == (True, None) and not door.is_stranger("near")
    assert door.proved("near", "mara") == (True, None)
    assert len(door) == 10  # nine strangers and one who is known
    for key, user in (("b", "mara"), ("c", "ole")):
        door.came(key, "198.51.100.7")
        assert door.proved(key, user)[0]
    door.came("d", "198.51.100.7")
    assert door.proved("d", "kim") == (False, None)  # all work
    door.works("b")
    door.rests("b")
    door.came("e", "198.51.100.7")
    assert door.proved("e", "kim") == (True, "b")
    assert share_of("2001:db8:1:2:3::4") == share_of("2001:db8:1:2:ffff::1") != share_of("2001:db8:1:3::1")
    assert share_of("::ffff:192.0.2.1") == share_of("192.0.2.1")


@pytest.mark.row("Y05")
def test_the_door_keeps_its_books_whatever_comes() -> None:
    import random

    rng = random.Random(3)
    limits = WebLimits(strangers=20, connections=15, connections_each=6)
    door, alive = Door(limits), {}
    for n in range(20_000):
        kind = rng.random()
        key = rng.choice(list(alive)) if alive else None
        victim: Any = None
        if kind < 0.4 or key is None:
            alive[n] = f"10.0.0.{rng.randrange(5)}"
            victim = door.came(n, alive[n])
        elif kind < 0.6:
            has, victim = door.proved(key, rng.choice("abcd"))
            if not has:
                door.left(key)
                del alive[key]
        elif kind < 0.75:
            door.rests(key)
        elif kind < 0.85:
            door.works(key)
        else:
            door.left(key)
            del alive[key]
        if victim is not None:
            door.left(victim)
            del alive[victim]
        assert len(door) == len(alive)
        assert sum(map(door.is_stranger, alive)) <= limits.strangers
        assert len(alive) <= limits.strangers + limits.connections


@pytest.mark.row("Y05")
def test_what_strangers_cause_is_logged_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    seldom = Seldom(lambda: now[0])
    for n in range(5_000):
        now[0] += 0.001
        seldom.warning("line %d", n)
    assert len(caplog.records) == 5 and "999 such lines were left out" in caplog.text
