"""One run of a command on its host: a directory and a process group of its own, output as it comes, files at the end.

A host has grid's kernel and nothing else of ours: this travels as its source, as the runner of functions does. It needs
that kernel and the standard library. A run ends when its program has ended: what that left running (in its group, its
session, or as a daemon) is ended then, too.

Lives here: `RunCommand`. Elsewhere: how source travels (`compat/runner`), what the client makes of it (`outcome`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grid.errors import GridError
from grid.kernel import produce
from grid.kernel.filestore import FileStore, copy, digest

_NOTE = ".kept"
"""Ends the name of a file beside a run's directory: names of its outputs in the store, until the run has ended."""
GRACE_S = 2.0
"""Between SIGTERM and SIGKILL."""
_LOOK_S = 0.02
_DRAIN_S = 1.0
_PR_SET_CHILD_SUBREAPER = 36
_READ = 1 << 16


class RunCommand:
    """A function that runs what `spec` says, and answers in plain values; see `Spec` in `running`."""

    __name__ = "command"
    _swept = 0  # the server that has looked for directories of others that were killed

    def __call__(self, spec: dict[str, Any]) -> dict[str, Any]:
        root = Path(os.environ["GRID_ROOT"])
        base = root / ".commands"
        answer: dict[str, Any] = {"began": time.time(), "host": os.uname().nodename}
        directory = ""
        try:
            (base / "runs").mkdir(parents=True, exist_ok=True)
            mine = f"{os.uname().nodename}."
            if RunCommand._swept != os.getpid():
                RunCommand._swept = os.getpid()
                _sweep(root, mine)
            directory = tempfile.mkdtemp(prefix=f"{mine}{os.getpid()}.", dir=base / "runs")
            for place, source, mode in spec["ins"]:
                target = os.path.join(directory, place)
                if "/" in place:
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                try:
                    if isinstance(source, bytes):
                        Path(target).write_bytes(source)
                    else:
                        copy(root / source, target)
                except FileNotFoundError:
                    answer["trouble"] = ("vanished", place)
                    return answer
                os.chmod(target, mode | stat.S_IRUSR | stat.S_IWUSR)
            answer.update(_run(spec, directory))
            answer["outputs"] = _outputs(spec, directory, answer)
        except OSError as exc:
            what = "disk" if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) else "system"
            answer["trouble"] = (what, f"{exc.strerror or exc}: {exc.filename or directory or base}")
        except GridError as exc:
            answer["trouble"] = ("output", exc.what)
        finally:
            if directory:
                shutil.rmtree(directory, ignore_errors=True)
                with contextlib.suppress(OSError):
                    os.unlink(f"{directory}{_NOTE}")
        return answer

    def __reduce__(self) -> tuple[Any, ...]:
        if not SOURCE:
            SOURCE.append(Path(__file__).read_text(encoding="utf-8"))
        carried: Callable[..., tuple[Any, ...]] = sys.modules["grid.compat.runner"].carried
        return carried("grid.commands.onhost", "RunCommand", SOURCE[0], {})


def _sweep(root: Path, mine: str) -> None:
    """Remove what servers left that were ended in the middle of a run: its directory, its outputs in the store."""
    for path in (root / ".commands" / "runs").iterdir():
        pid = path.name[len(mine) :].partition(".")[0] if path.name.startswith(mine) else ""
        if not pid.isdecimal() or os.path.exists(f"/proc/{pid}") or not os.path.isdir("/proc/self"):
            continue
        if path.name.endswith(_NOTE):
            with contextlib.suppress(OSError, GridError):
                FileStore(root).drop(path.read_text().split())
                path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)


SOURCE: list[str] = []
"""The text of this module; filled when it is first needed, on a host on arrival."""


class _Kept:
    """The end of a stream, and how much came before it."""

    def __init__(self, most: int, show_to: int | None) -> None:
        self._most, self._show_to = most, show_to
        self._data = bytearray()
        self.lost = 0

    def add(self, data: bytes) -> None:
        if self._show_to is not None:
            _write_all(self._show_to, data)
        self._data += data
        if len(self._data) > 2 * self._most:
            self._cut()

    def _cut(self) -> None:
        extra = len(self._data) - self._most
        if extra > 0:
            self.lost += extra
            del self._data[:extra]

    def end(self) -> bytes:
        self._cut()
        return bytes(self._data)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError:
        pass  # nobody shows it; it is kept


