"""A whole grid in one thread, where everything that can go wrong does, by a seed: the same seed, the same story.

    python -m grid.testing.simulation --seed 7 --steps 5000000

Real are the client's link, its results, rosters, grid, moves and packs, and on hosts the end of the link and the loop
of a server. Simulated are the network, hosts, processes, time, and users who acquire, call, cancel, give up, release
and terminate as they please. After every step `check` looks at what must always be true; at the end all cables
are mended, users release what they have, and everything must come to its end in a bounded time. A failure is a
`Violation` whose text says how to replay it.

Lives here: the world: the network, hosts, time, its steps and its checks.
Elsewhere:  the grid (`simulated_grid.py`), sockets and cables (`cables.py`), hosts and what runs there
            (`simulated_hosts.py`), what users do (`simulated_users.py`).
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

from grid.errors import Backlog, ServerLost
from grid.grids.silence import HostEvent
from grid.kernel.presence import NAP_S
from grid.limits import Limits
from grid.services.roster import State
from grid.services.service import Service
from grid.testing.cables import Clock, Network
from grid.testing.simulated_grid import SimulatedGrid
from grid.testing.simulated_hosts import Instance, SimulatedHost, value_of
from grid.testing.simulated_users import Interrupted, UserCall, Users, Violation
from grid.wire.link import Link

EPISODE = 2000
"""Steps of one world; then it comes to its end and another begins."""


class World:
    """See the module."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.clock = Clock()
        self.spoke_at = self.clock.now  # when the client last looked whether it has to say that it lives
        self.network = Network(rng, self.clock, noise=rng.choice((0.0, 0.0, 0.002, 0.02)))
        self.network.while_waiting = self._while_waiting
        self.limits = Limits(in_flight=rng.choice((60, 400)), send_s=5.0)
        self.link = Link(self.limits, carrier=self.network.client(self.limits), clock=self.clock)
        self.threads: list[tuple[Any, Any]] = []
        self.link.callbacks = self  # type: ignore[assignment]
        names = [f"h{number}" for number in range(rng.randint(1, 4))]
        self.grid: Any = SimulatedGrid(self, names, self.limits)
        self.happened: Counter[str] = Counter()
        self.users = Users(rng, self.grid, self.happened)
        self.engine: Any = self.grid._engine
        self.hosts: list[SimulatedHost] = []
        for host in self.grid.hosts:
            self._add_host(host)
        self.engine.listen(self.link)
        self.ran: Counter[str] = Counter()  # server -> calls that it ran
        self.published = 0
        self.steps = 0
        self.limit = 1 << 62
        self._names = [name for name, _ in _DEEDS]
        self._weights = [weight for _, weight in _DEEDS]
        self._deeds = {name: getattr(self, f"_{name}", None) or getattr(self.users, name) for name in self._names}
        self._publish()

    def _add_host(self, host: Any) -> None:
        home = SimulatedHost(self, host, self.rng.randint(1, 3))
        self.hosts.append(home)
        self.engine.fleet.homes.append(home)

    # -- one step --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Something happens; then everything that must be true is looked at."""
        self.steps += 1
        deed = self.rng.choices(self._names, self._weights)[0]
        self.happened[deed] += 1
        self._deeds[deed]()
        self.check()

    def while_blocked(self, waiter: Any, timeout: float | None) -> bool:
        """A user stands still; the others go on."""
        self.users.blocked.append(waiter)
        interruptible, self.users.interruptible = self.users.interruptible, False
        try:
            for _ in range(self.rng.randint(1, 30)):
                if waiter.done_flag:
                    break
                if len(self.users.blocked) < 3 and self.steps < self.limit:
                    self.step()
                else:
                    self._pump()
        finally:
            self.users.blocked.remove(waiter)
        if interruptible and self.rng.random() < 0.2:
            raise Interrupted
        if not waiter.done_flag:
            self.clock.now += round(timeout or 0.0)  # what is left of it, by the real clock
        return bool(waiter.done_flag)

    def _while_waiting(self, seconds: float) -> None:
        """A caller waits for a message, and leads: hosts and cables go on, and time."""
        if self.users.interruptible and self.rng.random() < 0.1:
            self.users.interruptible = False
            raise Interrupted
        for _ in range(3):
            self._carry()
            self._work()
        if not self.network.inbox:
            self.clock.now += max(0.001, seconds)

    # -- the network -----------------------------------------------------------------------------------------------

    def _some_process(self) -> Any:
        host = self.rng.choice(self.hosts)
        return self.rng.choice(host.processes) if host.processes else None

    def _carry(self) -> None:
        process = self._some_process()
        if process is not None:
            self.rng.choice(process.cables()).carry(self.rng.choice((1, 2, 10, 200)))

    def _cable(self) -> None:
        """Cables stall and break, are mended, and their ends notice."""
        process = self._some_process()
        if process is None:
            return
        if process.troubled and self.rng.random() < 0.9:
            deed = self.rng.randrange(4)
            for cable in process.cables():
                cable.stalled = cable.stalled and (deed > 0 or process.home.offline)
                if deed == 1 and not process.home.offline:
                    cable.mend()
            if deed == 2:
                process.replies.notice_here()
            elif deed == 3:
                process.replies.notice_there()
        else:
            cable = self.rng.choice(process.cables())
            if self.rng.random() < 0.3:
                cable.stalled = True
            else:
                cable.break_()

    # -- hosts -----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        process = self._some_process()
        if process is not None:
            for _ in range(self.rng.choice((1, 1, 2, 8, 70))):
                if not process.work():
                    break

    def _let_go(self) -> None:
        """The thread of a server that looks after what is held."""
        process = self._some_process()
        if process is not None:
            process.end.let_go()

    def _tell(self) -> None:
        """An agent's news arrive."""
        home = self.rng.choice(self.hosts)
        if home.news and not home.offline:
            self._hear(home)
        for process in [process for process in home.processes if process.stopping]:
            if self.rng.random() < 0.1:
                process.die(signal=15)

    def _hear(self, home: SimulatedHost) -> None:
        method, args = home.news.pop(0)
        self.link.errand(lambda: getattr(self.engine.news, method)(home, *args))

    def _kill(self) -> None:
        process = self._some_process()
        if process is not None:
            process.die(signal=9)

    def _unplug(self) -> None:
        """A host can't be reached, or can again; or has been away for too long."""
        home = self.rng.choice(self.hosts)
        if not home.offline:
            home.unplug(True)
            self.link.errand(lambda: self.engine.outages.hear(home, HostEvent.FELL_SILENT))
        elif self.rng.random() < 0.7:
            home.unplug(False)
            self.link.errand(lambda: self.engine.outages.hear(home, HostEvent.HEARD_AGAIN))
        else:
            self.clock.now += self.limits.orphan_s
            self._watch()

    def _watch(self) -> None:
        """The clock of the grid's watch strikes."""
        self.engine.outages.look()

    def _lifeline(self) -> None:
        """Connections of the client and of strangers come and go at an agent, which looks at its clock."""
        home = self.rng.choice(self.hosts)
        self.rng.choice((home.lifeline.stranger, home.lifeline.trouble, home.lifeline.mend))()
        if home.offline and self.rng.random() < 0.02:  # for long; its agent listens all the time
            for _ in range(int(2 * self.limits.orphan_s / NAP_S)):
                self.clock.now += NAP_S - 1.0
                home.lifeline.trouble()
                if home.lifeline.look():
                    break
        for each in list(self.hosts):
            if each.lifeline.look():
                self.happened["orphaned"] += 1
                self._lose(each)

    def _lose(self, home: SimulatedHost) -> None:
        self.engine.losses.lose_home(home, "it did not answer")

    def bury(self, home: SimulatedHost) -> None:
        """The grid has given it up."""
        self.happened["lost"] += 1
        home.lifeline.end()
        for process in list(home.processes):
            process.die(signal=9)
        self.hosts.remove(home)
        home.news.clear()
        if len(self.hosts) < 2:
            self._add_host(home.host)

    def _crash(self) -> None:
        self._lose(self.rng.choice(self.hosts))

    # -- the client's threads --------------------------------------------------------------------------------------

    def _pump(self) -> None:
        deed = self.rng.randrange(4)
        if deed == 0:
            self.link._flush_all()
        elif deed == 1:
            self.link.read_monitor()
        elif deed == 2 and self.link._incoming.acquire(False):
            try:
                for _ in range(self.rng.choice((1, 5, 1000))):
                    if not self.network.inbox:
                        break
                    self.link._take_in(self.network.inbox.popleft())
            finally:
                self.link._incoming.release()
        self.link._run_errands()

    def put(self, what: Any) -> None:
        """A call-back is due: the thread of call-backs will run it."""
        self.threads.append((what, ()))

    def _thread(self) -> None:
        if self.threads:
            body, args = self.threads.pop(self.rng.randrange(len(self.threads)))
            body(*args)

    def _housekeep(self) -> None:
        """The client says that it lives, where it has not done so for a heartbeat."""
        self.spoke_at = self.clock.now
        self.link.housekeep()

    def _tick(self) -> None:
        self.clock.now += self.rng.choice((0.001, 0.1, 1.0, 5.0))
        if self.rng.random() < 0.5:
            self._housekeep()

    def _leap(self) -> None:
        """The clock leaps, as after a suspended laptop wakes up."""
        self.clock.now += self.rng.uniform(10, 10_000)
        self._housekeep()

    def _publish(self) -> None:
        for service in list(self.grid._services.values()):
            if not service.roster.alive:
                self.grid.terminate(service.service_id)
        if len(self.grid._services) < 3:
            self.published += 1
            self.grid.publish(Instance(), restarts=self.rng.choice((0, 2, 50)))

    def _terminate(self) -> None:
        if len(self.grid._services) > 1:
            self.grid.terminate(self.rng.choice(list(self.grid._services)))

    def _move(self) -> None:
        service = self.users.some_service()
        servers = list(service.servers.values()) if service is not None else []
        if servers:
            self.engine.mover.move_out(self.rng.choice(servers), 5.0)

    # -- what must be true -----------------------------------------------------------------------------------------

    def call_runs(self, server: str, number: int) -> None:
        """A server runs a call, or an item of a pack."""
        call, demand = self.users.calls[number], self.users.demand
        call.runs += 1
        self.ran[server] += 1
        demand(call.server == server, f"call {number} for {call.server} runs on {server}")
        demand(call.runs <= max(1, len(call.items)), f"call {number} runs again on {server}")
        demand(not call.cancelled, f"call {number} runs on {server} after it was cancelled")

    def check(self) -> None:
        """After every step."""
        if self.users.granted:
            self._hand_out()
        for number in self.users.ended:
            self._look_at(self.users.open.pop(number, None))
        self.users.ended.clear()
        if not self.steps % 64:
            for number in [number for number, call in self.users.open.items() if call.result.done_flag]:
                self._look_at(self.users.open.pop(number))
        if self.users.complaints:
            raise Violation(f"seen on a host, or logged as an error: {self.users.complaints}")
        for service in self.grid._services.values():
            self._check_service(service)

    def _hand_out(self) -> None:
        granted, self.users.granted[:] = list(self.users.granted), []
        for waiter in granted:
            service = next((service for service, other in self.users.waiting if other is waiter), None)
            if service is None:  # it gave up as it was granted
                continue
            self.users.waiting.remove((service, waiter))
            if waiter.granted is None:
                self.users.demand(
                    not service.roster.alive, f"a waiter for {service.service_id} is refused without need"
                )
            for server in waiter.granted or ():
                self.users.take(service.hand_out(server))

    def _check_service(self, service: Service) -> None:
        roster = service.roster
        free, away = roster._free, roster._away
        collected = {name for names in roster._collected.values() for name in names} if roster._collected else ()
        given = {server.name for waiter in self.users.blocked for server in getattr(waiter, "granted", None) or ()}
        if free and roster._waiters:
            ticket, everyone = next(iter(roster._waiters.items()))
            self.users.demand(ticket in roster._fits and not everyone, f"{list(free)} are free while somebody waits")
        if not free.keys() <= roster._states.keys():
            raise Violation(f"these are in the queue: {list(free)}, and these live: {list(roster._states)}")
        for name, state in roster._states.items():
            if (name in free) != (state is State.FREE and name not in away):
                raise Violation(f"{name} is {state.value}, and these are in the queue: {list(free)}")
            server = service.servers[name]
            proxy = server.proxy
            if state is State.BUSY:
                leaving = server.hold is not None and server.hold.released
                owners = (proxy is not None or leaving) + (name in collected) + (name in given and proxy is None)
                if owners != 1:
                    raise Violation(f"{name} is acquired by {owners}")
                moves = server.peer.refuses is not None  # type: ignore[attr-defined]
                if leaving and server.idle and not moves:
                    raise Violation(f"{name} is released and idle, and still not free")
            elif proxy is not None:
                raise Violation(f"{name} is {state.value} and somebody's")

    def _look_at(self, call: UserCall | None) -> None:
        """A call is done: with its own value, or a reason."""
        if call is None:
            return
        number, lost, demand = call.number, False, self.users.demand
        try:
            value = call.result.get(0)
        except ServerLost:
            lost = True
            server = call.result.server
            demand(server.final_state is not None, f"call {number} lost {server.name}, which is {server.state}")
        except CancelledError:
            demand(call.tried_to_cancel and call.runs == 0, f"call {number} was cancelled, and ran {call.runs}")
        except ValueError as exc:
            demand(call.fails and str(exc) == str(number), f"call {number} raised {exc!r}")
        except Backlog:  # kept while its server moved, and then there was no room
            demand(call.runs == 0, f"call {number} ran {call.runs} times and ended with Backlog")
        except Exception as exc:
            raise Violation(f"call {number} ended with {exc!r}") from exc
        else:
            wanted: Any = value_of(number) if not call.items else ([value_of(item) for item in call.items], {})
            demand(not call.fails and value == wanted, f"call {number} has value {value!r}, not {wanted!r}")
            demand(call.runs == max(1, len(call.items)), f"call {number} has a value and ran {call.runs} times")
        demand(lost or not call.cancelled or call.result.cancelled(), f"call {number} is cancelled and is not")

    # -- the end ---------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Mend everything, release everything: then every call, waiter and process must come to its end."""
        self.network.noise = 0.0
        for service, waiter in list(self.users.waiting):
            if waiter in service.roster._fits and not waiter.done_flag:  # no server may ever suit it
                self.users.waiting.remove((service, waiter))
                service.give_up(waiter)
        if len(self.hosts) < 2:  # servers that move need another host
            self._add_host(self.hosts[0].host)
        for _ in range(600):
            for home in self.hosts:
                if home.offline:
                    home.unplug(False)
                    self.link.errand(lambda home=home: self.engine.outages.hear(home, HostEvent.HEARD_AGAIN))  # type: ignore[misc]
                for process in list(home.processes):
                    for cable in process.cables():
                        cable.stalled = False
                        cable.carry(1000)
                        cable.mend()
                    process.replies.notice_here()
                    process.replies.notice_there()
                    while process.work():
                        pass
                    process.end.let_go()
                    if process.stopping:
                        process.die(signal=15)
                while home.news:
                    self._hear(home)
            while self.threads:
                self._thread()
            while self.network.inbox:
                self.link._take_in(self.network.inbox.popleft())
            self.link.read_monitor()
            self.link._flush_all()
            self.link._run_errands()
            self.engine.mover.house_the_homeless()
            while self.users.held:
                self.users.release()
            self.grid.release_all()
            for service in self.grid._services.all():  # as the grid's watch does: torn off, or dropped without a word
                service.look_after()
            self.check()
            self.clock.now += 1.0
            self._housekeep()
            if self._quiet():
                break
        else:
            stuck = [
                f"{call.number} on {call.server}" for call in self.users.open.values() if not call.result.done_flag
            ]
            servers = [each for service in self.grid._services.values() for each in service.servers.values()]
            states = ", ".join(f"{each.name} is {each.state.value}" for each in servers)
            raise Violation(f"this never ends: calls {stuck[:5]}, {len(self.users.waiting)} waiters; {states}")
        self.steps += -self.steps % 64
        self.check()
        self.grid.terminate()
        self.link._run_errands()
        for service, waiter in self.users.waiting:
            self.users.demand(waiter.done_flag, f"a waiter for {service.service_id} outlives the grid")
        self.users.demand(not self.link._peers, f"peers are left: {self.link._peers}")
        self.users.demand(not self.users.complaints, f"logged as an error: {self.users.complaints}")

    def _quiet(self) -> bool:
        """Whether nothing is left to happen."""
        if any(not call.result.done_flag for call in self.users.open.values()):
            return False
        servers = [server for service in self.grid._services.values() for server in service.servers.values()]
        if any(server.state is not State.FREE or self.engine.mover.is_arriving(server.name) for server in servers):
            return False
        owed = any(peer.pending or peer.session.waiting for peer in self.link._peers.values())
        hopeful = any(service.roster.alive and service.roster.waiting for service in self.grid._services.values())
        return not (owed or hopeful or self.threads or self.engine.mover.has_homeless())


