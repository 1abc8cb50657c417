"""Large buffers: written once to a file in shared memory on the host where they are used, mapped there.

A *blob* is such a file: buffers one after another, each at a multiple of 64 bytes. Mapped privately its arrays are
writable, and a page is copied only when it is written to, so that all servers of a host share one copy of a published
instance. On the client's own machine the client writes the file itself; to other hosts it goes over the *lane*, TLS 1.3
streams to the agent (CURVE with the libsodium in pyzmq's wheels moves 50 MB/s, TLS 800 or more).

Writing is synchronous: when it returns the caller may change its array, and nothing was copied at the sender.

The lane, request by request, each a JSON line and then raw bytes:

    {"op": "put", "name": N, "size": S}  + S bytes   ->  {"ok": true} | {"error": text}
    {"op": "get", "name": N}                         ->  {"size": S} + S bytes | {"error": text}
    {"op": "file", "name": N}                        ->  the same, of a file that waits in the store of the host
    {"op": "got", "name": N}                         ->  (nothing; the blob is removed)
    {"op": "drop", "name": N}                        ->  {"ok": true}

A stream that breaks is opened again, and the request repeated, for `timeout` seconds: a blob is removed on the host
only when the client says that it has it all.

Lives here: the store (one machine's blobs), the lane's near end, the prefix that names a blob in a message.
Elsewhere:  the lane's far end (`lane_server`), when a buffer is large enough (`LARGE`: `link`, `kernel/serve.py`).
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from grid.errors import ConnectError, DiskError, GridError
from grid.wire.frames import BULK, WHOLE
from grid.wire.places import overflow_dir, private_dir

if TYPE_CHECKING:
    import ssl  # takes 10 ms to load, and only other machines need it

T = TypeVar("T")

LARGE = 256 * 1024
"""Buffers of one message that come to this many bytes together travel as a blob."""
_ALIGN = 64
CHUNK = 1 << 20
"""Bytes of a lane that are handled at one go."""
_PAUSE_S = 0.25
"""Between two attempts to have a broken stream again."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NAME = re.compile(r"[0-9a-f]{32}")


class Blobs(Protocol):
    """Where one host's blobs are put and read; the same on this machine and across the network."""

    def write(self, buffers: Sequence[memoryview]) -> str:
        """Make a blob of these buffers, each of flat bytes; its name. DiskError: there is no room."""

    def read(self, name: str, sizes: Sequence[int], *, drop: bool = True) -> list[memoryview]:
        """The buffers of a blob, `sizes` bytes each; the blob is removed unless `drop` is false."""

    def drop(self, name: str) -> None:
        """Remove a blob; one that is not there is no error."""


def put_apart(
    blobs: Blobs, data: bytes, buffers: Sequence[memoryview], flags: int
) -> tuple[bytes, Sequence[memoryview], int]:
    """Move a message's large buffers, or a long pickle with them, into a blob; what is left: (pickle, buffers, flags).

    A long pickle goes the same way as arrays: its frame would be slow under CURVE, and frames have a limit.
    """
    whole = len(data) >= LARGE
    if not whole and (not buffers or sum(map(len, buffers)) < LARGE):
        return data, buffers, flags
    parts = [memoryview(data), *buffers] if whole else buffers
    name = blobs.write(parts)
    head = prefix(name, [len(part) for part in parts])
    return (head if whole else head + data), (), flags | BULK | (WHOLE if whole else 0)


def bring_together(
    blobs: Blobs, pickle: memoryview, flags: int, *, drop: bool = True
) -> tuple[memoryview, list[memoryview]]:
    """The inverse of `put_apart`: the pickle and its buffers. Without `drop` the blob stays, to be read again."""
    name, sizes, rest = split(pickle)
    parts = blobs.read(name, sizes, drop=drop)
    return (parts[0], parts[1:]) if flags & WHOLE else (rest, parts)


