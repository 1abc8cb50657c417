"""Where a server spends its time: a thread looks at all stacks a hundred times a second, for some seconds.

Nothing needs to be installed. It reads `sys._current_frames()`, so it sees Python's frames: a call deep in C code that
keeps the interpreter shows as the line that made it, once it comes back; each look counts for the time since the one
before. By how much it slows the server down is measured, too.

    agent    tells its servers to begin, by their control lines, and waits for the files that they write
    server   samples, and writes one file of JSON at the end

Lives here: both ends.
Elsewhere:  who asks (`requests`), what is made of it (`services/profile.py`).
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from grid.kernel.stacks import LookedAt, state_in_words

_DEEPEST = 250
"""Frames of a stack that are kept, from the innermost."""
_MOST_BYTES = 64 << 20
_GRACE_S = 5.0
"""After the end of the time a server may take so long to write its file down."""
_LOOK_S = 0.02
_TURN_S = 0.4
_REST = 0.25
"""After each turn it rests for this share of it: how fast the server is meanwhile tells what looking costs."""
_SERVES = os.path.join("kernel", "serve.py")
IDLE = -1
"""In place of a stack: the thread that runs calls had none."""


def file_of(stacks: Path) -> Path:
    """Where a server writes its profile, beside its stacks."""
    return stacks.with_suffix(".f")


def lasts(seconds: float) -> float:
    """How long a profile of so many seconds takes, with its rests."""
    return seconds * (1 + _REST)


class Sampler(threading.Thread):
    """In a server. One at a time; the file appears whole, at the end.

    Args:
        seconds: How long.
        interval_s: Between looks; it takes more where the interpreter is kept.
        path: The file. An old one has been removed.
    """

    def __init__(self, seconds: float, interval_s: float, path: str) -> None:
        super().__init__(name="grid-sampler", daemon=True)
        self._seconds, self._interval_s, self._path = seconds, interval_s, path
        self._codes: dict[int, int] = {}  # id of a code object -> number of its frame
        self._kept: list[CodeType] = []  # so that ids stay theirs
        self._frames: list[tuple[str, str, int]] = []
        self._stacks: dict[tuple[int, ...], int] = {}
        self._runs: dict[int, list[list[float]]] = {}  # thread -> [stack, seconds], neighbours that are equal together
        self._names: dict[int, str] = {}
        self._looks = self._idle_looks = 0

    def run(self) -> None:
        """Body of the thread."""
        try:
            told = self._sample()
        except Exception as exc:  # a server is not harmed by a look at it
            told = {"why": f"sampling failed ({type(exc).__name__}: {exc})"}
        try:
            with open(f"{self._path}.new", "w") as file:
                json.dump(told, file)
            os.replace(f"{self._path}.new", self._path)
        except OSError as exc:
            print(f"its profile can't be written ({exc})", file=sys.stderr)

    def _sample(self) -> dict[str, Any]:
        turn_s = min(_TURN_S, self._seconds / 5)
        looked_s, slowing = 0.0, Slowdown()
        own = time.thread_time()
        while looked_s < self._seconds:
            before, idle = _clocks(), self._idle_looks
            looked_s += self._look_for(min(turn_s, self._seconds - looked_s))
            between = _clocks()
            time.sleep(_REST * turn_s)
            if idle == self._idle_looks:  # else calls began or ended, and the two say nothing
                slowing.add(before, between, _clocks())
        return {
            "seconds": looked_s,
            "slowed": max((time.thread_time() - own) / looked_s, slowing.share()),
            "looks": self._looks,
            "frames": self._frames,
            "stacks": [list(stack) for stack in self._stacks],
            "threads": [{"name": self._names[ident], "runs": runs} for ident, runs in self._runs.items()],
        }

    def _look_for(self, seconds: float) -> float:
        """Look again and again for about so long; for how long it was."""
        began = last = due = time.perf_counter()
        with _asking_often():
            while last < began + seconds:
                due = max(due + self._interval_s, time.perf_counter())
                time.sleep(max(0.0, due - time.perf_counter()))
                now = time.perf_counter()
                self._look(now - last)
                last = now
        return last - began

    def _look(self, seconds: float) -> None:
        self._looks += 1
        main = threading.main_thread().ident
        frames = sys._current_frames()
        if frames.keys() - self._names.keys():
            self._names.update({one.ident: one.name for one in threading.enumerate() if one.ident is not None})
        for ident, frame in frames.items():
            name = self._names.setdefault(ident, f"thread {ident:#x}")
            if not name.startswith("grid-"):  # those are ours
                stack = self._stack(frame, main=ident == main)
                self._idle_looks += ident == main and stack == IDLE
                runs = self._runs.setdefault(ident, [])
                if runs and runs[-1][0] == stack:
                    runs[-1][1] += seconds
                else:
                    runs.append([stack, seconds])

    def _stack(self, frame: FrameType | None, *, main: bool) -> int:
        """The number of its stack; of the thread that runs calls only what is below grid's own frames."""
        codes: list[CodeType] = []
        while frame is not None and not (main and frame.f_code.co_filename.endswith(_SERVES)):
            if len(codes) < _DEEPEST:
                codes.append(frame.f_code)
            frame = frame.f_back
        while main and codes and codes[-1].co_filename.startswith(_OURS):
            codes.pop()  # what runs functions of a pool, say
        if not codes:
            return IDLE  # it waits for the next call, or sends an answer
        key = tuple(self._number(code) for code in reversed(codes))
        return self._stacks.setdefault(key, len(self._stacks))

    def _number(self, code: CodeType) -> int:
        number = self._codes.get(id(code))
        if number is None:
            number = self._codes[id(code)] = len(self._frames)
            self._kept.append(code)
            self._frames.append((getattr(code, "co_qualname", code.co_name), code.co_filename, code.co_firstlineno))
        return number


