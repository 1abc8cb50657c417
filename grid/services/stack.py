"""Stacks of threads: what servers and agents answer, in the words of Python's `faulthandler`, is read here (pure).

grid's own frames are told apart from those of the user.

Lives here: `Stack`, `StackThread`, `StackFrame`, reading the text.
Elsewhere:  how a server that is deep in C code tells its stack (`kernel/stacks.py`), who asks (`grids/stacks.py`,
            `kernel_server.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

_THREAD = re.compile(
    r"^(?:Current thread|Thread) (?P<ident>0x[0-9a-f]+)(?: \[(?P<name>[^\]]*)\])?.* \(most recent call"
)
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<function>.*)$')
_SERVES, _AGENT = "/kernel/serve.py", "/kernel/agent.py"
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


@dataclass(frozen=True)
class StackFrame:
    """One call of a function. `line` is 0 where it is not known, `source` empty where no file is at hand."""

    file: str
    line: int
    function: str
    source: str = ""

    def __str__(self) -> str:
        code = f"\n    {self.source}" if self.source else ""
        return f'  File "{self.file}", line {self.line}, in {self.function}{code}'


@dataclass(frozen=True)
class StackThread:
    """One thread.

    `frames`: the most recent call last, as in a traceback. `calls`: whether it is the thread that runs calls, or the
    main thread of a process that is no server. `users`: the frames of `frames` that are not grid's own around them;
    empty where the thread waits inside of grid.
    """

    name: str
    frames: tuple[StackFrame, ...]
    calls: bool
    users: tuple[StackFrame, ...]


@dataclass(frozen=True)
class Stack:
    """The threads of one process, at one moment.

    `server`: name of the server, `"agent"`, or `"client"` for the process of the grid itself. `doing`: what the client
    knows of it. `seconds`: since its oldest call without an answer was made. `why`: there is no stack, or a part of it.
    """

    server: str
    host: str
    pid: int | None
    threads: tuple[StackThread, ...] = ()
    doing: str = ""
    seconds: float | None = None
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """In plain values (JSON)."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Stack:
        """What `as_dict` gave, after JSON."""

        def frames(those: Sequence[dict[str, Any]]) -> tuple[StackFrame, ...]:
            return tuple(StackFrame(**one) for one in those)

        threads = tuple(
            StackThread(one["name"], frames(one["frames"]), one["calls"], frames(one["users"]))
            for one in values["threads"]
        )
        return cls(**{**values, "threads": threads})

    @property
    def at(self) -> str:
        """The place of the innermost call of the user's code: `fit.py:12 in solve`; empty where there is none."""
        for thread in self.threads:
            if thread.calls and thread.users:
                last = thread.users[-1]
                return f"{last.file}:{last.line} in {last.function}"
        return ""

    def text(self, *, all_threads: bool = False) -> str:
        """For people: what it does, then the frames of the user's code; or all frames of all threads."""
        who = self.server + (f" on {self.host}" if self.host else "") + (f" (process {self.pid})" if self.pid else "")
        lines = [f"{who}: {'; '.join(filter(None, (self.doing, self.why))) or 'its threads'}"]
        for thread in self.threads:
            frames = thread.frames if all_threads else thread.users
            if frames:
                if all_threads or not thread.calls:
                    lines.append(f"  thread {thread.name}:")
                lines += map(str, frames)
        return "\n".join(lines)

    __str__ = text


def read_threads(text: str, *, server: bool) -> tuple[StackThread, ...]:
    """The threads in a text of `faulthandler`, which has the most recent call first.

    Args:
        server: The text is of a server: its calls run below `kernel/serve.py`.
    """
    found: list[tuple[str, bool, list[StackFrame]]] = []
    for line in text.splitlines():
        if match := _THREAD.match(line):
            found.append((match["name"] or match["ident"], line.startswith("Current"), []))
        elif found and (match := _FRAME.match(line)):
            number = int(match["line"]) if match["line"].isdigit() else 0
            found[-1][2].append(StackFrame(match["file"], number, match["function"]))
        elif found and found[-1][2] and line.startswith("    "):
            found[-1][2][-1] = replace(found[-1][2][-1], source=line.strip())
    serving = [frame.file for _, _, frames in found for frame in frames if frame.file.endswith(_SERVES)]
    ours = serving[0].removesuffix(_SERVES) + "/" if server and serving else _PACKAGE  # on hosts it lies elsewhere
    threads = [_thread(name, current, tuple(reversed(frames)), server, ours) for name, current, frames in found]
    return tuple(sorted(threads, key=lambda thread: not thread.calls))


def _thread(name: str, current: bool, frames: tuple[StackFrame, ...], server: bool, ours: str) -> StackThread:
    if not server:
        return StackThread(name, frames, name == "MainThread", _without_ours(frames, ours))
    below = [at for at, frame in enumerate(frames) if frame.file.endswith(_SERVES)]
    runs = current or any(frames[at].function == "run" for at in below)
    if not below:
        return StackThread(name, frames, runs, _without_ours(frames, ours))
    users = frames[below[-1] + 1 :]
    if all(frame.file.startswith(ours) for frame in users):
        users = ()  # it waits for the next call
    return StackThread(name, frames, runs, users if runs else ())


def _without_ours(frames: tuple[StackFrame, ...], package: str) -> tuple[StackFrame, ...]:
    """Nothing of a thread that grid itself has started, an agent among them.

    Of the user's own threads neither how Python began them, nor how grid waits for what they asked of it.
    """
    began = 0
    while began < len(frames) and (frames[began].file == "<string>" or _is_threading(frames[began])):
        began += 1
    rest = frames[began:]
    if not rest or rest[0].file.startswith(package) or rest[0].file.endswith(_AGENT):
        return ()
    ours = [at for at, frame in enumerate(rest) if frame.file.startswith(package)]
    if not ours or not all(_is_threading(frame) for frame in rest[ours[-1] + 1 :]):
        return rest  # grid has called code of the user
    end = ours[-1]
    while rest[end - 1].file.startswith(package) or _is_threading(rest[end - 1]):
        end -= 1
    return rest[:end]


def _is_threading(frame: StackFrame) -> bool:
    return frame.file.endswith(("/threading.py", "/contextlib.py"))
