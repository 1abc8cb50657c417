"""Services for the tests of jobs: importable, so that a manager in another process can have them, too."""

from __future__ import annotations

import os
import time
from typing import Any

from grid.jobs import AbortService, Message, Request, Service, ServiceHandler


def square(x: Any) -> Any:
    return x * x


def where(x: Any) -> tuple[Any, int]:
    return x, os.getpid()


def kill_once(path: str) -> str:
    """Kills its worker the first time."""
    if not os.path.exists(path):
        with open(path, "w"):
            pass
        os._exit(9)
    return "survived"


class Square(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        data = self.request.data
        if "values" in data:
            return handler.map(square, data["values"])
        return data["value"] ** 2


class Fail(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        raise ValueError(self.request.data.get("text", "on purpose"))


class Add(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        return {"sum": self.request.a + self.request.b, "input": handler.input}


class Steps(Service):
    """Counts safe points, until `n` or an abort; answers questions; can be steered and restarted."""

    version = "1"

    def prepare(self, request: Request) -> None:
        self.k = 0
        self.restored = False

    def run(self, handler: ServiceHandler) -> Any:
        while self.k < self.request.data.get("n", 10**9):
            try:
                handler.ready()
            except AbortService:
                handler.improved({"k": self.k, "aborted": True})
                raise
            self.k += 1
            handler.improved({"k": self.k})
            time.sleep(self.request.data.get("pause", 0.005))
        return {"k": self.k, "restored": self.restored, "attempt": handler.attempt}

    def progress(self) -> tuple[float, float, str]:
        return self.k, self.request.data.get("n", 100), "steps"

    def checkpoint(self) -> Any:
        return self.k

    def restore(self, state: Any) -> None:
        self.k, self.restored = state, True

    def on_ready_set_k(self, message: Message) -> None:
        self.k = message.k

    def on_signal_get_k(self, message: Message) -> None:
        self.handler.answer(message, self.k)


class Deaf(Service):
    """Never comes to a safe point; ends by itself when `end` (a path) is there, or after ten minutes."""

    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        handler.log("deaf")
        end, deadline = self.request.data.get("end", ""), time.monotonic() + 600
        while time.monotonic() < deadline and not os.path.exists(end):
            time.sleep(0.02)


class Suicide(Service):
    """Kills its process in the first attempts."""

    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        if handler.attempt <= self.request.deaths:
            os._exit(3)
        return handler.attempt


class NamedOutput(Request):
    def queue(self, context: Any) -> None:
        self.filename = f"{context.job}.out"
        self.number = 7


class Writes(Service):
    """Its request learns its output's name when it is queued."""

    version = "1"
    request_class = NamedOutput

    def run(self, handler: ServiceHandler) -> Any:
        handler.keep(self.request.filename, self.request.data.get("text", "text"))
        return {"lines": 1}


class Reads(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        return {"read": self.request.name, "n": self.request.data.get("n")}


class Remembered(Service):
    version = "1"
    memo = True
    requires = ("sshgrid",)
    files = ("path",)

    def run(self, handler: ServiceHandler) -> Any:
        with open(self.request.log, "a") as file:
            file.write("ran\n")
        with open(self.request.path) as file:
            return len(file.read())


class Where(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        return handler.map(where, range(self.request.n))


class KillsWorker(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        return handler.map(kill_once, [self.request.path])


ALL = [Square, Fail, Add, Steps, Deaf, Suicide, Writes, Reads, Remembered, Where, KillsWorker]