def _run(spec: dict[str, Any], directory: str) -> dict[str, Any]:
    environment = {**os.environ, **spec["variables"]}
    argv: list[str] = spec["words"] or ["/bin/sh", "-c", spec["text"]]
    program = argv[0]
    if "/" in program:
        found = os.path.join(directory, program) if os.access(os.path.join(directory, program), os.X_OK) else None
    else:
        found = shutil.which(program, path=environment.get("PATH"))
    if found is None:
        there = os.path.exists(os.path.join(directory, program)) if "/" in program else False
        return {"trouble": ("no right" if there else "absent", program)}
    before = _children()
    _adopt(True)
    started = time.monotonic()
    stdin: Any = subprocess.DEVNULL
    try:
        with contextlib.ExitStack() as stack:
            if spec["stdin"] is not None:
                stdin = stack.enter_context(open(os.path.join(directory, spec["stdin"]), "rb"))
            if spec["show"]:
                sys.stdout.flush()
                sys.stderr.flush()
            try:
                process = subprocess.Popen(
                    argv,
                    executable=found,
                    cwd=directory,
                    env=environment,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    bufsize=0,
                )
            except OSError as exc:
                return {"trouble": ("refused", f"{program}: {exc.strerror or exc}")}
        return _followed(process, spec, started, before)
    finally:
        _adopt(False)


