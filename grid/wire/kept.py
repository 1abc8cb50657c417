"""A value that stayed on the host where it was made: what the client gets of it instead.

Lives here: `KeptValue`, how a server makes one of a value and a value of one.
Elsewhere:  the blob that holds it (`bulk`), what the client does with it (`services/remote_value.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grid.wire import bulk, codec
from grid.wire.frames import WHOLE
from grid.wire.mentions import modules_in


@dataclass(frozen=True)
class KeptValue:
    """Where a value is and what another process must have to rebuild it.

    `blob`: its name on the host; `sizes`: of its parts, bytes; `flags`, `rest`: as `bulk.put_apart` gave them;
    the others as in `codec.Dumped`.
    """

    blob: str
    sizes: tuple[int, ...]
    flags: int
    rest: bytes
    by_value: tuple[str, ...]
    main_names: frozenset[str]
    modules: frozenset[str]

    def needs(self) -> codec.Dumped:
        """What a host must have before it can take the value, as `prepare` wants to be told."""
        return codec.Dumped(self.rest, (), self.by_value, self.main_names, self.modules)

    def rebuild(self, parts: Sequence[memoryview]) -> Any:
        """The value, of the blob's parts."""
        if self.flags & WHOLE:
            return codec.loads(parts[0], parts[1:])
        return codec.loads(self.rest, parts)


def keep(value: Any, store: bulk.BlobStore) -> Any:
    """Put a large value into a blob and return its `KeptValue`; a small one is returned as it is.

    Raises:
        SerialisationError, DiskError: It can't be put there.
    """
    dumped = codec.dumps(value, "the result")
    data, _, flags = bulk.put_apart(store, dumped.data, dumped.buffers, 0)
    if not flags:
        return value
    name, sizes, rest = bulk.split(memoryview(data))
    modules = dumped.modules | modules_in(dumped.data)
    return KeptValue(name, sizes, flags, bytes(rest), dumped.by_value, dumped.main_names, frozenset(modules))
