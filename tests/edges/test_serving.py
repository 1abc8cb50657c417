"""A job server in one call: its parts are opened in order and closed in the opposite one, whatever fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grid.jobs import JobManager, SocketDoor, Store, ThreadEngine, open_server, remote_service
from grid.jobs.host.errors import AccessError, JobError, StoreLocked
from grid.jobs.serving import new_token
from grid.web.serving import HttpDoor
from tests.edges.jobs_services import Square

LIMIT_S = 30.0


class Door:
    """Notes in which order it is opened and closed."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def __call__(self, manager: JobManager) -> Door:
        assert not manager.stopped and manager.records is not None
        self.notes.append(f"{self.name} opens")
        return self

    @property
    def about(self) -> dict[str, Any]:
        return {self.name: "here"}

    def close(self) -> None:
        self.notes.append(f"{self.name} closes")


def broken(_: JobManager) -> Any:
    raise JobError("this door is jammed")


@pytest.mark.row("P02", "P21")
def test_one_call_gives_a_server_with_the_doors_that_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with open_server(
        tmp_path / "s", engine=ThreadEngine(1, 2), services=[Square], doors=[SocketDoor("lab"), HttpDoor(tokens=False)]
    ) as server:
        assert server.services["tests.edges.jobs_services.Square"] == ["1"] and server.n_servers == 1
        for address in (f"unix:{server.about['path']}", server.about["url"]):
            with remote_service(address, user="mara") as service:
                assert service.submit(Square.request(value=3)).wait(LIMIT_S) == 9
            service.close()
    with pytest.raises(JobError):
        remote_service(f"unix:{server.about['path']}")


@pytest.mark.row("P02")
def test_doors_are_closed_before_the_manager_and_when_another_can_not_be_opened(tmp_path: Path) -> None:
    notes: list[str] = []
    doors = [Door("front", notes), Door("back", notes)]
    server = open_server(tmp_path / "s", engine=ThreadEngine(1, 1), doors=doors)
    assert server.about == {"front": "here", "back": "here"}
    server.close()
    server.close()
    assert notes == ["front opens", "back opens", "back closes", "front closes"] and server.manager.stopped
    with pytest.raises(JobError, match="jammed"):
        open_server(tmp_path / "s", engine=ThreadEngine(1, 1), doors=[*doors, broken])
    assert notes[4:] == ["front opens", "back opens", "back closes", "front closes"]
    Store(tmp_path / "s").close()  # it was given free


@pytest.mark.row("P02")
def test_a_store_that_is_taken_is_told_before_a_grid_is_made(tmp_path: Path) -> None:
    def never() -> Any:
        raise AssertionError("the grid is made after the store was opened")

    with open_server(tmp_path / "s", engine=ThreadEngine(1, 1)), pytest.raises(StoreLocked):
        open_server(tmp_path / "s", never)


@pytest.mark.row("P02")
def test_a_grid_that_it_made_ends_with_it_and_one_that_can_not_start_leaves_nothing(tmp_path: Path) -> None:
    notes: list[str] = []

    class Grid:
        def start(self) -> None:
            notes.append("starts")
            raise JobError("no host answers")

        def terminate(self) -> None:
            notes.append("ends")

    with pytest.raises(JobError, match="no host answers"):
        open_server(tmp_path / "s", Grid)  # type: ignore[arg-type]
    assert notes == ["starts", "ends"]
    Store(tmp_path / "s").close()


@pytest.mark.row("P02")
def test_an_engine_that_can_not_start_says_why_and_leaves_the_store_free(tmp_path: Path) -> None:
    class NoPlaces(ThreadEngine):
        def start(self) -> None:
            raise JobError("there is no room")

    with pytest.raises(JobError, match="there is no room"):
        open_server(tmp_path / "s", engine=NoPlaces(1, 1))
    Store(tmp_path / "s").close()


@pytest.mark.row("P03", "P25")
def test_a_new_token_is_good_for_the_socket_of_a_server_that_asks_for_tokens(tmp_path: Path) -> None:
    from grid.jobs import Server, Settings

    token = new_token(tmp_path / "s", "mara")
    with open_server(tmp_path / "s", engine=ThreadEngine(1, 1), settings=Settings(tokens=True)) as server:
        client = Server(server.manager)
        with pytest.raises(AccessError, match="not one of 'mara'"):
            client.connect("mara", "other")
        assert client.connect("mara", token)["user"] == "mara"


@pytest.mark.row("P25")
def test_a_door_to_the_network_that_is_not_safe_is_refused_when_it_is_made() -> None:
    for options, words in (
        ({"at": "0.0.0.0:0"}, "clear text"),
        ({"at": "0.0.0.0:0", "own_certificate": True, "tokens": False}, "they need tokens"),
    ):
        with pytest.raises(AccessError, match=words):
            HttpDoor(**options)  # type: ignore[arg-type]
