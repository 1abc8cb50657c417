"""Task systems and the services that run them as jobs: importable, so that restarted managers have them, too."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

from grid.jobs import Request
from grid.tasks import SystemService, Task, TaskSystem


class Square(Task):
    def __init__(self, n: int, folder: str = "") -> None:
        self.n, self.folder = n, folder

    def __call__(self) -> int:
        if self.folder:  # each run of it leaves a mark
            with open(os.path.join(self.folder, f"{self.n}"), "a") as file:
                file.write("x")
        if self.n == 13:
            raise ValueError("13 is out of order")
        return self.n**2


class Rounds(TaskSystem):
    """Squares below n in rounds of ten; each odd square below 10 pushes one more task."""

    def __init__(self, n: int, folder: str, lazy: bool) -> None:
        self.n, self.folder, self.lazy = n, folder, lazy
        self.next = self.sum = self.pushed = 0
        self.errors: list[str] = []
        self.expected_tasks = n

    def init_system(self, master: Any) -> None:
        self.master_is = type(master).__name__

    def generate_tasks(self, master: Any) -> Iterable[Task | None]:
        first, self.next = self.next, min(self.n, self.next + 10)
        made = (Square(n, self.folder) for n in range(first, self.next))
        return made if self.lazy else list(made)

    def task_finished(self, master: Any, task: Task, result: Any, error: BaseException | None) -> None:
        assert isinstance(task, Square)
        if error is not None:
            self.errors.append(f"{type(error).__name__}: {error}")
            return
        self.sum += result
        if result < 10 and result % 2:
            self.pushed += 1
            master.push_task(Square(100 + task.n))
        master.handler.improved({"sum": self.sum})

    def is_complete(self, master: Any) -> bool:
        return False

    def gather_result(self, master: Any) -> Any:
        return {"sum": self.sum, "errors": self.errors, "pushed": self.pushed}


class Finite(Rounds):
    def is_complete(self, master: Any) -> bool:
        return self.next == self.n and master.progress()[0] == self.n + self.pushed


class SquaresAsJob(SystemService):
    version = "1"

    def make_system(self, request: Request) -> TaskSystem:
        data = request.data
        kind = Rounds if data.get("endless") else Finite
        return kind(data["n"], data.get("folder", ""), data.get("lazy", False))


class Held(Task):
    """Ends when the file is there."""

    def __init__(self, n: int, path: str) -> None:
        self.n, self.path = n, path

    def __call__(self) -> int:
        with open(f"{self.path}-{self.n}", "a") as file:
            file.write("x")
        deadline = time.monotonic() + 60
        while self.n % 2 and not os.path.exists(self.path) and time.monotonic() < deadline:
            time.sleep(0.01)  # stands for work
        return self.n


class TwoByTwo(Finite):
    def generate_tasks(self, master: Any) -> Iterable[Task | None]:
        self.next = self.n
        return [Held(n, self.folder) for n in range(self.n)]

    def task_finished(self, master: Any, task: Task, result: Any, error: BaseException | None) -> None:
        if error is not None:
            raise error
        self.sum += result


class HeldAsJob(SystemService):
    version = "1"
    checkpoint_s = 0.0

    def make_system(self, request: Request) -> TaskSystem:
        return TwoByTwo(request.data["n"], request.data["path"], False)


class NoSystem(SystemService):
    version = "1"

    def make_system(self, request: Request) -> TaskSystem:
        return 42  # type: ignore[return-value]
