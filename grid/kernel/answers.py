"""The messages of an agent to its client: answers to calls, and events.

    ("ready", name, inlet, outlet, pid)        a server listens
    ("failed", name, reason, last lines)       a server did not come up
    ("attached", name, peer, inlet, outlet, numbers)  a server listens to this client now, which is not its first
    ("ended", name, certificate)               a server has ended: exit status or signal, peak memory, last lines
    ("output", [(name, text), ...])            what servers printed
    ("farewell", reason)                       the agent ends
    ("taken", who)                             another client has taken the place of this one: the last word to it

Lives here: values and errors as they travel.
Elsewhere:  the link that carries them (`hostend`), who says what (`children`, `requests`, `agent`).
"""

from __future__ import annotations

import logging
import pickle
from typing import Any

from grid.errors import GridError
from grid.kernel.hostend import HostEnd
from grid.wire import codec, raised
from grid.wire.frames import ERROR

logger = logging.getLogger(__name__)


class Answers:
    """Of one agent; its thread alone calls this."""

    def __init__(self, end: HostEnd) -> None:
        self._end = end

    def tell(self, event: tuple[Any, ...]) -> None:
        """An event; see the module."""
        self._end.event(pickle.dumps(event, 5))

    def answer(self, call: int, value: Any) -> None:
        """The outcome of a call."""
        self._end.reply(call, codec.dumps_whole(value))

    def fail(self, call: int, exc: BaseException) -> None:
        """The error of a call, as `raised` has it travel."""
        if not isinstance(exc, GridError):
            logger.exception("a call of the client failed", exc_info=exc)
        self._end.reply(call, codec.dumps_whole((raised.told(exc, ""), "")), flags=ERROR)
