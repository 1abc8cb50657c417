"""Calls that the user declares repeatable, made again where their server was lost, or where they raised what he names.

    g.publish(Model(), restarts=4, retry=Retry(lost=2, on=(ConnectionError,)))

    made ──> an attempt on a server ──answered, or the rule says no──> done
                 ^          └─lost, raised─> stands in line for a server ─no server is left─> done
                 └──────────────granted───────────┘

The first attempt is a call of the proxy that was used. The next one stays on that server where it lives and the proxy
is not released, because its holder may have no other; else it stands in line with everybody, and its server is free
again after it. Each attempt has the arguments as they were when the call was made.

What happens is told by call-backs, in their thread: any step may wait. A step that fails ends the call with that error.

Lives here: `Retry`, the rule; `Attempt`; `Retried`, a result with several attempts.
Elsewhere:  one attempt (`result`), queues (`service`, `roster`), lost items of maps (`mapping`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from grid.arguments import check_number
from grid.errors import GridStopped, ServerLost
from grid.services.cost import Cost
from grid.services.hold import Waiter
from grid.services.result import NOBODY, Result
from grid.services.untold import Untold
from grid.wire.frames import CANCELLED, ERROR

if TYPE_CHECKING:
    from grid.services.kernel_server import KernelServer

MOST = 1000
"""Times that a call may be made again for one kind of cause."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a call: the names of its server and host, how it ended, and after how many seconds."""

    server: str
    host: str
    seconds: float
    error: BaseException | None

    def __str__(self) -> str:
        how = "answered" if self.error is None else type(self.error).__name__
        return f"{self.server} at {self.host}: {how} after {self.seconds:.3g} s"


@dataclass(frozen=True)
class Retry:
    """Which calls of a service are made again, and how often.

    Only for methods that may run twice: a lost server may have done a part, or all, of what was asked.

    Args:
        lost: How often a call is made again whose server was lost.
        on: Exceptions of the method after which it is made again; other ones are raised at once.
        raised: How often it is made again after these.
    Raises:
        ValueError, TypeError: A number is negative or large, or `on` names what is no exception.
    """

    lost: int = 0
    on: type[Exception] | tuple[type[Exception], ...] = ()
    raised: int = 1

    def __post_init__(self) -> None:
        check_number("lost", self.lost, 0)
        check_number("raised", self.raised, 1)
        if max(self.lost, self.raised) > MOST:
            raise ValueError(f"a call can be made again {MOST} times, not {max(self.lost, self.raised)}")
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        object.__setattr__(self, "on", kinds)
        for kind in kinds:
            if not isinstance(kind, type) or not issubclass(kind, Exception):
                raise TypeError(f"`on` takes classes of exceptions, as in on=(ConnectionError,), not {kind!r:.100}")
            if issubclass(kind, ServerLost):
                raise ValueError("`on` is for exceptions of methods; for lost servers say lost=2")
        if not self.lost and not kinds:
            raise ValueError("Retry() repeats nothing: say lost=2 or on=(ConnectionError,), or leave retry= out")

    def again(self, attempts: Sequence[Attempt]) -> bool:
        """Whether the call is made again after these; the last one has just failed."""
        assert isinstance(self.on, tuple)
        error = attempts[-1].error
        lost = sum(isinstance(each.error, ServerLost) for each in attempts)
        if isinstance(error, ServerLost):
            return lost <= self.lost
        raised = sum(isinstance(each.error, self.on) for each in attempts)
        return isinstance(error, self.on) and raised <= self.raised


