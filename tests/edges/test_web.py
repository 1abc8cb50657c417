"""The job server over HTTP: routes, streams, who may what, what strangers get."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from grid.jobs import JobManager, Settings, Store, ThreadEngine
from grid.web.limits import WebLimits
from grid.web.server import WebServer
from grid.web.tokens import Tokens
from tests.edges.jobs_services import ALL

LIMIT_S = 30.0
HERE = "tests.edges.jobs_services"
QUICK = WebLimits(alive_s=0.2, stall_s=1.0, header_s=2.0, body=1 << 20)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[JobManager]:
    with JobManager(Store(tmp_path / "s"), ThreadEngine(2, 3), Settings(tick_s=0.05)) as manager:
        for cls in ALL:
            manager.register(cls)
        yield manager


@pytest.fixture
def tokens(manager: JobManager) -> Tokens:
    return Tokens(manager.store.directory)


@pytest.fixture
def web(manager: JobManager, tokens: Tokens) -> Iterator[WebServer]:
    web = WebServer(manager, tokens=tokens, limits=QUICK)
    yield web
    web.close()


class Api(httpx.Client):
    """A client with a token, or none."""

    def __init__(self, web: WebServer, token: str | None = None, **more: Any) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        super().__init__(base_url=f"{web.url}/api/v1", headers=headers, timeout=LIMIT_S, trust_env=False, **more)

    def submit(self, service: str, **data: Any) -> str:
        request = {"service": f"{HERE}.{service}", "version": "1", "data": data}
        answer = self.post("/jobs", json={"request": request})
        assert answer.status_code == 201, answer.text
        assert answer.headers["location"].endswith(answer.json()["id"])
        return str(answer.json()["id"])

    def result(self, job: str) -> Any:
        found = self.get(f"/jobs/{job}/result", params={"wait": 20}).json()
        assert found["ended"], found
        return found["result"]

    def events(self, path: str, **more: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        with self.stream("GET", path, **more) as answer:
            assert answer.status_code == 200, answer.read()
            number = ""
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    number = line[4:]
                elif line.startswith("data: "):
                    yield number, json.loads(line[6:])


@pytest.fixture
def mara(web: WebServer, tokens: Tokens) -> Iterator[Api]:
    with Api(web, tokens.create("mara")) as api:
        yield api


@pytest.fixture
def ole(web: WebServer, tokens: Tokens) -> Iterator[Api]:
    with Api(web, tokens.create("ole")) as api:
        yield api


@pytest.mark.row("P02", "P04", "R12", "R13")
def test_a_job_is_submitted_watched_steered_and_removed_by_http_alone(mara: Api) -> None:
    job = mara.submit("Square", value=3)
    assert mara.result(job) == 9
    about = mara.get(f"/jobs/{job}").json()
    assert about["state"] == "complete" and about["mine"] and about["owner"] == "mara" and about["data"] == {"value": 3}
    slow = mara.submit("Steps")
    assert mara.post(f"/jobs/{slow}/control", json={"kind": "SetK", "fields": {"k": 10**8}}).json() == {"ok": None}
    waiting = mara.post(
        "/jobs",
        json={
            "request": {"service": f"{HERE}.Square", "version": "1", "data": {"value": 1}},
            "when": {"atom": "completed", "job": slow},
            "tags": ["name=late"],
        },
    ).json()
    assert waiting["state"] == "waiting" and waiting["after"] == [{"id": slow, "state": "active"}]
    assert slow in waiting["explain"] and waiting["condition"]["atom"] == "completed"
    kinds = []
    for _, message in mara.events(f"/jobs/{slow}/events"):
        kinds.append(message["kind"])
        if message["kind"] == "Improved" and message["partial"]["k"] >= 10**8:
            assert mara.post(f"/jobs/{slow}/abort", json={"reason": "enough"}).status_code == 200
    assert kinds[0] == "Join" and kinds[-1] == "Aborted"
    assert "enough" in mara.get(f"/jobs/{waiting['id']}").json()["reason"]
    assert mara.get(f"/jobs/{slow}/improvements").json()["messages"][0]["kind"] == "Improved"
    found = mara.get("/jobs", params={"tag": "name=late", "active": "false"}).json()
    assert [each["id"] for each in found["jobs"]] == [waiting["id"]] and found["total"] == 1
    part = mara.get("/jobs", params={"limit": 1, "offset": 1, "order": "oldest"}).json()
    assert [each["id"] for each in part["jobs"]] == [slow] and part["total"] == 3
    assert mara.post(f"/jobs/{job}/archive").status_code == 200
    assert mara.get("/jobs").json()["total"] == 2
    assert mara.post(f"/jobs/{job}/archive", json={"archived": False}).status_code == 200
    assert mara.delete(f"/jobs/{job}").status_code == 200 and mara.get(f"/jobs/{job}").status_code == 404
    assert mara.get("/services").json()[f"{HERE}.Square"] == ["1"]
    assert mara.get("/credits").json()["user"] == "mara" and len(mara.get("/graph").json()) == 2
    hosts = mara.get("/hosts").json()
    assert hosts["busy"] + hosts["free"] == sum(len(host["servers"]) for host in hosts["hosts"]) == 5


def test_files_of_jobs_are_downloads_and_nothing_that_a_browser_would_run(mara: Api) -> None:
    job = mara.submit("Writes", text="<script>alert(1)</script>")
    mara.result(job)
    name = f"{job}.out"
    assert mara.get(f"/jobs/{job}/files").json() == {name: 25}
    answer = mara.get(f"/jobs/{job}/files/{name}")
    assert answer.text == "<script>alert(1)</script>" and answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    part = mara.get(f"/jobs/{job}/files/{name}", headers={"range": "bytes=1-6"})
    assert part.status_code == 206 and part.text == "script"
    for wrong in ("other", "..%2f..%2ftokens.json", ".hidden"):
        assert mara.get(f"/jobs/{job}/files/{wrong}").status_code in (404, 422)


@pytest.mark.row("J14", "J15")
def test_the_stream_begins_with_the_list_and_goes_on_where_it_was(mara: Api, ole: Api) -> None:
    first = mara.submit("Square", value=2)
    mara.result(first)
    events = mara.events("/events")
    seen, header = next(events)
    assert header["kind"] == "Jobs" and [each["id"] for each in header["jobs"]] == [first]
    events.close()
    second = mara.submit("Square", value=3)
    mara.result(second)
    changes = []
    for number, message in mara.events("/events", headers={"last-event-id": seen}):
        changes.append((message["number"], message["change"], message["summary"]["id"], message["summary"]["state"]))
        if changes[-1][-1] == "complete":
            seen = number
            break
    assert [change[0] for change in changes] == list(range(header["number"] + 1, header["number"] + 1 + len(changes)))
    assert changes[0][1:] == ("created", second, "pending") and {change[2] for change in changes} == {second}
    for wrong in ("nothing-1", f"{seen}9", "-", f"{seen.partition('-')[0]}-99999999999999999999"):
        assert next(mara.events("/events", params={"after": wrong}))[1]["kind"] == "Jobs"
    for _, message in ole.events("/events"):  # others see that there is a job, and not what it is about
        assert {each["owner"] for each in message["jobs"]} == {"mara"}
        assert all(each["data"] == {} and each["best"] is None for each in message["jobs"])
        break