def prefix(name: str, sizes: Sequence[int]) -> bytes:
    """What stands before the pickle of a message whose buffers are in blob `name`."""
    return struct.pack(f"<32sI{len(sizes)}Q", name.encode(), len(sizes), *sizes)


def split(data: memoryview) -> tuple[str, tuple[int, ...], memoryview]:
    """The inverse of `prefix`: blob name, sizes of its buffers, the pickle."""
    name, count = struct.unpack_from("<32sI", data)
    sizes = struct.unpack_from(f"<{count}Q", data, 36)
    return name.decode(), sizes, data[36 + 8 * count :]


def _padded(size: int) -> int:
    return -size % _ALIGN


def _slices(view: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    at, parts = 0, []
    for size in sizes:
        parts.append(view[at : at + size])
        at += size + _padded(size)
    return parts


def _made(path: Path, size: int) -> int:
    """A new file of that size, open for writing; nothing is left of it where that fails."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if size:
            os.posix_fallocate(fd, 0, size)  # now, and not as a SIGBUS in the middle of the copy
    except OSError:
        os.close(fd)
        os.unlink(path)
        raise
    return fd


class BlobStore:
    """The blobs of one grid on this machine: files in a private directory, of shared memory where there is some.

    A blob for which it has no room goes to a second directory, on disk: `overflow_dir`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.overflow = overflow_dir(directory)

    def path(self, name: str) -> Path:
        """Where blob `name` lies.

        Raises:
            GridError: Not a name that a store gives out (so never a path into other places).
        """
        if not _NAME.fullmatch(name):
            raise GridError(f"{name!r} is not the name of a blob", hint="Names are 32 hexadecimal digits")
        place = self.directory / name
        if self.overflow is not None and not os.path.lexists(place) and os.path.lexists(self.overflow / name):
            return self.overflow / name
        return place

    def create(self, size: int, name: str | None = None) -> tuple[str, int]:
        """A new empty blob with room for `size` bytes: (its name, a descriptor open for writing).

        Raises:
            DiskError: There is no room for it, or no file can be made there.
        """
        name = name or os.urandom(16).hex()
        place = self.path(name)
        try:
            return name, _made(place, size)
        except OSError as exc:
            refused = exc
        if self.overflow is not None and refused.errno in _NO_ROOM:
            private_dir(self.overflow.parent)
            private_dir(self.overflow)
            try:
                return name, _made(self.overflow / name, size)
            except OSError as exc:
                refused = exc
        raise self._refused(refused, size) from refused

    def _open(self, name: str, flags: int) -> int:
        return os.open(self.path(name), flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def _refused(self, exc: OSError, size: int) -> DiskError:
        host = os.uname().nodename
        if exc.errno in _NO_ROOM:
            hint = "Free shared memory there, or point GRID_RUNTIME_DIR to a larger file system"
            places = " or ".join(str(place) for place in (self.directory, self.overflow) if place is not None)
            return DiskError(f"no room for {size / 1e6:.1f} MB in {places}", host=host, hint=hint)
        return DiskError(f"can't write in {self.directory} ({exc.strerror})", host=host, hint="See `ulimit -n`, and df")

    def write(self, buffers: Sequence[memoryview]) -> str:
        """Copy `buffers` into a new blob; returns its name."""
        total = sum(len(buffer) + _padded(len(buffer)) for buffer in buffers)
        name, fd = self.create(total)
        try:
            at = 0
            for buffer in buffers:
                done = 0
                while done < len(buffer):
                    done += os.pwrite(fd, buffer[done : done + (1 << 30)], at + done)
                at += len(buffer) + _padded(len(buffer))
        except BaseException as exc:
            self.drop(name)
            if isinstance(exc, OSError):
                raise self._refused(exc, total) from exc
            raise
        finally:
            os.close(fd)
        return name

    def read(self, name: str, sizes: Sequence[int], *, drop: bool = True) -> list[memoryview]:
        """Map a blob privately: views that are writable, of which written pages become our own.

        With `drop` the name goes at once; the memory goes with the last view.
        """
        fd = self._open(name, os.O_RDONLY)
        try:
            size = os.fstat(fd).st_size
            if size < sum(sizes):
                raise GridError(f"blob {name} holds {size} bytes of {sum(sizes)}", hint="It was cut; send it again")
            mapped = mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) if size else b""
        finally:
            os.close(fd)
        if drop:
            self.drop(name)
        return _slices(memoryview(mapped), sizes)

    def drop(self, name: str) -> None:
        """Remove a blob; it need not exist any more."""
        try:
            os.unlink(self.path(name))
        except FileNotFoundError:
            pass


class Lane:
    """The client's end of the lane to one agent: a store that lies on another machine."""

    def __init__(
        self, connect: Callable[[], socket.socket], context: ssl.SSLContext, host: str, timeout: float
    ) -> None:
        self._connect, self._context, self._host, self._timeout = connect, context, host, timeout
        self._idle: list[ssl.SSLSocket] = []
        self._lock = threading.Lock()
        self._closed = False

    def write(self, buffers: Sequence[memoryview]) -> str:
        """Send `buffers` into a new blob on the host; returns its name once the host has all of it."""
        total = sum(len(buffer) + _padded(len(buffer)) for buffer in buffers)
        return self._with_stream(lambda stream: self._put(stream, _with_padding(buffers), total))

    def write_stream(self, chunks: Iterable[memoryview | bytes], size: int) -> str:
        """Send `size` bytes, as they come out of `chunks`, into a new blob; returns its name."""
        return self._with_stream(lambda stream: self._put(stream, chunks, size), once=True)

    def _put(self, stream: ssl.SSLSocket, chunks: Iterable[memoryview | bytes], size: int) -> str:
        name = os.urandom(16).hex()
        send_line(stream, {"op": "put", "name": name, "size": size})
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            for at in range(0, len(view), CHUNK):
                stream.sendall(view[at : at + CHUNK])
        self._answer(stream)
        return name

    def read(self, name: str, sizes: Sequence[int], *, drop: bool = True) -> list[memoryview]:
        """Fetch a blob into fresh memory of ours, writable."""

        def get(stream: ssl.SSLSocket) -> list[memoryview]:
            send_line(stream, {"op": "get", "name": name})
            size = self._answer(stream)["size"]
            target = memoryview(mmap.mmap(-1, size)) if size else memoryview(bytearray())
            _receive_into(stream, target)
            if drop:
                send_line(stream, {"op": "got", "name": name})
            return _slices(target, sizes)

        return self._with_stream(get)

    def bring(self, name: str, into: BlobStore) -> str:
        """Copy a blob from there into a store of this machine; its name in that. Tried once: there may be no way."""

        def get(stream: ssl.SSLSocket) -> str:
            send_line(stream, {"op": "get", "name": name})
            size = self._answer(stream)["size"]
            here, fd = into.create(size)
            try:
                receive_file(stream, fd, size)
            except BaseException:
                into.drop(here)
                raise
            finally:
                os.close(fd)
            return here

        return self._with_stream(get, once=True)

    def bring_file(self, name: str, target: Path) -> None:
        """Copy a file that waits there (`kernel/filestore.py`) to a new one of this machine. Tried once.

        Raises:
            DiskError: There is no room for it, or it is not there. ConnectError: It broke off, or there is no way.
        """

        def get(stream: ssl.SSLSocket) -> None:
            send_line(stream, {"op": "file", "name": name})
            size = self._answer(stream)["size"]
            try:
                fd = _made(target, size)
            except OSError as exc:
                host, hint = os.uname().nodename, "Free some space there"
                raise DiskError(f"can't write {target} ({exc.strerror})", host=host, hint=hint) from exc
            try:
                receive_file(stream, fd, size)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
            finally:
                os.close(fd)

        self._with_stream(get, once=True)

    def drop(self, name: str) -> None:
        """Remove a blob on the host."""

        def drop(stream: ssl.SSLSocket) -> None:
            send_line(stream, {"op": "drop", "name": name})
            self._answer(stream)

        self._with_stream(drop)

    def renew(self) -> None:
        """End the idle connections: the way there is another now."""
        with self._lock:
            idle, self._idle = self._idle, []
        for stream in idle:
            stream.close()

    def close(self) -> None:
        """End the idle connections, and make no new ones."""
        self._closed = True
        self.renew()

    def _with_stream(self, use: Callable[[ssl.SSLSocket], T], *, once: bool = False) -> T:
        """Have `use` done by a stream; by another where that one breaks, until the time has passed."""
        deadline = None
        while True:
            with self._lock:
                stream = self._idle.pop() if self._idle else None
            try:
                if stream is None:
                    stream = self._open()
                outcome = use(stream)
            except (OSError, EOFError) as exc:
                if stream is not None:
                    stream.close()
                deadline = deadline or time.monotonic() + self._timeout
                import ssl

                refused = isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError)
                if once or refused or self._closed or time.monotonic() + _PAUSE_S > deadline:
                    raise ConnectError(
                        f"the transfer of a large buffer broke off ({exc or type(exc).__name__})",
                        host=self._host,
                        hint="Is the host still there? Try `grid doctor` on it",
                    ) from exc
                time.sleep(_PAUSE_S)
                continue
            except BaseException:
                if stream is not None:
                    stream.close()
                raise
            with self._lock:
                if not self._closed:
                    self._idle.append(stream)
                    return outcome
            stream.close()
            return outcome

    def _open(self) -> ssl.SSLSocket:
        raw = self._connect()
        try:
            raw.settimeout(self._timeout)
            if raw.family != socket.AF_UNIX:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                notice_cuts(raw)
            return self._context.wrap_socket(raw)
        except BaseException:
            raw.close()
            raise

    def _answer(self, stream: ssl.SSLSocket) -> dict[str, Any]:
        answer = receive_line(stream)
        if "error" in answer:
            raise DiskError(str(answer["error"]), host=self._host, hint="See the space left with `grid hosts check`")
        return answer


