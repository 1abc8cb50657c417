"""What every batch system must do, as checks: on real ones, and on the stand-ins for them.

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_batch_system(check):
        check(BatchSystem(...), "/a/directory/that/jobs/see")

Lives here: the checks. Elsewhere: stand-ins (`standins/`), launchers alone (`launchers.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from grid.batch import BatchSystem, JobSpec, JobState
from grid.errors import SubmitError

# -- what every batch system must do -----------------------------------------------------------------------------------


def a_job_runs_where_it_was_told_and_leaves_its_output(system: BatchSystem, place: str) -> None:
    spec = JobSpec(
        command='pwd; echo to-error >&2; echo "$A"; exit 3',
        name="first",
        walltime_s=60,
        workdir=place,
        output=f"{place}/out",
        error=f"{place}/err",
        variables={"A": 'it\'s "x,y"\nand more'},
    )
    job = system.submit(spec)
    wait_for(system, job, JobState.DONE)
    text = read(system, f"cat {place}/out", lambda text: "and more" in text)
    assert text.splitlines() == [place, 'it\'s "x,y"', "and more"], text
    assert "to-error" in read(system, f"cat {place}/err", lambda text: "to-error" in text)


def states_go_from_queued_or_running_to_done(system: BatchSystem, place: str) -> None:
    job = system.submit(JobSpec(command="while [ ! -e go ]; do sleep 0.05; done", walltime_s=60, **quiet(place)))
    wait_for(system, job, JobState.RUNNING)
    status = system.status([job])[job]
    assert status.name == "grid" and status.nodes, status
    assert system.dialect.name == "sge" or (status.left_s is not None and 0 < status.left_s <= 60), status
    system._connection.run(f"touch {place}/go")
    wait_for(system, job, JobState.DONE)


def a_job_that_is_cancelled_ends(system: BatchSystem, place: str) -> None:
    job = system.submit(JobSpec(command="exec sleep 1000", walltime_s=60, **quiet(place)))
    wait_for(system, job, JobState.RUNNING)
    system.cancel(job)
    wait_for(system, job, JobState.DONE)
    system.cancel(job)  # harmless


def a_job_that_nobody_knows_is_unknown_and_not_done(system: BatchSystem, place: str) -> None:
    assert system.status(["987654"])["987654"].state is JobState.UNKNOWN
    assert system.status([]) == {}
    system.cancel("987654")


def one_question_tells_of_many_jobs(system: BatchSystem, place: str) -> None:
    jobs = [system.submit(JobSpec(command=":", walltime_s=60, **quiet(place))) for _ in range(4)]
    assert len(set(jobs)) == 4
    for job in jobs:
        wait_for(system, job, JobState.DONE)
    found = system.status([*jobs, "987654"])
    assert all(found[job].state is JobState.DONE or is_forgetful(system) for job in jobs), found
    assert found["987654"].state is JobState.UNKNOWN


def what_can_never_run_is_refused_in_the_systems_own_words(system: BatchSystem, place: str) -> None:
    """An impossible number of nodes is queued for ever by some: PBS says so where it is asked, SGE does not."""
    changes: list[dict[str, Any]] = [{"nodes": 900}, {"queue": "nosuchqueue"}]
    for change in changes:
        try:
            job = system.submit(JobSpec(command=":", walltime_s=60, **{**quiet(place), **extra(system), **change}))
        except SubmitError as exc:
            assert exc.status != 0 and not exc.connection
            assert len(exc.what) > len("the job was refused (exit status 1): "), exc
        else:
            assert "nodes" in change and system.dialect.name in ("pbspro", "sge"), f"{change} was taken"
            status = system.status([job])[job]
            assert status.state is JobState.QUEUED, status
            assert system.dialect.name == "sge" or (status.reason or "").startswith("Can Never Run"), status
            system.cancel(job)


def a_job_waits_for_another(system: BatchSystem, place: str) -> None:
    kind = "afterany" if system.dialect.name == "sge" else "afterok"
    first = system.submit(JobSpec(command="while [ ! -e go2 ]; do sleep 0.05; done", walltime_s=60, **quiet(place)))
    second = system.submit(JobSpec(command="touch second", walltime_s=60, depend=f"{kind}:{first}", **quiet(place)))
    wait_for(system, first, JobState.RUNNING)
    assert system.status([second])[second].state in (JobState.QUEUED, JobState.HELD)
    assert not system._connection.run(f"ls {place}/second").stdout
    system._connection.run(f"touch {place}/go2")
    wait_for(system, second, JobState.DONE)
    assert system._connection.run(f"ls {place}/second").stdout


CHECKS: tuple[Callable[[BatchSystem, str], None], ...] = (
    a_job_runs_where_it_was_told_and_leaves_its_output,
    states_go_from_queued_or_running_to_done,
    a_job_that_is_cancelled_ends,
    a_job_that_nobody_knows_is_unknown_and_not_done,
    one_question_tells_of_many_jobs,
    what_can_never_run_is_refused_in_the_systems_own_words,
    a_job_waits_for_another,
)


def extra(system: BatchSystem) -> dict[str, Any]:
    """Fields that a job of several slots needs on some systems."""
    return {"parallel_environment": "mpi"} if system.dialect.name == "sge" else {}


def is_forgetful(system: BatchSystem) -> bool:
    """Whether it may forget a job as soon as that has ended."""
    return system.dialect.name in ("pbspro", "sge")


def quiet(place: str) -> dict[str, Any]:
    """Fields of a job whose output nobody wants."""
    return {"workdir": place, "output": "/dev/null", "error": "/dev/null"}


def wait_for(system: BatchSystem, job: str, state: JobState, limit_s: float = 60.0) -> None:
    """Ask until a job is in that state; one that was known and is so no more has ended, where a system forgets."""
    end = time.monotonic() + limit_s
    states = {state, JobState.UNKNOWN} if state is JobState.DONE and is_forgetful(system) else {state}
    while (found := system.status([job])[job]).state not in states:
        if time.monotonic() > end:
            raise TimeoutError(f"job {job} is {found} after {limit_s:g} s, not {state}")
        time.sleep(0.05)


def read(system: BatchSystem, command: str, enough: Callable[[str], bool], limit_s: float = 30.0) -> str:
    """What a command prints once it is enough: a job's output may come late."""
    end = time.monotonic() + limit_s
    while not enough(text := system._connection.run(command).text) and time.monotonic() < end:
        time.sleep(0.05)
    return text
