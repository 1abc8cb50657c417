"""Commands within jobs and as tasks of systems: inputs go along, outputs come back, and nothing is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grid import CommandFailed, In, Limits, LocalGrid, Out, SSHGrid, StagingError, Task, TaskSystem, run_system
from grid.commands import portable
from grid.jobs import JobAborted, JobFailed, ServerProxy, Settings, make_service
from grid.jobs.host.worker import UnitStopped
from grid.kernel.stop import Stopper, heed
from grid.tasks import CommandTask
from tests.edges.commands_as_jobs import Fails, Sorts
from tests.lab import Lab
from tests.lab.host import wait_until

pytestmark = pytest.mark.row("A13")
LIMIT_S = 60.0
QUICK = Settings(tick_s=0.05, abort_grace_s=10.0, suspend_s=20.0)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServerProxy]:
    with LocalGrid(2, output=None, limits=Limits(stop_s=1.0)) as g:
        service = make_service(tmp_path / "store", g, settings=QUICK, user="mara", services=[Sorts, Fails])
        with service:
            yield service
        service.close()


def test_a_job_runs_commands_on_its_workers_and_keeps_their_files(service: ServerProxy, tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        paths.append(str(tmp_path / f"{number}.txt"))
        Path(paths[-1]).write_text(f"b {number}\na {number}\n")
    job = Sorts.submit(paths=paths)
    texts, everything, ok = job.wait(LIMIT_S)
    assert texts == {f"{number}.sorted": f"a {number}\nb {number}\n" for number in range(3)} and ok
    assert everything == "b 2\nb 1\nb 0\na 2\na 1\na 0\n"
    assert sorted(job.files()) == ["0.sorted", "1.sorted", "2.sorted", "all.txt"]
    assert job.read("1.sorted") == b"a 1\nb 1\n" and job.best == 3
    with pytest.raises(JobFailed, match=r"nowhere.* can't be read here"):
        Sorts.submit(paths=["/nowhere"]).wait(LIMIT_S)
    for command, why in (
        ("echo sorry >&2; exit 3", r"(?s)status 3.*sorry"),
        ("ln -s /etc/passwd o", "leads out of its directory"),
        ("echo x > o; : > 'o b'", "can't be a name of a file"),
    ):
        with pytest.raises(JobFailed, match=why):
            Fails.submit(command=command).wait(LIMIT_S)


def test_aborting_a_job_ends_its_command_with_all_that_it_started(service: ServerProxy, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    job = Fails.submit(
        command=f"sleep 1000 & (setsid sleep 1000 & echo $! > {tmp_path}/far); echo $$ $! > {pids}; wait"
    )
    seen = [int(word) for word in pids.read_text().split()]
    seen.append(int((tmp_path / "far").read_text()))
    job.abort("enough")
    with pytest.raises(JobAborted, match="enough"):
        job.wait(LIMIT_S)
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in seen), "the command to end")


def test_an_order_to_stop_is_heard_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_ROOT", str(tmp_path))
    monkeypatch.setenv("GRID_SERVER", "Model.0/1")
    before = signal.getsignal(signal.SIGUSR1)
    try:
        ticket = 5
        machine, pid = heed(lambda: ticket, lambda: UnitStopped("stop"))

        def order(which: int) -> None:
            assert Stopper().stop([("Model.0/1", machine, pid, which)]) == 1

        order(4)
        with pytest.raises(UnitStopped):
            order(5)
        order(5)  # by another server of the stopping service, while the first one is being cleared up
        ticket = 6
        with pytest.raises(UnitStopped):
            order(6)
    finally:
        signal.signal(signal.SIGUSR1, before)


class Words(TaskSystem):
    """Counts words of files by `wc`."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths
        self.counts: dict[str, int] = {}
        self.errors: list[str] = []

    def init_system(self, master: Any) -> None:
        pass

    def generate_tasks(self, master: Any) -> Iterable[Task | None]:
        for path in self.paths:
            yield CommandTask("wc -w < {i} > {o}", i=In(path), o=Out("*.count"), shell=True)
        yield CommandTask("exit 7", shell=True, name="fails")

    def task_finished(self, master: Any, task: Task, result: Any, error: BaseException | None) -> None:
        if error is not None:
            self.errors.append(f"{task.name}: {error}")
        else:
            self.counts.update({name: int(data) for name, data in result.contents.items()})

    def is_complete(self, master: Any) -> bool:
        return len(self.counts) == len(self.paths) and bool(self.errors)

    def gather_result(self, master: Any) -> Any:
        return self.counts, None if len(self.errors) == 1 and "status 7" in self.errors[0] else AssertionError(
            self.errors
        )


def test_commands_are_tasks_of_a_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text("word " * number)
    paths = [str(path) for path in tmp_path.glob("*.txt")]
    with LocalGrid(2, output=None) as g:
        assert run_system(Words(paths), g) == {f"{number}.count": number for number in range(20)}
    task = CommandTask("cat {i}", i=In(paths[0]), name="one")
    monkeypatch.setenv("GRID_ROOT", str(tmp_path))
    assert task().ok and task.name == "one" and CommandTask("cat /dev/null").name == "cat"
    with pytest.raises(CommandFailed, match="there is no program 'nosuch'"):
        CommandTask("nosuch")()
    with pytest.raises(StagingError, match="can't be read here"):
        CommandTask("cat {i}", i=In("/nowhere"))
    monkeypatch.setattr(portable, "MOST_BYTES", 10)
    with pytest.raises(CommandFailed, match="'o' has too many bytes"):
        CommandTask("echo 12345678901 > o", shell=True, o=Out("o"))()
    assert not list(tmp_path.rglob(".commands/*/*"))
    with pytest.raises(StagingError, match="more than 10 bytes"):
        CommandTask("cat {i}", i=In(str(tmp_path / "19.txt")))


@pytest.mark.lab
def test_a_job_on_hosts_elsewhere_has_the_files_of_its_request(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text("word " * number)
    paths = [str(path) for path in tmp_path.glob("*.txt")]
    with SSHGrid(["s1", "s2"], output=None, wait="all") as g:
        assert run_system(Words(paths), g) == {f"{number}.count": number for number in range(6)}
        service = make_service(tmp_path / "store", g, settings=QUICK, user="mara", services=[Fails])
        with service:
            assert Fails.submit(command="cat /etc/hostname; touch o").wait(LIMIT_S)
        service.close()
