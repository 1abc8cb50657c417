"""One server of a service, as its grid sees it.

Lives here: `Server`, the rule when a released server is free.
Elsewhere:  its state (`roster`), who has it (`hold`), its process (`kernel/serve.py`), what is said to it (`proxy`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from grid.services import html
from grid.services.hold import Hold
from grid.services.load import Load
from grid.services.result import Owner
from grid.services.roster import Roster, State

if TYPE_CHECKING:
    from grid.hooks import Hook
    from grid.hosts import Host
    from grid.services.result import Result
    from grid.wire.kept import KeptValue


class Holder(Protocol):
    """The part of the proxy that has it that a server uses."""

    _hold: Hold
    _server: Server

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result: ...

    def _gone(self, method: str) -> Exception: ...


class Remote(Protocol):
    """A value that another server made and that stayed on its host."""

    @property
    def home(self) -> Any:
        """The host that keeps it."""

    def get(self) -> Any:
        """Fetch it here."""


class OfService(Owner, Protocol):
    """The part of its service that a server uses."""

    roster: Roster
    instance: Any

    def free(self, server: Server, hold: Hold) -> None:
        """The hold has ended."""

    def end(self, server: Server) -> None:
        """End its process."""


class Server:
    """A process that holds a copy of the service's instance. Making one registers it with its proxy, if it has one.

    A grid of another kind subclasses it: `submit` sends one call, `end` ends the process.
    """

    hooks: tuple[Hook, ...] = ()
    """Hooks that get notice of every call."""

    def __init__(self, service_id: str, name: str, host: Host, proxy: Holder | None = None) -> None:
        self.service_id = service_id
        self.name = name
        self.host = host
        self.service: OfService | None = None
        self.load = Load()
        self.reason = ""
        """Why it is lost, where it is."""
        self.slot = ""
        """Its cores, devices and memory, in words; nothing where it has none of its own."""
        self.final_state: State | None = None
        self.hold: Hold | None = None
        """Its holder, until it is free again."""
        if proxy is not None:
            self.hold = proxy._hold = Hold(proxy)
            proxy._server = self

    @property
    def proxy(self) -> Any:
        """The `Proxy` that has it now, or None."""
        hold = self.hold
        holder = None if hold is None or hold.holder is None else hold.holder()
        return holder if getattr(holder, "_server", None) is self else None  # else who waited for it has it yet

    def free_if_idle(self) -> None:
        """Free it if nobody will call it any more, and no call or stream is under way: the one place that says when.

        All that end something on it ask: a release, a reply, a move, the watch. Once more does no harm.
        """
        hold = self.hold
        if hold is not None and hold.released and not hold.streams and self.idle and self.service is not None:
            self.service.free(self, hold)

    @property
    def state(self) -> State:
        """Starting, free, acquired, lost or terminated."""
        if self.final_state is not None:
            return self.final_state
        state = None if self.service is None else self.service.roster.state(self.name)
        return state or State.STARTING

    @property
    def idle(self) -> bool:
        """Whether no call is under way."""
        raise NotImplementedError

    @property
    def left_s(self) -> float | None:
        """Seconds until the batch job that it runs in ends; None if it has no end."""
        return None

    def lasts(self, seconds: float) -> bool:
        """Whether it will live for that time, as far as its allocation goes."""
        left = self.left_s
        return left is None or left >= seconds

    def submit(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], proxy: Holder) -> Result:
        """Send one call; the calls of a server run in the order in which they are submitted."""
        raise NotImplementedError

    def keep(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], proxy: Holder) -> Result:
        """Like `submit`, but a large value stays on the host; its `KeptValue` comes instead. Here: all values come."""
        return self.submit(method, args, kwargs, proxy)

    def receive(self, value: Remote, kept: KeptValue) -> Callable[[str, Holder], Result]:
        """Begin to bring a value that another server made; the function calls a method with it. Here: by the client."""
        return lambda method, proxy: proxy._call(method, (value.get(),), {})

    def end(self, *, force: bool = False) -> None:
        """Have its process end: after the calls that it has, or at once. Bounded."""
        raise NotImplementedError

    def doing(self) -> str:
        """In words, what it is doing: for messages about waiting."""
        return self.state.value

    def where(self) -> str:
        """The line of the user's code in which it is just now, for messages about time; empty if nobody can tell."""
        return ""

    def terminate(self) -> None:
        """End this server and take it off its service."""
        if self.service is not None:
            self.service.end(self)

    def _repr_html_(self) -> str:
        return html.table(self.service_id, html.SERVERS, [html.server(self)])

    def __repr__(self) -> str:
        load = self.load
        return (
            f"<Server {self.name} {self.state.value}, mean {load.mean:.3g} s, {load.jobs} jobs, host {self.host.label}>"
        )
