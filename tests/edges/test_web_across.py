"""Across servers: credentials, downloads by the server itself, conditions on jobs elsewhere."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from grid.jobs import (
    IsElsewhere,
    JobCancelled,
    JobFailed,
    JobManager,
    Policy,
    RequestError,
    ServerProxy,
    Settings,
    Store,
    ThreadEngine,
    make_service,
    remote_service,
)
from grid.jobs.fetch.download import Forbidden
from grid.jobs.host.errors import AccessError, ConditionError
from grid.web.limits import WebLimits
from grid.web.server import WebServer
from grid.web.tls import Certificate
from grid.web.tokens import Tokens
from tests.edges.jobs_services import ALL, Reads, Square, Steps, Writes

LIMIT_S = 30.0
QUICK = WebLimits(alive_s=0.2)


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_LOGINS", str(tmp_path / "logins.json"))
    monkeypatch.setenv("GRID_JOBS_PATIENCE", "1")
    monkeypatch.setenv("GRID_NO_KEYRING", "1")


class Site:
    """A job server behind HTTPS with tokens, that can be ended and begun again."""

    def __init__(self, place: Path, settings: Settings | None = None, port: int = 0) -> None:
        self.place, self.settings, self.port = place, settings or Settings(tick_s=0.05), port
        self.begin()

    def begin(self) -> None:
        self.manager = JobManager(Store(self.place), ThreadEngine(1, 4), self.settings)
        for cls in ALL:
            self.manager.register(cls)
        self.manager.start()
        self.tokens = Tokens(self.manager.store.directory)
        own = Certificate.own(self.manager.store.directory, "127.0.0.1")
        listen = ("127.0.0.1", self.port)
        self.web = WebServer(self.manager, listen, tokens=self.tokens, certificate=own, limits=QUICK)
        self.port = self.web.port

    def end(self) -> None:
        self.web.close()
        self.manager.stop()

    def client(self, user: str, scopes: tuple[str, ...] = ("read", "submit", "control")) -> ServerProxy:
        return remote_service(f"{self.web.url}#{self.web.fingerprint}", token=self.tokens.create(user, scopes))


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[tuple[Site, Site]]:
    made = Site(tmp_path / "a"), Site(tmp_path / "b")
    yield made
    for site in made:
        site.end()


@pytest.fixture
def clients(sites: tuple[Site, Site]) -> Iterator[tuple[ServerProxy, ServerProxy]]:
    made = sites[0].client("mara"), sites[1].client("mara")
    yield made
    for each in made:
        each.close()


def all_files(place: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in place.rglob("*") if path.is_file())


@pytest.mark.row("C35", "C34", "C37", "C40", "C03", "R10")
def test_a_result_goes_from_one_server_to_the_next_and_jobs_wait_across(
    sites: tuple[Site, Site], clients: tuple[ServerProxy, ServerProxy], caplog: pytest.LogCaptureFixture
) -> None:
    here, there = clients
    gate = here.submit(Steps.request(n=10**6))
    reduced = here.submit(Writes.request(text="reduced"), when=gate.result("k > 3"))
    credentials = here.credentials(jobs=[reduced], lifetime_s=600)
    assert credentials.token not in repr(credentials) + str(credentials)
    fetch = there.fetch_url(reduced.url(reduced.filename), auth=credentials, when=reduced)
    assert fetch.filename.endswith(f"{fetch.id}/{reduced.filename}")  # known at once
    late = there.submit(Reads.request(name=fetch.filename, n=fetch.result["bytes"]), when=gate.failed)
    assert "failed at https://127.0.0.1" in late.explain()
    done = fetch.wait(LIMIT_S)
    assert done["bytes"] == 7 and done["sha256"] == hashlib.sha256(b"reduced").hexdigest()
    assert Path(done["filename"]).read_text() == "reduced" == there.job(fetch.id).read(reduced.filename).decode()
    assert late.state == "waiting"
    gate.abort("enough")
    assert late.wait(LIMIT_S) == {"read": fetch.filename, "n": 7}
    records = json.dumps([there.calls.fetch(job.id) for job in (fetch, late)])
    stored = all_files(sites[1].place / "jobs") + sites[1].place.joinpath("jobs.sqlite").read_text(errors="replace")
    for secret in (credentials.token, credentials.token[16:]):
        assert secret not in records and secret not in stored and secret not in caplog.text
    assert os.stat(sites[1].place / "credentials.json").st_mode & 0o077 == 0
    with pytest.raises(RequestError, match="auth="):
        there.submit(Reads.request(name=credentials))


@pytest.mark.row("C35", "P03")
def test_credentials_are_for_one_purpose_and_end_with_what_they_were_made_of(
    sites: tuple[Site, Site], clients: tuple[ServerProxy, ServerProxy]
) -> None:
    here, there = clients
    mine, other = here.submit(Square.request(value=2)), here.submit(Square.request(value=3))
    mine.wait(LIMIT_S)
    narrow = here.credentials(jobs=[mine], lifetime_s=60)
    with_it = remote_service(f"{narrow.url}#{narrow.fingerprint}", token=narrow.token)
    try:
        assert with_it.job(mine.id).wait(LIMIT_S) == 4
        assert [each["id"] for each in with_it.summaries()] == [mine.id]
        for act in (
            lambda: with_it.status(other.id),
            lambda: with_it.abort(mine.id),
            lambda: with_it.submit(Square.request(value=1)),
            lambda: with_it.listen("jobs"),
            lambda: with_it.credentials(jobs=[other.id]),
            lambda: with_it.credentials("any", scopes=["submit"]),
            lambda: here.credentials(jobs=[mine], scopes=["admin"]),
            lambda: here.credentials(jobs=[mine], scopes=["upload"]),
        ):
            with pytest.raises((AccessError, KeyError)):
                act()
        for wrong in ({"jobs": None}, {"jobs": [mine], "lifetime_s": 1e9}, {"jobs": [mine], "scopes": ["x"]}):
            with pytest.raises(RequestError):
                here.credentials(**wrong)
        square = here.credentials("tests.edges.jobs_services.Square", scopes=("read", "submit"))
        for_square = remote_service(f"{square.url}#{square.fingerprint}", token=square.token)
        try:
            assert for_square.submit(Square.request(value=5)).wait(LIMIT_S) == 25
            with pytest.raises(AccessError, match="other services"):
                for_square.submit(Writes.request())
        finally:
            for_square.close()
        with pytest.raises(ConditionError, match="files of the server"):
            there.fetch_url("file:///etc/passwd")
        elsewhere = there.fetch_url(f"{there.calls.path}/api/v1/me", auth=narrow)
        with pytest.raises(JobFailed, match="for another server"):
            elsewhere.wait(LIMIT_S)
        (parent,) = [each for each in sites[0].tokens.list() if each["parent"] is None]
        sites[0].tokens.revoke(parent["id"])
        with pytest.raises(AccessError, match="not valid"):
            with_it.status(mine.id)
    finally:
        with_it.close()


@pytest.mark.row("C37", "J19")
def test_a_condition_elsewhere_outlives_both_servers_and_says_why_it_is_cancelled(
    sites: tuple[Site, Site], clients: tuple[ServerProxy, ServerProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_JOBS_PATIENCE", "20")
    here, there = clients
    gates = [here.submit(Steps.request(n=10**6)) for _ in range(2)]
    late = [there.submit(Square.request(value=n), when=gate.failed if n else gate) for n, gate in enumerate(gates)]
    for site in sites:
        site.end()
    for site in sites:
        site.begin()
    patient = [site.client("mara") for site in sites]
    try:
        assert patient[1].job(late[1].id).state == "waiting"
        patient[0].abort(gates[1].id, "one")
        assert patient[1].job(late[1].id).wait(LIMIT_S) == 1
        patient[0].abort(gates[0].id, "a reason from afar")
        with pytest.raises(JobCancelled, match="a reason from afar"):
            patient[1].job(late[0].id).wait(LIMIT_S)
    finally:
        for each in patient:
            each.close()


@pytest.mark.row("C37", "C34")
def test_conditions_elsewhere_that_can_not_be_are_refused_or_cancelled(
    tmp_path: Path, clients: tuple[ServerProxy, ServerProxy]
) -> None:
    here, there = clients
    what = {"atom": "completed", "job": "job-77"}
    url = here.calls.path
    with pytest.raises(JobCancelled, match="credentials"):
        there.submit(Square.request(value=1), when=IsElsewhere(url, what, "credentials-nothing")).wait(LIMIT_S)
    job = here.submit(Square.request(value=1))
    left = there.calls.deposit(here.credentials(jobs=[job]).to_plain())
    with pytest.raises(JobCancelled, match="no job"):
        there.submit(Square.request(value=1), when=IsElsewhere(url, what, left)).wait(LIMIT_S)
    for wrong in (("ftp://x", what), (url, {"atom": "servers", "n": 1}), (url, {"atom": "completed", "x": 1})):
        with pytest.raises(ConditionError):
            IsElsewhere(*wrong)
    local = make_service(tmp_path / "local", engine=ThreadEngine(1, 1), services=ALL)
    try:
        with pytest.raises(ConditionError, match="can't be reached by others"):
            there.submit(Square.request(value=1), when=local.submit(Square.request(value=1)))
        assert local.submit(Square.request(value=3), when=job).wait(LIMIT_S) == 9  # the other way it can be
    finally:
        local.close()


@pytest.mark.row("C37", "C34")
def test_a_server_does_not_listen_where_it_may_not_fetch(
    tmp_path: Path, clients: tuple[ServerProxy, ServerProxy]
) -> None:
    job = clients[0].submit(Square.request(value=1))
    strict = Settings(tick_s=0.05, fetch=Policy(private=False))
    local = make_service(tmp_path / "local", engine=ThreadEngine(1, 1), settings=strict, services=ALL)
    try:
        with pytest.raises(JobCancelled, match="private or local"):
            local.submit(Square.request(value=3), when=job).wait(LIMIT_S)
    finally:
        local.close()


# ---- downloads -------------------------------------------------------------------------------------------------------


@contextmanager
def web_of(serve: Callable[[Any], None]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            serve(self)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}"
        finally:
            web.shutdown()
            thread.join()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[ServerProxy]:
    service = make_service(tmp_path / "s", engine=ThreadEngine(1, 3), settings=Settings(tick_s=0.05), services=ALL)
    yield service
    service.close()


@pytest.mark.row("C34")
def test_a_download_that_breaks_goes_on_where_it_was(local: ServerProxy) -> None:
    content = os.urandom(3_000_000)
    asked: list[tuple[str | None, str | None]] = []

    def serve(request: Any) -> None:
        wanted = request.headers.get("Range")
        asked.append((wanted, request.headers.get("If-Range")))
        begin = int(wanted[6:].partition("-")[0]) if wanted else 0
        request.send_response(206 if wanted else 200)
        request.send_header("ETag", '"one"')
        request.send_header("Content-Length", str(len(content) - begin))
        request.end_headers()
        end = begin + 1_000_000 if len(asked) < 4 else len(content)
        request.wfile.write(content[begin:end])
        request.close_connection = True

    with web_of(serve) as url:
        digest = hashlib.sha256(content).hexdigest()
        job = local.fetch_url(f"{url}/run%207.h5?x=1", sha256=digest, size=len(content))
        done = job.wait(LIMIT_S)
        assert done == {"filename": job.filename, "bytes": len(content), "sha256": digest, "resumed": done["resumed"]}
        assert done["resumed"] >= 1 and asked[0] == (None, None) and asked[1][1] == '"one"'
        assert Path(job.filename).name == "run_7.h5" and Path(job.filename).read_bytes() == content
        assert len(job.files()) == 1  # no half of it is left
        assert any(message.kind == "Log" for message in local.calls.manager.book.kept(job.id, "Log"))


@pytest.mark.row("C34")
def test_what_can_not_be_fetched_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    def serve(request: Any) -> None:
        path = request.path
        if path == "/away":
            request.send_response(302)
            request.send_header("Location", "http://127.0.0.2:9/secret")
            request.end_headers()
            return
        request.send_response(404 if path == "/none" else 200)
        if path != "/endless":
            request.send_header("Content-Length", "10")
        request.end_headers()
        try:
            request.wfile.write(b"0123456789" * (10_000 if path == "/endless" else 1))
        except OSError:
            pass  # it went away, as it should

    strict = Settings(tick_s=0.05, fetch=Policy(private=False, allow=("127.0.0.1/32",), bytes=5_000))
    local = make_service(tmp_path / "s", engine=ThreadEngine(1, 3), settings=strict, services=ALL)
    try:
        with web_of(serve) as url:
            assert local.fetch_url(f"{url}/fine").wait(LIMIT_S)["bytes"] == 10
            for what, options, words in (
                (f"{url}/none", {}, "404"),
                (f"{url}/fine", {"sha256": "0" * 64}, "has the hash"),
                (f"{url}/fine", {"size": 11}, "has 10 bytes, not 11"),
                (f"{url}/endless", {}, "more than the 5000 bytes"),
                (f"{url}/away", {}, "127.0.0.2 is a private or local address"),
                ("http://127.0.0.2:9/", {}, "private or local"),
                ("http://[::1]:9/", {}, "private or local"),
                ("http://[::ffff:10.0.0.1]:9/", {}, "private or local"),
                ("http://169.254.169.254/latest", {}, "private or local"),
                ("file:///etc/passwd", {}, "could not be fetched|unknown url type"),
            ):
                job = local.fetch_url(what, **options)
                with pytest.raises(JobFailed, match=words):
                    job.wait(LIMIT_S)
                assert job.files() == {} and not list(Path(job.filename).parent.glob(".*")), what
            with pytest.raises(JobCancelled, match="private or local"):
                local.submit(Square.request(value=1), when="http://127.0.0.2:9/x").wait(LIMIT_S)
        for wrong in ("ftp://x/y", "http://mara:secret@x/", 3):
            with pytest.raises(RequestError):
                local.fetch_url(wrong)  # type: ignore[arg-type]
        assert Path(local.fetch_url("http://127.0.0.1:9/..", name="../../x").filename).name == "_.._x"
    finally:
        local.close()


@pytest.mark.row("C34")
def test_a_download_is_aborted_and_leaves_nothing(local: ServerProxy) -> None:
    began, end = threading.Event(), threading.Event()

    def serve(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while not end.is_set():
                request.wfile.write(b"x" * 10_000)
                began.set()
                time.sleep(0.01)
        except OSError:
            pass

    with web_of(serve) as url:
        job = local.fetch_url(f"{url}/endless")
        assert began.wait(LIMIT_S)
        job.abort("enough")
        with pytest.raises(Exception, match="enough"):
            job.wait(LIMIT_S)
        end.set()
        assert not list(Path(job.filename).parent.iterdir())


def test_addresses_are_judged_in_every_disguise() -> None:
    strict = Policy(private=False, allow=("10.1.0.0/16",))
    for fine in ("93.184.216.34", "2606:2800:220:1::1", "10.1.2.3"):
        strict.check(fine)
    for wrong in ("127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fe80::1%eth0", "::ffff:127.0.0.1", "0.0.0.0"):
        with pytest.raises(Forbidden):
            strict.check(wrong)
    for wrong in ("64:ff9b::7f00:1", "2002:7f00:1::", "224.0.0.1", "100.64.0.1", "169.254.169.254", "fc00::1", "::"):
        with pytest.raises(Forbidden):
            strict.check(wrong)
