"""The job server over HTTP: routes, streams, who may what, what strangers get."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from grid.jobs import JobManager, RequestError, Settings, Store, ThreadEngine
from grid.web.limits import WebLimits
from grid.web.server import WebServer
from grid.web.tokens import Tokens
from tests.edges.jobs_services import ALL

LIMIT_S = 30.0
HERE = "tests.edges.jobs_services"
QUICK = WebLimits(alive_s=0.2, stall_s=1.0, header_s=0.7, body=1 << 20)


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
    servers = [server["does"] for host in hosts["hosts"] for server in host["servers"]]
    assert hosts["busy"] + hosts["free"] == servers.count("units") == 2
    assert hosts["places"] == servers.count("jobs") == 3 and hosts["running"] == 0


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


# ---- who may what ----------------------------------------------------------------------------------------------------


@pytest.mark.row("P03", "P25", "C35")
def test_wrong_expired_revoked_and_narrow_tokens_get_nowhere_and_learn_nothing(
    manager: JobManager, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1_000_000.0]
    clock = Tokens(manager.store.directory, clock=lambda: now[0])
    # that wrong tokens are slowed down is shown in test_web_strangers.py
    web = WebServer(manager, tokens=clock, limits=replace(QUICK, wrong_free=1_000))
    try:
        secrets = check_tokens(web, clock, now)
    finally:
        web.close()
    written = "".join(path.read_text(errors="replace") for path in manager.store.directory.rglob("*") if path.is_file())
    for secret in secrets:
        assert secret not in caplog.text and secret not in written


def check_tokens(web: WebServer, clock: Tokens, now: list[float]) -> list[str]:
    over = clock.create("mara", lifetime_s=60)
    gone = clock.create("mara", lifetime_s=1e6)
    assert Api(web, over).get("/me").status_code == 200
    clock.revoke(gone[5:15])
    now[0] += 61
    wrong = f"{over[:16]}{'A' * 43}"
    answers = []
    for token in (None, "x", over, gone, wrong, "grid_", f"{over}x", "é"):
        with httpx.Client(base_url=f"{web.url}/api/v1", trust_env=False) as api:
            headers = {} if token is None else {"authorization": f"Bearer {token}".encode()}
            for path in ("/me", "/jobs", "/jobs/job-1", "/nothing", "/events", "/calls/status"):
                answers.append(api.get(path, headers=headers))
    assert {answer.status_code for answer in answers} == {401} and len({answer.text for answer in answers}) == 1
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    for scopes, allowed in (("read",), {"/jobs"}), (("submit",), set()), (("control",), set()):
        with Api(web, clock.create("mara", scopes)) as api:
            for path in ("/jobs", "/events", "/hosts", "/services"):
                if path in allowed or scopes == ("read",):
                    continue
                assert api.get(path).status_code == 403, (scopes, path)
            for call in ("submit", "abort") if scopes == ("read",) else ("jobs", "fetch"):
                assert api.post(f"/calls/{call}", json={"args": ["job-1"]}).status_code == 403
            request = {"service": f"{HERE}.Square", "version": "1", "data": {"value": 1}}
            assert api.post("/jobs", json={"request": request}).status_code == (201 if scopes == ("submit",) else 403)
    return [token[16:] for token in (over, gone)]


@pytest.mark.row("P03")
def test_other_users_jobs_are_seen_in_lists_and_nowhere_else(
    web: WebServer, tokens: Tokens, mara: Api, ole: Api
) -> None:
    job = mara.submit("Steps", n=10**6)
    shown = ole.get("/jobs").json()["jobs"][0]
    assert (shown["id"], shown["owner"], shown["data"], shown["best"]) == (job, "mara", {}, None)
    about = ole.get(f"/jobs/{job}").json()
    assert not about["mine"] and not about["controllable"] and about["request"] is None
    assert ole.get("/jobs", params={"text": "10000"}).json()["total"] == 0
    for method, path, body in (
        ("POST", "abort", None),
        ("POST", "control", {"kind": "Pause"}),
        ("POST", "archive", None),
        ("GET", "result", None),
        ("GET", "files", None),
        ("GET", "files/x", None),
        ("GET", "log", None),
        ("GET", "improvements", None),
        ("GET", "events", None),
        ("DELETE", "", None),
    ):
        answer = ole.request(method, f"/jobs/{job}/{path}".rstrip("/"), json=body)
        assert answer.status_code == 403 and answer.json()["kind"] == "AccessError", (path, answer.text)
    said = {"atom": "message", "job": job, "message": "Log"}
    for when in ({"atom": "result", "job": job, "expression": "k > 0"}, said):
        square = {"service": f"{HERE}.Square", "version": "1", "data": {"value": 1}}
        assert ole.post("/jobs", json={"request": square, "when": when}).status_code == 403
    stolen = {"service": f"{HERE}.Reads", "version": "1", "data": {"name": {"$ref": {"job": job, "path": []}}}}
    assert ole.post("/jobs", json={"request": stolen}).status_code == 403
    assert ole.post("/calls/fetch", json={"args": [job]}).status_code == 403
    assert ole.post("/calls/forget", json={}).status_code == 403
    with Api(web, tokens.create("root", ["admin"])) as root:
        assert root.get(f"/jobs/{job}").json()["data"] == {"n": 10**6}
        assert root.post(f"/jobs/{job}/abort", json={"reason": "by the admin"}).status_code == 200
    mara.get(f"/jobs/{job}/result", params={"wait": 20})
    assert "by the admin" in mara.get(f"/jobs/{job}").json()["reason"]


@pytest.mark.row("J20", "J18")
def test_the_stream_of_a_job_that_is_deleted_ends(mara: Api) -> None:
    job = mara.submit("Square", value=2)
    mara.result(job)
    events = mara.events(f"/jobs/{job}/events")
    kinds = [message["kind"] for _, message in events]
    assert kinds == ["Join", "Completed"]
    slow = mara.submit("Steps", n=10**6)
    events = mara.events(f"/jobs/{slow}/events")
    while next(events)[1]["kind"] != "Improved":
        pass  # one that does not run yet would be cancelled
    mara.post(f"/jobs/{slow}/abort")
    assert mara.get(f"/jobs/{slow}/result", params={"wait": 20}).json()["ended"]
    assert mara.delete(f"/jobs/{slow}").status_code == 200
    assert [message["kind"] for _, message in events][-1] == "Aborted"


@pytest.mark.row("C35", "P03")
def test_an_open_stream_ends_when_its_token_does(web: WebServer, tokens: Tokens) -> None:
    token = tokens.create("mara")
    with Api(web, token) as api:
        events = api.events("/events")
        next(events)
        tokens.revoke(token[5:15])
        assert list(events) == []


@pytest.mark.row("P25")
def test_without_tokens_it_is_for_its_own_machine_and_not_for_pages_of_others(manager: JobManager) -> None:
    with pytest.raises(RequestError, match="who need tokens"):
        WebServer(manager, ("0.0.0.0", 0), tokens=None)
    web = WebServer(manager, tokens=None)
    try:
        with Api(web) as api:
            assert api.get("/me").json()["tokens"] is False
            assert api.get("/me", headers={"grid-user": "mara"}).json()["user"] == "mara"
            host = f"127.0.0.1:{web.port}"
            for headers in (
                {"host": f"evil.example.org:{web.port}"},
                {"origin": "https://evil.example.org"},
                {"origin": "null"},
                {"host": host, "origin": f"http://{host}.evil.example.org"},
            ):
                answer = api.post("/calls/jobs", json={}, headers=headers)
                assert answer.status_code == 403 and "AccessError" in answer.text, headers
            assert api.post("/calls/jobs", json={}, headers={"origin": f"http://{host}"}).status_code == 200
    finally:
        web.close()


# ---- what strangers send ---------------------------------------------------------------------------------------------


@pytest.mark.row("R02", "P02", "R06")
def test_bad_input_is_refused_by_name_and_costs_nothing(mara: Api, web: WebServer) -> None:
    request = {"service": f"{HERE}.Square", "version": "1", "data": {}}
    many = {
        400: [("POST", "/jobs", {"content": b"{"}), ("POST", "/jobs", {"content": b"\x80\x05K\x01."})],
        404: [
            ("GET", "/jobs/job-99", {}),
            ("GET", "/nothing", {}),
            ("GET", "/jobs/job-99/events", {}),
            ("POST", "/jobs", {"json": {"request": {**request, "service": "nothing.Here"}}}),
        ],
        405: [("PUT", "/jobs", {}), ("DELETE", "/jobs", {})],
        413: [("POST", "/jobs", {"content": b'"' + b"x" * (1 << 20) + b'"'})],
        422: [
            ("POST", "/jobs", {"json": {"request": request, "surprise": 1}}),
            ("POST", "/jobs", {"json": {"request": {**request, "_private": 1}}}),
            ("POST", "/jobs", {"json": {"request": {**request, "data": {"_x": 1}}}}),
            ("POST", "/jobs", {"json": [1]}),
            ("POST", "/jobs", {"json": {"request": request, "priority": 1e9}}),
            ("POST", "/jobs", {"json": {"request": request, "when": {"atom": "fetched", "url": "file:///etc/passwd"}}}),
            ("POST", "/jobs", {"json": {"request": request, "notify": "a@b\nBcc: c@d"}}),
            ("POST", "/jobs", {"content": json.dumps({"request": {**request, "data": {"x": float("nan")}}})}),
            ("POST", "/jobs", {"content": json.dumps({"request": request}).replace("{}", '{"x": 1e999}')}),
            ("POST", "/jobs", {"content": json.dumps({"request": {**request, "data": {"x": "\ud800"}}})}),
            ("POST", "/calls/status", {"content": json.dumps({"args": ["\udfff"]})}),
            ("POST", "/calls/wait", {"content": '{"args": ["job-1", NaN]}'}),
            ("GET", "/jobs?limit=0", {}),
            ("GET", "/jobs?surprise=1", {}),
            ("POST", "/calls/manager", {"json": {}}),
            ("POST", "/calls/__init__", {"json": {}}),
            ("POST", "/calls/jobs", {"json": {"args": [{"last": "x"}]}}),
            ("POST", "/calls/wait", {"json": {"args": ["job-1", "x"]}}),
        ],
    }
    for status, requests in many.items():
        for method, path, options in requests:
            headers = {"content-type": "application/json"} if "content" in options else None
            answer = mara.request(method, path, headers=headers, **options)
            assert answer.status_code == status, (method, path, options, answer.text)
            assert set(answer.json()) == {"error", "kind", "hint", "facts"}, answer.text
    endless = mara.post("/jobs", content=iter([b"x" * 65536] * 100), headers={"content-type": "application/json"})
    assert endless.status_code == 413
    assert mara.get("/jobs").json()["total"] == 0


def raw(web: WebServer, data: bytes) -> bytes:
    """What comes back until the server closes."""
    with socket.create_connection((web.host, web.port), LIMIT_S) as connection:
        connection.sendall(data)
        found = b""
        try:
            while part := connection.recv(65536):
                found += part
        except ConnectionError:
            pass
    return found


def test_slow_and_endless_heads_and_bodies_end_and_the_server_lives(web: WebServer, mara: Api) -> None:
    assert raw(web, b"") == b""  # nothing at all: the server closes
    assert raw(web, b"GET /api/v1/me HTTP/1.1\r\nhost: x\r\n") == b""
    assert raw(web, b"GET / HTTP/1.1\r\n" + b"x-y: " + b"z" * (1 << 20)) == b""
    assert b" 400 " in raw(web, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    token = mara.headers["authorization"].encode()
    head = b"POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nconnection: close\r\n"
    assert b" 408 " in raw(web, head + b"authorization: " + token + b"\r\n\r\n{")
    assert mara.get("/me").status_code == 200


@pytest.mark.row("J18")
def test_a_reader_that_takes_nothing_is_dropped_and_holds_up_nobody(web: WebServer, mara: Api) -> None:
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect((web.host, web.port))
        token = mara.headers["authorization"]
        stalled.sendall(f"GET /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\n\r\n".encode())
        events = mara.events("/events")
        next(events)
        for _ in range(8):
            request = {"service": f"{HERE}.Square", "version": "1", "data": {"value": 1, "pad": "x" * 900_000}}
            assert mara.post("/jobs", json={"request": request}).status_code == 201
        assert next(events)[1]["change"] == "created"
        deadline = time.monotonic() + LIMIT_S
        while web.site.hubs.count > 1:
            assert time.monotonic() < deadline, "it was not dropped"
            time.sleep(0.02)
        events.close()


def test_there_is_a_limit_of_streams_for_each_user_and_for_all(manager: JobManager, tokens: Tokens) -> None:
    web = WebServer(manager, tokens=tokens, limits=WebLimits(streams=3, streams_each=2, alive_s=0.1))
    try:
        with Api(web, tokens.create("mara")) as mara, Api(web, tokens.create("ole")) as ole:
            mine = [mara.events("/events") for _ in range(2)]
            for stream in mine:
                next(stream)
            assert mara.get("/events").status_code == 503
            his = ole.events("/events")
            next(his)
            assert ole.get("/events").status_code == 503
            mine.pop().close()
            deadline = time.monotonic() + LIMIT_S
            while web.site.hubs.count > 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            next(ole.events("/events"))
    finally:
        web.close()
