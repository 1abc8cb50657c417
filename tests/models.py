"""What the libraries of `edges/test_home_libraries.py` sample, minimise and fit, and what the ensembles walk over.

In a module of their own, which travels to hosts that have neither pytest nor the libraries of the tests. Pure Python,
so that every machine gets the same bits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from math import exp
from random import Random
from typing import Any


def log_probability(x: Any) -> float:
    """A Gaussian valley around (1, -0.5)."""
    u, v = float(x[0]) - 1.0, float(x[1]) + 0.5
    return -0.5 * (u * u + 4.0 * v * v + u * v)


def prior(cube: Any) -> Any:
    """The unit square to [-5, 5] squared."""
    return 10.0 * cube - 5.0


def banana(x: Any) -> float:
    """Rosenbrock's function; 0 at (1, 1)."""
    a, b = float(x[0]), float(x[1])
    return 100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2


def line(x: Any, m: float, b: float) -> Any:
    """A straight line."""
    return m * x + b


class Coin:
    """A system of two levels at a temperature, with a generator of its own."""

    temperature = 1.0
    level = 0
    upper = 0

    def start(self, seed: int) -> None:
        self.rng = Random(seed)
        self.level = self.upper = 0

    def set_temperature(self, temperature: float) -> None:
        if temperature < 0:
            raise ValueError("too cold")
        self.temperature = temperature

    def walk(self, steps: int) -> tuple[float, int, int]:
        """(temperature, level at the end, how often it was the upper one)."""
        upper = 0
        for _ in range(steps):
            if self.level or self.rng.random() < exp(-1 / self.temperature):
                self.level = 1 - self.level
            upper += self.level
        return self.temperature, self.level, upper

    def walk_at(self, gate: str) -> tuple[float, int, int]:
        deadline = time.monotonic() + 30
        while gate and not os.path.exists(gate):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        return self.walk(10)

    def get_state(self) -> tuple[str, int]:
        return os.environ["GRID_SERVER"], self.level

    def set_state(self, state: Any) -> None:
        self.had = state

    def die(self, _: object) -> None:
        os._exit(3)


class Replica:
    """Holds a state, by default of a megabyte, that tells whose it is."""

    def __init__(self) -> None:
        self.state = bytearray()

    def start(self, number: int, size: int = 1_000_000) -> None:
        self.state = bytearray([number]) * size

    def get_state(self) -> bytearray:
        return self.state

    def set_state(self, state: bytearray) -> None:
        self.state = state
        self.state[0] = (self.state[0] + 100) % 256  # it is writable, and nobody else's

    def ends(self) -> tuple[int, int, int]:
        return len(self.state), self.state[0], self.state[-1]


class Late:
    """Is up only when a file is there; knows the batch job that it is in."""

    def __init__(self, gate: str) -> None:
        self.gate = gate

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        deadline = time.monotonic() + 60
        while not os.path.exists(self.gate):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def job(self) -> str:
        return os.environ["PBS_JOBID"]


class Picky:
    """Loads on every other server."""

    def __init__(self) -> None:
        self.state = 0

    def __setstate__(self, state: object) -> None:
        number = int(os.environ["GRID_SERVER"].rpartition("/")[2])
        if number % 2:
            raise OSError(f"server {number} has no licence")


class Starter:
    """Starts processes and leaves them."""

    def in_own_session(self) -> int:
        """As MPI launchers and notebooks do."""
        return subprocess.Popen(["sleep", "120"], start_new_session=True).pid

    def by_double_fork(self) -> int:
        """As daemons do: its parent has ended, its own variables say whose it is."""
        command = "setsid sleep 120 >/dev/null 2>&1 & echo $!"
        return int(subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, check=True).stdout)

    def forked_alone(self) -> int:
        """Without another program, in a session of its own."""
        pid = os.fork()
        if not pid:
            os.setsid()
            time.sleep(120)
            os._exit(0)
        return pid

    def inner_grid(self) -> int:
        """A grid of its own; the process id of its agent."""
        from grid import LocalGrid

        self.grid = LocalGrid(1, output=None)
        self.grid.publish([])
        return int(self.grid._engine.fleet.homes[0].report["pid"])

    def alive(self, pids: list[int]) -> bool:
        """Whether all of them are there."""
        return all(os.path.exists(f"/proc/{pid}") for pid in pids)

    def end(self) -> None:
        """End the hard way."""
        os.kill(os.getpid(), signal.SIGKILL)


def unnamed(function: Any) -> Any:
    """A decorator that forgets `functools.wraps`: each function that it makes is called `wrapper`."""

    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class Decorated:
    """Methods whose functions have other names than they."""

    @unnamed
    def a(self) -> str:
        return "a"

    @unnamed
    def b(self) -> str:
        return "b"

    @classmethod
    @unnamed
    def of_class(cls) -> str:
        return f"of_class of {cls.__name__}"

    def wrapper(self) -> str:
        return "wrapper"

    def __secret(self) -> str:
        return "secret"

    def secret(self) -> Any:
        return self.__secret

    def use(self, method: Any) -> Any:
        return method()

    def give(self, name: str) -> Any:
        return getattr(self, name)


class Redecorated(Decorated):
    @unnamed
    def a(self) -> str:
        return "a of the subclass"

    def above(self) -> Any:
        return super().a

    def plainly_above(self) -> Any:
        return super().wrapper

    def wrapper(self) -> str:
        return "wrapper of the subclass"


class Adder:
    """What a storm of signals asks, on hosts that have no pytest."""

    def f(self, x: int) -> int:
        return x + 1


class Hangs:
    """Calls that take long, on hosts that have no pytest."""

    def pid(self) -> int:
        return os.getpid()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
