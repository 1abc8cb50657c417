"""The caller that has a server, from the grant until it is free again; and the callers that wait for a grant.

    granted ──> its waiter has it ──> a proxy has it ──> released ──(the last call has ended)──> free, the hold is over

A server has one hold at a time (`Server.hold`). It knows its holder by a weak reference: one that is dropped without a
word gives the server back. That is seen by the grid's watch, which looks at holds now and then.

Lives here: `Hold`, `Waiter`.
Elsewhere:  the rule when a released server is free (`Server.free_if_idle`), queues (`roster`), who looks (`service`).
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from types import CodeType
from typing import Any

_OURS = ("grid.", "contextlib")


class Waiter:
    """Waits for a grant instead of a reply; the link treats it alike."""

    def __init__(self) -> None:
        self.done_flag = False
        self.call = self.size = 0
        self.batons: list[Any] | None = None
        self.granted: tuple[Any, ...] | None = None
        self.told: Callable[[Waiter], None] | None = None
        """Called with itself when it was granted or refused; must not wait."""

    def deliver(self, flags: int, seconds: float, data: bytes) -> None:
        """Never: nothing is sent for it."""
        raise AssertionError("a waiter gets no replies")

    def fail(self, error: BaseException) -> None:
        """The link was closed: it waits no more."""
        self.done_flag = True


class Hold:
    """See the module. `released`: somebody said that no more calls will come."""

    __slots__ = ("_code", "_place", "holder", "released", "streams", "thread")

    def __init__(self, holder: Any = None) -> None:
        self.holder: weakref.ref[Any] | None = None if holder is None else weakref.ref(holder)
        self.released = False
        self.streams: set[str] = set()
        """Streams that have not ended: the server is kept for them."""
        self.thread = 0
        """Of the user who acquired it; 0 where a map, or a group call, did, and where it was passed on."""
        self._code: CodeType | None = None
        self._place = 0

    def is_dropped(self) -> bool:
        """Whether nobody has it any more, and nobody has said so."""
        return self.holder is not None and self.holder() is None

    def is_of(self, holder: object) -> bool:
        """Whether this one has it."""
        return self.holder is not None and self.holder() is holder

    def note_user(self) -> None:
        """The user acquires it, in this thread: remember where. Put into words only when somebody asks: `where`."""
        frame = sys._getframe(2)
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
            frame = frame.f_back
        self._code, self._place, self.thread = frame.f_code, frame.f_lasti, threading.get_ident()

    def pass_on(self) -> None:
        """Another thread has it from now on: this one may wait for a further server without waiting for itself."""
        self.thread = 0

    @property
    def where(self) -> str | None:
        """The line of the user's code that acquired it: file and number."""
        code = self._code
        if code is None:
            return None
        lines = (line for start, end, line in code.co_lines() if start <= self._place < end)
        return f"{code.co_filename}:{next(lines, None) or code.co_firstlineno}"
