"""One server of a service, as its grid sees it, and its load statistics.

Lives here: `Server`, `Load`.
Elsewhere:  its state (`roster`), its process (`kernel/serve.py`), what is said to it (`proxy`).
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from grid.services import html
from grid.services.roster import State

if TYPE_CHECKING:
    from grid.failures.keeper import Keeper
    from grid.grids.abstract import AbstractGrid
    from grid.hosts import Host
    from grid.services.proxy import Proxy
    from grid.services.remote_value import RemoteValue
    from grid.services.result import Result
    from grid.trace import Trace
    from grid.wire.kept import Kept


class Load:
    """How busy a server is and was.

    `time`: durations of its last 50 calls in seconds, newest first, at the very start one of 0.0.
    `jobs`: how often it was acquired. `calls`: calls finished. `acquired`: whether somebody has it.
    """

    __slots__ = ("acquired", "calls", "jobs", "last_seen", "time", "total")

    def __init__(self) -> None:
        self.time: deque[float] = deque([0.0], maxlen=50)
        self.jobs = 0
        self.calls = 0
        self.total = 0.0
        self.acquired = False
        self.last_seen = time.monotonic()

    def add(self, seconds: float) -> None:
        """A call took `seconds`."""
        self.time.appendleft(seconds)
        self.calls += 1
        self.total += seconds

    @property
    def mean(self) -> float:
        """Mean of `time`, in seconds."""
        return sum(self.time) / len(self.time)


class Server:
    """A process that holds a copy of the service's instance. Making one registers it with its proxy, if it has one.

    A grid of another kind subclasses it: `submit` sends one call, `end` ends the process.
    """

    trace: Trace | None = None
    """Hears of every call, where somebody wants to know."""
    keeper: Keeper | None = None
    """Keeps calls that fail, where somebody wants them."""

    def __init__(self, service_id: str, name: str, host: Host, proxy: Proxy | None = None) -> None:
        self.service_id = service_id
        self.name = name
        self.host = host
        self.grid: AbstractGrid | None = None
        self.load = Load()
        self.reason = ""
        """Why it is lost, where it is."""
        self.final_state: State | None = None
        self.leaving: Proxy | None = None
        """The proxy that was released, until the last call is through."""
        self.claim_ref: weakref.ref[Any] | None = None  # to whoever it was granted, until a proxy has it
        # weak: a proxy that nobody holds gives the server back
        self._proxy_ref = None if proxy is None else weakref.ref(proxy)
        if proxy is not None:
            proxy._server = self

    def is_orphan(self) -> bool:
        """Whether its proxy, or who should have made one, is dropped, and no call is under way."""
        holder = self._proxy_ref or self.claim_ref
        return holder is not None and holder() is None and self.idle

    @property
    def proxy(self) -> Proxy | None:
        """Who has it acquired now."""
        return None if self._proxy_ref is None else self._proxy_ref()

    @property
    def state(self) -> State:
        """Starting, free, acquired, lost or terminated."""
        if self.final_state is not None:
            return self.final_state
        roster = self.grid._roster(self.service_id) if self.grid is not None else None
        return (roster.state(self.name) if roster is not None else None) or State.STARTING

    @property
    def idle(self) -> bool:
        """Whether no call is under way."""
        raise NotImplementedError

    @property
    def left_s(self) -> float | None:
        """Seconds until the batch job that it runs in ends; None if it has no end."""
        return None

    def lasts(self, seconds: float) -> bool:
        """Whether it will live for so long, as far as its allocation goes."""
        left = self.left_s
        return left is None or left >= seconds

    def submit(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], proxy: Proxy) -> Result:
        """Send one call; the calls of a server run in the order in which they are submitted."""
        raise NotImplementedError

    def keep(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], proxy: Proxy) -> Result:
        """Like `submit`, but a large value stays on the host; its `Kept` comes instead. Here: all values come."""
        return self.submit(method, args, kwargs, proxy)

    def receive(self, value: RemoteValue, kept: Kept) -> Callable[[str, Proxy], Result]:
        """Begin to bring a value that another server made; the function calls a method with it. Here: by the client."""
        return lambda method, proxy: proxy._call(method, (value.get(),), {})

    def end(self, *, force: bool = False) -> None:
        """Have its process end: after the calls that it has, or at once. Bounded."""
        raise NotImplementedError

    def doing(self) -> str:
        """In words, what it is doing: for messages about waiting."""
        return self.state.value

    def terminate(self) -> None:
        """End this server and take it off its service."""
        if self.grid is not None:
            self.grid._terminate_servers([self])

    def _repr_html_(self) -> str:
        return html.table(self.service_id, html.SERVERS, [html.server(self)])

    def __repr__(self) -> str:
        load = self.load
        return (
            f"<Server {self.name} {self.state.value}, mean {load.mean:.3g} s, {load.jobs} jobs, host {self.host.label}>"
        )
