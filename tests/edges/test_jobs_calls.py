"""To add a call to the job server takes two files: a row in `jobs/api.py`, and its work in `jobs/server.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.jobs import AccessError, JobManager, RequestError, Server, ServerProxy, Settings, Store, ThreadEngine
from grid.jobs.api import API, READ, Call, Calls, Whose, guarded, row, table
from grid.jobs.line.client import RemoteServer
from grid.jobs.line.door import SocketServer
from grid.web.caller import Caller
from grid.web.client import HttpServer
from grid.web.server import WebServer
from grid.web.tokens import Tokens
from grid.web.who import Who
from tests.edges.jobs_services import Square


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[JobManager]:
    with JobManager(Store(tmp_path / "s"), ThreadEngine(1, 1), Settings(tick_s=0.05)) as manager:
        manager.register(Square)
        manager.submit("mara", [{"request": Square.request(value=value).to_plain()} for value in range(3)])
        yield manager


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Call:
    """A call that no other file knows, put where the two places are."""

    def owned(self: Calls, owner: str, archived: bool = False) -> int:
        """How many jobs somebody has."""
        raise NotImplementedError

    def work(self: Server, owner: str, archived: bool = False) -> int:
        return sum(record.owner == owner and record.archived is archived for record in self.manager.book.all())

    monkeypatch.setitem(API, "owned", API["status"])  # taken out again at the end
    monkeypatch.setattr(Calls, "owned", row(READ, Whose.NOBODYS, again=True)(owned), raising=False)  # 1: jobs/api.py
    monkeypatch.setattr(Server, "owned", work, raising=False)  # 2: jobs/server.py
    guarded(Server)
    return API["owned"]


@pytest.mark.row("P02", "Y03")
@pytest.mark.parametrize("door", ["here", "socket", "http"])
def test_a_row_and_its_work_are_a_call_that_every_door_and_client_has(
    manager: JobManager, toy: Call, door: str, tmp_path: Path
) -> None:
    served: dict[str, Callable[[], Any]] = {
        "socket": lambda: SocketServer(manager, str(tmp_path / "line")),
        "http": lambda: WebServer(manager, tokens=None),
    }
    clients: dict[str, Callable[[], Calls]] = {
        "here": lambda: Server(manager),
        "socket": lambda: RemoteServer(str(tmp_path / "line")),
        "http": lambda: HttpServer(server.url, known={}),
    }
    server = served[door]() if door in served else None
    service = ServerProxy(clients[door](), "mara")
    try:
        calls = service.calls
        assert [calls.owned("mara"), calls.owned(owner="ole"), calls.owned("mara", archived=True)] == [3, 0, 0]
        with pytest.raises(RequestError, match=r"owner of the call 'owned' is '7', and must be str"):
            calls.owned(7)
        with pytest.raises(RequestError, match=r"It is owned\(owner: 'str', archived: 'bool' = False\)"):
            calls.owned()
    finally:
        service.close()
        if server is not None:
            server.close()


@pytest.mark.row("Y03", "P25")
def test_its_row_says_who_may_call_it_and_stands_in_the_documentation(manager: JobManager, toy: Call) -> None:
    token = Who(user="mara", scopes=frozenset({"submit", "control"}))
    with pytest.raises(AccessError, match="scope read"):
        Caller(manager, token, Tokens(manager.store.directory)).call("owned", "mara")
    with pytest.raises(AccessError, match="nobody has said"):
        Server(manager).owned("mara")
    assert "| `owned(owner, archived)` | read |  | yes | How many jobs somebody has. |" in table()
