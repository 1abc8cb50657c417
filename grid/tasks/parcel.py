"""How task systems travel: serialised as everything else in grid, compressed if that is wanted.

A parcel is what a master of another process, or a job, is given; `Master.start_system` takes one as it takes a system.
Like every pickle it must come from somebody who may run code here.
"""

from __future__ import annotations

import zlib

from grid.errors import TaskError
from grid.tasks.abstract import TaskSystem
from grid.wire import codec

_WHOLE, _SMALL = b"GTS1", b"GTSz"


def pack_system(system: TaskSystem, *, level: int = 0) -> bytes:
    """A system as bytes.

    Args:
        level: Of compression, 1 (quick) to 9 (small); 0 for none.
    Raises:
        TaskError: It is no task system.
        SerialisationError: It can't travel; the message names the attribute.
    """
    if not isinstance(system, TaskSystem):
        raise TaskError(
            f"a {type(system).__name__} was given for a task system", hint="Make a subclass of grid.TaskSystem"
        )
    data = codec.dumps_whole(system, f"the task system {type(system).__name__}")
    return _SMALL + zlib.compress(data, level) if level else _WHOLE + data


def unpack_system(parcel: bytes) -> TaskSystem:
    """The system, made anew without its constructor.

    Raises:
        TaskError: This is no parcel.
    """
    kind, data = bytes(parcel[:4]), parcel[4:]
    if kind not in (_WHOLE, _SMALL):
        raise TaskError("these bytes hold no task system", hint="Make them with grid.tasks.pack_system")
    try:
        system = codec.loads(zlib.decompress(data) if kind == _SMALL else data)
    except zlib.error as exc:
        raise TaskError(f"a parcel is damaged ({exc})", hint="Make it again with grid.tasks.pack_system") from exc
    if not isinstance(system, TaskSystem):
        raise TaskError(f"a parcel holds a {type(system).__name__}", hint="Make it with grid.tasks.pack_system")
    return system