def _followed(
    process: subprocess.Popen[bytes], spec: dict[str, Any], started: float, before: set[int]
) -> dict[str, Any]:
    """Read what it says until it has ended, and end it when its time is up."""
    assert process.stdout is not None and process.stderr is not None
    pid = process.pid
    kept = [_Kept(spec["keep_bytes"], fd if spec["show"] else None) for fd in (1, 2)]
    limit = spec["timeout_s"]
    deadline = None if limit is None else started + limit
    timed_out = False
    left: int | None = None
    try:
        with selectors.DefaultSelector() as selector:
            for pipe, keep in zip((process.stdout, process.stderr), kept, strict=True):
                selector.register(pipe.fileno(), selectors.EVENT_READ, keep)
            ended = _Ended(pid, selector)
            drain_until: float | None = None
            while len(selector.get_map()) > ended.watched:
                wait = None if ended.watched else _LOOK_S
                until = drain_until if drain_until is not None else deadline
                if until is not None:
                    left_s = max(0.0, until - time.monotonic())
                    wait = left_s if wait is None else min(wait, left_s)
                for key, _ in selector.select(wait):
                    if key.data is None:
                        continue
                    data = os.read(key.fd, _READ)
                    if data:
                        key.data.add(data)
                    else:
                        selector.unregister(key.fd)
                now = time.monotonic()
                if drain_until is None and ended.now():
                    _kill(pid, signal.SIGKILL)  # what it left in its group; it is not reaped, so the number is its own
                    left = _end_others(before | {pid})
                    drain_until = now + _DRAIN_S
                elif drain_until is not None and now >= drain_until:
                    break  # what still holds the pipe is none of ours
                elif deadline is not None and drain_until is None and now >= deadline:
                    _kill(pid, signal.SIGKILL if timed_out else signal.SIGTERM)
                    timed_out, deadline = True, now + GRACE_S
            while not ended.now():  # it has closed its output, and runs on
                left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                ended.wait(left_s)
                if deadline is not None and time.monotonic() >= deadline and not ended.now():
                    _kill(pid, signal.SIGKILL if timed_out else signal.SIGTERM)
                    timed_out = True
                    deadline = time.monotonic() + GRACE_S
            ended.close()
        if left is None:
            _kill(pid, signal.SIGKILL)
            left = _end_others(before | {pid})
        _, status, usage = os.wait4(pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        process.stdout.close()
        process.stderr.close()
        if process.returncode is None:  # an error of ours, or a signal to the server
            _kill(pid, signal.SIGKILL)
            process.wait()
            _end_others(before)
    code = process.returncode
    return {
        "status": max(0, code),
        "signal": max(0, -code),
        "seconds": time.monotonic() - started,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "stdout": kept[0].end(),
        "stderr": kept[1].end(),
        "stdout_lost": kept[0].lost,
        "stderr_lost": kept[1].lost,
        "left": left,
        "timed_out": timed_out,
    }


class _Ended:
    """Whether a child has ended, without reaping it. `watched`: 1 if the selector tells, else 0."""

    def __init__(self, pid: int, selector: selectors.BaseSelector) -> None:
        self._pid, self._ended = pid, False
        self._fd = -1
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._fd = os.pidfd_open(pid)
                selector.register(self._fd, selectors.EVENT_READ, None)
        self.watched = int(self._fd >= 0)

    def now(self) -> bool:
        if not self._ended:
            found = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            self._ended = found is not None
        return self._ended

    def wait(self, seconds: float | None) -> None:
        """For its end, for so long at most."""
        if self._fd >= 0:
            with selectors.DefaultSelector() as one:
                one.register(self._fd, selectors.EVENT_READ)
                one.select(seconds)
        else:
            time.sleep(_LOOK_S if seconds is None else min(_LOOK_S, seconds))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _adopt(on: bool) -> None:
    """Be the parent of what a run leaves, so that it is found; where the system knows no such thing nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)


def _children() -> set[int]:
    """Of this process, also those that have ended and were not reaped."""
    try:
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            pass
    except ChildProcessError:
        return set()
    found: set[int] = set()
    with contextlib.suppress(OSError, ValueError):
        for task in os.listdir("/proc/self/task"):
            found.update(map(int, Path(f"/proc/self/task/{task}/children").read_text().split()))
    return found


def _end_others(known: set[int]) -> int:
    """End children that were not there before: daemons, and others in sessions of their own. How many they were."""
    ended: set[int] = set()
    for _ in range(100):
        others = _children() - known
        if not others:
            break
        for pid in others:
            if pid not in ended:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                        ended.add(pid)
                    os.kill(pid, signal.SIGKILL)
        for pid in others:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
    return len(ended)


def _outputs(spec: dict[str, Any], directory: str, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Each file that matches: `name`, `mode`, and its `data`, or where it waits (`kept`) if it is large or stays here.

    No file where the client would throw them away; what leads out of the directory is refused.
    """
    if "trouble" in answer:
        return []
    found = produce.find(directory, spec["outs"], {place for place, _, _ in spec["ins"]})
    for name, why in found["refused"].items():
        answer["trouble"] = ("output", f"{name!r} {why}")
        return []
    if found["empty"]:
        answer["missing"] = (found["empty"][0], found["present"], found["there"])
    if spec["check"] and (answer["status"] or answer["signal"] or answer["timed_out"] or found["empty"]):
        return []
    outputs: list[dict[str, Any]] = []
    store, most = FileStore(os.environ["GRID_ROOT"]), spec["apart"]
    here = 0
    try:
        for name, (size, _, mode) in found["files"].items():
            path = os.path.realpath(os.path.join(directory, name))
            output: dict[str, Any] = {"name": name, "mode": mode}
            outputs.append(output)
            if not spec["keep"] and size <= most and here + size <= 2 * most:
                output["data"] = Path(path).read_bytes()
                here += len(output["data"])
                continue
            output["kept"] = secrets.token_hex(32)
            with open(f"{directory}{_NOTE}", "a") as note:  # for who comes after this process, should it be killed
                note.write(f"{output['kept']}\n")
            store.put(path, name=output["kept"])
            status = os.stat(store.path(output["kept"]))
            output.update(size=status.st_size, changed_ns=status.st_mtime_ns)
            if spec["keep"]:
                output["sha256"] = digest(store.path(output["kept"]))
    except BaseException:
        store.drop(output["kept"] for output in outputs if "kept" in output)
        raise
    return outputs
