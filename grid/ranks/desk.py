"""A desk on each host: by it the client reaches ranks whose programs run, and takes letters for other hosts.

A server whose method runs hears nothing of its client. So the client tells ranks its news (who is lost, who has
returned) by a server beside them, which writes it to their inlets. A second one takes letters of ranks whose host has
no straight way to another; the client asks for them in a long call, and gives them to the desk over there.

Lives here: `RankDesk`, the published instance. Elsewhere: who asks it (`launch`), inlets (`lane`).
"""

from __future__ import annotations

import os
from typing import Any

from grid.errors import RankError
from grid.kernel.premises import here
from grid.ranks.lane import RankLane
from grid.ranks.mailbox import RankLetter

_MOST = 64
_MOST_BYTES = 64 << 20
Packed = tuple[bytes, int, int, int, list[Any]]
"""A letter in plain values: context, source, tag, kind, parts."""


class RankDesk:
    """See the module."""

    _lane: RankLane | None = None

    def open(self) -> dict[str, str]:
        """Its inlet."""
        return self._open().ends

    def _open(self) -> RankLane:
        if self._lane is None:
            premises = here()
            if premises is None:
                raise RankError("ranks need a grid on our own kernels", hint="Use Grid, SSHGrid or LocalGrid")
            self._lane = RankLane(premises, f"desk{os.getpid()}")
        return self._lane

    def hand_out(self, letters: list[tuple[str, int, Packed]]) -> None:
        """Write letters to inlets of this host: (inlet, receiver, letter)."""
        lane = self._open()
        for inlet, receiver, packed in letters:
            lane.send(inlet, RankLetter(*packed), receiver, lambda seconds: None)

    def collect(self, seconds: float) -> list[tuple[int, Packed]]:
        """Letters for other hosts, each with its receiver; waits so long for the first."""
        lane, nbytes = self._open(), 0
        taken: list[tuple[int, Packed]] = []
        while len(taken) < _MOST and nbytes < _MOST_BYTES:
            came = lane.receive(0.0 if taken else seconds)
            if came is None:
                break
            receiver, letter = came
            nbytes += letter.nbytes
            parts = [bytes(part) for part in letter.parts]
            taken.append((receiver, (letter.context, letter.source, letter.tag, letter.kind, parts)))
        return taken
