"""Hosts and their processes, without either: for the simulation.

Lives here: `Instance`, which users publish; `Process`, the real loop of a server over simulated sockets;
            `SimulatedHost`, what a grid asks of a host, with an agent that is told and tells in its own time.
Elsewhere:  the world in which they live (`simulation.py`), sockets (`cables.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grid.errors import ConnectError
from grid.grids.liveness import Liveness
from grid.grids.silence import HostEvent, HostState
from grid.hosts import Host
from grid.kernel import serve
from grid.kernel.costs import Meter
from grid.kernel.hostend import HostEnd
from grid.testing.simulated_presence import Lifeline
from grid.wire import codec
from grid.wire.link import Peer
from grid.wire.mainimage import Packed

if TYPE_CHECKING:
    from grid.testing.cables import CallCable, ReplyCable
    from grid.testing.simulation import World


def value_of(call: int) -> int:
    """What a call with this number returns."""
    return 3 * call + 1


class Instance:
    """Tells its world what runs; its state is how many calls there were, and the last."""

    def __init__(self) -> None:
        self.count = self.last = 0
        self._process: Process | None = None

    def __getstate__(self) -> dict[str, Any]:
        if self._process is not None and self._process.home.world.rng.random() < 0.2:
            raise ValueError("it does not want to move")
        return {"count": self.count, "last": self.last, "_process": None}

    def touch(self, call: int, ballast: bytes = b"") -> int:
        """Return the value of this call."""
        process = self._process
        assert process is not None
        world = process.home.world
        world.users.demand(call > self.last, f"{process.name} runs call {call} after {self.last}")
        world.users.demand(self.count == world.ran[process.name], f"{process.name} lost its state: {self.count} calls")
        self.last, self.count = call, self.count + 1
        world.call_runs(process.name, call)
        return value_of(call)

    def refuse(self, call: int) -> None:
        """Raise ValueError."""
        self.touch(call)
        raise ValueError(call)


class _Whims(dict[str, float]):
    """How long methods take, to a server that asks: anything."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def get(self, method: str, default: Any = 0.0) -> Any:
        return self._world.rng.choice((0.0, 0.0, 1.0))

    def __setitem__(self, method: str, seconds: float) -> None:
        """Real time is of no interest."""


class Process(serve.Server):
    """One server's process: the real loop, taken step by step."""

    def __init__(self, home: SimulatedHost, name: str, number: int, instance: Instance) -> None:
        self.home, self.name = home, name
        self.instance = instance
        instance._process = self
        self.carrier = home.world.network.host(home.world.limits)
        self._end = self.end = HostEnd(self.carrier, number)
        self.end._watcher = threading.current_thread()  # the world lets go in its place
        self.inlet, self.outlet = self.carrier.bind_sockets(Path("/simulated"), f"p{number}")
        self._current = self._begun = 0
        self._withdrawn: set[int] = set()
        self._claim = threading.Lock()
        self._took = _Whims(home.world)
        self._meter = Meter(Path("/simulated"))
        self._store = None  # type: ignore[assignment]  # messages are small
        self._batch = ExitStack()
        self.stopping = False  # its agent was told to end it, and will not wait for ever

    @property
    def replies(self) -> ReplyCable:
        """The way of its replies to the client."""
        cable: Any = self.carrier.push
        return cable  # type: ignore[no-any-return]

    def cables(self) -> list[Any]:
        """Those that it has: of replies, and of calls once the client has connected."""
        calls: CallCable | None = self.home.world.network.calls.get(self.inlet)
        return [self.replies] if calls is None else [calls, self.replies]

    @property
    def troubled(self) -> bool:
        """Whether a cable of it does not carry, or an end of one does not know yet how it stands."""
        replies = self.replies
        return any(cable.stalled or not cable.up for cable in self.cables()) or len(replies.outs) != 1

    def work(self) -> bool:
        """Take a message or run a call; false if there is nothing to do."""
        due = self.end.due
        if due:
            self._perform(next(iter(due.values())))
            if not due:
                self._batch.close()
            return True
        if self.end.said_bye:
            self.die(exit_status=0)
            return False
        message = self.carrier.receive_now()
        if message is None:
            return False
        if len(self.end.take(message)) > 1:
            self._batch.enter_context(self.end.holding())
        return True

    def die(self, *, signal: int | None = None, exit_status: int | None = None) -> None:
        """End; the agent will tell."""
        if self not in self.home.processes:
            return
        self.home.processes.remove(self)
        if signal is None:
            self._batch.close()
            self.end.close()
        else:
            self.end.session.sent = self.end.session.posted
            self.carrier.pull.close(0)
            self.carrier.push.close(0)
        certificate = {"signal": signal, "exit_status": exit_status, "peak_kb": 1, "last_output": ""}
        self.home.news.append(("server_ended", (self.name, certificate)))


