"""The roster of one service: its rules stated once, and tried on whatever may happen to it in any order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from grid.errors import GridError
from grid.services.roster import LIVE, MOVES, Action, Event, Granted, Refused, Roster, State

# -- the table ---------------------------------------------------------------------------------------------------------


def in_state(state: State) -> Roster:
    """A roster with a server `a` in this state, and one more that keeps the service alive."""
    roster = Roster()
    roster.announce(["a", "other"])
    if state in (State.FREE, State.BUSY):
        roster.ready("a")
    if state is State.BUSY:
        roster.acquire("holder")
    if state not in LIVE:
        roster.gone("a", Event.LOST if state is State.LOST else Event.TERMINATED)
    return roster


DEEDS = {
    Event.READY: lambda roster: roster.ready("a"),
    Event.RELEASED: lambda roster: roster.release("a"),
    Event.LOST: lambda roster: roster.gone("a", Event.LOST),
    Event.TERMINATED: lambda roster: roster.gone("a", Event.TERMINATED),
}


@pytest.mark.row("G40", "G10")
@pytest.mark.parametrize(("state", "event"), list(itertools.product(LIVE, DEEDS)))
def test_the_table_of_moves_is_the_only_way(state: State, event: Event) -> None:
    roster = in_state(state)
    assert roster.state("a") is state
    if (state, event) not in MOVES:
        with pytest.raises(GridError, match=r"'a'.*can't be"):
            DEEDS[event](roster)
        assert roster.state("a") is state
    else:
        DEEDS[event](roster)
        after = MOVES[state, event]
        assert roster.state("a") is (after if after in LIVE else None)


@pytest.mark.row("G40")
def test_lost_and_terminated_are_final() -> None:
    assert not [move for move in MOVES if move[0] not in LIVE]
    for event in (Event.RELEASED, Event.LOST, Event.TERMINATED):
        assert DEEDS[event](in_state(State.LOST)) == []


def test_a_server_is_announced_once() -> None:
    roster = in_state(State.STARTING)
    with pytest.raises(GridError, match="twice"):
        roster.announce(["a"])


# -- waiters -----------------------------------------------------------------------------------------------------------


def with_free(*names: str) -> Roster:
    roster = Roster()
    roster.announce(names)
    for name in names:
        roster.ready(name)
    return roster


@pytest.mark.row("G10", "G12")
def test_waiters_are_served_in_the_order_in_which_they_came() -> None:
    roster = with_free("a")
    assert roster.acquire(1) == [Granted(1, ("a",))]
    assert roster.acquire(2) == roster.acquire(3) == []
    assert roster.release("a") == [Granted(2, ("a",))]
    assert roster.release("a") == [Granted(3, ("a",))]


@pytest.mark.row("G10")
def test_the_server_that_is_free_for_longest_goes_first() -> None:
    roster = with_free("a", "b")
    roster.acquire(1)
    roster.release("a")
    assert roster.free == ["b", "a"]


@pytest.mark.row("G53")
def test_a_group_waits_for_all_and_nobody_overtakes_it() -> None:
    roster = with_free("a", "b", "c")
    roster.acquire(1)
    assert roster.acquire("group", everyone=True) == []
    assert roster.acquire(2) == [], "it took a server that the group had collected"
    assert roster.release("a") == [Granted("group", ("a", "b", "c"))]
    assert roster.release("c") == [Granted(2, ("c",))]


@pytest.mark.row("G53")
def test_a_group_waits_for_servers_that_are_starting() -> None:
    roster = with_free("a")
    roster.announce(["b"])
    assert roster.acquire("group", everyone=True) == []
    assert roster.ready("b") == [Granted("group", ("a", "b"))]


@pytest.mark.row("G53", "G48")
def test_a_group_has_its_turn_when_the_last_one_that_it_waits_for_dies() -> None:
    roster = with_free("a", "b")
    roster.announce(["c"])
    roster.acquire("group", everyone=True)
    assert roster.gone("b", Event.LOST) == []
    assert roster.gone("c", Event.LOST) == [Granted("group", ("a",))]


@pytest.mark.row("G12", "G53")
def test_a_group_that_gives_up_serves_those_behind_it() -> None:
    roster = with_free("a", "b", "c")
    roster.acquire("holder")
    roster.acquire("group", everyone=True)
    assert roster.acquire(1) == roster.acquire("group 2", everyone=True) == roster.acquire(2) == []
    assert roster.leave("group") == [Granted(1, ("b",))]
    assert roster.names(State.BUSY) == ["a", "b", "c"], "the second group collects now"
    assert roster.leave("group 2") == [Granted(2, ("c",))]
    assert roster.leave("group 2") == roster.leave(2) == []
    assert roster.waiting == 0 and roster.free == []


@pytest.mark.row("G12", "G48")
def test_without_a_live_server_everybody_is_told() -> None:
    roster = with_free("a", "b")
    roster.acquire(1)
    roster.acquire("group", everyone=True)
    roster.acquire(2)
    assert roster.gone("b", Event.LOST) == []
    assert roster.gone("a", Event.LOST) == [Refused("group"), Refused(2)]
    assert roster.acquire(3) == [Refused(3)]


@pytest.mark.row("G24", "G12")
def test_a_withdrawn_service_serves_nobody() -> None:
    roster = with_free("a", "b")
    roster.acquire(1)
    roster.acquire("group", everyone=True)
    assert roster.close() == [Refused("group")]
    assert roster.release("a") == []
    assert roster.acquire(2) == [Refused(2)]
    assert not roster.alive


@pytest.mark.row("G48")
def test_a_server_on_a_host_that_is_away_is_not_handed_out() -> None:
    roster = with_free("a", "b")
    roster.away("a")
    assert roster.free == ["b"]
    assert roster.acquire(1) == [Granted(1, ("b",))]
    roster.away("b")
    assert roster.release("b") == [] and roster.free == []
    assert roster.acquire(2) == []
    assert roster.back("b") == [Granted(2, ("b",))]
    assert roster.back("a") == [] and roster.free == ["a"]


@pytest.mark.row("G48", "G53")
def test_a_group_is_not_given_a_server_that_is_away() -> None:
    roster = with_free("a", "b")
    roster.acquire("holder")
    roster.acquire("group", everyone=True)
    roster.away("b")
    assert roster.release("a") == [], "b was collected before its host was cut off"
    assert roster.back("b") == [Granted("group", ("a", "b"))]


# -- whatever may happen, in any order ---------------------------------------------------------------------------------


class Anything(RuleBasedStateMachine):
    """Drives a roster as a grid does, and knows of each server who has it and of each waiter what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster()
        self.numbers = itertools.count()
        self.live: list[str] = []
        self.away: set[str] = set()
        self.held: dict[str, object] = {}  # server -> who has it by a grant
        self.line: list[tuple[int, bool]] = []  # waiters that were told nothing yet: ticket, wants all
        self.closed = False

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            ticket, everyone = self.line.pop(0)
            assert action.ticket == ticket, "somebody was told out of turn"
            if isinstance(action, Refused):
                assert self.closed or not self.live
                continue
            assert not self.closed
            assert not self.held.keys() & set(action.servers), "granted twice"
            assert set(action.servers) <= set(self.live) - self.away
            assert action.servers == (tuple(self.live) if everyone else action.servers[:1])
            self.held.update(dict.fromkeys(action.servers, ticket))

    def pick(self, data: st.DataObject, *states: State) -> str:
        return data.draw(st.sampled_from(self.roster.names(*states)))

    @precondition(lambda self: len(self.live) < 3)  # few, so that a group may get them all
    @rule(count=st.integers(1, 2))
    def announce(self, count: int) -> None:
        names = [f"s{next(self.numbers)}" for _ in range(count)]
        self.live += names
        self.carry_out(self.roster.announce(names))

    @precondition(lambda self: self.roster.names(State.STARTING))
    @rule(data=st.data())
    def ready(self, data: st.DataObject) -> None:
        self.carry_out(self.roster.ready(self.pick(data, State.STARTING)))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), event=st.sampled_from([Event.LOST, Event.TERMINATED]))
    def gone(self, data: st.DataObject, event: Event) -> None:
        name = self.pick(data)
        self.live.remove(name)
        self.away.discard(name)
        self.held.pop(name, None)
        self.carry_out(self.roster.gone(name, event))
        assert self.roster.gone(name, event) == [] == self.roster.release(name) == self.roster.back(name)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[name]
        self.carry_out(self.roster.release(name))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def go_away(self, data: st.DataObject) -> None:
        name = self.pick(data)
        self.away.add(name)
        self.carry_out(self.roster.away(name))

    @precondition(lambda self: self.away)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.away)))
        self.away.remove(name)
        self.carry_out(self.roster.back(name))

    @rule(everyone=st.booleans())
    def acquire(self, everyone: bool) -> None:
        ticket = next(self.numbers)
        self.line.append((ticket, everyone))
        self.carry_out(self.roster.acquire(ticket, everyone=everyone))

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        left = data.draw(st.sampled_from(self.line))
        self.line.remove(left)
        self.carry_out(self.roster.leave(left[0]))
        assert self.roster.leave(left[0]) == []

    @precondition(lambda self: len(self.live) == 4)
    @rule()
    def close(self) -> None:
        self.closed = True
        self.carry_out(self.roster.close())

    @invariant()
    def the_free_queue_holds_what_is_free_and_can_be_reached(self) -> None:
        assert len(set(self.roster.free)) == len(self.roster.free)
        assert set(self.roster.free) == set(self.roster.names(State.FREE)) - self.away

    @invariant()
    def each_live_server_has_one_state_and_a_held_one_is_busy(self) -> None:
        assert self.roster.names() == self.live
        assert set(self.held) <= set(self.roster.names(State.BUSY))
        collecting = bool(self.line) and self.line[0][1]
        if not collecting and not self.closed:
            assert set(self.roster.names(State.BUSY)) == set(self.held), "a server is nobody's and not free"

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        assert self.roster.waiting == len(self.line)
        assert all(self.roster.waits(ticket) for ticket, _ in self.line)
        if not self.live or self.closed:
            assert not self.line, "these wait for ever"
        elif self.line and self.line[0][1]:
            assert self.held or self.away or self.roster.names(State.STARTING), "a group has all and was not told"
            assert not self.roster.free, "what is free goes to the group at the head"
        elif self.line:
            assert not self.roster.free


