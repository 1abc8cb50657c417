"""What is published: on each server one rank, which runs the program.

Lives here: `RankProcess`. Elsewhere: what a program calls (`comm`), scripts (`scripts`), the client's side (`launch`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from grid.errors import RankError
from grid.kernel.premises import here
from grid.ranks.comm import Comm
from grid.ranks.lane import RankLane
from grid.ranks.post import Post, RankSeat, python_here


class RankProcess:
    """See the module. `main(comm, *args, **kw)` is the program."""

    def __init__(self, main: Callable[..., Any], args: Sequence[Any] = (), kw: dict[str, Any] | None = None) -> None:
        self._main, self._args, self._kw = main, tuple(args), kw or {}
        self._lane: RankLane | None = None
        self._post: Post | None = None

    def open(self) -> tuple[dict[str, str], str, int]:
        """Listen: inlets, which Python runs here, and the process id."""
        premises = here()
        if premises is None:
            raise RankError("ranks need a grid on our own kernels", hint="Use Grid, SSHGrid or LocalGrid")
        self._lane = RankLane(premises, "rank")
        return self._lane.ends, python_here(), os.getpid()

    def reach(self, inlets: Sequence[str], seconds: float) -> list[bool]:
        """Which of these inlets on other hosts let us in."""
        assert self._lane is not None
        return self._lane.reach(inlets, seconds)

    def run(self, rank: int, seats: Sequence[tuple[str, str, str, str]]) -> tuple[Any, dict[int, int]]:
        """Run the program: its value, and how many letters it has sent to each rank."""
        assert self._lane is not None
        self._post = Post(self._lane, rank, [RankSeat(*seat) for seat in seats])
        comm = Comm(self._post, range(len(seats)))
        value = self._main(comm, *self._args, **self._kw)
        return value, dict(self._post.sent)

    def finish(self, sent: dict[int, int], seconds: float) -> list[tuple[int, int, int]]:
        """All have returned: (sender, tag, bytes) of messages that nobody received."""
        return [] if self._post is None else self._post.finish(sent, seconds)