class SimulatedHost:
    """Is asked by a grid as `Home` is. While it is offline questions fail, and orders and news wait."""

    def __init__(self, world: World, host: Host, slots: int) -> None:
        self.world, self.host, self.slots = world, host, slots
        self.processes: list[Process] = []
        self.news: list[tuple[str, tuple[Any, ...]]] = []  # for methods of `News`
        self.offline = False
        self.peer = None
        self.transport = "simulated"
        self.life = Liveness(world.limits, world.clock)
        self.life.hear(HostEvent.STARTED)
        self.ends_at = None
        self.needs: Any = self  # and has what a message needs
        self.blobs: Any = self  # it is its own store
        self._store: dict[str, list[bytes]] = {}
        self._orders: list[tuple[list[str], bool]] = []
        self.lifeline = Lifeline(world)

    local = False
    """It can be cut off."""

    @property
    def up(self) -> bool:
        return not self.gone

    @property
    def gone(self) -> bool:
        return self.life.state is HostState.LOST

    def outage(self) -> float | None:
        return self.life.outage()

    def has_served(self) -> None:
        """Nobody tells at the end who has not."""

    def store(self) -> SimulatedHost:
        """It keeps blobs itself."""
        return self

    def withdraw(self, server: str, call: int) -> bool:
        return bool(self.ask("cancel", server, call))

    def __repr__(self) -> str:
        return f"<SimulatedHost {self.host.label}{', offline' if self.offline else ''}{', gone' if self.gone else ''}>"

    def check(self) -> None:
        """Raise ConnectError where it does not answer."""
        if self.offline or self.gone:
            raise ConnectError("it does not answer", host=self.host.label, hint="It may come back")

    def unplug(self, offline: bool) -> None:
        """Cut it off, or connect it again; connections survive that, or don't."""
        self.offline = offline
        self.lifeline.stall(offline)
        for process in self.processes:
            for cable in process.cables():
                if self.world.rng.random() < 0.3:
                    cable.break_()
                cable.stalled = offline
        if not offline:
            orders, self._orders = self._orders, []
            for names, force in orders:
                self._stop(names, force)

    # -- what a grid asks ------------------------------------------------------------------------------------------

    def write(self, parts: Sequence[memoryview]) -> str:
        """Keep the parts of an instance; its name. ConnectError: it is offline."""
        self.check()
        self._store[name := str(len(self._store))] = [bytes(part) for part in parts]
        return name

    def pack_image(self, entries: Any) -> Packed:
        """Nothing here comes from `__main__`; the modules of the process that simulates may be marked as edited."""
        return Packed((), {}, {}, set(), [], set(), set())

    def check_code(self, by_value: Any) -> None:
        """It has the same Python."""

    def have_modules(self, names: set[str]) -> None:
        """It has what we have."""

    def prepare(self, dumped: Any, image: dict[str, Any]) -> bytes | None:
        """No message needs an image."""
        return None

    def attach(self, number: int, inlet: str, outlet: str) -> Peer:
        """Connect to one of its processes."""
        return self.world.link.connect(number, inlet, outlet, None, None)

    def detach(self, peer: Peer) -> None:
        """There is no tunnel."""

    def ask(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        """Answer a question of the grid at once. ConnectError: it is offline, or its answer is lost by chance."""
        self.check()
        if method == "start":
            for wish in args[0]:
                self._begin(wish, args[1])
            return None
        if method == "tail":
            self.world.happened["verify"] += 1
            return ""
        if method == "stacks":
            return [{"name": name, "text": "", "why": ""} for name in args[0]]  # nothing runs here
        if method == "profile":
            return [{"name": name, "why": "nothing runs here"} for name in args[0]]
        assert method == "cancel", method
        server, call = args
        process = next((process for process in self.processes if process.name == server), None)
        granted = process is not None and process.withdraw(call)
        if self.world.rng.random() < 0.1:
            raise ConnectError("its answer got lost", host=self.host.label, hint="The call may run or not")
        return granted

    def _begin(self, wish: dict[str, Any], published: dict[str, Any]) -> None:
        parts = self._store[published["blob"]]
        instance = codec.loads(memoryview(parts[0]), [memoryview(part) for part in parts[1:]])
        process = Process(self, wish["name"], wish["peer"], instance)
        self.processes.append(process)
        self.news.append(("server_up", (process.name, process.inlet, process.outlet, 0)))

    def ask_later(self, method: str, *args: Any, timeout: float | None = None) -> Callable[[], Any]:
        """The same, in its own time; what is ordered while it is offline is done when it is back."""
        if method == "stop" and self.offline:
            self._orders.append(args)
        elif method == "stop":
            self._stop(*args)
        return lambda: None

    def _stop(self, names: list[str], force: bool) -> None:
        for process in [process for process in self.processes if process.name in names]:
            process.stopping = True
            if force:
                process.die(signal=9)

    def end(self, server: str, *, force: bool) -> None:
        """Have a server ended, unless the host is lost."""
        if not self.gone:
            self.ask_later("stop", [server], force)

    def broken(self) -> bool:
        """Never: it has no connection that could break by itself."""
        return False

    def refuses(self) -> bool:
        return False

    def part(self) -> Callable[[], None] | None:
        """It is given up: its processes are buried once. None: it was given up before."""
        if not self.life.part():
            return None
        self.world.bury(self)
        return lambda: None
