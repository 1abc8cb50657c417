"""Messages under way: what `isend` and `irecv` return.

A message that was sent is on its way when `isend` returns. A receive counts from when it was begun, so that messages
are given out as MPI has it.

Lives here: `RankRequest`. Elsewhere: messages (`post`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from grid.ranks.mailbox import RankLetter, RankReceive
from grid.ranks.post import Post
from grid.ranks.words import Status

_LOOK_S = 0.05


class RankRequest:
    """One message. `read`: what to do with the letter, once."""

    def __init__(
        self,
        post: Post | None = None,
        wanted: RankReceive | None = None,
        read: Callable[[RankLetter, Status | None], Any] | None = None,
    ) -> None:
        self._post, self._wanted, self._read = post, wanted, read
        self._value: Any = None

    def wait(self, status: Status | None = None) -> Any:
        """Until it is done; the object that was received, or None."""
        if self._wanted is not None and self._post is not None:
            self._finish(self._post.wait(self._wanted, "waits for a message"), status)
        return self._value

    def test(self, status: Status | None = None) -> tuple[bool, Any]:
        """Whether it is done, and the object."""
        if self._wanted is not None and self._post is not None:
            while self._post.take(0.0):
                pass
            if self._wanted.letter is None:
                return False, None
            self._finish(self._wanted.letter, status)
        return True, self._value

    def _finish(self, letter: RankLetter, status: Status | None) -> None:
        assert self._read is not None
        self._wanted = None
        self._value = self._read(letter, status)

    def cancel(self) -> None:
        """Give a receive up."""
        if self._wanted is not None and self._post is not None:
            self._post.mailbox.drop(self._wanted)
            self._wanted = None

    def Wait(self, status: Status | None = None) -> bool:
        """Of buffers: until it is done."""
        self.wait(status)
        return True

    def Test(self, status: Status | None = None) -> bool:
        """Of buffers: whether it is done."""
        return self.test(status)[0]

    Cancel = cancel

    def Free(self) -> None:
        """Nothing to do."""

    @classmethod
    def waitall(cls, requests: Sequence[RankRequest], statuses: Sequence[Status] | None = None) -> list[Any]:
        """Until all are done; their objects."""
        given: Sequence[Status | None] = statuses or [None] * len(requests)
        return [request.wait(status) for request, status in zip(requests, given, strict=True)]

    @classmethod
    def Waitall(cls, requests: Sequence[RankRequest], statuses: Sequence[Status] | None = None) -> bool:
        """Of buffers: until all are done."""
        cls.waitall(requests, statuses)
        return True

    @classmethod
    def waitany(cls, requests: Sequence[RankRequest], status: Status | None = None) -> tuple[int, Any]:
        """Until one is done; which, and its object."""
        while True:
            for at, request in enumerate(requests):
                done, value = request.test(status)
                if done:
                    return at, value
            post = next(request._post for request in requests if request._post is not None)
            post.check()
            if not post.take(_LOOK_S):
                time.sleep(0)
