"""The simulation of a whole grid: nothing goes wrong in it, it always goes the same way, and it would see what it must.

To look further: `python -m grid.testing.simulation --seed 1000 --steps 5000000`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from grid.grids import mover, publishing
from grid.grids.abstract import AbstractGrid
from grid.grids.losses import Losses
from grid.grids.mover import MoveState
from grid.kernel import serve
from grid.kernel.hostend import HostEnd
from grid.services.result import Reply, Result
from grid.services.roster import Roster
from grid.testing.simulated_presence import Lifeline
from grid.testing.simulation import EPISODE, Violation, World, episode, simulate
from grid.wire.link import Link
from grid.wire.session import Session

STEPS = 120_000


@pytest.mark.row("G12", "G14", "G15", "G17", "G24", "G48", "G67", "X01", "U02", "U04")
def test_whatever_happens_nothing_is_lost_or_done_twice_and_all_waiting_ends() -> None:
    happened = simulate(seed=1, steps=STEPS)
    assert happened["calls"] > STEPS / 50
    assert all(happened[what] for what in ("kill", "unplug", "crash", "cable", "move", "cancel", "leap", "terminate"))
    assert happened["verify"] and happened["lost"] > happened["orphaned"]
    assert happened["lifeline"] > STEPS / 50 and happened["orphaned"]
    assert happened["interrupted"] and happened["interrupted in line"] and happened["waited in a call-back"]


@pytest.mark.row("B13", "O17")
def test_hosts_that_did_not_answer_when_a_server_was_to_move_in_are_asked_again() -> None:
    """Nobody has noticed yet that they are cut off, and soon they are back: no reason to ask them never again."""
    arrived = 0
    for seed in range(20):
        world = World(seed)
        moves = world.engine.mover._moves
        move = None
        while move is None and world.steps < EPISODE:
            if not moves:
                world._move()
            world.step()
            move = next((move for move in moves.values() if move.state is MoveState.ARRIVING), None)
        if move is None:
            continue
        for home in world.hosts:
            home.offline = True
        while move.state is MoveState.ARRIVING and world.threads:
            world._thread()
            world.link._run_errands()
        silent = bool(move.refusals) and move.state is MoveState.HOMELESS
        world.finish()
        arrived += silent and move.state is MoveState.THERE
    assert arrived >= 3


def test_it_goes_the_same_way_where_modules_of_the_user_were_sent_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that move take along what they were told of edited modules: other tests leave some behind."""
    alone = episode(2)
    for place in (mover, publishing):
        monkeypatch.setattr(place, "as_they_are", lambda: {("a module", 1): 2})
    assert episode(2).happened == alone.happened


def test_the_same_seed_tells_the_same_story() -> None:
    first, second = episode(3), episode(3)
    assert first.happened == second.happened and first.steps == second.steps
    assert (first.clock.now, first.ran, list(first.users.calls)) == (
        second.clock.now,
        second.ran,
        list(second.users.calls),
    )


# -- faults that it must see: each is put in place of the real thing ---------------------------------------------------


def takes_a_repeated_call_again(self: Session, number: int) -> bool:
    return number in (self.received, self.received + 1) and number > 0


def takes_a_call_after_a_gap(self: Session, number: int) -> bool:
    return number > self.received


def forgets_what_it_sent(self: HostEnd, *args: Any, send: Any = HostEnd._send) -> None:
    send(self, *args)
    self.session.kept.clear()


def repeats_nothing(self: Session, they_have: int) -> None:
    """What was sent is taken for arrived."""


def forgets_what_waits(self: Session, frame: bytes) -> None:
    self.posted += 1


def drops_without_a_word(self: Link, peer: Any, error: BaseException, drop: Any = Link.drop) -> None:
    peer.pending.clear()
    drop(self, peer, error)


def frees_twice(self: Roster, name: str, release: Any = Roster.release) -> Any:
    actions = release(self, name)
    self._free[name] = None
    return actions


def keeps_the_dead(self: Roster, name: str, event: Any, gone: Any = Roster.gone) -> Any:
    free = name in self._free
    actions = gone(self, name, event)
    if free:
        self._free[name] = None
        actions += self._serve()
    return actions


def never_serves_a_group(self: Roster, ticket: Any) -> tuple[str, ...]:
    self._collected[ticket].clear()
    return ()


def frees_at_once(self: AbstractGrid, proxy: Any) -> None:
    proxy._hold.released = True
    proxy._server.service.free(proxy._server, proxy._hold)


def never_frees_late(self: Result, flags: int, seconds: float, data: bytes) -> None:
    Reply.deliver(self, flags, seconds, data)


def says_yes_to_every_cancel(self: serve.Server, call: int) -> bool:
    return True


def forgets_the_terminated(self: Losses, home: Any, reason: str) -> None:
    home.part()
    self._lose(self._mover.servers_at(home), reason, None)
    self._mover.turn_away(home)


def counts_connections(self: Lifeline, look: Any = Lifeline.look) -> bool:
    count = 0
    for came in self.connections:
        count = max(0, count + (1 if came else -1))
    if not count:  # then it is not even asked who is connected
        self._end.admitted = lambda: False  # type: ignore[method-assign]
        self._client._over_at = min(self._client._over_at, self._world.clock.now)
    return look(self)


@pytest.mark.row("G48", "X01")
@pytest.mark.parametrize(
    ("owner", "method", "fault"),
    [
        (Session, "is_next", takes_a_repeated_call_again),
        (Session, "is_next", takes_a_call_after_a_gap),
        (HostEnd, "_send", forgets_what_it_sent),
        (Session, "rewind", repeats_nothing),
        (Session, "post", forgets_what_waits),
        (Link, "drop", drops_without_a_word),
        (Roster, "release", frees_twice),
        (Roster, "gone", keeps_the_dead),
        (Roster, "_collect", never_serves_a_group),
        (AbstractGrid, "release_service", frees_at_once),
        (Result, "deliver", never_frees_late),
        (serve.Server, "withdraw", says_yes_to_every_cancel),
        (Losses, "lose_home", forgets_the_terminated),
        (Lifeline, "look", counts_connections),
    ],
    ids=lambda value: value.__name__ if callable(value) and not isinstance(value, type) else "",
)
def test_it_sees_a_fault(owner: type, method: str, fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, method, fault)
    with pytest.raises(Violation, match=r"--seed \d+ --steps \d+") as caught:
        simulate(seed=1, steps=100 * EPISODE)
    seed = int(str(caught.value).split("--seed ")[1].split()[0])
    with pytest.raises(Violation) as again:  # what it says brings it back
        episode(seed)
    assert str(again.value) == str(caught.value)
