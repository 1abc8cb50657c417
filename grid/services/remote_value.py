"""A method's result that stays on its server's host, to be handed to other servers.

    with g.keep(proxy, "get_state") as state:        # at once; nothing large comes here
        done = state.to(other, "set_state")          # other.set_state(state), from host to host where there is a way

Lives here: `RemoteValue`.
Elsewhere:  the way between hosts (`grids/between.py`), how a value is kept (`wire/kept.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from grid.errors import Released
from grid.wire.kept import KeptValue

if TYPE_CHECKING:
    from grid.services.result import Result
    from grid.services.server import Holder
    from grid.services.waste import Waste


class RemoteValue:
    """See the module. Its blob is removed by `drop`, at the end of `with`, and when nobody holds it any more."""

    def __init__(self, result: Result, waste: Waste) -> None:
        self._result, self._waste = result, waste
        self._under_way: list[Result] = []
        self._dropped = False

    def __del__(self) -> None:
        if not self._dropped and self._result.home is not None:
            self._waste.put(partial(_remove, self._result))  # any thread, any lock held: so no more than that

    @property
    def home(self) -> Any:
        """The host that keeps it, as its grid knows it."""
        return self._result.home

    def done(self) -> bool:
        """Whether the method has returned."""
        return self._result.done()

    def to(self, proxy: Holder, method: str, timeout: float | None = None) -> Result:
        """Call `method` of another server (or of the same) with the value; returns the Result of that call.

        Waits until the value exists, and until it is on the other host. You can hand it to any number of servers.

        Args:
            timeout: Seconds to wait for the value; None waits as long as it takes.
        Raises:
            TimeoutError: The method has not returned yet. Released: The value was dropped.
            ConnectError: The host that has the value was lost. Or the error of the method that should have made it.
        """
        return self.offer(proxy, method, timeout)()

    def offer(self, proxy: Holder, method: str, timeout: float | None = None) -> Callable[[], Result]:
        """Like `to`, in two steps: the value sets out for the other host now, the function waits for it and calls."""
        value = self._value(timeout)
        if not isinstance(value, KeptValue):
            return partial(proxy._call, method, (value,), {})
        give = proxy._server.receive(self, value)

        def call() -> Result:
            result = give(method, proxy)
            self._under_way.append(result)
            result.add_done_callback(self._taken)  # which holds us until then
            return result

        return call

    def get(self, timeout: float | None = None) -> Any:
        """Fetch the value here. Raises as `to`."""
        value = self._value(timeout)
        if not isinstance(value, KeptValue):
            return value
        assert self._result._blobs is not None
        return value.rebuild(self._result._blobs.read(value.blob, value.sizes, drop=False))

    def drop(self) -> None:
        """Free the memory on the host, after the calls that it was handed to. Once is enough; more do no harm."""
        if self._dropped:
            return
        self._dropped = True
        if self._result.home is not None and not self._remove():
            self._waste.put(self._remove)

    def _remove(self) -> bool:
        return all(result.done() for result in self._under_way) and _remove(self._result)

    def _taken(self, result: object) -> None:
        """A call has the value."""

    def _value(self, timeout: float | None) -> Any:
        if self._dropped:
            raise Released(
                f"the value of {self._result.method!r} was dropped",
                service_id=self._result.server.service_id,
                hint="Hand it over before the end of `with`, or keep it anew",
            )
        return self._result.get(timeout)

    def __enter__(self) -> RemoteValue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    def __reduce__(self) -> Any:
        raise TypeError("a remote value belongs to its grid and can't be sent; hand it over with `to`")

    def __repr__(self) -> str:
        state = "dropped" if self._dropped else "kept" if self._result.done() else "pending"
        return f"<RemoteValue of {self._result.method} on {self._result.server.name}, {state}>"


def _remove(result: Result) -> bool:
    """Remove what a call left on its host; False while the call runs."""
    if not result.done():
        return False
    if not result.cancelled() and result.exception(0) is None and isinstance(kept := result.get(0), KeptValue):
        result.home.forget(kept.blob)
    return True
