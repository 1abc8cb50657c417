"""Unpack the archive that staging sends: many files in one stream, none of which is ever seen half written.

Lives here: the format, and its receiving end. Standard library and `grid.errors` alone: it runs on hosts.
Elsewhere:  the sending end (`staging/manifest.py`), which files are sent at all (`staging/select.py`).

The format, chosen by measurement (`staging/manifest.py` has the figures):

    archive  =  MAGIC  block*  end
    block    =  kind (1 byte: RAW or ZLIB)  length (4 bytes, big-endian)  payload
    end      =  kind END, length 0

The payloads, one after the other and decompressed, are the files:

    file     =  length of the header (4 bytes, big-endian)  header  contents
    header   =  JSON [relative path, size in bytes, permission bits]

Only plain files can be expressed: no links, no devices, no owners. Blocks are compressed one by one, so that
files which are compressed already travel as they are.

Invariants: nothing is written outside of `root`, also not through a link that stands in it; a file appears
            under its name when it is complete, or not at all.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import Protocol

from grid.errors import StagingError

MAGIC = b"grid-files/1\n"
BLOCK_HEADER = struct.Struct(">BI")
FILE_HEADER = struct.Struct(">I")
END, RAW, ZLIB = 0, 1, 2
BLOCK_BYTES = 256 * 1024  # of one block, before compression
_HEADER_BYTES = 64 * 1024
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class Readable(Protocol):
    """The source of the archive: a file, a pipe, a channel."""

    def read(self, size: int, /) -> bytes: ...


def unpack(fileobj: Readable, root: str | os.PathLike[str]) -> list[str]:
    """Write the files of the archive below `root`, which exists; answer their relative paths in order.

    Files that exist already are replaced, as a whole; a link or a read-only file under the name as well.
    Files that arrived before an error stay.

    Raises:
        StagingError: A path that leads out of `root`, a file that can't be written, an archive that ends
            early or isn't one. The message names the path.
    """
    contents = _Contents(fileobj)
    target = _Target(os.fspath(root))
    written = []
    while (header := contents.next_header()) is not None:
        relative, size, mode = header
        target.write(relative, contents.chunks(size, relative), mode)
        written.append(relative)
    return written


class _Contents:
    """The inner stream: payloads of the blocks, decompressed, block by block."""

    def __init__(self, fileobj: Readable) -> None:
        self._fileobj = fileobj
        self._block = memoryview(b"")
        self._ended = False
        if self._exactly(len(MAGIC)) != MAGIC:
            raise StagingError("this is no archive of grid", hint="Both ends need the same version of grid")

    def next_header(self) -> tuple[str, int, int] | None:
        """(relative path, size, mode) of the next file; None at the end."""
        if not self._block and not self._fill():
            return None
        (length,) = FILE_HEADER.unpack(self._take(FILE_HEADER.size))
        if length > _HEADER_BYTES:
            raise _damaged(f"a header of {length} bytes")
        try:
            relative, size, mode = json.loads(self._take(length))
        except (ValueError, TypeError, RecursionError) as exc:
            raise _damaged("a header that can't be read") from exc
        if not (isinstance(relative, str) and isinstance(size, int) and isinstance(mode, int) and size >= 0):
            raise _damaged(f"an odd header for {relative!r}")
        return relative, size, mode & 0o777

    def chunks(self, size: int, relative: str) -> Iterator[memoryview]:
        while size:
            if not self._block and not self._fill():
                raise _damaged(f"it ended inside {relative!r}")
            chunk, self._block = self._block[:size], self._block[size:]
            size -= len(chunk)
            yield chunk

    def _take(self, size: int) -> bytes:
        return b"".join(self.chunks(size, "a header"))

    def _fill(self) -> bool:
        """Read the next block; False at the end of the archive."""
        if self._ended:
            return False
        kind, length = BLOCK_HEADER.unpack(self._exactly(BLOCK_HEADER.size))
        if kind == END:
            self._ended = True
            return False
        if kind not in (RAW, ZLIB) or not 0 < length <= 2 * BLOCK_BYTES:
            raise _damaged(f"a block of kind {kind} with {length} bytes")
        payload = self._exactly(length)
        if kind == ZLIB:
            inflate = zlib.decompressobj()
            try:
                payload = inflate.decompress(payload, BLOCK_BYTES)
            except zlib.error as exc:
                raise _damaged("a block that can't be decompressed") from exc
            if not inflate.eof or not payload:  # larger than any that we send, or cut
                raise _damaged("a block of the wrong size")
        self._block = memoryview(payload)
        return True

    def _exactly(self, size: int) -> bytes:
        data = self._fileobj.read(size)
        if len(data) == size:
            return data
        parts = [data]
        missing = size - len(data)
        while data and missing:
            data = self._fileobj.read(missing)
            parts.append(data)
            missing -= len(data)
        if missing:
            raise _damaged("it ended early")
        return b"".join(parts)


class _Target:
    """The folder that is written to. Looks at each folder below it once, not once for each file."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._folders: set[str] = set()
        self._compiled: dict[str, list[str]] = {}
        self._count = 0

    def write(self, relative: str, chunks: Iterator[memoryview], mode: int) -> None:
        parts = relative.split("/")
        if not _is_safe(parts):
            raise StagingError(f"{relative!r} leads out of the folder", hint="Nothing of it was written")
        folder_parts, name = parts[:-1], parts[-1]
        try:
            folder = self._folder(folder_parts, relative)
            self._count += 1
            temporary = os.path.join(folder, f".grid-{os.getpid()}-{self._count}.part")
            try:
                _write_file(temporary, chunks, mode)
                os.replace(temporary, os.path.join(folder, name))
            except BaseException:
                _remove(temporary)
                raise
            if name.endswith(".py"):
                self._forget_compiled(folder, name[:-3])
        except OSError as exc:
            reason = exc.strerror or str(exc)
            path = os.path.join(self._root, *parts)
            raise StagingError(f"can't write {path!r}: {reason}", hint=_advice(exc)) from exc

    def _folder(self, parts: list[str], relative: str) -> str:
        """Make the folders that lead to a file; refuse those that are links."""
        key = "/".join(parts)
        path = os.path.join(self._root, *parts)
        if key in self._folders:
            return path
        below = self._root
        for part in parts:
            below = os.path.join(below, part)
            try:
                status = os.lstat(below)
            except FileNotFoundError:
                try:
                    os.mkdir(below)
                except FileExistsError:  # another grid's staging made it just now
                    status = os.lstat(below)
                else:
                    continue
            if stat.S_ISLNK(status.st_mode):
                raise StagingError(
                    f"{relative!r} would be written through the link {below!r}",
                    hint="Remove the link on the host",
                )
        self._folders.add(key)
        return path

    def _forget_compiled(self, folder: str, stem: str) -> None:
        """Drop byte code of the version just replaced.

        Python compares whole seconds and size only: two versions of one size, staged within a second, would
        leave the older one in use.
        """
        cache = os.path.join(folder, "__pycache__")
        if cache not in self._compiled:
            try:
                self._compiled[cache] = os.listdir(cache)
            except OSError:  # there is none
                self._compiled[cache] = []
        for name in self._compiled[cache]:
            if name.startswith(stem + ".") and name.endswith(".pyc"):
                _remove(os.path.join(cache, name))


def _is_safe(parts: list[str]) -> bool:
    """No part is empty (the first one of an absolute path is), leads up, is cut short by a zero byte, or is no name."""
    try:
        os.fsencode("".join(parts))
    except UnicodeEncodeError:
        return False
    return all(part not in ("", ".", "..") and "\0" not in part and os.sep not in part for part in parts)


def _write_file(path: str, chunks: Iterator[memoryview], mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600)
    try:
        for chunk in chunks:
            while chunk:
                chunk = chunk[os.write(handle, chunk) :]
        os.fchmod(handle, mode)  # not by os.open, where the umask of the host would have a say
    finally:
        os.close(handle)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:  # never made, or gone already
        pass


def _damaged(how: str) -> StagingError:
    return StagingError(f"the archive is damaged: {how}", hint="Was the connection cut? Copy the files again")


def _advice(error: OSError) -> str:
    return {
        errno.ENOSPC: "The disk is full",
        errno.EDQUOT: "Your quota on the host is used up",
        errno.EACCES: "Check the permissions of the folder on the host",
        errno.EROFS: "Name another temp_path for this host",
        errno.ENAMETOOLONG: "Use shorter names",
    }.get(error.errno or 0, "")
