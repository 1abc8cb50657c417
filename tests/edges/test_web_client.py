"""Clients of a job server behind HTTP: the same as behind a socket, and what a network adds to it."""

from __future__ import annotations

import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from grid.cli.main import main
from grid.errors import GridError
from grid.jobs import JobError, JobList, JobManager, ServerProxy, Settings, Store, ThreadEngine, remote_service
from grid.jobs.host.errors import AccessError, WireError
from grid.web import login
from grid.web.limits import WebLimits
from grid.web.server import WebServer, address
from grid.web.tls import Certificate
from grid.web.tokens import Tokens
from tests.edges.jobs_services import ALL, Square, Steps
from tests.edges.test_jobs_socket import (
    test_all_is_as_in_one_process,
    test_clients_come_and_go_and_jobs_go_on,
    test_errors_come_over_the_socket_as_what_they_are,
    test_many_threads_use_one_connection_at_once,
    test_who_waits_or_listens_learns_that_the_server_has_gone,
)

__all__ = [  # collected here with the fixtures of this module: the same promises, by another way
    "test_all_is_as_in_one_process",
    "test_clients_come_and_go_and_jobs_go_on",
    "test_errors_come_over_the_socket_as_what_they_are",
    "test_many_threads_use_one_connection_at_once",
    "test_who_waits_or_listens_learns_that_the_server_has_gone",
]
LIMIT_S = 30.0


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_LOGINS", str(tmp_path / "logins.json"))
    monkeypatch.setenv("GRID_SERVERS", str(tmp_path / "servers.yaml"))
    monkeypatch.setenv("GRID_JOBS_PATIENCE", "1")
    monkeypatch.setenv("GRID_NO_KEYRING", "1")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[JobManager]:
    with JobManager(Store(tmp_path / "s"), ThreadEngine(2, 3), Settings(tick_s=0.05)) as manager:
        for cls in ALL:
            manager.register(cls)
        yield manager


@pytest.fixture
def served(manager: JobManager, tmp_path: Path) -> Iterator[WebServer]:
    web = WebServer(manager, tokens=None)
    (tmp_path / "servers.yaml").write_text(f"lab: {web.url}\n")
    yield web
    web.close()


@pytest.fixture
def service(served: WebServer) -> Iterator[ServerProxy]:
    service = remote_service("lab", user="mara")
    yield service
    service.close()


# ---- who is who ------------------------------------------------------------------------------------------------------


def grid(*arguments: str, **more: Any) -> Any:
    """The command line, in this process."""
    return CliRunner().invoke(main, arguments, **more)


