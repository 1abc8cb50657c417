"""What jobs cost and remember: chains that are cancelled, remembered results with their files, workers given back."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid import Limits, LocalGrid
from grid.jobs import (
    Job,
    JobAborted,
    JobCancelled,
    JobFailed,
    JobState,
    ServerProxy,
    Service,
    ServiceHandler,
    ThreadEngine,
    make_service,
    open_service,
)
from grid.jobs.conditions.reasons import LINKS, ROOT_CHARS, Reason, follow, join
from grid.jobs.host.request import Request
from tests.edges.test_jobs import QUICK, until

LIMIT_S = 60.0
CHAIN = int(os.environ.get("GRID_TEST_CHAIN", "500"))


class Gate(Service):
    """Waits for a file, then fails."""

    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        while not Path(self.request.path).exists():
            handler.ready()
            time.sleep(0.005)
        raise ValueError("boom")


class Output(Request):
    def queue(self, context: Any) -> None:
        self.output = str(context.directory / "out.txt")
        self.label = f"made by {context.job}"


class Makes(Service):
    """Writes one file by its path and keeps another; counts its runs in `log`."""

    version = "1"
    memo = True
    request_class = Output

    def run(self, handler: ServiceHandler) -> Any:
        with open(self.request.log, "a") as log:
            log.write("ran\n")
        gate = self.request.data.get("gate")
        while gate and not Path(gate).exists():
            handler.ready()
            time.sleep(0.005)
        Path(self.request.output).parent.mkdir(parents=True, exist_ok=True)
        Path(self.request.output).write_text("by its path")
        handler.keep("kept.txt", "kept")
        return 5


class Upstream(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        return Path(self.request.path).read_text()


class Downstream(Service):
    version = "1"
    memo = True

    def run(self, handler: ServiceHandler) -> Any:
        with open(self.request.log, "a") as log:
            log.write("ran\n")
        return 1


class Lazy(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        read: list[int] = []

        def items() -> Iterator[int]:
            for number in itertools.count():
                read.append(number)
                yield number

        first = list(itertools.islice(handler.imap(abs, items()), self.request.n))
        return [first, len(read)]


class Broken(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        def items() -> Iterator[int]:
            yield from (1, 2, 3)
            raise KeyError("no more")

        got = []
        try:
            for value in handler.imap(abs, items()):
                got.append(value)
        except KeyError:
            return got
        return "no error"


def stuck(path: str) -> str:
    Path(path).write_text("")
    while True:  # without an end, and without a safe point
        time.sleep(0.01)


def deaf(path: str) -> str:
    """As `stuck`, and does not listen either."""
    Path(path).write_text("")
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            continue


class Stuck(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        return handler.map(deaf if self.request.deaf else stuck, self.request.paths)


class Quick(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        return handler.map(abs, [-1])


ALL = [Gate, Makes, Upstream, Downstream, Lazy, Broken, Stuck, Quick]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServerProxy]:
    engine = ThreadEngine(workers=3, at_once=3)
    with open_service(tmp_path / "store", engine=engine, settings=QUICK, user="mara", services=ALL) as service:
        yield service


def ran(log: Path) -> int:
    return len(log.read_text().split()) if log.exists() else 0


# -- reasons ----------------------------------------------------------------------------------------------------------


def test_a_reason_names_the_root_cause_and_the_last_links() -> None:
    reason = follow("job 1 failed", "x" * 10_000)
    assert len(reason) < ROOT_CHARS + 50 and reason.startswith("job 1 failed: xxx")
    for number in range(2, 4_001):
        reason = follow(f"job {number} was cancelled", reason)
    assert reason.links == tuple(f"job {number} was cancelled" for number in (4_000, 3_999, 3_998))
    assert reason.skipped == 3_999 - LINKS and len(reason) < ROOT_CHARS + 200
    assert follow("job 9 was aborted", "") == "job 9 was aborted"
    stored = str(reason)  # read again after a restart: a text like any other
    assert follow("job 5000 was cancelled", stored).startswith(f"job 5000 was cancelled: {stored[:100]}")


def test_reasons_are_joined_to_a_bounded_text() -> None:
    one = Reason("root", ("a",), 0)
    assert join([one, one, ""]) is one and join([]) == ""
    assert join(f"r{n}" for n in range(10_000)) == "r0; r1; r2; and 9,997 more"


@pytest.mark.row("T03")
def test_a_cancelled_chain_costs_in_proportion_to_its_length(service: ServerProxy, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    jobs = [Gate.submit(path=str(gate))]
    for _ in range(CHAIN):
        jobs.append(service.submit(Gate.request(path=str(gate)), after=jobs[-1]))
    gate.write_text("")
    with pytest.raises(JobCancelled) as cancelled:
        jobs[-1].wait(LIMIT_S)
    reason = cancelled.value.reason
    assert f"job {jobs[-2].id} was cancelled: " in reason
    assert reason.endswith(f"job {jobs[0].id} failed: ValueError: boom")
    assert f"... {CHAIN - LINKS - 1:,} more ..." in reason
    assert max(len(each["reason"]) for each in service.summaries()) < 300
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.name != "reserve"]
    size = sum(path.stat().st_size for path in files)
    assert size < 2_500 * CHAIN + 5_000_000  # 30 MB for 10,000; up to 4 MB are SQLite's log, whatever there is


# -- remembered results -----------------------------------------------------------------------------------------------


@pytest.mark.row("T04")
def test_files_come_with_a_remembered_job_and_names_from_its_own_id_do_not_count(
    service: ServerProxy, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    first = Makes.submit(log=str(log))
    assert first.wait(LIMIT_S) == 5
    again = Makes.submit(log=str(log))
    assert again.wait(LIMIT_S) == 5 and ran(log) == 1 and again.status["reason"] == f"remembered from {first.id}"
    assert again.files() == {"kept.txt": 4, "out.txt": 11} and again.read("kept.txt") == b"kept"
    assert Path(again.output).read_text() == "by its path" and again.output != first.output
    third = Makes.submit(log=str(log))  # of one that was remembered itself
    assert third.wait(LIMIT_S) == 5 and ran(log) == 1 and third.read("out.txt") == b"by its path"


@pytest.mark.row("T04")
@pytest.mark.parametrize("harm", ["altered", "removed", "job deleted"])
def test_a_result_whose_files_have_changed_is_computed_again(service: ServerProxy, tmp_path: Path, harm: str) -> None:
    log = tmp_path / "log"
    first = Makes.submit(log=str(log))
    assert first.wait(LIMIT_S) == 5
    path = Path(str(first.output))
    if harm == "altered":
        path.write_text("by somebody else")
    elif harm == "removed":
        path.unlink()
    else:
        first.delete()
    again = Makes.submit(log=str(log))
    assert again.wait(LIMIT_S) == 5 and ran(log) == 2 and again.read("out.txt") == b"by its path"


@pytest.mark.row("T04")
def test_a_piece_runs_again_when_what_it_stood_on_has_changed(
    service: ServerProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, path = tmp_path / "log", tmp_path / "path"
    path.write_text("one")

    def run() -> int:
        before = Upstream.submit(path=str(path))
        after = service.submit(Downstream.request(log=str(log)), after=before)
        assert after.wait(LIMIT_S) == 1
        return ran(log)

    assert [run(), run()] == [1, 1]
    path.write_text("two")  # its result
    assert [run(), run()] == [2, 2]
    monkeypatch.setattr(Upstream, "version", "2")  # its version
    service.register(Upstream)
    assert [run(), run()] == [3, 3]
    monkeypatch.setattr(Upstream, "requires", ("click",))  # its requirements
    assert [run(), run()] == [4, 4]
    path.write_text("one")
    assert run() == 5


@pytest.mark.row("T05")
def test_equal_requests_at_the_same_moment_run_once(service: ServerProxy, tmp_path: Path) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    jobs = [Makes.submit(log=str(log), gate=str(gate)) for _ in range(4)]
    until(lambda: sum(job.status["reason"].endswith("computes the same") for job in jobs) == 3)
    assert [job.state for job in jobs].count(JobState.ACTIVE) == 1
    gate.write_text("")
    assert [job.wait(LIMIT_S) for job in jobs] == [5] * 4 and ran(log) == 1
    assert all(job.read("kept.txt") == b"kept" for job in jobs)


@pytest.mark.row("T05")
def test_when_the_first_of_equal_jobs_is_aborted_the_next_one_runs(service: ServerProxy, tmp_path: Path) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    jobs = [Makes.submit(log=str(log), gate=str(gate)) for _ in range(3)]
    until(lambda: sum(job.status["reason"].endswith("computes the same") for job in jobs) == 2)
    first = next(job for job in jobs if job.state is JobState.ACTIVE)
    first.abort()
    with pytest.raises(JobAborted):
        first.wait(LIMIT_S)
    rest = [job for job in jobs if job != first]
    until(lambda: ran(log) == 2)
    waiting = next(job for job in rest if job.state is JobState.PENDING)
    waiting.abort()  # one that waits for an equal one can be aborted, too
    with pytest.raises(JobCancelled):
        waiting.wait(LIMIT_S)
    gate.write_text("")
    assert next(job for job in rest if job != waiting).wait(LIMIT_S) == 5


# -- maps and workers -------------------------------------------------------------------------------------------------


@pytest.mark.row("T07")
def test_endless_input_is_read_as_it_is_needed(service: ServerProxy) -> None:
    first, read = Lazy.submit(n=5_000).wait(LIMIT_S)
    assert first == list(range(5_000)) and read <= 5_000 + 16_384
    first, read = Lazy.submit(n=3).wait(LIMIT_S)
    assert first == [0, 1, 2] and read <= 3 + 2 * 256


@pytest.mark.row("T07")
def test_values_before_an_error_of_the_items_arrive(service: ServerProxy) -> None:
    assert Broken.submit().wait(LIMIT_S) == [1, 2, 3]


@pytest.fixture
def grown(tmp_path: Path) -> Iterator[ServerProxy]:
    with LocalGrid(2, output=None, limits=Limits(stop_s=1.0)) as grid:
        service = make_service(tmp_path / "store", grid, settings=QUICK, user="mara")
        with service:
            service.register(*ALL)
            yield service
        service.close()


def begun(job: Job, paths: list[Path]) -> Job:
    until(lambda: all(path.exists() for path in paths))
    return job


@pytest.mark.row("T06")
@pytest.mark.parametrize("listens", [True, False], ids=["units that listen", "deaf units"])
def test_an_aborted_job_gives_its_workers_back(grown: ServerProxy, tmp_path: Path, listens: bool) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    job = begun(Stuck.submit(deaf=not listens, paths=[str(path) for path in paths]), paths)
    status = grown.status(job.id)
    assert status["state"] == "active"
    job.abort("seen enough")
    with pytest.raises(JobAborted, match="seen enough"):
        job.wait(LIMIT_S)
    assert Quick.submit().wait(LIMIT_S) == [1]  # both workers ran without an end


@pytest.mark.row("T06")
def test_a_job_that_fails_gives_its_workers_back(grown: ServerProxy, tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    job = begun(Stuck.submit(deaf=False, paths=[str(path) for path in paths]), paths)
    job.stop("at once")
    with pytest.raises((JobAborted, JobFailed)):
        job.wait(LIMIT_S)
    assert Quick.submit().wait(LIMIT_S) == [1]
