"""A job server behind a local socket: what a client sees, what strangers and other versions see."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grid.jobs import (
    JobCancelled,
    JobError,
    JobFailed,
    JobList,
    JobManager,
    RequestError,
    ServerProxy,
    Settings,
    Store,
    ThreadEngine,
    UnknownJob,
    UnknownJobService,
    WireError,
    add_user,
    default_service,
    remote_service,
)
from grid.jobs.api import API
from grid.jobs.host.errors import AccessError, StoreLocked
from grid.jobs.line.door import SocketServer
from tests.edges.jobs_services import ALL, Add, Fail, Reads, Square, Steps, Writes

LIMIT_S = 30.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[SocketServer]:
    with JobManager(Store(tmp_path / "s"), ThreadEngine(2, 3), Settings(tick_s=0.05)) as manager:
        for cls in ALL:
            manager.register(cls)
        server = SocketServer(manager, name="lab")
        try:
            yield server
        finally:
            server.close()


@pytest.fixture
def service(served: SocketServer) -> Iterator[ServerProxy]:
    service = remote_service("lab", user="mara")
    yield service
    service.close()


def address_of(served: Any) -> str:
    """Of a server behind a socket, or behind HTTP: `test_web_client.py` has some of these tests, too."""
    return getattr(served, "url", "") or f"unix:{served.path}"


@pytest.mark.row("P02", "P21", "P24", "P26", "P04", "P14", "R10", "C29", "C30", "C40")
def test_all_is_as_in_one_process(service: ServerProxy) -> None:
    with service:
        job = Square.submit(values=[1, 2, 3], tags=["name=squares"])
        writer = Writes.submit(after=job)
        reader = Reads.submit(name=writer.filename, n=job.result[2])
        gate = Steps.submit()
        late = Square.submit(value=2, when=gate.result("k > 3") & writer.iscompleted)
        assert reader.wait(LIMIT_S) == {"read": f"{writer.id}.out", "n": 9} and job.wait() == [1, 4, 9]
        assert late.wait(LIMIT_S) == 4 and writer.read(writer.filename) == b"text"
        assert service.jobs(tags=["name=squares"]) == [job] and service.job(job.id) is job
        assert gate.ask("GetK", timeout=LIMIT_S) > 3
        assert any(message.kind == "Improved" for message in gate.messages(LIMIT_S))
        lost = Square.submit(value=1, when=gate)
        gate.abort("enough")
        with pytest.raises(JobCancelled, match="enough"):
            lost.wait(LIMIT_S)
        with pytest.raises(JobFailed, match="on purpose") as failed:
            Fail.submit().wait(LIMIT_S)
        assert "jobs_services.py" in failed.value.trace
        assert service.race([Steps.submit(n=9)], "k > 2").wait(LIMIT_S)["k"] == 9
        assert Add.submit(a=1, b=2, inputs=[1]).wait(LIMIT_S) == [{"sum": 3, "input": 1}]
        assert service.services() and service.credits()["user"] == "mara" and service.graph()
        assert job.iscompleted.ready and gate.iscompleted.cancelled and "satisfied" in job.iscompleted.explain()
        job.archive()
        job.delete()


@pytest.mark.row("P02", "P12", "R02")
def test_errors_come_over_the_socket_as_what_they_are(service: ServerProxy) -> None:
    with pytest.raises(UnknownJob, match="job-99"):
        service.status("job-99")
    with pytest.raises(KeyError):
        service.stop("job-99")
    request = Square.request(value=1)
    request.service = "nothing.Here"
    with pytest.raises(UnknownJobService) as unknown:
        service.submit(request)
    assert unknown.value.available["tests.edges.jobs_services.Square"] == ["1"]
    with pytest.raises(JobError, match="registered where the server runs"):
        service.register(Square)
    with pytest.raises(RequestError, match="wrong arguments"):
        service.calls.carry(API["status"], (1, 2, 3), {})
    for name in ("close", "_record", "manager", "listen", "__init__"):
        with pytest.raises(RequestError, match="has no call"):
            service.calls.carry(replace(API["status"], name=name), (), {})
    assert service.status(service.submit(Square.request(value=1)).id)  # the connection still works


@pytest.mark.row("P01", "J16", "J15", "J11")
def test_clients_come_and_go_and_jobs_go_on(served: SocketServer) -> None:
    first = remote_service("lab", user="mara")
    job = first.submit(Steps.request(n=60, pause=0.01))
    first.close()
    with pytest.raises(JobError, match="closed"):
        first.status(job.id)
    second, third = remote_service(address_of(served), user="mara"), remote_service("lab", user="ole")
    try:
        with JobList(third) as jobs:
            assert second.job(job.id).wait(LIMIT_S)["k"] == 60
            others = second.submit_all([Square.request(value=n) for n in range(50)])
            jobs.wait_for(lambda now: all(now.get(j.id, {}).get("state") == "complete" for j in others), LIMIT_S)
            assert len(jobs) == 51
    finally:
        second.close()
        third.close()


@pytest.mark.row("C29", "P24")
def test_two_connections_lead_to_one_server(served: SocketServer) -> None:
    first, second = remote_service(address_of(served), user="mara"), remote_service(address_of(served), user="mara")
    try:
        job = Square.submit(value=3, service=first)
        assert Square.submit(value=2, after=job, when=job.iscompleted, service=second).wait(LIMIT_S) == 4
    finally:
        first.close()
        second.close()


@pytest.mark.row("P01", "P15")
def test_many_threads_use_one_connection_at_once(service: ServerProxy) -> None:
    results: list[Any] = []

    def work(n: int) -> None:
        results.append(service.submit(Square.request(value=n)).wait(LIMIT_S))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [n * n for n in range(12)]


@pytest.mark.row("P03", "P25")
def test_a_token_is_asked_for_where_the_server_wants_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with JobManager(Store(tmp_path / "s"), ThreadEngine(1, 1), Settings(tokens=True)) as manager:
        manager.register(Square)
        token = add_user(manager, "mara")
        server = SocketServer(manager, str(tmp_path / "socket"))
        try:
            address = f"unix:{tmp_path}/socket"
            with pytest.raises(AccessError, match="token"):
                remote_service(address, "mara", "wrong")
            monkeypatch.setenv("GRID_JOBS_TOKEN", token)
            service = remote_service(address, "mara")
            assert service.submit(Square.request(value=3)).wait(LIMIT_S) == 9
            with pytest.raises(AccessError):
                service.connect("ole", token)
            service.close()
        finally:
            server.close()


@pytest.mark.row("P02", "G68")
def test_the_socket_is_for_its_user_alone_and_a_second_server_is_refused(served: SocketServer) -> None:
    info = os.stat(served.path)
    assert stat.S_IMODE(info.st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(served.path)).st_mode) == 0o700
    with pytest.raises(StoreLocked, match="listens"):
        SocketServer(served.manager, name="lab")


def test_a_socket_that_a_killed_server_left_is_taken_over(tmp_path: Path, served: SocketServer) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "left"))
    left.close()
    again = SocketServer(served.manager, str(tmp_path / "left"))
    again.close()
    assert not (tmp_path / "left").exists()


def talk(path: str, *lines: bytes) -> list[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(LIMIT_S)
        client.connect(path)
        client.sendall(b"".join(lines))
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answers:
            return [json.loads(line) for line in answers]


@pytest.mark.row("P02", "R06")
def test_strangers_and_other_versions_are_told_so_and_nothing_is_unpickled(served: SocketServer) -> None:
    other = talk(served.path, b'{"grid_jobs": 99, "grid": "9.9"}\n')
    assert other[0]["grid_jobs"] == 1
    assert "speaks version 99 (grid 9.9), we speak 1" in other[1]["error"]["what"]
    for noise in (b"GET / HTTP/1.1\r\n", b"\x80\x05K\x01.\n", b'{"x": 1}\n', b"[]\n"):
        assert talk(served.path, noise)[1]["error"]["kind"] == "WireError"
    hello = b'{"grid_jobs": 1}\n'
    assert "no question" in talk(served.path, hello, b"3\n")[1]["error"]["what"]
    asked = talk(served.path, hello, b'{"id": 1, "call": "jobs"}\n', b'{"id": 2, "listen": "jobs"}\n')
    assert [answer["error"]["kind"] for answer in asked[1:]] == ["AccessError", "AccessError"]


@pytest.mark.row("P21")
def test_servers_are_found_by_name_file_and_path_and_others_are_named(
    served: SocketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "servers.yaml").write_text(f"work: unix:{served.path}\nalias: work\n")
    monkeypatch.setenv("GRID_SERVERS", str(tmp_path / "servers.yaml"))
    remote_service("alias", user="x").close()
    monkeypatch.setenv("GRID_JOBS", "work")
    chosen = default_service()
    assert chosen is default_service() and chosen.services()
    chosen.close()
    with pytest.raises(JobError, match=r"no job server is called 'home'. There are alias, lab, work"):
        remote_service("home")
    with pytest.raises(JobError, match="no job server answers at"):
        remote_service(f"unix:{tmp_path}/nothing")
    with pytest.raises(JobError, match="can't be the address"):
        remote_service("ftp://example.org")
    (tmp_path / "servers.yaml").write_text("- a\n")
    with pytest.raises(JobError, match="must map names"):
        remote_service("home")


@pytest.mark.row("P15", "J18", "P24")
def test_who_waits_or_listens_learns_that_the_server_has_gone(served: SocketServer) -> None:
    service = remote_service("lab", user="mara")
    job = service.submit(Steps.request())
    failed: list[BaseException] = []

    def catch(wait: Any) -> None:
        try:
            wait()
        except JobError as exc:
            failed.append(exc)

    with JobList(service) as jobs:
        waits = [lambda: jobs.wait_for(lambda _: False, LIMIT_S), lambda: list(job.messages(LIMIT_S)), job.wait]
        threads = [threading.Thread(target=catch, args=(wait,)) for wait in waits]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + LIMIT_S
        while served.manager.streams.listening(job.id) < 1:
            assert time.monotonic() < deadline and not failed, failed
            time.sleep(0.01)
        served.close()
        for thread in threads:
            thread.join(LIMIT_S)
    words = ("does not answer any more", "broke")
    assert len(failed) == 3 and all(any(word in str(exc) for word in words) for exc in failed), failed
    service.close()


@pytest.mark.row("P21")
def test_what_answers_but_is_no_job_server_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "web"))
        other.listen()

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"hello, I am somebody else\n")
                connection.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(WireError, match="no JSON"):
            remote_service(f"unix:{tmp_path}/web")
        thread.join()
