"""An instance to publish in tests and benchmarks: it tells about its server, and does what it is told.

It is shipped to hosts with the kernel, so that it can be used where nothing else is.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Probe:
    """Counts, echoes, fails, blocks and dies on demand."""

    greeting = "hello"

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self.log: list[Any] = []

    def add(self, step: int = 1, *, twice: bool = False) -> int:
        """Add to the counter and return it."""
        self.count += 2 * step if twice else step
        return self.count

    def echo(self, *args: Any, **kwargs: Any) -> Any:
        """Return what came: the argument if there is one, else arguments and keywords."""
        return args[0] if len(args) == 1 and not kwargs else (args, kwargs)

    def note(self, item: Any) -> list[Any]:
        """Append to the log and return a copy of it."""
        self.log.append(item)
        return list(self.log)

    def fail(self, text: str = "on purpose") -> None:
        """Raise ValueError."""
        raise ValueError(text)

    def fail_badly(self) -> None:
        """Raise an exception that can't be rebuilt from its arguments, holding what can't be serialised."""

        class Awkward(Exception):
            def __init__(self, one: int, two: int) -> None:
                super().__init__("awkward")
                self.held = (item for item in (one, two))

        raise Awkward(1, 2)

    def exit(self, status: int = 3) -> None:
        """End the process at once."""
        os._exit(status)

    def system_exit(self) -> None:
        """Raise SystemExit."""
        sys.exit("leaving")

    def kill(self, which: int = signal.SIGKILL) -> None:
        """Send a signal to the own process."""
        os.kill(os.getpid(), which)
        time.sleep(5)

    def where(self) -> tuple[str, int]:
        """Name of the host and process id."""
        return os.uname().nodename, os.getpid()

    def wait_for(self, path: str, limit_s: float = 30.0, begun: str = "") -> str:
        """Block until a file exists; its contents. Makes the file `begun` first, if one is named."""
        if begun:
            Path(begun).touch()
        deadline = time.monotonic() + limit_s
        while not os.path.exists(path):
            if time.monotonic() > deadline:
                raise TimeoutError(path)
            time.sleep(0.005)
        return Path(path).read_text()

    def touch(self, path: str) -> None:
        """Make a file."""
        Path(path).touch()

    def write(self, path: str, data: bytes, mode: int = 0o644) -> str:
        """Write a file, with the folders above it; its whole path."""
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, mode)
        return os.path.abspath(path)

    def environment(self, name: str) -> str | None:
        """Value of an environment variable on the server."""
        return os.environ.get(name)

    def import_and_get(self, module: str, name: str) -> Any:
        """Import a module and return one of its members."""
        return getattr(__import__(module), name)

    def read(self, path: str) -> str:
        """Contents of a file, by its name in the staging directory."""
        return Path(path).read_text()

    def niceness(self) -> int:
        """The priority that the server runs with."""
        return os.nice(0)

    def say(self, text: str) -> None:
        """Print a line."""
        print(text)

    def threads(self) -> list[str]:
        """Names of the server's threads."""
        return [thread.name for thread in threading.enumerate()]

    def count_up(self, upto: int, *, fail: bool = False) -> Iterator[int]:
        """Yields numbers; raises ValueError behind them if asked."""
        try:
            yield from range(upto)
            if fail:
                raise ValueError("no more numbers")
        finally:
            self.log.append("ended")

    def unserialisable(self) -> Any:
        """Return what can't travel."""
        return (item for item in (1, 2))

    def fill(self, array: Any, value: Any) -> Any:
        """Write to an array and return it."""
        array[:] = value
        return array

    def make_bytes(self, size: int) -> bytes:
        """`size` bytes."""
        return bytes(size)

    def hoard(self, size: int) -> int:
        """Use so many bytes of memory."""
        kept = bytearray(size)
        kept[::4096] = b"x" * len(kept[::4096])
        return len(kept)

    def child(self) -> int:
        """Start a process of its own and return its id."""
        pid = os.fork()
        if not pid:
            time.sleep(300)
            os._exit(0)
        return pid


class Traveller:
    """Counts calls; knows how often it was told of an end and how often it was saved."""

    def __init__(self) -> None:
        self.calls, self.told, self.saved = 0, 0, 0

    def allocation_ends(self, seconds: float) -> None:
        """The allocation of its server ends."""
        self.told += 1

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "saved": self.saved + 1}

    def count(self) -> int:
        """The number of this call."""
        self.calls += 1
        return self.calls

    def tell(self) -> tuple[int, int, int, str | None]:
        """Calls, times told, times saved, the batch job that it is in."""
        job = next((os.environ[name] for name in ("PBS_JOBID", "SLURM_JOB_ID", "JOB_ID") if os.environ.get(name)), None)
        return self.calls, self.told, self.saved, job
