"""The log of a kept session, byte by byte.

    offset  size  field     meaning
    0       4     magic     `MAGIC`
    4       4     length    of the payload
    8       4     check     CRC-32 of the place of the record in the file, of the fields below, and of the payload
    12      4     peer      the process on a host that it is about; 0: none
    16      8     last      the highest call in the payload, for `OUT` and `IN`
    24      4     kind      one of `LogKind`
    28            payload

All numbers little-endian. A file begins with `HEADER`; behind the last record it holds zeros, or the torn rest of a
record whose writer was killed. The place counts, so that a record within a payload is none.

Lives here: layout, and reading what is whole in a file that may be damaged. Pure.
Elsewhere:  what records mean (`memory`), writing them (`journal`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple
from zlib import crc32

VERSION = 1
HEADER = b"grid session, version %d\n" % VERSION
MAGIC = 0x0AC5D1A7
HEAD = struct.Struct("<IIIIQI")
_CHECKED = struct.Struct("<QIQI")
_MAGIC = struct.pack("<I", MAGIC)


class LogKind(IntEnum):
    """Kinds of records."""

    FACT = 1  # JSON: [key, value]; the last one with a key counts, null takes it away
    OUT = 2  # a message of the wire to `peer`: calls
    IN = 3  # a message of the wire from `peer`: replies
    DONE = 4  # numbers of calls of `peer` whose results nobody needs any more, 8 bytes each
    NAME = 5  # JSON: [call, name] of a call of `peer`
    LINK = 6  # what was posted to `peer` and received of it by now, 8 bytes each: earlier calls count no more


class LogEntry(NamedTuple):
    """One record. `payload` is a view into the file's bytes."""

    kind: int
    peer: int
    last: int
    payload: memoryview


def check_of(at: int, kind: int, peer: int, last: int, payload: bytes | memoryview) -> int:
    """The checksum of a record at this place of its file."""
    return crc32(payload, crc32(_CHECKED.pack(at, peer, last, kind)))


def packed(at: int, kind: int, peer: int, last: int, payload: bytes | memoryview) -> bytes:
    """A record for this place of the file."""
    return HEAD.pack(MAGIC, len(payload), check_of(at, kind, peer, last, payload), peer, last, kind) + bytes(payload)


class Scan:
    """Reads the records of a file, in order; what is damaged is passed over. Iterate once.

    Args:
        data: The file; or what is in it from a record on, which begins at `base`.

    Attributes:
        end: Behind the last whole record: here a writer goes on.
        damaged: Bytes in front of the last whole record that belong to none.
    """

    def __init__(self, data: bytes | memoryview, base: int | None = None) -> None:
        self._data = memoryview(data)
        self._base = base or 0
        self.end = len(HEADER) if base is None else 0
        self.damaged = 0

    def __iter__(self) -> Iterator[LogEntry]:
        data, at, size = self._data, self.end, len(self._data)
        while at + HEAD.size <= size:
            magic, length, check, peer, last, kind = HEAD.unpack_from(data, at)
            after = at + HEAD.size + length
            if magic == MAGIC and after <= size:
                payload = data[at + HEAD.size : after]
                if check == check_of(self._base + at, kind, peer, last, payload):
                    self.damaged += at - self.end
                    self.end = at = after
                    yield LogEntry(kind, peer, last, payload)
                    continue
            at = _next(data, at + 1)
            if at < 0:
                return


def _next(data: memoryview, start: int) -> int:
    """Where a record may begin, from here on; -1: nowhere."""
    step = 1 << 20
    while start < len(data):
        found = bytes(data[start : start + step + 3]).find(_MAGIC)
        if found >= 0:
            return start + found
        start += step
    return -1