_DEEDS = (
    ("carry", 28.0),
    ("work", 24.0),
    ("pump", 22.0),
    ("call", 20.0),
    ("acquire", 2.0),
    ("release", 1.3),
    ("let_go", 3.0),
    ("tick", 3.0),
    ("cable", 6.0),
    ("lifeline", 6.0),
    ("tell", 4.0),
    ("watch", 0.5),
    ("thread", 3.0),
    ("pack", 1.0),
    ("cancel", 1.0),
    ("get", 0.6),
    ("wait_in_call_back", 0.2),
    ("give_up", 0.8),
    ("stand_in_line", 0.5),
    ("scatter", 0.5),
    ("burst", 0.2),
    ("unplug", 0.3),
    ("kill", 0.15),
    ("move", 0.15),
    ("publish", 0.2),
    ("leap", 0.1),
    ("terminate", 0.1),
    ("crash", 0.02),
)
"""What can happen in a step, and how often, in relation."""


class _Ear(logging.Handler):
    """Hears what the grid logs: an error that it survives is one of ours."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            exc = record.exc_info[1] if record.exc_info else None
            self.world.users.complaints.append(f"{record.getMessage()} {exc!r}")


@contextmanager
def _listening(world: World) -> Iterator[None]:
    logger, ear = logging.getLogger("grid"), _Ear(world)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(ear)
    try:
        yield
    finally:
        logger.removeHandler(ear)
        logger.propagate = propagate


def episode(seed: int, steps: int = EPISODE) -> World:
    """One world from its beginning to its end.

    Raises:
        Violation: Something that must always be true was not; the message says how to see it again.
    """
    world = World(seed)
    try:
        with _listening(world):
            world.limit = steps
            while world.steps < steps:
                world.step()
            world.finish()
    except Exception as exc:
        raise Violation(
            f"{exc if isinstance(exc, Violation) else repr(exc)} (at step {world.steps}; "
            f"replay with: python -m grid.testing.simulation --seed {seed} --steps {steps})"
        ) from exc
    finally:
        world.link.on_event = world.link.on_welcome = lambda *_: None  # type: ignore[assignment]
        world.engine.fleet.halted = True
        world.grid._ending.everything(force=True)
    return world


def simulate(seed: int, steps: int) -> Counter[str]:
    """So many steps, in worlds of `EPISODE` steps with seeds from `seed` on; returns what happened how often."""
    happened: Counter[str] = Counter()
    while steps > 0:
        world = episode(seed, min(steps, EPISODE))
        happened += world.happened
        happened["calls"] += len(world.users.calls)
        steps, seed = steps - EPISODE, seed + 1
    return happened


def main() -> None:
    """`python -m grid.testing.simulation --seed N --steps N`."""
    parser = argparse.ArgumentParser(description="Simulate grids in which everything goes wrong.")
    parser.add_argument("--seed", type=int, default=0, help="of the first world")
    parser.add_argument("--steps", type=int, default=1_000_000, help=f"in all; a world has {EPISODE}")
    options = parser.parse_args()
    began = time.perf_counter()
    happened = simulate(options.seed, options.steps)
    print(f"{options.steps} steps in {time.perf_counter() - began:.0f} s: nothing wrong")
    print(", ".join(f"{name} {count}" for name, count in happened.most_common()))


if __name__ == "__main__":
    main()
