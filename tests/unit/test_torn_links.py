"""An exception of the user's at any place of either end of a link: every other call is answered, once and in order.

The real link, results and host's end over simulated cables, in one thread; torn off at one place after the other.
"""

from __future__ import annotations

import pickle
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grid.errors import GridError
from grid.kernel.hostend import HostEnd
from grid.limits import Limits
from grid.services.result import Reply
from grid.testing.cables import Clock, Network
from grid.wire import codec
from grid.wire.link import Link, Peer
from tests.torn import Tear, Torn, torn_at

CLIENT = ("wire/link.py", "wire/arrivals.py", "wire/session.py", "wire/zeromq.py", "services/result.py")
HOST = ("kernel/hostend.py", "wire/session.py", "wire/zeromq.py")


class World:
    """A client and one process of a host; time passes and messages go while somebody waits."""

    def __init__(self) -> None:
        self.network = Network(random.Random(1), Clock())
        self.network.while_waiting = self.go_on
        self.link = Link(Limits(), carrier=self.network.client(Limits()), clock=self.network.clock)
        carrier = self.network.host(Limits())
        self.end = HostEnd(carrier, 1)
        self.end._watcher = threading.current_thread()  # which lets go in its place
        inlet, outlet = carrier.bind_sockets(Path("/torn"), "p1")
        self.peer: Peer = self.link.connect(1, inlet, outlet, None, None)
        self.ran: list[int] = []
        self.events: list[Any] = []
        self.made: list[tuple[int, Reply]] = []
        self.tear_host: list[int] = []  # at which place of its next turn, see `torn_at`
        self.places = 0
        self.link.on_event = lambda peer, event: self.events.append(event)
        self.link.read_monitor()
        self.go_on(0)
        assert self.wait_for(self.peer.welcomed.is_set)

    def wait_for(self, truth: Callable[[], bool]) -> bool:
        for _ in range(50):
            if truth():
                return True
            self.go_on(0.01)
            self.link._collect_now()  # as the grid's thread would
        return truth()

    def go_on(self, seconds: float) -> None:
        """Everything that is under way arrives, the host works, the grid's thread does its errands."""
        self.network.clock.now += 0.01
        for cable in (*self.network.calls.values(), *self.network.replies.values()):
            cable.carry(1000)
        self.serve()
        self.end.let_go()
        for cable in self.network.replies.values():
            cable.carry(1000)
        self.link._run_errands()
        if self.link._dirty:
            self.link._flush_all()

    def serve(self) -> None:
        """The loop of a server, with what `serve.Server` does about exceptions."""
        while True:
            tearing = torn_at(self.tear_host.pop(), *HOST) if self.tear_host else None
            try:
                cable = self.network.calls.get("ipc:///torn/p1.i")
                if not self.end.due and not (cable and any(cable.pipes)):
                    return
                if tearing is None:
                    self._step()
                else:
                    with tearing as torn:
                        tearing = None
                        self._step()
                    self.places = torn.count
                    if torn.place:
                        raise Tear
            except Tear:
                self.end.recover()

    def _step(self) -> None:
        end = self.end
        if not end.due:
            calls = end.take(end.carrier.receive_now() or b"")
            if len(calls) > 1:
                with end.holding():
                    for frame in calls:
                        self._perform(frame)
        for frame in list(end.due.values()):
            self._perform(frame)

    def _perform(self, frame: Any) -> None:
        number = codec.loads(frame.pickle)
        if number not in self.ran:  # else it was torn off after it had run, and not answered
            self.ran.append(number)
        self.end.reply(frame.call, pickle.dumps(number * 2))

    def call(self, number: int) -> Reply:
        reply = Reply(self.link)
        self.link.call(self.peer, codec.dumps(number), reply)
        self.made.append((number, reply))
        return reply


def check(world: World, torn: Torn, numbers: range) -> None:
    """All is as if nothing had happened: for the calls that were made, with nobody's help, and for later ones."""
    began = world.network.clock.now
    assert world.wait_for(lambda: not world.peer.pending), f"{torn.place}: {world.peer.pending} is never answered"
    for number, reply in world.made:
        assert world.wait_for(reply.done) and reply.get(0) == 2 * number, torn.place
    replies = [world.call(number) for number in numbers]
    try:
        got = [reply.get(0.5) for reply in replies]
    except (TimeoutError, GridError) as exc:
        raise AssertionError(f"{torn.place}: {exc!r}") from exc
    assert got == [2 * number for number in numbers], torn.place
    assert world.network.clock.now - began < 2.0, f"{torn.place}: it took {world.network.clock.now - began:.2f} s"
    assert world.ran == sorted(set(world.ran)), f"{torn.place}: {world.ran}"
    world.link._flush_all()
    world.wait_for(lambda: not world.peer.pending)
    assert not world.peer.pending and not world.peer.session.kept, f"{torn.place}: {world.peer.pending}"
    assert not world.end.due and not world.link._torn, torn.place
    locks = [world.link._incoming, world.link._turnstile, world.link._queueing, world.link._carrier._waker_lock]
    locks += [world.peer.lock, world.end._pushing]
    assert not any(lock.locked() for lock in locks), f"{torn.place}: a lock is held"
    assert not world.link._followers and not world.link._wanted, torn.place


def one_call(world: World) -> None:
    assert world.call(1).get(5) == 2


def with_callback(world: World) -> None:
    reply = world.call(1)
    reply.add_done_callback(lambda done: None)
    assert reply.get(5) == 2


def a_burst(world: World) -> None:
    replies = [world.call(number) for number in range(1, 15)]
    assert [reply.get(5) for reply in replies] == [2 * number for number in range(1, 15)]


def news(world: World) -> None:
    assert world.call(1).get(5) == 2


@pytest.mark.row("U02")
@pytest.mark.parametrize("deed", [one_call, with_callback, a_burst, news])
def test_at_the_client_whatever_is_torn_off_is_finished_by_whoever_comes_next(deed: Callable[[World], None]) -> None:
    def story(at: int) -> int:
        world = World()
        if deed is news:
            world.end.event(pickle.dumps("news"))
        with torn_at(at, *CLIENT) as torn:
            deed(world)
        assert bool(torn.place) == bool(at)
        check(world, torn, range(100, 103))
        world.link._run_errands()
        assert world.events == ["news"] * (deed is news), torn.place
        return torn.count

    places = story(0)
    assert places > 40
    for at in range(1, places + 1):
        story(at)


@pytest.mark.row("U02")
@pytest.mark.parametrize("count", [1, 12])
def test_at_the_host_what_was_taken_is_run_once_and_answered(count: int) -> None:
    def story(at: int) -> int:
        world = World()
        world.tear_host = [at]
        replies = [world.call(number) for number in range(1, count + 1)]
        assert [reply.get(0.5) for reply in replies] == [2 * number for number in range(1, count + 1)], at
        check(world, Torn(at), range(100, 103))
        return world.places

    places = story(0)
    assert places > 10
    for at in range(1, places + 1):
        story(at)


@pytest.mark.row("U02")
def test_a_message_that_was_taken_off_the_socket_and_lost_is_asked_for_at_once() -> None:
    world = World()
    reply = world.call(1)
    while not world.network.inbox:
        world.go_on(0)
    world.network.inbox.clear()  # pyzmq looks for signals after it has received: what it has is lost
    world.link._torn = True
    assert reply.get(0.5) == 2
    assert world.ran == [1]