_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


@contextmanager
def _asking_often() -> Iterator[None]:
    """Have the interpreter given to this thread within microseconds, wherever the others are.

    Python has a thread wait for 5 ms before it interrupts another. By then most code has come to a system call, where
    it gives the interpreter up by itself: all looks would find it there.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    ours = sys.getswitchinterval()
    try:
        yield
    finally:
        if sys.getswitchinterval() == ours:  # else the user's code has set it meanwhile
            sys.setswitchinterval(usual)


class Slowdown:
    """By how much looking slows the thread that runs calls: the CPU time that it gets meanwhile, and without.

    What the looks take themselves is the smaller part: each has the thread give the interpreter up, and on a busy host
    it takes a while until it has it again.
    """

    def __init__(self) -> None:
        self._looked = self._rested = (0.0, 0.0)

    def add(self, before: tuple[float, float], between: tuple[float, float], after: tuple[float, float]) -> None:
        """One turn: (wall clock, CPU time of the thread) before the looks, after them, and after the rest."""
        self._looked = (self._looked[0] + between[0] - before[0], self._looked[1] + between[1] - before[1])
        self._rested = (self._rested[0] + after[0] - between[0], self._rested[1] + after[1] - between[1])

    def share(self) -> float:
        """From 0 to 1; 0 where it waits most of the time, because then nobody can tell."""
        if not self._looked[0] or not self._rested[0]:
            return 0.0
        looked, rested = (cpu / wall for wall, cpu in (self._looked, self._rested))
        return max(0.0, 1 - looked / rested) if rested >= _WORKS else 0.0


_SWITCH_S = 5e-5
_WORKS = 0.05
"""A thread works that has this share of a core."""


def _clocks() -> tuple[float, float]:
    """Now, and the CPU time of the thread that runs calls."""
    main = threading.main_thread().ident
    if main is None or not hasattr(time, "pthread_getcpuclockid"):
        return time.perf_counter(), 0.0
    return time.perf_counter(), time.clock_gettime(time.pthread_getcpuclockid(main))


def wait_for(servers: Iterable[LookedAt], seconds: float, has_ended: Callable[[str], bool]) -> list[dict[str, Any]]:
    """In the agent: the profiles of servers that were told to sample, each with `name` and `pid`, or `why` not.

    Args:
        seconds: How long they sample.
        has_ended: Whether the server of that name has.
    """
    deadline = time.monotonic() + seconds + _GRACE_S
    waiting, told = list(servers), []
    while waiting:
        still = []
        for server in waiting:
            found = _read(file_of(server.path))
            if found is None and has_ended(server.name):
                found = {"why": "its process ended during the profile"}
            elif found is None and time.monotonic() >= deadline:
                found = {"why": f"it gave no profile within {seconds + _GRACE_S:g} s; {state_in_words(server.pid)}"}
            if found is None:
                still.append(server)
            else:
                told.append({"name": server.name, "pid": server.pid, "why": "", **found})
        waiting = still
        if waiting:
            time.sleep(_LOOK_S)
    return told


def _read(path: Path) -> dict[str, Any] | None:
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            return {"why": f"its profile has {size >> 20} MB; take fewer seconds"}
        found: dict[str, Any] = json.loads(path.read_bytes())
        path.unlink()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        return {"why": f"its profile can't be read ({exc})"}
    return found