@pytest.mark.row("G10", "G12", "G13", "G53")
def test_the_rules_hold_whatever_happens() -> None:
    often = settings(max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Anything, settings=often)


@pytest.mark.row("B13", "G12")
def test_a_choosy_waiter_lets_others_pass_and_keeps_its_place() -> None:
    roster = Roster()
    roster.announce(["short", "long"])
    assert roster.acquire("choosy", fits=lambda name: name == "long") == []
    assert roster.acquire("second") == []
    assert roster.ready("short") == [Granted("second", ("short",))]
    assert roster.acquire("third") == []
    assert roster.ready("long") == [Granted("choosy", ("long",))]
    assert roster.release("short") == [Granted("third", ("short",))]
    roster.acquire("choosy again", fits=lambda name: False)
    assert roster.leave("choosy again") == [] and roster.waiting == 0


@pytest.mark.row("B13", "G12")
def test_who_waits_for_servers_that_are_expected_waits_on() -> None:
    roster = Roster()
    roster.expect(True)
    assert roster.acquire("one") == [] and roster.acquire("all", everyone=True) == []
    roster.announce(["a"])
    assert roster.ready("a") == [Granted("one", ("a",))]
    assert roster.gone("a", Event.LOST) == []
    assert roster.expect(False) == [Refused("all")]
