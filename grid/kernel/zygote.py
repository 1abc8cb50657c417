"""A warmed process that forks servers: the interpreter and pyzmq are loaded once per host, not once per server.

Starting Python and importing pyzmq and dill takes 100 ms, a fork 5. The agent forks the zygote before it has a thread
or a socket of ZeroMQ; the zygote never has any, and none of the user's code, so forking it is safe, too; of libraries
it has NumPy, if servers need it (`warm`). It reaps the servers, and is the executor of the agent's will: when the agent
is gone it kills every server's process group and removes the agent's directories.

    agent -> zygote   length (4 bytes), pickle of a server's spec; with it descriptors: output, control, locks
                      At the end perhaps `TOLD`
    zygote -> agent   JSON lines: {"forked": name, "pid": p} | {"refused": name, "why": text}
                      | {"exited": p, "status": s, "peak_kb": m}

The agent writes while it does not read, so the zygote never waits with a word: what the line does not take is kept, and
goes out when it does. (Both waited for each other once, at 350 servers.)

Lives here: forking, reaping, the will.
Elsewhere:  what a server does (`serve`), what happens when one ends (`agent`), what servers leave (`orphans`).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pickle
import select
import shutil
import signal
import socket
import struct
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from grid.kernel import made, spawned, title
from grid.kernel.born import be_born
from grid.kernel.lease import inherit
from grid.kernel.orphans import Orphans, adopt
from grid.kernel.warm import loaded_with, part, warm

PR_SET_PDEATHSIG = 1
_LOOK_S = 0.002
TOLD = struct.pack("<I", 0xFFFFFFFF)
"""Instead of a length, and last of all: the agent ends because of a signal."""
MOST_LOCKS = 65
"""Of one server: 64 devices, and its cores."""
_BOTH_S = 1.0
"""The agent was killed: its client may follow within this time."""


class _Told(Exception):
    """See `TOLD`."""


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent has ended (Linux; elsewhere the control line must do)."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        pass


_TRIES = 10


def remove(path: str) -> None:
    """Remove a file or a directory with its contents; it need not exist."""
    if os.path.isdir(path):
        for _ in range(_TRIES):  # a client on this machine may just be writing or dropping a blob there
            shutil.rmtree(path, ignore_errors=True)
            if not os.path.isdir(path):
                break
            time.sleep(0.02)
        above = os.path.dirname(path)
        if os.path.basename(above) == "shm" and above != "/dev/shm":  # of blobs on disk, see `places.overflow_dir`
            try:
                os.rmdir(above)  # the last one takes the empty directory along
            except OSError:
                pass  # others are in it
    else:
        Path(path).unlink(missing_ok=True)


class Zygote:
    """The agent's handle of it. Making one forks: the caller must have no other thread and no ZeroMQ context yet.

    Args:
        line: The zygote's end of the socket pair.
        will: What it removes after the agent's death.
        log: Descriptor that it and its servers print to until they have an output of their own.
        new_session: Whether it leaves the session of the agent.
    """

    def __init__(self, line: socket.socket, will: dict[str, Any], log: int, *, new_session: bool) -> None:
        self.pid = os.fork()
        if self.pid:
            return
        words = _Line(line)
        try:
            if new_session:
                os.setsid()
            null = os.open(os.devnull, os.O_RDONLY)
            for fd, at in (null, 0), (log, 1), (log, 2):
                os.dup2(fd, at)
            kept = line.fileno()
            _close_all_but(kept)
            main(words, will)
        except BaseException as exc:
            traceback.print_exc()
            with contextlib.suppress(OSError):  # the agent is gone
                words.say({"died": f"{type(exc).__name__}: {exc}"})
                while line.recv(4096):  # until the agent ends: its client may still come, through sockets in there
                    pass
            for path in will["ours"]:
                remove(path)
        finally:
            os._exit(70)

    def end(self, limit_s: float) -> None:
        """Its line is closed: wait for its end, kill it after `limit_s` seconds."""
        deadline = time.monotonic() + limit_s
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return
            time.sleep(_LOOK_S)


def _close_all_but(kept: int) -> None:
    """Close descriptors from 3 on. Only open ones, if the system lists them: the limit may be a thousand million."""
    try:
        opened = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        os.closerange(3, kept)
        os.closerange(kept + 1, min(os.sysconf("SC_OPEN_MAX"), 1 << 16))
        return
    for fd in opened:
        if fd > 2 and fd != kept:
            try:
                os.close(fd)
            except OSError:
                pass  # the one that listed them


class _Line:
    """The zygote's end of the line to its agent; says without ever waiting."""

    def __init__(self, agent: socket.socket) -> None:
        self.socket = agent
        self._unsaid = bytearray()

    @property
    def busy(self) -> bool:
        """Whether words wait for room."""
        return bool(self._unsaid)

    def say(self, word: dict[str, Any]) -> None:
        """Have a word go out, now or later."""
        self._unsaid += json.dumps(word).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what the line takes."""
        while self._unsaid:
            try:
                sent = self.socket.send(self._unsaid, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            del self._unsaid[:sent]


def main(line: _Line, will: dict[str, Any]) -> NoReturn:
    """Body of the zygote's process. `line`: to the agent; `will`: what to remove after its death."""
    title.show("zygote", will["script"])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import dill  # noqa: F401  # loaded here once, for every server

    from grid.wire import kinds

    kinds.reducers()

    adopt()
    agent, orphans = line.socket, Orphans()
    parent = os.getppid()
    children: dict[int, str] = {}
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        while True:
            waiting = [agent.fileno()] if line.busy else []
            ready, _, _ = select.select([agent.fileno(), reader], waiting, [], orphans.tend())
            line.flush()
            if reader in ready:
                os.read(reader, 4096)
                if ended := _reap(line, children):
                    orphans.end_of(ended, children)
            if agent.fileno() in ready and not _fork_one(line, children, (reader, writer)):
                break
    except OSError:
        pass  # the agent is gone in the middle of a word
    except _Told:
        parent = 0
    for pid in children:
        _kill_group(pid)
    orphans.end_all()
    for path in will["ours"]:
        remove(path)
    if will["base"]:
        made.leave(Path(will["base"]))
    for path in _inherited(will, parent):
        remove(path)
    os._exit(0)


