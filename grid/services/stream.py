"""The values of a method that yields, one by one, while it runs on its server.

    for frame in proxy.sample(100):              # a generator method: values come as they are made
        ...
    async for frame in proxy.sample(100): ...
    frames = proxy.sample(100).get()             # a list of them
    with proxy.stream("sample", ahead=2)(10**9) as frames: ...

Values are asked for by calls ("the next one"; several at once where they come fast), so numbers, acknowledgements,
large arrays, errors and losses are those of calls. `ahead` values at most are under way or wait here: the server makes
that many before the consumer wants them, and then it waits. Other calls through the same proxy run between two values.

The server is kept until the stream has ended or was closed, also where its proxy was released.

Lives here: `Stream`. Elsewhere: the generator (`kernel/yielding.py`), results (`result`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import Self, TypeVar

from grid.arguments import check, check_number
from grid.errors import CallTimeout, GridError
from grid.kernel.yielding import STEP_S

if TYPE_CHECKING:
    from grid.services.hold import Hold
    from grid.services.result import Result
    from grid.services.server import Holder, Server
    from grid.services.waste import Waste

logger = logging.getLogger(__name__)

T = TypeVar("T", default=Any)

AHEAD = 16
"""Values of a stream that are under way or wait for the consumer, unless somebody says otherwise."""


class Stream(Generic[T]):
    """See the module; made by calling a method that yields, or by `proxy.stream`.

    Iterating raises what the generator raised, ServerLost where its server died (after the values that had arrived),
    and nothing more once it has ended. `returned` is what the generator returned.
    """

    def __init__(
        self,
        proxy: Holder,
        waste: Waste,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        ahead: int = AHEAD,
    ) -> None:
        check_number("ahead", ahead, 1)
        self.method = method
        self.returned: Any = None
        self._proxy, self._server, self._hold = proxy, proxy._server, proxy._hold
        self._key = os.urandom(8).hex()
        self._lock = threading.RLock()  # several threads may share a stream; each value goes to one of them
        self._ahead, self._pack = ahead, 1
        self._due: deque[Result] = deque()  # answers that are under way
        self._asked: deque[int] = deque()  # for how many values each of them asks, at most
        self._values: deque[T] = deque()  # that are here
        self._over = False
        self._trouble: Exception | None = None  # no more values could be asked for
        self._waste = waste
        self._opened: Result | None = self._submit("@stream", (self._key, method, args, kwargs))
        self._hold.streams.add(self._key)
        self._ask()

    # -- values ----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return self.next()

    def next(self, timeout: float | None = None) -> T:
        """The next value.

        Args:
            timeout: Seconds; None waits for ever. Running out of time loses nothing: ask again.
        Raises:
            StopIteration: There are no more.
            CallTimeout: It did not come in time.
            ServerLost, or what the generator raised: The stream has ended with that.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                if self._values:
                    return self._next()
                first = self._first()
            try:  # without the lock: another thread may close the stream meanwhile
                found = first.get(None if deadline is None else max(0.0, deadline - time.monotonic()))
            except BaseException as exc:
                with self._lock:
                    if first._failure is not exc:
                        raise
                    if self._is_first(first):
                        self._finish()
                        raise
                continue  # closed, or another thread has raised it
            with self._lock:
                if first is self._opened:
                    self._opened = None
                elif self._is_first(first):
                    self._take_in(first, *found)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while True:
            with self._lock:
                if self._values:
                    return self._next()
                try:
                    first = self._first()
                except StopIteration:
                    raise StopAsyncIteration from None
            await asyncio.wait([asyncio.wrap_future(first)])  # one that is cancelled here is not cancelled there
            try:
                return self.next(0)
            except StopIteration:
                raise StopAsyncIteration from None
            except CallTimeout:
                if self._over:  # the generator's own
                    raise

    def _first(self) -> Result:
        """With the lock held: what is waited for next. Raises StopIteration at the end."""
        if self._opened is not None:
            return self._opened
        if self._due:
            return self._due[0]  # one is always under way where no value is here, and it has not ended
        if self._trouble is not None and not self._over:
            trouble = self._trouble
            self._finish()
            raise trouble
        raise StopIteration

    def _is_first(self, result: Result) -> bool:
        return result is self._opened or (self._opened is None and bool(self._due) and self._due[0] is result)

    def _take_in(self, answer: Result, values: list[T], ended: bool, returned: Any) -> None:
        """With the lock held: the first answer is here."""
        self._due.popleft()
        asked = self._asked.popleft()
        if asked == len(values) and answer.seconds < STEP_S:
            self._pack = min(2 * self._pack, max(1, self._ahead // 2))
        else:
            self._pack = 1
        self._values.extend(values)
        if ended:
            self.returned = returned
            self._finish()

    def _next(self) -> T:
        """With the lock held: the first value that is here."""
        value = self._values.popleft()
        try:
            self._ask()
        except Exception as exc:  # the server is lost: that is told behind the values that have arrived
            self._trouble = exc
        return value

    def _ask(self) -> None:
        """Ask for as many values as may be under way, several with one call where they come fast."""
        room = self._ahead - len(self._values) - sum(self._asked)
        while room >= self._pack and not self._over and self._trouble is None:
            self._due.append(self._submit("@next", (self._key, self._pack)))
            self._asked.append(self._pack)
            room -= self._pack

    def _submit(self, what: str, args: tuple[Any, ...]) -> Result:
        result = self._server.submit(what, args, {}, self._proxy)
        result.method = self.method  # by which it is shown
        return result

    def get(self, timeout: float | None = None) -> list[T]:
        """Wait for all values that are left, as a list.

        Args:
            timeout: Seconds for all of them; None waits for ever. A time that runs out closes the stream.
        Raises:
            As iterating does.
        """
        check("timeout", timeout, float | None)
        deadline = None if timeout is None else time.monotonic() + timeout
        values = []
        try:
            while True:
                values.append(self.next(None if deadline is None else max(0.0, deadline - time.monotonic())))
        except StopIteration:
            return values
        finally:
            self.close()

    # -- its end ---------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether no more values will come."""
        return self._over

    def close(self) -> None:
        """No more values are wanted: what is under way is withdrawn, and the generator's `finally` runs there.

        Returns at once, and does nothing the second time. The server is free when the step that runs has ended, and a
        thread that waits for a value hears of the end then.
        """
        with self._lock:
            self._values.clear()
            if not self._over:
                self._over, due = True, list(self._due)
                self._due.clear()
                _shut(self._server, self._hold, self._proxy, self._key, [self._opened, *due])

    def _finish(self) -> None:
        """With the lock held: it has ended there."""
        self._over, due = True, list(self._due)
        self._due.clear()
        for result in due:
            result.add_done_callback(_nobody_asks)  # the server answers each of them: there are no more
        self._hold.streams.discard(self._key)
        self._server.free_if_idle()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_over", True):  # any thread, any lock held: so no more than that
            due = [self._opened, *self._due]
            self._waste.put(partial(_shut, self._server, self._hold, self._proxy, self._key, due))

    def __reduce__(self) -> Any:
        raise TypeError("a stream belongs to its grid and can't be sent; send its values")

    def __repr__(self) -> str:
        state = "closed" if self._over else f"{len(self._values)} values are here"
        return f"<Stream of {self.method!r} on {self._server.name}, {state}>"


def _shut(server: Server, hold: Hold, proxy: Holder, key: str, due: list[Result | None]) -> bool:
    """Nobody wants more values: withdraw those under way, and tell the generator. True: it is done."""
    for result in reversed(due):
        if result is not None:
            result.add_done_callback(_nobody_asks)
            result.cancel_later()
    try:
        if server.final_state is None:
            server.submit("@shut", (key,), {}, proxy).add_done_callback(_nobody_asks)
    except GridError as exc:
        logger.debug("stream of %s: %s", server.name, exc)  # the server has ended, and the generator with it
    hold.streams.discard(key)
    server.free_if_idle()
    return True


def _nobody_asks(_: Any) -> None:
    """What its error says interests nobody any more."""