def notice_cuts(raw: socket.socket) -> None:
    """A peer that has vanished is noticed within some 40 s, though nothing is sent."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 5), ("TCP_USER_TIMEOUT", 40_000)):
        if hasattr(socket, name):  # Linux has all of them
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _with_padding(buffers: Sequence[memoryview]) -> Iterable[memoryview | bytes]:
    for buffer in buffers:
        yield buffer
        if _padded(len(buffer)):
            yield bytes(_padded(len(buffer)))


def send_line(stream: ssl.SSLSocket, message: dict[str, Any]) -> None:
    """One request or answer of the lane."""
    stream.sendall(json.dumps(message).encode() + b"\n")


def receive_line(stream: ssl.SSLSocket, limit: int = 4096) -> dict[str, Any]:
    """The inverse of `send_line`. Raises EOFError at the stream's end, ValueError for what is no request."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = stream.recv(1)  # from TLS's own buffer: no system call each
        if not byte or len(line) > limit:
            raise EOFError("the other end closed the lane")
        line += byte
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("not a request")
    return message


def receive_file(stream: ssl.SSLSocket, fd: int, size: int) -> None:
    """Take `size` bytes into an open file that has room for them."""
    if size:
        with mmap.mmap(fd, size) as mapped, memoryview(mapped) as view:
            _receive_into(stream, view)


def _receive_into(stream: ssl.SSLSocket, target: memoryview) -> None:
    at = 0
    while at < len(target):
        with target[at : at + CHUNK] as window:
            got = stream.recv_into(window)
        if not got:
            raise EOFError("the other end closed the lane")
        at += got
