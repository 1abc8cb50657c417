"""The result of a call that may still be running: a future, made cheap.

A `Result` is a `concurrent.futures.Future` to everybody who looks (`wait`, `as_completed`, `asyncio.wrap_future`, and
`await result` work), but has no lock until somebody needs one: making a stock Future takes longer than sending a call.
The reply is unpickled by the first who asks for the value, not by the thread that received it.

Lives here: states, waiting, decoding, call-backs, cancelling.
Elsewhere:  who receives (`wire/link.py`), what a call is (`proxy`).
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import reprlib
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import Self, TypeVar

from grid.arguments import check
from grid.errors import CallTimeout, ConnectError, GridError, GridStopped
from grid.hooks import Answered, Hook
from grid.services import html
from grid.services.cost import Cost, cost_of
from grid.services.unfetched import Unfetched
from grid.services.untold import Untold
from grid.wire import bulk, codec, raised
from grid.wire.frames import BULK, CANCELLED, COST, ERROR, HEAD, MEASURED, unpack
from grid.wire.signals import came_by_signal

if TYPE_CHECKING:
    from grid.hosts import Host
    from grid.services.load import Load
    from grid.services.waste import Waste
    from grid.wire.link import Link, Peer

R = TypeVar("R", default=Any)

logger = logging.getLogger(__name__)

_HEAD_SIZE = HEAD.size
_now = time.monotonic

_lazily = threading.Lock()
"""Guards the moment in which a result gets its condition, list of waiters or call-backs."""

_decoding = [threading.RLock() for _ in range(61)]
"""Each result is decoded under one of these: a lock of its own would cost more than the decoding."""


class Reply(Future[R]):
    """A reply that is due, over some link. Base of `Result`; used alone for the agent's answers."""

    # class attributes are the initial values: __init__ runs for every call
    done_flag = False
    call = 0
    size = 0
    batons: list[Any] | None = None
    seconds: float = 0.0
    _flags = 0
    _raw: bytes | None = None
    _failure: BaseException | None = None
    _value: Any = None
    _decoded = False
    _lock: threading.Condition | None = None
    _watchers: list[Any] | None = None
    _callbacks: list[Callable[[Future[Any]], Any]] | None = None
    _listeners: list[Callable[[Future[Any]], Any]] | None = None
    _announced = False
    _watched = False  # somebody wants a notice
    _blobs: bulk.Blobs | None = None
    claim: Any = None  # where the grid is kept: what has its session remember the call, see `keeping/claims`

    def __init__(self, link: Link) -> None:
        self._link = link

    # -- the link's side (see wire.link.Pending) -------------------------------------------------------------------

    def deliver(self, flags: int, seconds: float, data: bytes) -> None:
        """The reply arrived. Again, where an exception of the user's tore us out of the first time."""
        if not self.done_flag:
            self._flags, self.seconds, self._raw = flags, seconds, data
        self._done()

    def fail(self, error: BaseException) -> None:
        """There will be no reply."""
        if not self.done_flag:
            self._failure, self._decoded = error, True
            self._done()

    def _done(self) -> None:
        """Done, and all that wait for it get notice: by the grid's thread, where no exception interrupts it halfway."""
        self.done_flag = True
        if self._watched:
            self._link.errand(self._announce)

    def _announce(self) -> None:
        """In the grid's thread."""
        with _lazily:
            listeners, self._listeners = self._listeners or [], None
            announced, self._announced = self._announced, True
        for listener in listeners:
            self._call_back(listener)
        if self._lock is not None and not announced:
            with self._lock:
                for watcher in self._watchers or ():
                    if self._flags & CANCELLED:
                        watcher.add_cancelled(self)
                    elif self._flags & ERROR or self._failure is not None:
                        watcher.add_exception(self)
                    else:
                        watcher.add_result(self)
                self._lock.notify_all()
        if self._callbacks:
            self._link.callbacks.put(self._run_callbacks)

    def _run_callbacks(self) -> None:
        with _lazily:
            callbacks, self._callbacks = self._callbacks or [], None
        for callback in callbacks:
            self._call_back(callback)

    def _call_back(self, callback: Callable[[Future[Any]], Any]) -> None:
        try:
            callback(self)
        except Exception as exc:
            if came_by_signal(exc):
                raise
            logger.exception("a call-back of %r failed", self)

    # -- the caller's side -----------------------------------------------------------------------------------------

    def get(self, timeout: float | None = None) -> R:
        """Wait for the value and return it; again and from several threads, too.

        Args:
            timeout: Seconds; None waits for ever. Running out of time does not cancel the call.
        Raises:
            TimeoutError: Not ready in time; the message says what the server is doing.
            CancelledError: The call was cancelled before it began.
            ServerLost: The server died with the call, or went silent.
            Any exception of the remote method, with the remote traceback as its cause.
        """
        if not self.done_flag and not self._link.wait(self, timeout):
            raise CallTimeout(f"not ready after {timeout:g} s: {self._why(timeout)}", hint="The call goes on")
        if not self._decoded:
            self._decode()
        if self._failure is not None:
            if self.claim is not None:
                self.claim.fetched = True
            try:
                raise self._failure
            finally:
                self = None  # type: ignore[assignment]  # no cycle of traceback and result
        return self._value  # type: ignore[no-any-return]

    result = get

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait like `get`, and return what it would raise, or None."""
        if not self.done_flag and not self._link.wait(self, timeout):
            raise CallTimeout(f"not ready after {timeout:g} s: {self._why(timeout)}", hint="The call goes on")
        if not self._decoded:
            self._decode()
        if self.claim is not None:
            self.claim.fetched = True
        if isinstance(self._failure, CancelledError):
            raise self._failure
        return self._failure

    def _why(self, waited_s: float | None) -> str:
        return "no answer yet"

    def _decode(self) -> None:
        raw = self._raw
        if raw is not None and not self._flags and raw[2:4] == b"\0\0":  # a plain value, without buffers
            try:
                if len(raw) < codec.MANY:
                    value = pickle.loads(memoryview(raw)[_HEAD_SIZE:])
                else:
                    value = codec.loads(memoryview(raw)[_HEAD_SIZE:])
            except Exception as exc:
                if came_by_signal(exc):
                    raise
                # again below, where it is said
            else:
                self._value = self.__dict__.setdefault("_first", value)  # two threads get the same object
                self._decoded = True
                self._raw = None
                return
        with _decoding[id(self) // 64 % len(_decoding)]:  # another thread may be at it
            if not self._decoded:
                raw = self._raw
                if raw is None:  # another thread is just through with it, above
                    return
                value, failure = None, None
                try:
                    value, failure = self._take_apart(raw)
                except GridError as exc:
                    failure = exc
                except Exception as exc:
                    if came_by_signal(exc):
                        raise
                    failure = GridError(
                        f"the result can't be rebuilt here ({type(exc).__name__}: {exc})",
                        hint="Its class must be importable here, too",
                    )
                    failure.__cause__ = exc
                # together: an exception of the user's in between must not leave a result without its value
                self._value, self._failure, self._decoded = value, failure, True
                self._raw = None
                self._taken_apart()

    def _take_apart(self, raw: bytes) -> tuple[Any, BaseException | None]:
        if self._flags & CANCELLED:
            return None, CancelledError()
        frame = unpack(bytearray(raw) if raw[2] or raw[3] else raw)  # buffers must be writable
        pickle, buffers = frame.pickle, frame.buffers
        if self._flags & BULK:
            assert self._blobs is not None
            pickle, buffers = bulk.bring_together(self._blobs, pickle, self._flags, drop=False)
        value = codec.loads(pickle, buffers)
        if not self._flags & ERROR:
            return value, None
        data, text = value
        return None, raised.heard(data, text, self._where())

    def _where(self) -> str:
        """The server of a failed call, for the reader of its traceback."""
        return ""

    def _taken_apart(self) -> None:
        """The value has arrived: its blob on the host is not needed any more."""

    def done(self) -> bool:
        """Whether `get` would return at once."""
        return self.done_flag

    def cancelled(self) -> bool:
        """Whether the call was withdrawn before it began."""
        return self.done_flag and bool(self._flags & CANCELLED)

    def running(self) -> bool:
        """Whether the call is under way, as far as this side knows."""
        return not self.done_flag

    def cancel(self) -> bool:
        """Calls of a server can be cancelled, see `Result`; other replies can't."""
        return False

    def add_done_callback(self, fn: Callable[[Future[Any]], Any]) -> None:
        """Have `fn(self)` called when it is done: by a thread for call-backs, or here and now if it is already.

        It may do anything: wait for other results, publish, acquire, terminate.
        """
        with _lazily:
            # also where it is done and those before it have yet to run: they run together, in their order
            stands = not self.done_flag or self._callbacks is not None
            if stands:
                self._watched = True
                self._callbacks = [*(self._callbacks or ()), fn]
        if not stands:
            self._call_back(fn)
        elif self.done_flag:
            self._run_callbacks()

    def when_done(self, fn: Callable[[Future[Any]], Any]) -> None:
        """Like `add_done_callback`, for what never waits: the grid's thread calls it, and all of the grid waits."""
        with _lazily:
            stands = not self.done_flag or self._listeners is not None
            if stands:
                self._watched = True
                self._listeners = [*(self._listeners or ()), fn]
        if not stands:
            self._call_back(fn)
        elif self.done_flag:
            self._link.errand(self._announce)

    def __await__(self) -> Generator[Any, None, R]:
        return asyncio.wrap_future(self).__await__()

    def set_running_or_notify_cancel(self) -> bool:
        """Never: a grid does that itself."""
        raise TypeError("a grid sets its results itself")

    def set_result(self, result: Any) -> None:
        """Never: a grid does that itself."""
        raise TypeError("a grid sets its results itself")

    def set_exception(self, exception: BaseException | None) -> None:
        """Never: a grid does that itself."""
        raise TypeError("a grid sets its results itself")

    def __reduce__(self) -> Any:
        raise TypeError("a result belongs to its grid; send its value, or keep that on its host with `g.keep`")

    # What `concurrent.futures.wait` and `as_completed` reach into, and since 3.15 asyncio.

    def _get_snapshot(self) -> tuple[bool, bool, Any, BaseException | None]:
        if not self.done_flag or self._flags & CANCELLED:
            return self.done_flag, self.done_flag, None, None
        if not self._decoded:
            self._decode()
        return True, False, self._value, self._failure

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        if self._lock is None:
            with _lazily:
                if self._lock is None:
                    self._watched = True
                    self._lock = threading.Condition()
        return self._lock

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        if self._watchers is None:
            with _lazily:
                if self._watchers is None:
                    self._watchers = []
        return self._watchers

    @property
    def _state(self) -> str:  # type: ignore[override]
        if not self.done_flag:
            return "PENDING"
        return "CANCELLED_AND_NOTIFIED" if self._flags & CANCELLED else "FINISHED"

    @property
    def _exception(self) -> BaseException | None:  # type: ignore[override]  # `wait(return_when=FIRST_EXCEPTION)` looks at it
        if self.done_flag and not self._decoded:
            self._decode()
        return self._failure

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'done' if self.done_flag else 'pending'}>"


