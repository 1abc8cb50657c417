"""Jobs in this process: submitted, watched, steered, waited for, chained. On threads, and on the servers of a grid."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from grid import LocalGrid
from grid.jobs import (
    Condition,
    HasServers,
    IsFetched,
    Job,
    JobAborted,
    JobCancelled,
    JobError,
    JobFailed,
    JobList,
    JobManager,
    JobState,
    Message,
    Monitor,
    RequestError,
    Server,
    ServerProxy,
    Service,
    ServiceHandler,
    Settings,
    Store,
    ThreadEngine,
    UnknownJob,
    UnknownJobService,
    WaitTimeout,
    add_user,
    default_service,
    make_service,
    open_service,
    usertag,
)
from grid.jobs.conditions.algebra import Value
from grid.jobs.host.errors import AccessError, ConditionError
from grid.jobs.host.request import Request
from tests.edges.jobs_services import ALL, Add, Deaf, Fail, Reads, Remembered, Square, Steps, Writes

LIMIT_S = 30.0
QUICK = Settings(tick_s=0.05, abort_grace_s=2.0, suspend_s=10.0, checkpoint_s=0.02)


def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServerProxy]:
    engine = ThreadEngine(workers=3, at_once=4)
    with open_service(tmp_path / "store", engine=engine, settings=QUICK, user="mara", services=ALL) as service:
        yield service


@pytest.mark.row("P04", "P11", "P15", "R13", "V15", "J02", "P18", "R01")
def test_a_job_is_submitted_runs_and_gives_its_result(service: ServerProxy) -> None:
    job = Square.submit(values=[1, 2, 3])
    assert isinstance(job, Job) and job == job.id and hash(job) == hash(job.id)
    assert job.wait(LIMIT_S) == [1, 4, 9] == service.wait(timeout=1) == service.wait(job.id)
    status = job.status
    assert (status["state"], status["owner"], status["priority"]) == ("complete", "mara", 0)
    assert status["created"] <= status["started"] <= status["ended"]
    assert job.state is JobState.COMPLETE and job.request == Square.request(values=[1, 2, 3]) == service.fetch(job.id)
    assert job.values == [1, 2, 3]


@pytest.mark.row("P15", "J22")
def test_wait_raises_what_went_wrong_or_times_out(service: ServerProxy) -> None:
    bad = Fail.submit(text="no luck")
    with pytest.raises(JobFailed, match="ValueError: no luck") as failed:
        bad.wait(LIMIT_S)
    assert failed.value.error == "ValueError: no luck" == bad.error and "jobs_services.py" in failed.value.trace
    slow = Steps.submit()
    with pytest.raises(TimeoutError, match=r"after 0\.05 s"):
        slow.wait(0.05)
    until(lambda: slow.state is JobState.ACTIVE and slow.best)
    slow.abort("seen enough")
    slow.abort("again")
    with pytest.raises(JobAborted, match="seen enough") as aborted:
        slow.wait(LIMIT_S)
    assert aborted.value.partial["aborted"] is True
    slow.abort()  # harmless
    with pytest.raises(KeyError):
        slow.stop()
    for call in (service.status, service.fetch, service.abort, service.stop):
        with pytest.raises(KeyError, match="job-999"):
            call("job-999")
    with pytest.raises(UnknownJob):
        service.job("nothing")


@pytest.mark.row("P04", "R02", "R03", "R12")
def test_what_can_not_be_submitted_is_refused_and_nothing_is_stored(service: ServerProxy) -> None:
    plain = Square.request(value=1).to_plain()
    cases: list[tuple[Any, type[Exception], str]] = [
        (None, RequestError, "is no request"),
        (Request.from_plain({**plain, "service": "os.system"}), UnknownJobService, "no service 'os.system'"),
        (Request.from_plain({**plain, "version": "9"}), UnknownJobService, r"version 9 of .*Square, and .* has 1"),
        (Square.request(value=object()), RequestError, "no primitive"),
    ]
    for request, kind, text in cases:
        with pytest.raises(kind, match=text):
            service.submit(request)
    with pytest.raises(ConditionError, match="no job 'job-77' to wait for"):
        service.submit(Square.request(value=1), when="job-77")
    with pytest.raises(RequestError, match="priority"):
        service.submit(Square.request(value=1), priority=-1)
    with pytest.raises(RequestError, match="e-mail"):
        service.submit(Square.request(value=1), notify="nobody")
    assert service.jobs() == []
    assert service.services()["tests.edges.jobs_services.Square"] == ["1"]


@pytest.mark.row("R03", "R08", "R12")
def test_an_old_request_is_upgraded_where_its_service_knows_how(service: ServerProxy) -> None:
    class Grown(Service):
        service = "x.Grown"
        version = "3"

        @classmethod
        def accepts(cls, version: str) -> bool:
            return version in ("2", "3")

        @classmethod
        def upgrade(cls, version: str, data: dict[str, Any]) -> dict[str, Any] | None:
            return {"b": data["a"] + 1} if version == "1" else None

        def run(self, handler: ServiceHandler) -> Any:
            return self.request.data

    service.register(Grown)
    plain = {"grid_request": 1, "service": "x.Grown", "data": {"a": 1}}
    job = service.submit(Request.from_plain({**plain, "version": "1"}))
    assert job.wait(LIMIT_S) == {"b": 2} and job.request.version == "3"
    assert service.submit(Request.from_plain({**plain, "version": "2"})).wait(LIMIT_S) == {"a": 1}
    with pytest.raises(UnknownJobService):
        service.submit(Request.from_plain({**plain, "version": "4"}))


@pytest.mark.row("R09", "R10", "R11", "C29")
def test_what_is_known_at_submission_shows_on_the_handle_and_can_be_used_at_once(
    service: ServerProxy, tmp_path: Path
) -> None:
    first = Deaf.submit(end=str(tmp_path / "end"))
    writer = Writes.submit(text="hello", when=first)
    assert writer.filename == f"{writer.id}.out" and writer.number == 7 and writer.state is JobState.WAITING
    reader = Reads.submit(name=writer.filename, n=writer.lines)
    assert reader.state is JobState.WAITING and writer.id in reader.explain()
    (tmp_path / "end").touch()
    assert reader.wait(LIMIT_S) == {"read": writer.filename, "n": 1}
    assert writer.files() == {writer.filename: 5} and writer.read(writer.filename) == b"hello"
    with pytest.raises(RequestError, match="kept no file"):
        writer.read("other")


@pytest.mark.row("C30", "C29", "C01")
def test_the_result_of_one_job_is_the_argument_of_another(service: ServerProxy) -> None:
    one, two = Square.submit(value=3), Square.submit(value=4)
    both = Add.submit(a=one.result, b=two)
    scaled = Add.submit(a=both.result["sum"], b=0.5)
    assert scaled.wait(LIMIT_S) == {"sum": 25.5, "input": None}
    assert both.result["sum"].value() == 25 and one.result.value(1) == 9
    wrong = Add.submit(a=both.result["nothing"], b=1)
    with pytest.raises(JobFailed, match="has no part"):
        wrong.wait(LIMIT_S)


@pytest.mark.row("P08")
def test_a_job_with_inputs_runs_once_for_each(service: ServerProxy) -> None:
    job = service.start(Add.request(a=1, b=2), inputs=[10, 20])
    assert service.wait(job, LIMIT_S) == [{"sum": 3, "input": 10}, {"sum": 3, "input": 20}]
    assert service.wait(service.start(Square.request(value=2)), LIMIT_S) == 4


@pytest.mark.row("C01", "C04", "C05", "C19", "C20", "C24", "C25", "C31", "C39")
def test_jobs_wait_for_conditions(service: ServerProxy) -> None:
    gate = Steps.submit()
    after = Square.submit(value=2, after=gate, when=HasServers(2))
    either = Square.submit(value=3, when=gate.iscompleted | Fail.submit().failed)
    cleaner = Square.submit(value=4, when=gate.failed)
    good = Square.submit(value=5, when=gate.result("k > 5"))
    told = Square.submit(value=6, when=gate.message("Improved", where="partial.k > 7"))
    assert either.wait(LIMIT_S) == 9 and good.wait(LIMIT_S) == 25 and told.wait(LIMIT_S) == 36
    assert {after.state, cleaner.state} == {JobState.WAITING} and gate.state is JobState.ACTIVE
    gate.abort("done with it")
    assert cleaner.wait(LIMIT_S) == 16
    with pytest.raises(JobCancelled, match=f"{gate.id} was aborted: done with it"):
        after.wait(LIMIT_S)


@pytest.mark.row("C26", "C25", "C42")
def test_a_failure_cancels_what_depends_on_it_with_the_chain_of_reasons(service: ServerProxy, tmp_path: Path) -> None:
    gate = Deaf.submit(end=str(tmp_path / "end"))
    bad = Fail.submit(text="disk on fire", when=gate)
    second = Square.submit(value=1, after=bad)
    third = Square.submit(value=2, after=second)
    saved = Square.submit(value=3, when=third.iscompleted | gate.iscompleted)
    never = Square.submit(value=4, when=[third, gate])
    assert "waits" in third.explain() or second.id in third.explain()
    (tmp_path / "end").touch()
    with pytest.raises(JobCancelled) as caught:
        third.wait(LIMIT_S)
    reason = caught.value.reason
    assert reason.index(second.id) < reason.index(bad.id) < reason.index("disk on fire")
    assert saved.wait(LIMIT_S) == 9
    with pytest.raises(JobCancelled, match=f"job {third.id} was cancelled"):
        never.wait(LIMIT_S)
    graph = {node["id"]: node for node in service.graph()}
    assert graph[third.id]["after"] == [second.id] and graph[third.id]["state"] == "cancelled"
    assert graph[saved.id]["after"] == sorted([third.id, gate.id])


@pytest.mark.row("C23", "C02", "C03")
def test_conditions_at_the_client_are_probes_of_what_goes_on_at_the_server(
    service: ServerProxy, tmp_path: Path
) -> None:
    job = Deaf.submit(end=str(tmp_path / "end"))
    condition = job.iscompleted & ~job.failed
    assert condition.state is Value.F and not condition.ready and not condition.cancelled
    other = Fail.submit()
    with pytest.raises(Condition.Cancelled, match="on purpose"):
        other.iscompleted.wait(LIMIT_S)
    (tmp_path / "end").touch()
    job.iscompleted.wait(LIMIT_S)
    assert job.iscompleted.ready and job.failed.cancelled
    assert "satisfied" in job.iscompleted.explain()

    async def both() -> Any:
        late = Steps.submit(n=3)
        await late.iscompleted
        return await late

    assert asyncio.run(both())["k"] == 3


@pytest.mark.row("C22", "C41")
def test_a_job_waits_for_downloads_that_are_checked(service: ServerProxy, tmp_path: Path) -> None:
    content = b"x" * 100_000
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            broken = self.path == "/flaky" and asked.count("/flaky") == 1
            self.send_response(404 if self.path == "/none" else 503 if broken else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.05,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{web.server_port}"
            digest = hashlib.sha256(content).hexdigest()
            good = Square.submit(value=2, when=IsFetched(f"{url}/data.bin", sha256=digest, size=len(content)))
            assert good.wait(LIMIT_S) == 4
            assert Path(service.calls.fetched(f"{url}/data.bin")).read_bytes() == content
            flaky = Square.submit(value=3, when=[f"{url}/flaky", good])
            wrong = Square.submit(value=1, when=IsFetched(f"{url}/wrong", sha256="0" * 64))
            none = Square.submit(value=1, when=f"{url}/none")
            with pytest.raises(JobCancelled, match="has the hash"):
                wrong.wait(LIMIT_S)
            with pytest.raises(JobCancelled, match="404"):
                none.wait(LIMIT_S)
            assert flaky.wait(LIMIT_S) == 9 and asked.count("/flaky") == 2
        finally:
            web.shutdown()
            thread.join()
    (tmp_path / "here").write_text("x")
    assert Square.submit(value=2, when=(tmp_path / "here").as_uri()).wait(LIMIT_S) == 4
    with pytest.raises(JobCancelled, match="could not be fetched"):
        Square.submit(value=2, when=(tmp_path / "absent").as_uri()).wait(LIMIT_S)


@pytest.mark.row("V14", "V20", "V21", "V05", "J11", "J18")
def test_messages_come_in_order_with_how_things_stand_first(service: ServerProxy) -> None:
    heard: list[Message] = []

    class Mine(Monitor):
        def on_improved(self, message: Message) -> None:
            heard.append(message)

        def on_completed(self, message: Message) -> None:
            heard.append(message)

    job = service.submit(Steps.request(n=40, pause=0.01), monitor=Mine())
    messages = list(job.messages(timeout=LIMIT_S))
    until(lambda: heard and heard[-1].kind == "Completed")
    assert heard[-1].final["k"] == 40 and heard[-2].partial == {"k": 40}
    numbers = [message.number for message in messages[1:]]
    assert messages[0].kind == "Join" and numbers == sorted(set(numbers))
    kinds = [message.kind for message in messages]
    assert kinds[-1] == "Completed" and "Progress" in kinds and {"State"} <= set(kinds)
    late = list(job.messages(timeout=LIMIT_S))
    assert [message.kind for message in late] == ["Join", "Completed"]
    assert late[0].partial == {"k": 40} and (late[0].k, late[0].units) == (40, "steps")
    assert all(message.job == job.id and message.time > 1e9 for message in messages)


@pytest.mark.row("V19", "P14", "V23", "V17")
def test_a_running_job_is_steered_and_asked(service: ServerProxy) -> None:
    job = Steps.submit()
    job.control("SetK", k=1000)  # perhaps before it runs
    until(lambda: (job.best or {}).get("k", 0) > 1000)
    assert job.ask("GetK", timeout=LIMIT_S) > 1000
    job.pause()
    until(lambda: job.status["paused"])
    before = job.ask("GetK", timeout=LIMIT_S)
    assert job.ask(Message("GetK"), timeout=LIMIT_S) == before
    job.resume()
    until(lambda: job.ask("GetK", timeout=LIMIT_S) > before)
    with pytest.raises(RequestError):
        job.control("SetK", k=object())
    job.abort()
    until(lambda: job.state.ended)
    job.control("SetK", k=1)  # ignored
    with pytest.raises(JobError, match="ended before it answered"):
        job.ask("GetK", timeout=LIMIT_S)


@pytest.mark.row("J14", "J15", "J16", "J21")
def test_a_list_follows_the_queue_from_whole_to_each_change_once(service: ServerProxy) -> None:
    early = Square.submit(value=1)
    early.wait(LIMIT_S)
    seen: list[tuple[str, str]] = []

    def note(_: JobList, message: Message) -> None:
        if message.kind == "JobChanged":
            seen.append((message.summary["id"], message.summary["state"]))

    with JobList(service, note) as jobs:
        assert list(jobs.jobs) == [early.id]
        made = [Square.submit(value=n) for n in range(20)]
        waiting = Square.submit(value=0, after=Fail.submit())
        jobs.wait_for(lambda now: all(now.get(j.id, {}).get("state") == "complete" for j in made), LIMIT_S)
        jobs.wait_for(lambda now: now.get(waiting.id, {}).get("state") == "cancelled", LIMIT_S)
        states = [state for id, state in seen if id == made[0].id]
        assert states == ["pending", "active", "complete"] or states == list(dict.fromkeys(states))
        made[0].delete()
        made[1].archive()
        jobs.wait_for(lambda now: made[0].id not in now and made[1].id not in now, LIMIT_S)
        assert jobs.restarts == 0 and len(jobs) == 21
        assert {each["id"] for each in jobs} == {job.id for job in service.jobs()}


@pytest.mark.row("J18", "J16", "J15")
def test_a_slow_listener_holds_up_nobody_and_is_told_what_it_missed(service: ServerProxy) -> None:
    small: queue.Queue[Message] = queue.Queue(3)
    service.calls.listen("jobs", small)
    blocked = threading.Event()
    with JobList(service, lambda jobs, message: message.kind == "Jobs" or blocked.wait(LIMIT_S), size=5) as slow:
        for n in range(30):
            Square.submit(value=n)
        until(lambda: all(job.state.ended for job in service.jobs()))
        blocked.set()
        slow.wait_for(lambda now: len(now) == 30 and all(j["state"] == "complete" for j in now.values()), LIMIT_S)
        assert slow.restarts >= 1
    kinds = [small.get() for _ in range(3)]
    assert [message.kind for message in kinds] == ["Jobs", "JobChanged", "Gap"] and kinds[2].missed > 50
    Square.submit(value=1)
    assert small.get(timeout=LIMIT_S).kind == "JobChanged"
    service.calls.hangup("jobs", small)


@pytest.mark.row("J03", "J04", "P05", "P10", "P09", "P23")
def test_jobs_are_found_by_tags_state_service_text_or_a_function(service: ServerProxy) -> None:
    assert service.tags == [usertag()]
    service.set_tags(["project=nist"])
    service.add_tags(["night"])
    one = Square.submit(value=1, tags=["name=first"])
    two = Fail.submit()
    service.set_tags([])
    three = Square.submit(value=3)
    for job in (one, two, three):
        until(lambda job=job: job.state.ended)
    assert service.jobs(tags=["project=nist"]) == [one, two] == service.jobs(tags="night")
    assert service.jobs(tags=["project=nist", "name=first"]) == [one]
    assert service.jobs(tags=[f"created={time.strftime('%Y-%m', time.gmtime())}"]) == [one, two, three]
    assert service.jobs(state="error") == [two] and service.jobs(state=["complete"]) == [one, three]
    assert service.jobs(service="Square") == [one, three] and service.jobs("on purpose") == [two]
    assert service.jobs(lambda job: job["data"].get("value") == 3) == [three]
    assert service.jobs(owner="mara", last=1) == [three] and service.jobs(owner="ole") == []
    assert service.job(one.id) is one is service.jobs()[0]
    with pytest.raises(RequestError, match="can't be filtered by 'colour'"):
        service.jobs(colour="red")


@pytest.mark.row("J20", "P10")
def test_ended_jobs_are_archived_and_deleted(service: ServerProxy) -> None:
    job, running = Writes.submit(), Steps.submit()
    job.wait(LIMIT_S)
    folder = service.calls.manager.store.directory / "jobs" / job.id
    assert folder.is_dir()
    job.archive()
    assert job not in service.jobs() and service.jobs(archived=True) == [job] and job.wait(1) == {"lines": 1}
    with pytest.raises(JobError, match="Abort it first"):
        running.delete()
    with pytest.raises(JobError, match="Abort it first"):
        running.archive()
    job.delete()
    assert not folder.exists()
    with pytest.raises(UnknownJob):
        service.status(job.id)
    running.abort()


@pytest.mark.row("P07", "P13")
def test_waiting_jobs_are_cancelled_by_abort_and_stop(service: ServerProxy) -> None:
    gate = Steps.submit()
    one, two = Square.submit(value=1, after=gate), Square.submit(value=1, after=gate)
    one.abort()
    two.stop()
    for job in (one, two):
        with pytest.raises(JobCancelled):
            job.wait(LIMIT_S)
        with pytest.raises(KeyError):
            job.stop()
    gate.stop()
    assert until(lambda: gate.state.ended) and gate.state is JobState.ABORTED


@pytest.mark.row("P13", "V22")
def test_a_job_that_never_comes_to_a_safe_point_is_given_up_after_the_grace_time(
    service: ServerProxy, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    job = Deaf.submit(end=str(end))
    until(lambda: (job.status["ready_age"] or 0) > 0.2)
    job.abort("too slow", grace_s=0.5)
    how = r"too slow; it did not call handler\.ready\(\) within the grace time and was killed"
    with pytest.raises(JobAborted, match=how):
        job.wait(LIMIT_S)
    end.touch()


@pytest.mark.row("C38")
def test_in_a_race_the_first_good_enough_ends_the_others(service: ServerProxy) -> None:
    jobs = [Steps.submit(n=10_000, pause=0.05), Steps.submit(n=60, pause=0.001), Steps.submit(n=10_000, pause=0.05)]
    race = service.race(jobs, until="k > 50")
    assert race.wait(LIMIT_S)["k"] == 60 and race.winner == jobs[1]
    for loser in (jobs[0], jobs[2]):
        with pytest.raises(JobAborted, match=f"{jobs[1].id} was first"):
            loser.wait(LIMIT_S)
    nobody = service.race([Square.submit(value=1)], until="value > 5")
    with pytest.raises(JobError, match="no job of"):
        nobody.wait(LIMIT_S)
    with pytest.raises(ValueError, match="parse"):
        service.race(jobs, until="k >")


@pytest.mark.row("C27", "C28")
def test_results_are_remembered_by_request_files_and_versions(
    service: ServerProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, path = tmp_path / "log", tmp_path / "data"
    path.write_text("four")

    def run(**options: Any) -> Any:
        return Remembered.submit(log=str(log), path=str(path), **options)

    def count() -> int:
        return len(log.read_text().split())

    first = run()
    assert first.wait(LIMIT_S) == 4
    again = run()
    assert again.wait(LIMIT_S) == 4 and count() == 1
    assert again.status["reason"] == f"remembered from {first.id}"
    assert run(memo=False).wait(LIMIT_S) == 4 and count() == 2
    path.write_text("other")
    assert run().wait(LIMIT_S) == 5 and count() == 3
    path.write_text("four")
    assert run().wait(LIMIT_S) == 4 and count() == 3
    from grid.jobs.manager import memory

    monkeypatch.setattr(memory, "versions", lambda names: {"grid": "99"})
    assert run().wait(LIMIT_S) == 4 and count() == 4
    path.unlink()
    with pytest.raises(JobFailed, match=r"request\.path can't be read"):
        run().wait(LIMIT_S)


@pytest.mark.row("C28")
def test_versions_cover_what_a_distribution_needs() -> None:
    from grid.jobs.manager.memory import versions

    found = versions(("sshgrid",))
    assert {"sshgrid", "dill", "pyzmq", "click", "rich"} <= set(found)
    with pytest.raises(RequestError, match="not installed"):
        versions(("no-such-distribution-here",))


@pytest.mark.row("P03", "P25", "P01", "J02")
def test_a_server_with_tokens_shows_each_user_his_own_jobs(tmp_path: Path) -> None:
    settings = Settings(tokens=True, tick_s=0.05)
    with JobManager(Store(tmp_path / "s"), ThreadEngine(), settings) as manager:
        token, other = add_user(manager, "mara"), add_user(manager, "ole")
        for wrong in (None, "", other, "x"):
            with pytest.raises(AccessError):
                ServerProxy(Server(manager), "mara", wrong)
        with pytest.raises(AccessError):
            Server(manager).jobs()
        mara, ole = ServerProxy(Server(manager), "mara", token), ServerProxy(Server(manager), "ole", other)
        assert (mara.user, mara.queue) == ("mara", "jobs")
        with JobList(ole) as list_of_ole:
            job = mara.submit(Square.request(value=3))
            mine = ole.submit(Square.request(value=4))
            assert job.wait(LIMIT_S) == 9 and mine.wait(LIMIT_S) == 16
            list_of_ole.wait_for(lambda now: now.get(mine.id, {}).get("state") == "complete", LIMIT_S)
            assert list(list_of_ole.jobs) == [mine.id] and list_of_ole.restarts == 0
        assert mara.jobs() == [job] and ole.jobs() == [mine]
        for call in (ole.status, ole.abort, ole.fetch, ole.listen):
            with pytest.raises(UnknownJob):
                call(job.id)
        text = (tmp_path / "s" / "jobs.sqlite").read_bytes() + (tmp_path / "s" / "jobs.sqlite-wal").read_bytes()
        assert token.encode() not in text


@pytest.mark.row("P17", "P16")
def test_there_is_one_handle_for_each_job_of_the_class_for_its_service(service: ServerProxy) -> None:
    class SquareJob(Job):
        def root(self) -> float:
            return float(self.wait(LIMIT_S)) ** 0.5

    class Special(ServerProxy):
        handles = {"tests.edges.jobs_services.Square": SquareJob}  # noqa: RUF012

    special = Special(service.calls)
    job = special.submit(Square.request(value=3))
    assert isinstance(job, SquareJob) and job.root() == 3.0
    assert special.job(job.id) is job is special.jobs()[0]
    assert type(service.job(job.id)) is Job


@pytest.mark.row("P18", "P19", "C40")
def test_a_with_block_sends_submissions_to_its_service(tmp_path: Path) -> None:
    services = [make_service(tmp_path / name, engine=ThreadEngine(1, 1), user=name) for name in "ab"]
    a, b = services
    try:
        with a:
            assert default_service() is a
            with b:
                inner = Square.submit(value=1)
                other = Square.submit(value=2, service=a)
                seen: list[Any] = []
                thread = threading.Thread(target=lambda: seen.append(_default_or_none()))
                thread.start()
                thread.join()
            with pytest.raises(ZeroDivisionError), b:
                raise ZeroDivisionError
            outer = Square.submit(value=3)
        assert [job._service for job in (inner, other, outer)] == [b, a, a]
        assert seen == [()]

        async def task(service: ServerProxy) -> ServerProxy:
            with service:
                await asyncio.sleep(0.01)
                return default_service()

        async def both() -> list[ServerProxy]:
            return list(await asyncio.gather(task(a), task(b)))

        assert asyncio.run(both()) == services
        a.__enter__()
        with pytest.raises(JobError, match="innermost"):
            b.__exit__()
        a.__exit__()
        with pytest.raises(RequestError, match="no job service"):
            Square.submit(value=1, service=7)
        for job in (inner, other, outer):
            job.wait(LIMIT_S)
    finally:
        for each in services:
            each.close()


def _default_or_none() -> Any:
    from grid.jobs.client import context

    return context._stack.get()


@pytest.mark.row("P19", "P20")
def test_the_local_service_is_made_when_it_is_first_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from grid.jobs import local_service
    from grid.jobs.client import context

    monkeypatch.setenv("GRID_JOBS_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("GRID_LOCAL", "1")
    assert context._local is None
    job = Square.submit(values=[2, 3])
    assert job._service is local_service() is default_service()
    assert job.wait(LIMIT_S) == [4, 9]
    local_service().close()
    assert (tmp_path / "mine" / "jobs.sqlite").exists()
    monkeypatch.setattr(context, "_local", None)


@pytest.mark.row("P22")
@pytest.mark.parametrize(
    ("environment", "tag"),
    [
        ({"PARKTAG": "tag", "PARKMAIL": "m@x", "LOGNAME": "log", "USERNAME": "user"}, "tag"),
        ({"PARKTAG": "", "PARKMAIL": "m@x", "LOGNAME": "log"}, "m"),
        ({"PARKMAIL": "@x", "LOGNAME": "log", "USERNAME": "user"}, "log"),
        ({"LOGNAME": "root", "USERNAME": "user"}, "user"),
        ({"LOGNAME": "", "USERNAME": "Administrator"}, None),
        ({}, None),
    ],
)
def test_the_user_tag_comes_from_the_environment_in_order(environment: dict[str, str], tag: str | None) -> None:
    assert usertag(environment) == (tag or socket.gethostname())


@pytest.mark.row("P26")
def test_a_job_is_awaited_beside_others(service: ServerProxy) -> None:
    async def main() -> list[Any]:
        return list(await asyncio.gather(Square.submit(value=2), Square.submit(value=3)))

    assert asyncio.run(main()) == [4, 9]
    with pytest.raises(WaitTimeout):
        Steps.submit(n=200).wait(0)


@pytest.mark.row("J08", "J09", "J05")
def test_units_are_charged_by_priority_and_credits_survive_a_restart(tmp_path: Path) -> None:
    def open_one() -> Any:
        return open_service(tmp_path / "s", engine=ThreadEngine(), settings=QUICK, user="mara")

    with open_one() as service:
        Square.submit(values=list(range(20))).wait(LIMIT_S)
        assert service.credits()["used"] == 0
        Square.submit(values=list(range(20)), priority=3).wait(LIMIT_S)
        used = service.credits()["used"]
        assert used == pytest.approx(20 * 6, rel=0.01)
        until(lambda: service.calls.manager.user("mara")["used"] > 100)
    with open_one() as service:
        assert service.credits()["used"] == pytest.approx(used, rel=0.01)


@pytest.mark.row("J19", "J20", "P04")
def test_what_a_job_said_outlives_a_restart_and_goes_with_the_job(tmp_path: Path) -> None:
    def open_one() -> Any:
        return open_service(tmp_path / "s", engine=ThreadEngine(), settings=QUICK, user="mara")

    with open_one() as service:
        job = Steps.submit(n=30)
        job.wait(LIMIT_S)
        said = [service.calls.history(job.id, kind) for kind in ("Log", "Improved")]
        assert said[1][-1]["partial"]
    with open_one() as service:
        assert [service.calls.history(job.id, kind) for kind in ("Log", "Improved")] == said
        service.delete([job.id])
        assert list((tmp_path / "s" / "history").iterdir()) == []


@pytest.mark.row("P02", "P24", "J11", "C14")
def test_notices_about_conditions_go_over_a_stream(service: ServerProxy, tmp_path: Path) -> None:
    with service.listen("condition") as notices:
        gate = Deaf.submit(end=str(tmp_path / "end"))
        waiting = Square.submit(value=1, after=gate)
        (tmp_path / "end").touch()
        waiting.wait(LIMIT_S)
        notice = notices.get(LIMIT_S)
    assert notice.kind == "Notify" and notice.status == "ready" and notice.text == f"{gate.id} completed"


@pytest.mark.row("J18", "J24")
def test_streams_have_headers_and_hang_up_one_by_one_or_all() -> None:
    from grid.jobs.line.streams import Streams

    streams = Streams(clock=lambda: 5.0)
    streams.put("a", Message("Lost"))  # nobody listens, nothing is kept
    one, two = streams.listen("a"), streams.listen("a")
    streams.set_header("a", Message("Head", x=1))
    three = streams.listen("a")
    streams.put("a", Message("M"))
    assert [m.kind for m in (one.get(1), two.get(1), three.get(1), three.get(1))] == ["M", "M", "Head", "M"]
    streams.hangup("a", one)
    streams.put("a", Message("N"))
    assert two.get(1).number == 3 and streams.listening("a") == 2
    streams.delete_header("a")
    assert streams.header("a") is None
    streams.hangup()
    assert streams.listening("a") == 0
    with pytest.raises(queue.Empty):
        one.get(0.01)
    with pytest.raises(RequestError):
        streams.listen("../a")


def test_a_grid_that_is_handed_in_is_used_and_left_alone(tmp_path: Path) -> None:
    with LocalGrid(2, output=None) as grid:
        with open_service(tmp_path / "s", grid, settings=QUICK, user="mara"):
            assert Square.submit(values=[1, 2]).wait(LIMIT_S) == [1, 4]
        assert not grid.ishalted() and dict(grid.servers) == {}


class _NoPlaces(ThreadEngine):
    """Jobs stay in the queue."""

    def runner(self, timeout: float) -> None:
        time.sleep(timeout)


@pytest.mark.row("C13", "J01", "J09", "C25", "C26")
def test_ten_thousand_jobs_wait_and_are_decided_together(tmp_path: Path) -> None:
    n = 10_000
    with open_service(tmp_path / "s", engine=_NoPlaces(1, 1), services=ALL) as service:
        manager = service.calls.manager
        gates = service.submit_all([Square.request(value=1), Square.request(value=2)])
        many = service.submit_all([(Square.request(value=n), {"after": gates[0]}) for n in range(n)])
        tree = {"op": "or", "of": [{"atom": "completed", "job": job.id} for job in many]}
        last = manager.submit("mara", [{"request": Square.request(value=0).to_plain(), "when": tree}])[0]
        manager.depends.steps = 0
        began = time.perf_counter()
        gates[0].abort("no more")
        assert manager.depends.steps < 5 * n
        assert time.perf_counter() - began < 20
        assert last.state is JobState.CANCELLED and many[-1].state is JobState.CANCELLED
        assert gates[1].state is JobState.PENDING
        assert len(service.summaries(state="cancelled")) == n + 2


@pytest.mark.row("J01", "P04")
def test_submitting_is_one_durable_write_for_a_job_and_one_for_two_hundred(tmp_path: Path) -> None:
    """What it takes in time is in benchmarks/jobs.py: a disk waits for each write, whoever else uses it."""
    with open_service(tmp_path / "s", engine=_NoPlaces(1, 1), services=ALL) as service:
        writes: list[object] = []
        sqlalchemy.event.listen(service.calls.manager.store._engine, "commit", writes.append)
        service.submit(Square.request(value=0))
        assert len(writes) == 1
        service.submit_all([Square.request(value=n) for n in range(200)])
        assert len(writes) == 2
        with service.calls.manager.store._engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


@pytest.mark.row("Y02")
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("staus", "job.status"),
        ("is_done", "job.state.ended"),
        ("is_complete", "job.state.ended"),
        ("done", "job.state.ended"),
        ("iscomplete", "job.iscompleted"),
        ("results", "job.result"),
        ("abortt", "job.abort"),
        ("errror", "job.error"),
        ("finished", "job.state.ended"),
    ],
)
def test_a_typo_on_a_handle_is_told_and_never_true(service: ServerProxy, name: str, meant: str) -> None:
    job = service.submit(Square.request(value=3))
    with pytest.raises(AttributeError, match="did you mean") as caught:
        getattr(job, name)
    assert meant in str(caught.value) and f"job.result[{name!r}]" in str(caught.value)
    assert not hasattr(job, name)


@pytest.mark.row("Y02")
def test_what_is_not_there_yet_is_no_truth_value_and_can_not_be_compared(service: ServerProxy) -> None:
    job = service.submit(Square.request(value=3))
    for reference in (job.rss, job.result, job.result["rss"], job.rss["x"][0]):
        for wrong in (
            *(bool, len, list, lambda r: r == 1, lambda r: r != 1, lambda r: r < 1, lambda r: r >= 1, lambda r: 1 in r),
            *(lambda r: r > 1, lambda r: not r),
        ):
            with pytest.raises(TypeError, match="is not there yet"):
                wrong(reference)
        assert reference == reference and {reference: 1}[reference] == 1 and reference in [reference]
    assert job.wait() == 9 and job.result.value() == 9


@pytest.mark.row("J23")
def test_a_thread_that_is_told_to_end_hears_it_though_the_engine_stops_and_it_is_busy() -> None:
    engine = ThreadEngine(1, 1)
    engine.start()
    place = engine.runner(5.0)
    assert place is not None
    spec = {
        "job": "job-1",
        "request": Steps.request().to_plain(),
        "checkpoint": None,
        "attempt": 1,
        "checkpoint_s": 60.0,
    }
    place.call("begin", Steps, spec).result(LIMIT_S)
    until(lambda: any(each.name == "job-1-run" for each in threading.enumerate()))
    (thread,) = [each for each in threading.enumerate() if each.name == "job-1-run"]
    went_on = threading.Event()
    held = place._pool.submit(went_on.wait, LIMIT_S)  # type: ignore[attr-defined]
    place.kill()
    engine.stop()
    went_on.set()
    assert held.result(LIMIT_S)
    thread.join(LIMIT_S)
    assert not thread.is_alive()