class Retried(Result[Any]):
    """The result of a call that may be made again. `server` is where the last attempt is."""

    def __init__(self, proxy: Any, retry: Retry, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        server: KernelServer = proxy._server
        super().__init__(server, NOBODY, method)
        self._retry, self._service, self._arguments = retry, proxy._server.service, (args, kwargs)
        self._first, self._hold = server, proxy._hold
        self._written = server.written_down(method, args, kwargs)
        self._attempts: list[Attempt] = []
        self._turn = threading.Lock()  # owner of the three that follow, and of becoming done
        self._current: Result | None = None
        self._waiter: Waiter | None = None
        self._withdrawn = False
        self._final: Result | None = None
        self._try_on(server)

    # -- attempts --------------------------------------------------------------------------------------------------

    def _try_on(self, server: KernelServer) -> None:
        """Begin an attempt; one on a server that is lost has failed already."""
        began = time.monotonic()
        try:
            attempt = server.submit_again(self._written, self.method, *self._arguments)
        except ServerLost as exc:
            if not self._failed(Attempt(server.name, server.host.label, time.monotonic() - began, exc)):
                self._finish(None, exc)
            return
        with self._turn:
            self._current, self.server, self.call = attempt, server, attempt.call
        attempt.add_done_callback(lambda _: self._step(self._look, attempt))

    def _step(self, step: Callable[..., None], *args: Any) -> None:
        """Take a step; whatever goes wrong in it, the call comes to an end."""
        try:
            step(*args)
        except BaseException as exc:
            self._finish(None, exc)
            raise

    def _look(self, attempt: Result) -> None:
        """An attempt has ended."""
        raw, error = attempt._raw, None
        if attempt._flags & ERROR or attempt._failure is not None:
            if attempt.cancelled():
                self._finish(attempt)
                return
            error = attempt.exception(0)
        where, seconds = attempt.server, time.monotonic() - attempt._made
        ended = Attempt(where.name, where.host.label, seconds, error)
        if error is None:
            self._attempts.append(ended)
            self._finish(attempt)
        elif not self._failed(ended):
            self._finish(attempt, raw=raw)

    def _failed(self, attempt: Attempt) -> bool:
        """An attempt has failed; whether another one follows."""
        self._attempts.append(attempt)
        if self._withdrawn or not self._retry.again(self._attempts):
            return False
        lives = self._first.final_state is None and not self._hold.released
        if lives and attempt.server == self._first.name:
            self._try_on(self._first)
        else:
            self._stand_in_line()
        return True

    def _stand_in_line(self) -> None:
        waiter = Waiter()
        with self._turn:
            if self.done_flag:
                return
            self._current, self._waiter = None, waiter
        self._service.ask(waiter, self._told)

    def _told(self, waiter: Waiter) -> None:
        """A server was granted, or none will be. Any thread, which must not wait."""
        self._link.callbacks.put(partial(self._step, self._granted, waiter))

    def _granted(self, waiter: Waiter) -> None:
        with self._turn:
            self._waiter = None
            over = self.done_flag or self._withdrawn  # who has withdrawn it finishes it, and it must not run
        if not waiter.granted:
            if over:
                return
            if waiter.granted is None:
                self._finish(None, self._nobody_left())
            else:
                self._stand_in_line()  # it was lost in the moment of its grant
            return
        proxy = self._service.hand_out(waiter.granted[0])
        try:
            if not over:
                self._try_on(waiter.granted[0])
        finally:
            self._service.release(proxy)  # free again after this call

    def _nobody_left(self) -> BaseException:
        """What the call ends with where no server is left for it."""
        error = self._attempts[-1].error
        if self._service.has_ended():
            ended = GridStopped("the grid was terminated while a call was to be made again", hint="Wait for results")
            ended.__cause__ = error
            return ended
        assert error is not None
        return error

    # -- the end ---------------------------------------------------------------------------------------------------

    def _finish(self, final: Result | None, error: BaseException | None = None, raw: bytes | None = None) -> None:
        """It is done: as its last attempt is, or with an error; once."""
        with self._turn:
            if self.done_flag:
                return
            self._final = final
            if final is None:
                self._failure, self._decoded = self._of_all(error), True
                self._flags = CANCELLED if isinstance(error, CancelledError) else 0
            else:
                self._flags, self.seconds, self.home = final._flags, final.seconds, final.home
                self.answer_size = final.answer_size
                if final._flags & ERROR and raw is not None:
                    waste, server = self._service.waste, final.server
                    self._untold = Untold(raw, (self.method, server.name, server.host.label), waste)
                    waste.untold.add(self._untold)
            self._current = self._waiter = None
            self.done_flag = True
        self._done()
        self._link.rouse(self)

    def _decode(self) -> None:
        final = self._final
        assert final is not None
        value: Any = None
        failure: BaseException | None
        if final.cancelled():
            failure = CancelledError()
        else:
            failure = self._of_all(final.exception(0))
            value = None if failure is not None else final.get(0)
        self._value, self._failure, self._decoded = value, failure, True
        if self._untold is not None:
            self._untold.asked()

    def _of_all(self, error: BaseException | None) -> BaseException | None:
        """The error of the last attempt, which says what was before it."""
        if error is None or len(self._attempts) < 2:
            return error
        before = "; ".join(str(each) for each in self._attempts[-4:-1])
        word = f"This was attempt {len(self._attempts)}; before it: {before}"
        if isinstance(error, ServerLost):  # one error for all calls that the server had
            return ServerLost(error.what, **{**error.facts, "hint": word})
        if hasattr(error, "add_note"):
            error.add_note(word)
        return error

    # -- the caller's side -----------------------------------------------------------------------------------------

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Those that have ended, the first one first."""
        return tuple(self._attempts)

    @property
    def cost(self) -> Cost | None:
        """Of the last attempt; None until it is answered."""
        return None if self._final is None else self._final.cost

    def cancel(self) -> bool:
        """See `Result.cancel`. One that waits for a server to be made again is never made again."""
        with self._turn:
            current, waiter = self._current, self._waiter
            if not self.done_flag and waiter is not None:
                self._withdrawn = True
        if waiter is not None:
            self._service.give_up(waiter)
            self._finish(None, CancelledError())
        elif current is not None and current.cancel():
            self._finish(current)
        return self.cancelled()

    def cancel_later(self, then: Callable[[bool], None] | None = None) -> None:
        """See `Result.cancel_later`."""

        def cancel() -> None:
            withdrawn = self.cancel()
            if then is not None:
                then(withdrawn)

        self._link.callbacks.put(cancel)

    def running(self) -> bool:
        """Whether an attempt runs."""
        current = self._current
        return current is not None and current.running()

    def _why(self, waited_s: float | None) -> str:
        current = self._current
        if current is not None:
            before = f" (attempt {len(self._attempts) + 1})" if self._attempts else ""
            return current._why(waited_s) + before
        if not self._attempts:
            return "it is about to be sent"
        return f"{self.method!r} waits for a server to be made again, after: {self._attempts[-1]}"
