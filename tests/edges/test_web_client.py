"""Clients of a job server behind HTTP: the same as behind a socket, and what a network adds to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from grid.jobs import JobManager, ServerProxy, Settings, Store, ThreadEngine, remote_service
from grid.web.server import WebServer
from tests.edges.jobs_services import ALL
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
