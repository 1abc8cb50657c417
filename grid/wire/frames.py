"""One message of the wire, byte by byte.

A message is one ZeroMQ frame: a head of 44 bytes, the pickle, then the buffers that the pickle left out of band.
Another frame would cost more than another field (measured: about 1 us each at both ends).

    offset  size  field     meaning
    0       1     kind      one of `Kind`
    1       1     flags     `ERROR`, `BULK`, `WHOLE`, `CANCELLED`, `IMAGE`, `COST`
    2       2     buffers   how many out-of-band buffers follow the pickle
    4       4     peer      which process on which host, numbered by the client
    8       8     seq       number of this message in its direction on this link; 0: not numbered
    16      8     ack       the sender has received all messages of the other direction up to this one
    24      8     call      the call that a reply answers; for a CALL its own seq
    32      8     seconds   run time of the call that a reply answers (IEEE double); of a request: its client's epoch
    40      4     pickle    length of the pickle
    44      4 * buffers     length of each buffer, then the pickle, then the buffers (in that order)
    then    24    cost      with `COST` alone: what the call took of its host, see `MEASURED`

All numbers little-endian. Where many calls are under way, small ones travel together: a BATCH costs one send and one
wake-up for all of them. It takes no part in numbering and repeating: the messages in it do, as if they came alone.

With `BULK` the buffers are not here: the pickle is preceded by the blob's name, see `codec`.

Numbers and acknowledgements make a link survive the loss of its connection: each side keeps what the other has not
acknowledged, repeats it after a reconnect, and takes only the next number in turn (go-back-n: Tanenbaum, Computer
Networks, 3.4). So nothing is lost, and nothing runs twice.

Lives here: layout, packing, unpacking and its checks. No socket, no clock.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from grid.errors import GridError

HEAD = struct.Struct("<BBHIQQQdI")
MEASURED = struct.Struct("<ddd")
"""CPU seconds of a call, the most memory that its process has had in bytes, and joules; see `kernel/costs.py`."""
MAX_FRAME = 1 << 30
"""Longest frame that is unpacked at all, in bytes; larger content travels in bulk."""


class Kind(IntEnum):
    """What a message is. Requests go from client to host, the others back."""

    HELLO = 1  # request: (re)connected; `ack` says what the client has
    CALL = 2  # request: run a method
    ACK = 3  # request: nothing but `ack`
    BYE = 4  # request: end after the calls before this one
    BATCH = 5  # both directions: its buffers are small CALLs or REPLYs, in order, each a message of its own
    REPLY = 10  # the outcome of `call`
    EVENT = 11  # news from an agent
    WELCOME = 12  # answer to HELLO; `ack` says what the host has
    WAKE = 99  # never on the network: one thread of the client rouses another


CALL, REPLY = int(Kind.CALL), int(Kind.REPLY)
"""The same as plain numbers, where a small call would notice the difference."""

ERROR = 1
"""Flag of a REPLY: the pickle is an exception."""
BULK = 2
"""Flag: buffers lie in a blob."""
WHOLE = 16
"""Flag, with `BULK`: the pickle itself is long, and is the first thing in the blob."""
CANCELLED = 4
"""Flag of a REPLY: the call was withdrawn before it began."""
IMAGE = 8
"""Flag of a CALL: its first buffer is an image of `__main__`."""
COST = 32
"""Flag of a REPLY: what the call took stands at the end. Short calls lack it: measuring would cost more than these."""


SMALL = 4096
"""Longest message, in bytes, that goes into a BATCH."""
BATCH = 64
"""Most messages of a BATCH; more save nothing that can be measured."""


class FrameError(GridError):
    """Bytes that are not a message of ours; the message is dropped, the link goes on."""


class Frame(NamedTuple):
    """An unpacked message. `pickle` and `buffers` are views into the bytes that arrived."""

    kind: int
    flags: int
    peer: int
    seq: int
    ack: int
    call: int
    seconds: float
    pickle: memoryview
    buffers: list[memoryview]


def pack(
    kind: int,
    peer: int,
    seq: int,
    ack: int,
    call: int = 0,
    pickle: bytes = b"",
    buffers: Sequence[memoryview | bytes] = (),
    flags: int = 0,
    seconds: float = 0.0,
    cost: bytes = b"",
) -> bytes:
    """The bytes of one message; `buffers` are flat views of bytes; `cost` goes with the flag `COST`."""
    head = HEAD.pack(kind, flags, len(buffers), peer, seq, ack, call, seconds, len(pickle))
    if not buffers:
        return head + pickle + cost
    lengths = struct.pack(f"<{len(buffers)}I", *[len(buffer) for buffer in buffers])
    return b"".join([head, lengths, pickle, *buffers, cost])


def unpack(data: bytes | bytearray | memoryview) -> Frame:
    """Take a message apart.

    The buffers are writable when `data` is: pass a bytearray where arrays are made of them.

    Raises:
        FrameError: Too short, too long, or its lengths don't add up.
    """
    size = len(data)
    if size < HEAD.size or size > MAX_FRAME:
        raise FrameError(f"a frame of {size} bytes is no message", hint="Something else speaks to this port")
    kind, flags, count, peer, seq, ack, call, seconds, length = HEAD.unpack_from(data)
    view = memoryview(data)
    if flags & COST:
        size -= MEASURED.size
    if not count:
        if HEAD.size + length != size:
            raise FrameError(f"a frame of {size} bytes announces {HEAD.size + length}", hint="It was cut or padded")
        return Frame(kind, flags, peer, seq, ack, call, seconds, view[HEAD.size : size], [])
    at = HEAD.size + 4 * count
    if at > size:
        raise FrameError(f"a frame of {size} bytes announces {count} buffers", hint="It was cut")
    lengths = struct.unpack_from(f"<{count}I", data, HEAD.size)
    if at + length + sum(lengths) != size:
        raise FrameError(f"a frame of {size} bytes announces {at + length + sum(lengths)}", hint="It was cut or padded")
    pickle = view[at : at + length]
    at += length
    buffers = []
    for part in lengths:
        buffers.append(view[at : at + part])
        at += part
    return Frame(kind, flags, peer, seq, ack, call, seconds, pickle, buffers)


def split(batch: bytes) -> list[bytes]:
    """The messages of a BATCH; copies, so that one which is kept does not keep its neighbours.

    Raises:
        FrameError: Its lengths don't add up.
    """
    count, length = int.from_bytes(batch[2:4], "little"), int.from_bytes(batch[40:44], "little")
    at = HEAD.size + 4 * count
    if at > len(batch) or length:
        raise FrameError(f"a batch of {len(batch)} bytes announces {count} messages", hint="It was cut")
    parts = []
    for size in struct.unpack_from(f"<{count}I", batch, HEAD.size):
        parts.append(batch[at : at + size])
        at += size
    if at != len(batch):
        raise FrameError(f"a batch of {len(batch)} bytes announces {at}", hint="It was cut or padded")
    return parts
