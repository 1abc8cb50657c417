"""The one writer of a session's log: records at the end of a file that is mapped into memory.

A record is written without a call of the system, and yet survives `kill -9`: the file's pages are the kernel's. Only
when the machine itself stops is more lost: what was written after the last `sync`, which the grid's watch calls every
heartbeat.

What nobody needs any more is left behind when the file has grown (`tend`): the rest goes into a new file, which
replaces the old one by one rename.

Where the disk is full the session can't be remembered any further. Calls go on, a line on stderr says so, and who
attaches later finds what was written until then.

Lives here: `Journal`. Thread-safe.
Elsewhere:  what is written (`memory`), its bytes (`records`), who has the file (`places`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import struct
import threading
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

from grid.errors import SessionError
from grid.keeping.memory import SessionMemory
from grid.keeping.records import HEAD, HEADER, MAGIC, LogKind, Scan, check_of, packed

logger = logging.getLogger(__name__)

_FIRST = 1 << 20
_STEP = 1 << 24
"""The file grows by its own size, and by this many bytes at most."""
TIDY = 1 << 26
"""A file of this size is written anew, if much of it is not needed; later one that has doubled since."""


class Journal:
    """See the module.

    Args:
        path: The file; it is made if it is not there.
    Raises:
        SessionError: It can't be written, or is of another version.
    """

    def __init__(self, path: Path, *, tidy: int = TIDY) -> None:
        self._path, self._tidy, self._tidy_at = path, tidy, tidy
        self._lock = threading.Lock()
        self.dropped: deque[tuple[int, int]] = deque()
        """Peer and call, of results that nobody needs any more. Destructors append: any thread, any lock held."""
        self.broken = ""  # why nothing is written any more
        self.leaving = False
        """The client goes, and drops all that it has: that says nothing about who needs it."""
        self._synced = 0
        self.memory, self.damaged = SessionMemory(), 0
        """What the file said when it was opened, and how many bytes of it could not be read."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                self._begin()
            except BaseException:
                os.close(self._fd)
                raise
        except OSError as exc:
            raise SessionError(
                f"its file {path} can't be written ({exc.strerror})", hint="Free some space, or set GRID_SESSIONS"
            ) from exc

    def _begin(self) -> None:
        size = os.fstat(self._fd).st_size
        if not size:
            os.posix_fallocate(self._fd, 0, _FIRST)
            os.pwrite(self._fd, HEADER, 0)
            size = _FIRST
        elif os.pread(self._fd, len(HEADER), 0) != HEADER:
            raise SessionError(
                f"its file {self._path} is of another version, or damaged at its beginning",
                hint="The version of grid that made it can attach; `grid end` removes it",
            )
        self._map = mmap.mmap(self._fd, size)
        self._size = size
        scan = Scan(_read(self._fd, size))
        self.memory = SessionMemory.of(scan)
        self._at, self.damaged = scan.end, scan.damaged
        self._tidy_at = max(self._tidy, 2 * self._at)

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, kind: int, peer: int, last: int, payload: bytes) -> None:
        """One record. It is there when this returns, unless the journal is `broken`."""
        with self._lock:
            if self.broken:
                return
            at, length = self._at, len(payload)
            end = at + HEAD.size + length
            if end > self._size and not self._grow(end):
                return
            self._map[at + HEAD.size : end] = payload
            HEAD.pack_into(self._map, at, MAGIC, length, check_of(at, kind, peer, last, payload), peer, last, kind)
            self._at = end  # from here on it counts; torn off before, the next one takes its place

    def _grow(self, needed: int) -> bool:
        size = max(needed, self._size + min(self._size, _STEP))
        size += -size % mmap.PAGESIZE
        try:
            os.posix_fallocate(self._fd, self._size, size - self._size)
            self._map.resize(size)
        except (OSError, ValueError, SystemError) as exc:
            self.broken = str(exc)
            logger.warning(
                "the session's file %s can't grow (%s): from now on nothing more is remembered, and whoever attaches "
                "later finds what was written until now. Free some space, and start the grid again",
                *(self._path, exc),
            )
            return False
        self._size = size
        return True

    def fact(self, key: str, value: Any) -> None:
        """A value of JSON that counts from now on; None takes it away."""
        self.write(LogKind.FACT, 0, 0, json.dumps([key, value]).encode())

    def name(self, peer: int, call: int, name: str) -> None:
        """A call has a name."""
        self.write(LogKind.NAME, peer, call, json.dumps([call, name]).encode())

    # -- now and then ----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Write down what was dropped."""
        done: dict[int, list[int]] = defaultdict(list)
        for _ in range(0 if self.leaving else len(self.dropped)):
            peer, call = self.dropped.popleft()
            done[peer].append(call)
        for peer, calls in done.items():
            self.write(LogKind.DONE, peer, 0, struct.pack(f"<{len(calls)}Q", *calls))

    def tend(self) -> None:
        """Write down what was dropped, have the disk know, and leave behind what is not needed. One thread."""
        self.settle()
        with contextlib.suppress(OSError):
            os.utime(self._path)  # how long ago its client was there
        if self._at != self._synced:
            self._synced = self._at
            with contextlib.suppress(OSError):
                os.fdatasync(self._fd)
        if self._at > self._tidy_at and not self.broken:
            self._write_anew()

    def _write_anew(self) -> None:
        """Into another file, most of it while others go on writing here."""
        seen = self._at
        kept = bytearray(HEADER)
        for kind, peer, last, payload in SessionMemory.of(Scan(_read(self._fd, seen))).lines():
            kept += packed(len(kept), kind, peer, last, payload)
        scratch = self._path.with_suffix(".new")
        try:
            fd = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                self._move_to(fd, scratch, kept, seen)
            except BaseException:
                os.close(fd)
                scratch.unlink(missing_ok=True)
                raise
        except OSError as exc:
            self._tidy_at *= 2
            logger.info("the session's file %s stays as it is (%s)", self._path, exc)

    def _move_to(self, fd: int, scratch: Path, kept: bytearray, seen: int) -> None:
        size = len(kept) + _FIRST
        size += -size % mmap.PAGESIZE
        os.posix_fallocate(fd, 0, size)
        _write(fd, kept)
        with self._lock:
            later = bytearray()
            for entry in Scan(_read(self._fd, self._at, seen), seen):
                later += packed(len(kept) + len(later), *entry)
            end = len(kept) + len(later)
            if end > size:
                size = end + _FIRST - (end + _FIRST) % mmap.PAGESIZE
                os.posix_fallocate(fd, 0, size)
            _write(fd, later, len(kept))
            os.fdatasync(fd)
            new = mmap.mmap(fd, size)
            os.replace(scratch, self._path)
            (old, self._map), (gone, self._fd) = (self._map, new), (self._fd, fd)
            self._size, self._at, self._synced = size, end, end
            self._tidy_at = max(self._tidy, 2 * end)
        old.close()
        os.close(gone)

    def close(self) -> None:
        """Write down what was dropped, and close the file. Nothing is written any more."""
        self.settle()
        with self._lock:
            if self.broken != _CLOSED:
                self.broken = _CLOSED
                with contextlib.suppress(OSError):
                    os.fdatasync(self._fd)
                self._map.close()
                os.close(self._fd)


_CLOSED = "it is closed"


def _read(fd: int, end: int, start: int = 0) -> bytes:
    """From `start` to `end`; the map itself must not be lent out, or it could not grow."""
    parts = []
    while start < end and (part := os.pread(fd, min(end - start, 1 << 30), start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _write(fd: int, data: bytearray, at: int = 0) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view[: 1 << 30], at)
        view, at = view[done:], at + done
