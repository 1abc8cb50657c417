"""Stacks of the threads of servers, also of one that sits deep in C code and holds the interpreter.

    server   at its birth Python's `faulthandler` gets a file and a signal: the handler of the signal writes all stacks
             to the file. It is C code, and needs neither the interpreter nor memory of the heap
    agent    empties the files, sends the signal to all servers, waits until each handler has ended, reads the files

/proc tells when a handler has ended: the kernel blocks the signal in the main thread while its handler runs, so it has
ended once the signal neither waits nor is blocked. Source: signal(7) and proc(5) of the Linux manual.

The signal is sent only to a process that /proc shows to have a handler for it. To others it would be the end.

Lives here: both ends; what an agent says of its own threads.
Elsewhere:  who asks (`requests`), what the text means (`grids/stacks.py`), a single look at threads of Python.
"""

from __future__ import annotations

import faulthandler
import linecache
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

_MOST_BYTES = 1 << 20
"""Of the text of one server; faulthandler itself stops at 100 threads of 100 frames."""
_WAIT_S = 1.0
"""For all handlers together."""
_LOOK_S = 0.002
_LINE = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in ')
_FROM_MAX = 3


def which_signal() -> int | None:
    """The signal that asks for stacks; None where the system has no real-time signals."""
    most = getattr(signal, "SIGRTMAX", None)
    return None if most is None else int(most) - _FROM_MAX


def file_of(sockets: Path, peer: int) -> Path:
    """Where a server writes its stacks; it goes with the sockets of that server."""
    return sockets / f"p{peer}.t"


def listen(path: Path) -> None:
    """In a server: from now on the signal has the stacks of all threads written to this file."""
    number = which_signal()
    if number is None:
        return
    try:
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        faulthandler.register(number, file=fd, all_threads=True, chain=False)
    except (OSError, ValueError, RuntimeError) as exc:  # a full disk is no reason to have no server
        print(f"its stacks can't be looked at later ({exc})", file=sys.stderr)


class LookedAt(NamedTuple):
    """A server whose stacks are wanted."""

    name: str
    pid: int
    path: Path


class StackReader:
    """Of one agent. It is asked in threads of their own, one after the other: they share the files."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()

    def read(self, servers: Iterable[LookedAt]) -> list[dict[str, Any]]:
        """The stacks of these servers, and last of the agent itself.

        Returns:
            Of each: name, pid, `text` as faulthandler writes it with the source lines that this host has, and `why`
            there is nothing, or not all of it.
        """
        with self._one_at_a_time:
            told = _read(list(servers))
        return [*told, {"name": "", "pid": os.getpid(), "text": own_threads(), "why": ""}]


def _read(servers: list[LookedAt]) -> list[dict[str, Any]]:
    why: dict[str, str] = {}
    waiting: list[LookedAt] = []
    for server in servers:
        why[server.name] = _ask(server)
        if not why[server.name]:
            waiting.append(server)
    deadline = time.monotonic() + _WAIT_S
    once: set[str] = set()  # seen to have ended: twice in a row, because between two states of a signal there is none
    while waiting and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
        still = []
        for server in waiting:
            state = _state(server.pid)
            if state is not None and (state.waits or state.blocked or server.name not in once):
                once = once - {server.name} if state.waits or state.blocked else once | {server.name}
                still.append(server)
        waiting = still
    for server in waiting:
        state = _state(server.pid)
        if state is not None and (state.waits or state.blocked):
            why[server.name] = f"its main thread took no signal within {_WAIT_S:g} s; {state.words}"
    return [
        {"name": one.name, "pid": one.pid, "text": _text(one.path, why[one.name]), "why": why[one.name]}
        for one in servers
    ]


def _ask(server: LookedAt) -> str:
    """Send the signal; why not, if it can't be sent."""
    number = which_signal()
    if number is None:
        return "this system has no signal to spare for it"
    state = _state(server.pid)
    if state is None:
        return "its process has ended, or /proc can't be read"
    if state.letter in "Tt":
        return state_in_words(server.pid)
    if not state.caught:
        return "its process takes no such signal: it runs another program, or its code took the signal"
    if state.blocked or state.waits:
        return f"its main thread blocks signals; {state.words}"
    try:
        os.truncate(server.path, 0)
        os.kill(server.pid, number)
    except OSError as exc:
        return f"it can't be asked ({exc.strerror})"
    return ""


class _State(NamedTuple):
    """Of the main thread of a process, as the kernel tells it."""

    letter: str
    words: str
    waits: bool  # the signal was sent, and not yet taken
    blocked: bool
    caught: bool


def _state(pid: int) -> _State | None:
    number = which_signal() or 0
    try:
        with open(f"/proc/{pid}/status", errors="replace") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except OSError:
        return None
    bits = {key: bool(int(fields.get(key, "0"), 16) >> (number - 1) & 1) for key in _MASKS}
    state = fields.get("State", "? (unknown)")
    waits = bits["SigPnd"] or bits["ShdPnd"]
    return _State(state[:1], f"its state is {state}", waits, bits["SigBlk"], bits["SigCgt"])


def state_in_words(pid: int) -> str:
    """How a process stands, for a message that it did not do something."""
    state = _state(pid)
    if state is None:
        return "its process has ended, or /proc can't be read"
    if state.letter in "Tt":
        return "its process is stopped (SIGSTOP, or a debugger); `kill -CONT` lets it go on"
    return state.words


_MASKS = ("SigPnd", "ShdPnd", "SigBlk", "SigCgt")


def _text(path: Path, why: str) -> str:
    if why and "within" not in why:
        return ""
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST_BYTES).decode(errors="replace")
    except OSError:
        return ""
    return _with_source(text)


def _with_source(text: str) -> str:
    """A line of code after each frame whose file is here."""
    lines = []
    for line in text.splitlines():
        lines.append(line)
        if (match := _LINE.match(line)) and (source := linecache.getline(match["file"], int(match["line"])).strip()):
            lines.append(f"    {source}")
    linecache.clearcache()  # files change, and nobody needs them here again
    return "\n".join(lines)


def own_threads() -> str:
    """The threads of this process in the words of faulthandler, each with its name; not the one that asks."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    told = []
    for ident, frame in sorted(sys._current_frames().items()):
        if ident != threading.get_ident():
            told.append(
                "\n".join([f"Thread {ident:#x} [{names.get(ident, '?')}] (most recent call first):", *_of(frame)])
            )
    return "\n\n".join(told)


def _of(frame: FrameType) -> list[str]:
    lines = []
    for one in reversed(traceback.extract_stack(frame)):
        lines.append(f'  File "{one.filename}", line {one.lineno} in {one.name}')
        if one.line:
            lines.append(f"    {one.line}")
    return lines