@pytest.mark.row("P21", "C36", "P25", "C35")
def test_a_login_is_kept_and_is_good_for_names_and_commands(
    manager: JobManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = str(manager.store.directory)
    made = grid("token", "create", "mara", "--store", store, "--days", "1", "--note", "test")
    token = made.stdout.strip()
    own = Certificate.own(manager.store.directory, "127.0.0.1")
    web = WebServer(manager, tokens=Tokens(manager.store.directory), certificate=own)
    try:
        with pytest.raises(AccessError, match="can't be trusted"):
            remote_service(web.url, token=token)
        with pytest.raises(AccessError, match="another fingerprint"):
            remote_service(f"{web.url}#{'0' * 64}", token=token)
        other = grid("login", web.url, "--fingerprint", "0" * 64, "--token-file", "-", input=f"{token}\n")
        assert other.exit_code == 1, other.output
        assert f"grid: {web.url}: its certificate has another fingerprint than the one on record. Ask" in other.stderr
        wrong = grid("login", web.url, "--fingerprint", web.fingerprint, "--token-file", "-", input="grid_x_y\n")
        assert wrong.exit_code == 1 and "not valid here" in wrong.stderr
        given = ("--name", "work", "--fingerprint", web.fingerprint, "--token-file", "-")
        kept = grid("login", web.url, *given, input=f"{token}\n")
        assert kept.exit_code == 0 and "mara" in kept.stderr, kept.output
        assert stat.S_IMODE(os.stat(tmp_path / "logins.json").st_mode) == 0o600
        service = remote_service("work", user="ole")  # the server knows better
        assert service.user == "mara" and service.submit(Square.request(value=3)).wait(LIMIT_S) == 9
        assert service.summaries()[0]["owner"] == "mara"
        with JobList(service) as jobs:
            assert len(jobs) == 1
        service.close()
        listed = grid("jobs", "list", "--server", "work", "--json")
        assert listed.exit_code == 0 and '"state": "complete"' in listed.stdout, listed.output
        assert grid("jobs", "tail", "job-1", "--server", "work").exit_code == 0
        assert token not in made.stderr + kept.output + listed.output
        shown = grid("token", "list", "--store", store).stdout
        assert token[5:15] in shown and token[16:] not in shown and "test" in shown
        os.chmod(tmp_path / "logins.json", 0o644)
        with pytest.raises(AccessError, match="can be read by others"):
            remote_service("work")
        os.chmod(tmp_path / "logins.json", 0o600)
        assert grid("token", "revoke", token[5:15], "--store", store).exit_code == 0
        with pytest.raises(AccessError, match="not valid here"):
            remote_service("work")
        assert grid("logout", "work").exit_code == 0 and grid("logout", "work").exit_code == 2
        assert login.find(web.url) == {}
    finally:
        web.close()


KEYRING = """
import types
kept = {}
def get_keyring(): return types.SimpleNamespace(priority=5)
def set_password(service, name, secret): kept[service, name] = secret
def get_password(service, name): return kept.get((service, name))
def delete_password(service, name): del kept[service, name]
"""


@pytest.mark.row("C36")
def test_where_there_is_a_keyring_the_token_is_in_it_alone(
    manager: JobManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keyring.py").write_text(KEYRING)  # stands for a desktop's; ours has none
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("GRID_NO_KEYRING")
    monkeypatch.delitem(sys.modules, "keyring", raising=False)
    tokens = Tokens(manager.store.directory)
    token = tokens.create("mara")
    web = WebServer(manager, tokens=tokens)
    try:
        login.login(web.url, token, name="work")
        assert token[16:] not in (tmp_path / "logins.json").read_text()
        service = remote_service("work")
        assert service.user == "mara"
        service.close()
        assert login.logout("work")
        with pytest.raises(AccessError):
            remote_service(web.url)
    finally:
        web.close()
        sys.modules.pop("keyring", None)


@pytest.mark.row("P21")
def test_addresses_that_can_not_be_used_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_JOBS_TOKEN", "grid_x_y")
    for url, words in {
        "http://192.0.2.1:1": "clear text",
        "https://mara:secret@127.0.0.1:1": "without user",
        "https://": "can't be the URL",
        "http://127.0.0.1:1": "no job server answers",
        "https://127.0.0.1:1#12": "is no fingerprint",
    }.items():
        with pytest.raises(GridError, match=words):
            remote_service(url)
    assert address("8080") == ("127.0.0.1", 8080) and address("0.0.0.0:1") == ("0.0.0.0", 1)
    assert address(":5") == ("127.0.0.1", 5) and address("[::1]:7") == ("::1", 7) and address("localhost")[1] == 8440
    for wrong in ("a:b", "1.2.3.4:99999"):
        with pytest.raises(GridError, match="no address"):
            address(wrong)


@pytest.mark.row("P21")
def test_what_answers_but_is_no_job_server_over_http_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(WireError, match="no job server of grid"):
            remote_service(f"http://127.0.0.1:{other.getsockname()[1]}")
        thread.join()


# ---- connections that break ------------------------------------------------------------------------------------------


class Relay:
    """Carries connections to a server, and can cut them all."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.cuts = 0
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._server.accept()
            except OSError:
                return
            try:
                there = socket.create_connection(self._to, 5.0)
            except OSError:
                here.close()
                continue
            there.settimeout(None)
            with self._lock:
                self._open += [here, there]
                for a, b in ((here, there), (there, here)):
                    self._threads.append(threading.Thread(target=self._carry, args=(a, b), daemon=True))
                    self._threads[-1].start()

    def _carry(self, a: socket.socket, b: socket.socket) -> None:
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        for each in (a, b):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self) -> None:
        with self._lock:
            for each in self._open:
                try:
                    each.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self.cuts += 1

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        for thread in list(self._threads):
            thread.join(5.0)
        for each in self._open:
            each.close()


@pytest.mark.row("J14", "J15", "J16", "J11", "J18")
def test_streams_that_are_cut_go_on_with_nothing_dropped_and_nothing_twice(served: WebServer) -> None:
    relay = Relay(served.port)
    near, far = remote_service("lab", user="mara"), remote_service(f"http://127.0.0.1:{relay.port}", user="mara")
    numbers: list[int] = []
    try:
        steps = near.submit(Steps.request(n=400, pause=0.002))
        with JobList(far, lambda _, message: numbers.append(message.number)) as jobs:
            said = []
            for message in far.job(steps.id).messages(LIMIT_S):
                said.append(message)
                if len(said) % 5 == 0 and relay.cuts < 20:
                    relay.cut()
                    near.submit(Square.request(value=1))
            for job in near.jobs():
                job.wait(LIMIT_S)
            jobs.wait_for(lambda now: all(each["state"] == "complete" for each in now.values()), LIMIT_S)
            assert jobs.jobs == {each["id"]: each for each in near.summaries()} and jobs.restarts == 0
        assert relay.cuts >= 2
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert [message.number for message in said] == list(range(said[0].number, said[0].number + len(said)))
        assert said[-1].kind == "Completed"
    finally:
        near.close()
        far.close()
        relay.close()


@pytest.mark.row("J15", "J16", "J19", "P24")
def test_a_server_that_restarts_is_found_again_and_the_list_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_JOBS_PATIENCE", "20")
    port = 0
    service: ServerProxy | None = None
    jobs: JobList | None = None
    try:
        for turn in range(3):
            with JobManager(Store(tmp_path / "s"), ThreadEngine(2, 3), Settings(tick_s=0.05)) as manager:
                manager.register(Square)
                web = WebServer(manager, ("127.0.0.1", port), tokens=None, limits=WebLimits(alive_s=0.2))
                port = web.port
                try:
                    if service is None:
                        service = remote_service(web.url, user="mara")
                        jobs = JobList(service)
                    assert jobs is not None
                    job = service.submit(Square.request(value=turn))
                    assert job.wait(LIMIT_S) == turn**2
                    jobs.wait_for(lambda now, job=job: now.get(job.id, {}).get("state") == "complete", LIMIT_S)
                    assert len(jobs) == turn + 1
                finally:
                    web.close()
    finally:
        if jobs is not None:
            jobs.close()
        if service is not None:
            service.close()


@pytest.mark.row("P15", "P26")
def test_a_wait_outlives_a_cut_and_ends_when_the_job_does(served: WebServer) -> None:
    relay = Relay(served.port)
    far = remote_service(f"http://127.0.0.1:{relay.port}", user="mara")
    try:
        job = far.submit(Steps.request(n=100, pause=0.01))
        threading.Timer(0.2, relay.cut).start()
        assert job.wait(LIMIT_S)["k"] == 100
        with pytest.raises(TimeoutError):
            far.submit(Steps.request()).wait(0.3)
        end = time.monotonic()
        far.job("job-2").abort()
        with pytest.raises(JobError):
            far.job("job-2").wait(LIMIT_S)
        assert time.monotonic() - end < 10
    finally:
        far.close()
        relay.close()