class Owner(Protocol):
    """The part of its service that a result uses."""

    waste: Waste

    def has_ended(self) -> bool:
        """Whether its grid was terminated."""


class Callee(Protocol):
    """The part of its server that a result uses."""

    name: str
    host: Host
    load: Load
    link: Link
    peer: Peer
    home: Any
    hooks: tuple[Hook, ...]
    hold: Any
    service: Any  # an Owner

    def free_if_idle(self) -> None:
        """Free it, if it is released and idle."""

    def fetch_early(self, result: Any) -> None:
        """Have a large result here before its host ends."""

    def withdraw(self, call: int) -> bool:
        """Take back a call that has not begun."""

    def withdraw_later(self, call: int, then: Callable[[bool], None]) -> None:
        """The same without waiting: `then(granted)` is called by a thread that must not wait."""

    def oldest(self) -> Any:
        """The oldest call without an answer."""

    def doing(self, about: Any = None) -> str:
        """In words, what it is doing."""


class _Nobody:
    """Stands for the proxy of a finished call, and of a call that the grid itself makes."""

    _strict = False
    _failed: Result | None = None


NOBODY: Any = _Nobody()
_ASKED_FROM_S = 1.0
"""A time limit from which on its message asks the host for the line of code, too."""
_AFTER = 64
"""Flag of a Result, here only: a call before it failed, see `Result._before`."""


