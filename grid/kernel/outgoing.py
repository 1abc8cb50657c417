"""Output of servers on its way to the client: as much as the client takes, and no more in memory than a bound.

While the client takes it in, output goes at once. While it does not (it is away, or slower than who prints), output
waits here; when too much waits, the oldest goes, and a line in its place says how much.

Lives here: what may go now, what waits, what is dropped. Pure.
Elsewhere:  reading pipes and sending (`agent`), what the client has confirmed (`HostEnd.unconfirmed`).
"""

from __future__ import annotations

from collections import deque

WINDOW = 16 << 20
"""Bytes under way that the client has not confirmed; it confirms at the latest with 64 messages of 64 kB."""
WAITING = 8 << 20
"""Bytes that wait here, at most; a piece counts for its text and `_PIECE`."""
_PIECE = 200


class Outgoing:
    """Of one agent; pieces are (server, text), each of whole lines."""

    def __init__(self, window: int = WINDOW, waiting: int = WAITING) -> None:
        self._window, self._most = window, waiting
        self._pieces: deque[tuple[str, str]] = deque()
        self._size = 0
        self._dropped: dict[str, int] = {}  # server -> characters

    def add(self, name: str, text: str) -> None:
        """A server has printed something."""
        self._pieces.append((name, text))
        self._size += len(text) + _PIECE
        while self._size > self._most and len(self._pieces) > 1:
            whose, lost = self._pieces.popleft()
            self._size -= len(lost) + _PIECE
            self._dropped[whose] = self._dropped.get(whose, 0) + len(lost) + 1

    def take(self, unconfirmed: int) -> list[tuple[str, str]]:
        """The lines to send now, given the unconfirmed bytes of the client; a note on dropped lines comes first."""
        if not self._pieces or unconfirmed >= self._window:
            return []
        told = [
            (name, f"[grid: {size} characters of output were dropped here: the client did not take them in]")
            for name, size in self._dropped.items()
        ]
        self._dropped.clear()
        going, room = [], self._window - unconfirmed
        while self._pieces and room > 0:
            piece = self._pieces.popleft()
            self._size -= len(piece[1]) + _PIECE
            room -= len(piece[1]) + _PIECE
            going.append(piece)
        return told + going

    def take_all(self) -> list[tuple[str, str]]:
        """Send all that waits, whatever is unconfirmed: another message must come after it."""
        return self.take(-self._most - self._window)
