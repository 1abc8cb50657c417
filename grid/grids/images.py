"""Images of `__main__` that are large, on one host: put there once, whichever of its servers need them.

A small image travels in the message that needs it. A large one, of a script with a table of 100 MB, is a blob that all
servers of the host map. It is removed when it is of no more use to new messages, and all that mention it were answered.

Lives here: `Images`. Elsewhere: what is in an image (`wire/mainimage.py`), when one is needed (`hostlink`).
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from grid.wire import bulk
from grid.wire.mainimage import MainImage, Packed, wrap


class AnsweredCall(Protocol):
    """A call that carried an image."""

    def done(self) -> bool: ...


class ToldImage(bytes):
    """What a message says of a large image; it is kept until the calls that carried it are answered."""

    large: _Large | None

    def carried_by(self, call: AnsweredCall) -> None:
        """Tell that a call has it with it."""
        if self.large is not None:
            self.large.carriers.append(call)


class _Large:
    def __init__(self, packed: Packed, blob: str, told: bytes) -> None:
        self.packed, self.blob = packed, blob
        self.told = ToldImage(told)
        self.told.large = self
        self.carriers: list[AnsweredCall] = []

    def serves(self, lacking: set[str], have: Mapping[str, Any]) -> bool:
        """Whether a process that has `have` gets what it lacks by this one."""
        packed, image = self.packed, MainImage()
        return (
            lacking <= packed.entries.keys()
            and not image.lacking(packed.entries, packed.entries)
            and not image.lacking(packed.refers, have)
        )

    def in_use(self) -> bool:
        self.carriers = [call for call in self.carriers if not call.done()]
        return bool(self.carriers)


class Images:
    """Of one host. Any thread."""

    def __init__(self) -> None:
        self._large: list[_Large] = []
        self._lock = threading.Lock()

    def known(self, lacking: set[str], have: Mapping[str, Any]) -> tuple[ToldImage, Packed] | None:
        """A large image that exists already and has what is lacking."""
        with self._lock:
            for large in self._large:
                if large.serves(lacking, have):
                    return large.told, large.packed
        return None

    def put(self, packed: Packed, store: bulk.Blobs, forget: Callable[[str], None]) -> bytes:
        """What a message has to carry: the image, or where it lies."""
        if packed.nbytes < bulk.LARGE:
            return wrap(packed.parts)
        parts = [memoryview(part) for part in packed.parts]
        with self._lock:
            stale, self._large = self._large, []
            for large in stale:
                if large.in_use() or not MainImage().lacking(large.packed.entries, large.packed.entries):
                    self._large.append(large)
                else:
                    forget(large.blob)
            blob = store.write(parts)
            large = _Large(packed, blob, pickle.dumps((blob, [len(part) for part in parts]), 5))
            self._large.append(large)
        return large.told