class Result(Reply[R]):
    """The future of one call on one server. States and waiting: see `Reply`."""

    home: Any = None
    """The host that keeps the value, where one does."""
    _unfetched: Unfetched | None = None
    _untold: Untold | None = None
    name: str | None = None
    """What `named` said."""
    _before: Result | None = None  # a call of the same strict proxy that failed before this one ran
    answer_size = 0
    """Bytes of the answer as it came."""
    _answered = 0.0  # when, monotonic; 0: not yet
    _before_it = 0.0  # when the call before it on its server was answered
    _measured: bytes | None = None  # what the server added to its answer

    def __init__(self, server: Callee, proxy: Any, method: str) -> None:
        self._link = server.link
        self._blobs = server.peer.blobs
        self.server: Any = server
        self.proxy = proxy
        self.method = method
        self.call = 0
        self._made = _now()

    def deliver(self, flags: int, seconds: float, data: bytes) -> None:
        """The reply arrived."""
        server, done = self.server, self.done_flag
        if not (done or flags & CANCELLED):
            load = server.load
            self._before_it = load.at
            load.at = self._answered = _now()
            self.answer_size = len(data)
            load.time.appendleft(seconds)  # as `Load.add`, which costs more
            load.calls += 1
            load.total += seconds
            if flags and flags & COST:
                self._measured = data[-MEASURED.size :]
                load.measured(seconds, *MEASURED.unpack(self._measured))
            if server.hooks:
                self._tell(seconds, "error" if flags & ERROR else "ok")
        # Free the server before answering: a caller that asks again at once must find it.
        hold = server.hold
        if hold is not None and hold.released:
            server.free_if_idle()
        if not done:  # else it was cancelled, and that was told already
            if flags:
                flags &= ~COST
                self._note(flags, data)
            failed = self.proxy._failed
            if failed is not None:
                flags |= _AFTER
                self._before = failed
            self._flags, self.seconds, self._raw = flags, seconds, data
            self.done_flag = True
        if self._watched:
            self._done()
        if flags and flags & BULK:
            server.fetch_early(self)
        self.proxy = NOBODY  # so that one which is dropped gives its server back now

    def named(self, name: str) -> Self:
        """Give the call a name: where the grid is kept, `g.named(name)` finds it by that, in a later process, too.

        Raises ValueError where another call has it whose result nobody has fetched yet.
        """
        check("name", name, str)
        if self.claim is not None:
            self._link.flush()
            self.server.claims.name(self, name)
        self.name = name
        return self

    @classmethod
    def again(cls, server: Callee, link: Link, method: str, call: int) -> Self:
        """Of a call that an earlier client made."""
        result = cls.__new__(cls)
        result._link, result.server, result.proxy, result.method = link, server, NOBODY, method
        result.call, result._made = call, time.monotonic()
        return result

    def bring_here(self) -> None:
        """Have a large value here, also where nobody has asked for it yet."""
        if not self._decoded:
            self._decode()

    def _note(self, flags: int, data: bytes) -> None:
        """A large value, or an error."""
        server = self.server
        if server.service is None:
            return
        waste = server.service.waste
        if flags & BULK and self._unfetched is None:
            blob, sizes, _ = bulk.split(unpack(data).pickle)
            self.answer_size += sum(sizes)
            server.load.tally.received += sum(sizes)
            self._unfetched = Unfetched(server.home, blob, waste)
            waste.unfetched.add(self)
        if flags & ERROR and not flags & BULK and self._untold is None:
            method = {"@call": "__call__", "@set": "setting an attribute"}.get(self.method, self.method)
            if method[:1] != "@":
                self._untold = Untold(data, (method, server.name, server.host.label), waste)
                waste.untold.add(self._untold)
                if self.proxy._strict and self.proxy._failed is None:
                    self.proxy._failed = self

    @property
    def cost(self) -> Cost | None:
        """What the call cost: time, CPU, memory, bytes. None until it is answered, and for one that never will be."""
        return cost_of(self)

    def is_untold(self) -> bool:
        """Whether it failed and nobody has asked for its error."""
        return self._untold is not None and self._untold.armed

    def _take_apart(self, raw: bytes) -> tuple[Any, BaseException | None]:
        before = self._before
        if before is not None and before is not self and before.is_untold():
            return None, before.exception(0)
        try:
            return super()._take_apart(raw)
        except (FileNotFoundError, ConnectError) as exc:
            service = self.server.service
            if service is None or not service.has_ended():
                raise
            raise GridStopped(
                f"the large value of {self.method!r} stayed on host {self.server.host.label!r} and was lost when the "
                f"grid ended ({exc})",
                hint="Ask for it before the end of the grid",
            ) from exc

    def _run_callbacks(self) -> None:
        if self._untold is not None:
            self._untold.asked()
        super()._run_callbacks()

    def _taken_apart(self) -> None:
        if self._untold is not None:
            self._untold.asked()
        if self._unfetched is not None and self.claim is None:  # else a later client may yet need it
            self._unfetched.fetched()

    def fail(self, error: BaseException) -> None:
        """There will be no reply."""
        if not self.done_flag:
            self._tell(None, "lost")
        super().fail(error)

    def _tell(self, seconds: float | None, outcome: str) -> None:
        for hook in self.server.hooks:
            hook.answered(Answered(self.server.name, self.call, self.method, self._made, seconds, outcome))

    def cancel(self) -> bool:
        """Withdraw the call unless it has begun; True if it will not run. Asks the host, so it takes a round trip."""
        if self.done_flag:
            return self.cancelled()
        if not self.server.withdraw(self.call):
            return False
        self._is_withdrawn()
        self._done()
        return True

    def cancel_later(self, then: Callable[[bool], None] | None = None) -> None:
        """The same without waiting for the host, which may be cut off. `then(withdrawn)` is called once that is known.

        A thread that must not wait calls it, and before anybody who waits for the result hears of the withdrawal.
        It is not called for a call that has been answered already.
        """

        def told(granted: bool) -> None:
            granted = granted and not self.done_flag
            if granted:
                self._is_withdrawn()
            if then is not None:
                then(granted)
            if granted:
                self._done()

        if not self.done_flag:
            self.server.withdraw_later(self.call, told)

    def _is_withdrawn(self) -> None:
        with _lazily:
            if not self.done_flag:
                self._flags, self._failure, self._decoded = CANCELLED, CancelledError(), True

    def running(self) -> bool:
        """Whether it is the oldest call that its server has not answered."""
        return not self.done_flag and self.server.oldest() is self

    def _where(self) -> str:
        method = {"@call": "__call__"}.get(self.method, self.method)
        call = {"@map": "a call of a map", "@get": "reading an attribute"}.get(method, repr(method))
        where = f"That was {call} on server {self.server.name} at host {self.server.host.label!r}"
        hints = [hint for hook in self.server.hooks if (hint := hook.hint())]
        if hints:
            return f"{where}. {' '.join(hints)}"
        return f"{where}. To make it again here in a debugger: keep_failures=DIR of the grid, then `grid debug`."

    def _why(self, waited_s: float | None) -> str:
        """What the server does, and in which line: a caller who waits for less than a second has no time to ask."""
        at = self.server.where() if (waited_s or 0.0) >= _ASKED_FROM_S else ""
        where = f", at {at}" if at else ""
        doing = self.server.doing(self)
        return f"{self.method!r} on {self.server.name} at host {self.server.host.label!r}: {doing}{where}"

    def _repr_html_(self) -> str:
        shown: dict[str, object] = {"server": self.server.name, "host": self.server.host.label}
        if not self.done_flag:
            shown["state"] = self.server.doing(self)
        elif self.cancelled():
            shown["state"] = "cancelled"
        else:
            shown["state"] = f"done in {self.seconds:.3g} s"
            if self._decoded or not self._flags & BULK:  # a large value stays where it is until somebody asks for it
                failure = self.exception(0)
                shown["value" if failure is None else "error"] = (
                    reprlib.repr(self._value) if failure is None else f"{type(failure).__name__}: {failure}"
                )
        return html.facts(f"result of {self.method}", shown)

    def __repr__(self) -> str:
        state = "done" if self.done_flag else "running" if self.running() else "pending"
        return f"<Result of {self.method} on {self.server.name}, {state}>"