def _inherited(will: dict[str, Any], parent: int) -> list[str]:
    """What its client leaves to us. One who killed or told the agent may be about to kill the client as well."""
    deadline = time.monotonic() + (_BOTH_S if will["client"]["leaves"] else 0.0)
    while not (found := inherit(will)) and will["in_job"] and os.getppid() != parent and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    return found


def _reap(line: _Line, children: dict[int, str]) -> list[str]:
    """Take note of children that have ended, orphans among them; the names of those that were servers."""
    ended: list[str] = []
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        name = children.pop(pid, None)
        if name is not None:
            ended.append(name)
            _kill_group(pid)  # what it started and left
            line.say({"exited": pid, "status": status, "peak_kb": usage.ru_maxrss})


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _fork_one(line: _Line, children: dict[int, str], ours: tuple[int, int]) -> bool:
    agent = line.socket
    head, fds, _, _ = socket.recv_fds(agent, 4, 2 + MOST_LOCKS)
    if not head:
        return False
    while len(head) < 4:
        head += agent.recv(4 - len(head))
    if head == TOLD:
        raise _Told
    (length,) = struct.unpack("<I", head)
    data = bytearray()
    while len(data) < length:
        part = agent.recv(min(1 << 20, length - len(data)))
        if not part:
            return False
        data += part
    spec: dict[str, Any] = pickle.loads(data)
    try:
        output, control, *locks = fds  # fewer come where this process has no descriptor left
        if len(locks) != spec["birth"].locks:
            raise ValueError("too few descriptors")
        warm(spec)
        pid = os.fork()
    except (OSError, ValueError) as exc:
        line.say({"refused": spec["name"], "why": f"no process can be made there ({exc}; see `ulimit -u` and memory)"})
        for fd in fds:
            os.close(fd)
        return True
    if pid == 0:
        _become_server(agent, ours, output, control, locks, spec)
    for fd in fds:
        os.close(fd)
    children[pid] = spec["name"]
    line.say({"forked": spec["name"], "pid": pid})
    return True


def _become_server(
    agent: socket.socket, ours: tuple[int, int], output: int, control: int, locks: list[int], spec: dict[str, Any]
) -> NoReturn:
    try:
        part()
        be_born(spec["birth"], loaded_with(), locks)
        spawned.prepare(Path(spec["sockets"]))
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        die_with_parent()
        title.show("server", spec["name"], spec["script"])
        agent.close()
        for fd in ours:
            os.close(fd)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for fd in (null, output):
            os.close(fd)
        os.set_inheritable(1, True)
        os.set_inheritable(2, True)
        from grid.kernel import serve

        serve.main(spec, socket.socket(fileno=control))
    except BaseException as exc:
        os.write(2, f"server did not start: {type(exc).__name__}: {exc}\n".encode())
    finally:
        os._exit(70)
