"""What a client may send to a job server: monsters, crowds, sizes. Others are served meanwhile, and after a restart."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.server
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.jobs import (
    ConditionError,
    JobFailed,
    JobManager,
    JobState,
    Message,
    Request,
    RequestError,
    Server,
    ServerProxy,
    Service,
    ServiceHandler,
    Settings,
    Store,
    StoreFull,
    ThreadEngine,
)
from grid.jobs.fetch.deposits import EACH, Deposits
from grid.jobs.fetch.download import Forbidden, Policy
from grid.jobs.host import plain, runner
from grid.jobs.modules.install import check
from grid.jobs.record import JobRecord
from grid.web.caller import Caller
from grid.web.client import HttpServer
from grid.web.events import Hub
from grid.web.tokens import MOST_MADE, Tokens
from grid.web.who import Who
from tests.edges.alone_server import Alone
from tests.edges.jobs_services import ALL, Deaf, Square, Steps
from tests.lab import MissingPart
from tests.monsters import MONSTERS

MB = 1 << 20
LIMIT_S = 60.0
HANGS_S = 10.0
"""A wait that no load of a test machine explains: before, these were minutes."""
HERE = "tests.edges.jobs_services"


def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)
    return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[JobManager]:
    with JobManager(Store(tmp_path / "s"), ThreadEngine(2, 2), Settings(tick_s=0.05)) as manager:
        for cls in ALL:
            manager.register(cls)
        yield manager


def square(value: int = 1, **more: Any) -> dict[str, Any]:
    return {"request": Square.request(value=value).to_plain(), **more}


class Watcher:
    """Another user, who asks for small things all the time: `worst` is the longest wait."""

    def __init__(self, server: Alone) -> None:
        self._server, self.worst, self.asked = server, 0.0, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with self._server.api(self._server.other) as api:
            while not self._over.is_set():
                began = time.monotonic()
                assert api.get("/jobs").status_code == 200
                self.worst = max(self.worst, time.monotonic() - began)
                self.asked += 1

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive() and self.asked > 0


# ---- expressions -----------------------------------------------------------------------------------------------------


@pytest.mark.row("Y04")
def test_monsters_of_a_reader_and_in_conditions_hold_up_nobody_and_end_with_the_server(tmp_path: Path) -> None:
    with Alone(tmp_path) as server, server.api() as api, server.api(server.reader) as reader:
        job = api.post("/jobs", json=square(3)).json()["id"]
        assert api.get(f"/jobs/{job}/result", params={"wait": 20}).json()["result"] == 9
        texts = [text.replace("x", "value") for text in MONSTERS if "x" in text][:25]
        before = server.memory()
        with Watcher(server) as others:
            for text in texts:
                tree = {"atom": "result", "job": job, "expression": text}
                answer = reader.post("/calls/evaluate", json={"args": [tree]})
                assert answer.status_code in (200, 422)
                waiting = api.post("/jobs", json=square(when=tree))
                if waiting.status_code == 201:
                    name = waiting.json()["id"]
                    ended = api.get(f"/jobs/{name}/result", params={"wait": 20}).json()
                    assert ended["ended"] and ended["state"] in ("cancelled", "complete"), ended
                    assert ended["state"] == "complete" or ended["reason"]
        assert others.worst < HANGS_S and server.memory() - before < 64 * MB
        assert server.end() < 10


@pytest.mark.row("Y04")
def test_a_monster_in_the_store_does_not_keep_the_server_from_coming_up(tmp_path: Path) -> None:
    with JobManager(Store(tmp_path / "store"), ThreadEngine(1, 1), Settings(tick_s=0.05)) as manager:
        manager.register(Square)
        (done,) = manager.submit("mara", [square(3)])
        until(lambda: done.state is JobState.COMPLETE)
        monsters = []
        for number, text in enumerate(MONSTERS[:8], 100):  # as an older version would have left them
            tree = {"atom": "result", "id": f"r{number}", "job": done.id, "expression": text.replace("x", "value")}
            request = Square.request(value=1).to_plain()
            name = f"job-{number}"
            monsters.append(JobRecord(name, number, "mara", request["service"], "1", request, condition=tree))
        large = {"op": "or", "of": [{"atom": "servers", "n": 99}] * 100_000}
        monsters.append(JobRecord("job-200", 200, "mara", monsters[0].service, "1", request, condition=large))
        for record in monsters:
            record.state, record.created = JobState.WAITING, time.time()
        manager.store.insert(monsters)
    began = time.monotonic()
    with Alone(tmp_path) as server, server.api() as api:
        assert api.get("/me").status_code == 200 and time.monotonic() - began < 20
        for record in monsters:
            ended = api.get(f"/jobs/{record.id}/result", params={"wait": 20}).json()
            assert ended["state"] in ("cancelled", "complete"), ended
            if ended["state"] == "cancelled":
                words = ("given up", "can't be evaluated", "more than", "without a result")
                assert any(word in ended["reason"] for word in words), ended


@pytest.mark.row("Y04")
def test_all_expressions_of_one_question_share_a_budget(manager: JobManager) -> None:
    (job,) = manager.submit("mara", [square(3)])
    until(lambda: job.state is JobState.COMPLETE)
    text = "[[0.5, 'a']] * 5000 == [[0.5, 'a']] * 5000 and value < 0 or {n} < 0"
    parts = [{"atom": "result", "job": job.id, "expression": text.replace("{n}", str(n))} for n in range(150)]
    caller = Caller(manager, Who(user="mara", scopes=frozenset({"read"})))
    began = time.thread_time()
    answer = caller.call("evaluate", {"op": "or", "of": parts})
    assert time.thread_time() - began < 5.0
    assert answer["state"] == "cancelled" and "was given up" in answer["reason"]


@pytest.mark.row("Y04")
def test_a_condition_whose_tests_can_not_keep_up_is_cancelled_and_says_so(tmp_path: Path) -> None:
    settings = Settings(tick_s=0.05, events_waiting=5)
    with JobManager(Store(tmp_path / "s"), ThreadEngine(1, 1), settings) as manager:
        manager.register(Deaf)
        manager.register(Square)
        (deaf,) = manager.submit("mara", [{"request": Deaf.request(end=str(tmp_path / "end")).to_plain()}])
        until(lambda: deaf.state is JobState.ACTIVE)
        tree = {"atom": "result", "job": deaf.id, "expression": "value > 3"}
        (waiting,) = manager.submit("mara", [square(when=tree)])
        with manager.conditions.judge._news:  # the judge gets no turn
            for value in range(10):
                manager.runs.improved(deaf.id, 0.1 * value, loud=True)
            until(lambda: waiting.state is JobState.CANCELLED)
        assert "more than 5 messages waited" in waiting.reason
        (tmp_path / "end").touch()


# ---- what acts outside -----------------------------------------------------------------------------------------------


class Counting(http.server.ThreadingHTTPServer):
    """A server that counts who comes, and answers as `respond` says."""

    daemon_threads = False  # joined at the end

    def __init__(self, respond: Callable[[Any], None]) -> None:
        self.came: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.came.append(self.path)
                with contextlib.suppress(OSError):
                    respond(self)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Counting:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(LIMIT_S)


def hello(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "5")
    handler.end_headers()
    handler.wfile.write(b"hello")


@pytest.mark.row("Y07")
def test_asking_what_a_condition_is_starts_nothing(tmp_path: Path) -> None:
    with Counting(hello) as there, Alone(tmp_path) as server, server.api(server.reader) as reader, server.api() as api:
        job = api.post("/jobs", json=square(3)).json()["id"]
        trees = (
            {"atom": "fetched", "url": f"{there.url}/file"},
            {"atom": "elsewhere", "server": there.url, "what": {"atom": "completed", "job": "job-1"}, "auth": None},
        )
        for tree in trees:
            assert reader.post("/calls/evaluate", json={"args": [tree]}).status_code == 403
            answer = api.post("/calls/evaluate", json={"args": [{"op": "or", "of": [tree]}]}).json()["ok"]
            assert answer["state"] == "pending"
        assert (
            api.post("/calls/evaluate", json={"args": [{"atom": "fetched", "url": "file:///etc/passwd"}]}).status_code
            == 422
        )
        of_other = {"atom": "result", "job": job, "expression": "value > 0"}
        with server.api(server.other) as other:
            assert other.post("/calls/evaluate", json={"args": [of_other]}).status_code == 403
        held = api.post("/jobs", json=square(when=trees[0])).json()["id"]  # whereas this does
        assert api.get(f"/jobs/{held}/result", params={"wait": 20}).json()["state"] == "complete"
        assert there.came == ["/file"]
        assert api.post("/calls/evaluate", json={"args": [trees[0]]}).json()["ok"]["state"] == "satisfied"
        assert not list((tmp_path / "store" / "fetched").glob(".*"))


@pytest.mark.row("Y07")
def test_crowds_in_one_condition_are_refused_and_others_are_served(tmp_path: Path) -> None:
    def slow(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not over.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    over = threading.Event()
    with Counting(slow) as there, Alone(tmp_path) as server, server.api() as api, server.api(server.other) as other:
        api.get("/me")
        threads = server.threads()
        with Watcher(server) as others:
            for count, kind in ((3_000, "fetched"), (12_000, "fetched"), (100_000, "servers")):
                atoms = [
                    {"atom": "fetched", "url": f"{there.url}/{n}"}
                    if kind == "fetched"
                    else {"atom": "servers", "n": n + 9}
                    for n in range(count)
                ]
                answer = api.post("/jobs", json=square(when={"op": "or", "of": atoms}))
                assert answer.status_code == 422 and "more than" in answer.text, answer.text
            nested = {"atom": "servers", "n": 9}
            for _ in range(150):
                nested = {"op": "and", "of": [nested, {"atom": "servers", "n": 9}]}
            assert api.post("/jobs", json=square(when=nested)).status_code == 201
            many = [{"atom": "fetched", "url": f"{there.url}/{n}"} for n in range(100)]
            held = [api.post("/jobs", json=square(when={"op": "and", "of": many})).json()["id"] for _ in range(3)]
            until(lambda: len(there.came) >= 4)
            mine = {"atom": "fetched", "url": f"{there.url}/of-ole"}
            of_other = other.post("/jobs", json=square(when=mine)).json()["id"]
            until(lambda: "/of-ole" in there.came)  # one user's downloads do not take all places
            assert server.threads() - threads <= 20 and len(there.came) <= 8
        assert others.worst < HANGS_S
        for job in (*held, of_other):  # what nobody waits for is given up
            assert (api if job in held else other).post(f"/jobs/{job}/abort").status_code == 200
        until(lambda: not list((tmp_path / "store" / "fetched").glob(".*")))
        over.set()


class Waits(Request):
    def queue(self, context: Any) -> None:
        Path(self.began).touch()
        until(Path(self.go).exists)


class Slowly(Service):
    version = "1"
    request_class = Waits

    def run(self, handler: ServiceHandler) -> Any:
        return None


@pytest.mark.row("Y07")
def test_a_submission_is_checked_without_the_lock_of_others(manager: JobManager, tmp_path: Path) -> None:
    manager.register(Slowly)
    request = Slowly.request(began=str(tmp_path / "began"), go=str(tmp_path / "go")).to_plain()
    thread = threading.Thread(target=manager.submit, args=("mara", [{"request": request}]), daemon=True)
    thread.start()
    until((tmp_path / "began").exists)
    service = ServerProxy(Server(manager), "ole")
    assert service.submit(Square.request(value=4)).wait(LIMIT_S) == 16  # while the other is being checked
    assert len(service.summaries()) == 1
    (tmp_path / "go").touch()
    thread.join(LIMIT_S)
    assert len(service.summaries()) == 2


# ---- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.row("Y08")
@pytest.mark.parametrize("kind", ["answer", "stream", "zip"])
def test_a_hostile_server_elsewhere_costs_a_bounded_share(tmp_path: Path, kind: str) -> None:
    def endless(handler: Any) -> None:
        handler.send_response(200)
        if kind == "zip":
            handler.send_header("Content-Encoding", "gzip")
        is_stream = handler.path.endswith("/events")
        handler.send_header("Content-Type", "text/event-stream" if is_stream else "application/json")
        handler.end_headers()
        if is_stream and kind != "stream":
            handler.wfile.write(b'id: a-1\ndata: {"kind": "Join", "number": 1, "time": 0, "job": "job-1"}\n\n')
            handler.wfile.flush()
            over.wait(LIMIT_S)
        handler.wfile.write(b'data: {"kind": "' if is_stream else b'{"ok": "')
        while not over.is_set():
            handler.wfile.write(b"x" * 65536)

    over = threading.Event()
    with Counting(endless) as there, Alone(tmp_path) as server, server.api() as api:
        before = server.memory()
        tree = {"atom": "elsewhere", "server": there.url, "what": {"atom": "completed", "job": "job-1"}, "auth": None}
        job = api.post("/jobs", json=square(when=tree)).json()["id"]
        if kind == "zip":
            until(lambda: len(there.came) >= 4)  # it tries again, and takes in nothing
            api.post(f"/jobs/{job}/abort")
        ended = api.get(f"/jobs/{job}/result", params={"wait": 20}).json()
        over.set()
        assert ended["state"] == "cancelled" and (kind == "zip" or "more than 4194304 bytes" in ended["reason"]), ended
        assert server.peak() - before < 100 * MB


@pytest.mark.row("Y08")
def test_a_large_file_is_read_in_pieces_that_cost_the_server_little(tmp_path: Path) -> None:
    with Alone(tmp_path) as server, server.api() as api:
        job = api.post("/jobs", json=square(3)).json()["id"]
        assert api.get(f"/jobs/{job}/result", params={"wait": 20}).json()["result"] == 9
        folder = tmp_path / "store" / "jobs" / job
        folder.mkdir(parents=True, exist_ok=True)
        content = os.urandom(30 * MB + 7)
        (folder / "large.bin").write_bytes(content)
        before = server.peak()
        with Watcher(server) as others:
            found = b""
            while part := base64.b64decode(
                api.post("/calls/read_file", json={"args": [job, "large.bin", len(found)]}).json()["ok"]
            ):
                found += part
            assert found == content and len(part) <= 8 * MB
        assert others.worst < HANGS_S
        assert server.peak() - before < 100 * MB
        for start in (-1, 1 << 70, 1.5, "0"):
            assert api.post("/calls/read_file", json={"args": [job, "large.bin", start]}).status_code == 422


class Big(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        what = self.request.what
        if what == "log":
            handler.log("x" * 10**6)
        elif what == "improved":
            handler.improved("x" * (runner.PARTIAL_BYTES + 1))
        elif what == "name":
            handler.keep("../x", b"content")
        elif what == "result":
            return ["x" * 1_000_000] * (plain.BYTES // 1_000_000 + 1)
        return "done"


@pytest.mark.row("Y08")
@pytest.mark.parametrize(
    ("what", "says"), [("result", "handler.keep"), ("improved", "handler.keep"), ("name", "name of a file")]
)
def test_what_a_job_gives_is_bounded_and_what_is_refused_fails_it(manager: JobManager, what: str, says: str) -> None:
    manager.register(Big)
    job = ServerProxy(Server(manager), "mara").submit(Big.request(what=what))
    with pytest.raises(JobFailed, match=says):
        job.wait(LIMIT_S)


@pytest.mark.row("Y08")
def test_a_long_log_message_is_cut_and_says_so(manager: JobManager) -> None:
    manager.register(Big)
    job = ServerProxy(Server(manager), "mara").submit(Big.request(what="log"))
    assert job.wait(LIMIT_S) == "done"
    ((text,),) = [[message["text"] for message in Caller(manager, Who(user="mara", open=True)).call("history", job.id)]]
    assert len(text) <= runner.LOG_CHARS and text.endswith("characters more)")


@pytest.mark.row("Y08")
@pytest.mark.parametrize(
    "wrong",
    [
        {"url": f"https://x/{'y' * 12_000_000}"},
        {"url": f"https://x/{'y' * 3_000}"},
        {"expires": 1e300},
        {"expires": float("inf")},
        {"expires": float("nan")},
        {"expires": True},
        {"expires": "tomorrow"},
        {"expires": 0},
        {"token": "t" * 5_000},
        {"fingerprint": "f" * 200},
        {"url": "file:///etc"},
        {"url": None},
    ],
)
def test_credentials_that_are_left_are_small_and_expire(manager: JobManager, wrong: dict[str, Any]) -> None:
    right = {"url": "https://x/", "token": "t", "expires": time.time() + 60, "fingerprint": ""}
    server = Server(manager)
    server.connect("mara")
    assert server.deposit(right).startswith("credentials-")
    with pytest.raises(RequestError):
        server.deposit({**right, **wrong})


@pytest.mark.row("Y08")
def test_one_user_can_not_take_all_places_for_credentials(tmp_path: Path) -> None:
    deposits = Deposits(tmp_path)
    right = {"url": "https://x/", "token": "t", "expires": time.time() + 60, "fingerprint": ""}
    deposits._known = {f"c{n}": {"owner": "mara", **right} for n in range(EACH)}
    with pytest.raises(RequestError, match=f"{EACH} for each user"):
        deposits.keep("mara", right)
    assert deposits.keep("ole", right)
    assert len((tmp_path / "credentials.json").read_bytes()) < MB


@pytest.mark.row("Y08")
def test_a_client_takes_no_endless_answer_either() -> None:
    def endless(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b"x" * 65536)

    with Counting(endless) as there:
        server = HttpServer(there.url, token="t", known={}, most=MB, patience_s=0.0)
        try:
            with pytest.raises(Exception, match="more than 1048576 bytes"):
                server.services()
        finally:
            server.close()


@pytest.mark.row("Y08")
def test_the_longest_list_of_jobs_in_a_call_is_bounded(manager: JobManager) -> None:
    caller = Caller(manager, Who(user="mara", open=True))
    for name, argument in (("archive", ["job-1"] * 30_000), ("submit", [square()] * 30_000)):
        with pytest.raises(RequestError):
            caller.call(name, argument)
    with pytest.raises(ConditionError, match="longer than"):
        caller.call("evaluate", {"atom": "fetched", "url": f"https://x/{'y' * 10_000}"})


# ---- how many, of one user -------------------------------------------------------------------------------------------


@pytest.mark.row("Y12")
def test_messages_to_a_job_that_takes_in_none_are_bounded(tmp_path: Path) -> None:
    settings = Settings(tick_s=0.05, messages_waiting=20)
    with JobManager(Store(tmp_path / "s"), ThreadEngine(1, 1), settings) as manager:
        manager.register(Square)
        tree = {"atom": "servers", "n": 99}
        (waiting,) = manager.submit("mara", [square(when=tree)])
        server = Server(manager)
        server.connect("mara")
        with pytest.raises(RequestError, match="At most"):
            server.control(waiting.id, {"kind": "Tell", "text": "x" * (2 << 20)})
        for _ in range(20):
            server.control(waiting.id, {"kind": "Tell", "text": "x"})
        with pytest.raises(RequestError, match="20 messages wait"):
            server.control(waiting.id, {"kind": "Tell", "text": "x"})


@pytest.mark.row("Y12")
def test_one_user_has_a_share_of_jobs_and_bytes_that_deleting_gives_back(tmp_path: Path) -> None:
    settings = Settings(tick_s=0.05, jobs_each=10, bytes_each=100_000)
    with JobManager(Store(tmp_path / "s"), ThreadEngine(1, 1), settings) as manager:
        manager.register(Square)
        service = ServerProxy(Server(manager), "mara")
        with pytest.raises(RequestError, match="Delete some"):
            service.submit(Square.request(value=1, padding="x" * 200_000))
        jobs = [service.submit(Square.request(value=n)) for n in range(10)]
        for job in jobs:
            job.wait(LIMIT_S)
        with pytest.raises(RequestError, match="mara has 10 jobs here"):
            service.submit(Square.request(value=1))
        assert ServerProxy(Server(manager), "ole").submit(Square.request(value=3)).wait(LIMIT_S) == 9
        service.delete(jobs[:1])
        jobs.append(service.submit(Square.request(value=5)))
        assert jobs[-1].wait(LIMIT_S) == 25
    with JobManager(Store(tmp_path / "s"), ThreadEngine(1, 1), settings) as manager:  # counted after a restart, too
        manager.register(Square)
        service = ServerProxy(Server(manager), "mara")
        with pytest.raises(RequestError, match="Delete some"):
            service.submit(Square.request(value=1))


@pytest.mark.row("Y12")
def test_races_that_are_open_are_counted_and_decided_ones_make_room(tmp_path: Path) -> None:
    settings = Settings(tick_s=0.05, races=5)
    with JobManager(Store(tmp_path / "s"), ThreadEngine(1, 1), settings) as manager:
        manager.register(Square)
        (done, waiting) = manager.submit("mara", [square(3), square(when={"atom": "servers", "n": 99})])
        until(lambda: done.state is JobState.COMPLETE)
        for _ in range(20):
            race = manager.race([done.id], "value > 1")
            until(lambda race=race: manager.race_status(race)["over"])
        assert len(manager.races) <= 6
        for _ in range(5):
            manager.race([waiting.id], "value > 1")
        with pytest.raises(RequestError, match="5 races are open"):
            manager.race([waiting.id], "value > 1")


@pytest.mark.row("Y12")
def test_credentials_that_a_token_makes_are_counted_short_and_forgotten_when_they_expire(tmp_path: Path) -> None:
    now = [1_000_000.0]
    tokens = Tokens(tmp_path, lambda: now[0])
    parent = tokens.create("mara")
    for n in range(3):
        tokens.create("mara", ["read"], 60.0, jobs=[f"job-{n}"], parent=parent[5:15])
    known = json.loads((tmp_path / "tokens.json").read_text())["tokens"]
    made = next(each for each in known.values() if each["parent"])
    known |= {f"a{n:09d}": {**made} for n in range(MOST_MADE)}
    (tmp_path / "tokens.json").write_text(json.dumps({"tokens": known}))
    with pytest.raises(RequestError, match="has 503 credentials"):
        tokens.create("mara", ["read"], 60.0, jobs=["job-1"], parent=parent[5:15])
    tokens.create("ole")
    now[0] += 61.0
    tokens.create("mara", ["read"], 60.0, jobs=["job-1"], parent=parent[5:15])
    assert len(json.loads((tmp_path / "tokens.json").read_text())["tokens"]) == 3
    for names in (["job-1"] * 2_000, ["j" * 1_000]):
        with pytest.raises(RequestError, match="at most"):
            tokens.create("mara", ["read"], 60.0, jobs=names, parent=parent[5:15])


@pytest.mark.row("Y12")
def test_what_readers_may_catch_up_with_is_bounded_in_bytes(manager: JobManager) -> None:
    loop = asyncio.new_event_loop()
    try:
        hub = Hub(manager, "job-1", loop, 1_000, 1_000_000)
        for number in range(1, 101):
            message = Message("Improved", partial="x" * 100_000)
            message.__dict__["_size"] = 100_000
            message.number = number
            hub.put_nowait(message)
        assert len(hub._ring) == 10 and hub._bytes == 1_000_000
        assert hub.since(95) is not None and hub.since(50) is None  # who is further behind begins anew
    finally:
        loop.close()


@pytest.mark.row("Y12")
def test_tags_are_few_and_short(manager: JobManager) -> None:
    for tags in ([f"t{n}" for n in range(200)], ["t" * 1_000]):
        with pytest.raises(RequestError, match="tag"):
            manager.submit("mara", [square(tags=tags)])


# ---- addresses, archives ---------------------------------------------------------------------------------------------


@pytest.mark.row("Y09")
@pytest.mark.parametrize(
    "address", ["64:ff9b:1::7f00:1", "64:ff9b:1:ffff::a00:1", "fec0::1", "5f00::1", "3fff::1", "100:0:0:1::1"]
)
def test_addresses_for_local_use_are_refused_whatever_python_says(address: str) -> None:
    with pytest.raises(Forbidden):
        Policy(private=False).check(address)
    Policy(private=False, allow=(f"{address}/128",)).check(address)
    Policy(private=False).check("2606:4700::1111")


@pytest.mark.row("Y09")
@pytest.mark.parametrize(
    "names",
    [["m/__init__.py", "m/a", "m/a/b"], ["m/__init__.py", "m/a/b", "m/a"], ["m/__init__.py", "m/__init__.py/x"]],
)
def test_an_archive_with_a_file_in_a_file_is_refused_by_name(names: list[str]) -> None:
    import io
    import zipfile

    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    with pytest.raises(RequestError, match="as a file and as a folder"):
        check(made.getvalue())


# ---- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        raise MissingPart("a small disk needs root (mount -t tmpfs)")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        raise MissingPart(f"a small disk can't be mounted here ({done.stderr.strip()})")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.row("Y10")
def test_a_full_disk_leaves_room_to_delete_and_to_end(small_disk: Path) -> None:
    def free() -> int:
        room = os.statvfs(small_disk)
        return room.f_bavail * room.f_frsize

    with JobManager(Store(small_disk / "store"), ThreadEngine(2, 2), Settings(tick_s=0.05)) as manager:
        manager.register(Square)
        manager.register(Steps)
        service = ServerProxy(Server(manager), "mara")
        jobs = [service.submit(Square.request(value=n, padding="x" * 20_000)) for n in range(12)]
        assert [job.wait(LIMIT_S) for job in jobs] == [n * n for n in range(12)]
        slow = service.submit(Steps.request(n=10**9, pause=0.01))
        until(lambda: slow.state is JobState.ACTIVE)
        with open(small_disk / "filler", "wb") as filler, contextlib.suppress(OSError):
            while free():
                filler.write(b"\0" * 4096)
                filler.flush()
        with pytest.raises(StoreFull):
            for n in range(100):
                service.submit(Square.request(value=n, padding="y" * 50_000))
        service.delete(jobs[:6])
        assert {each["id"] for each in service.summaries()} >= {job.id for job in jobs[6:]}
        assert jobs[7].wait(LIMIT_S) == 49
        began = time.monotonic()
    assert time.monotonic() - began < 15  # it does not wait for room that nobody makes
    (small_disk / "filler").unlink()
    with JobManager(Store(small_disk / "store"), ThreadEngine(2, 2), Settings(tick_s=0.05)) as manager:
        manager.register(Square)
        manager.register(Steps)
        for job in jobs[6:]:
            assert manager.record(job.id).state is JobState.COMPLETE
        assert jobs[0].id not in manager.records
        assert (small_disk / "store" / "reserve").exists()  # set aside anew
        manager.abort(slow.id, "enough", 0.0)
