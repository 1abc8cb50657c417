"""A host's liveness: the table, and what holds whatever is heard of the host in any order, at any time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.grids.silence import MOVES, HostAction, HostEvent, HostState, Silence, Verify
from grid.limits import Limits

LIMITS = Limits(heartbeat_s=5.0, lost_s=15.0, orphan_s=60.0)
RECONNECT_S = 2.0
UNREACHABLE = (HostState.SILENT, HostState.PROBED, HostState.REJOINING)

WAYS: dict[HostState, tuple[HostEvent, ...]] = {
    HostState.DOWN: (),
    HostState.CONNECTED: (HostEvent.STARTED,),
    HostState.PROBED: (HostEvent.STARTED, HostEvent.FELL_SILENT),
    HostState.SILENT: (HostEvent.STARTED, HostEvent.FELL_SILENT, HostEvent.STANDS),
    HostState.REJOINING: (HostEvent.STARTED, HostEvent.FELL_SILENT, HostEvent.BROKE),
    HostState.LOST: (HostEvent.STARTED, HostEvent.PARTED),
}


def a_host(events: Iterable[HostEvent], now: float = 0.0) -> Silence:
    silence = Silence(LIMITS, RECONNECT_S)
    for event in events:
        silence.hear(event, now)
    return silence


@pytest.mark.row("G48")
@pytest.mark.parametrize(("state", "event"), list(itertools.product(HostState, HostEvent)))
def test_the_table_of_moves_is_the_only_way(state: HostState, event: HostEvent) -> None:
    silence = a_host(WAYS[state])
    assert silence.state is state
    actions = silence.hear(event, 1.0)
    assert (silence.state, actions) == MOVES.get((state, event), (state, ()))


@pytest.mark.row("G48")
def test_only_a_start_leads_back_from_a_loss_and_only_a_parting_leads_there() -> None:
    assert {event for (state, event), _ in MOVES.items() if state in (HostState.LOST, HostState.DOWN)} == {
        HostEvent.STARTED
    }
    assert {event for (_, event), (target, _) in MOVES.items() if target is HostState.LOST} == {HostEvent.PARTED}


@pytest.mark.row("G48")
def test_a_host_that_falls_silent_hands_out_nothing_and_is_asked_at_once() -> None:
    silence = a_host([HostEvent.STARTED])
    assert silence.hear(HostEvent.FELL_SILENT, 10.0) == (HostAction.SET_ASIDE, HostAction.PROBE)
    assert silence.outage(13.0) == 3.0
    assert silence.hear(HostEvent.HEARD_AGAIN, 14.0) == (HostAction.HAND_OUT,)
    assert silence.outage(14.0) is None


@pytest.mark.row("G48")
def test_it_is_asked_again_with_each_heartbeat_until_it_expires() -> None:
    silence = a_host([HostEvent.STARTED, HostEvent.FELL_SILENT])
    probes, lost = 0, 0.0
    for now in range(1, 100):
        silence.hear(HostEvent.STANDS, now)
        actions = silence.tick(now, broken=False)
        probes += HostAction.PROBE in actions
        if HostAction.LOSE_EXPIRED in actions:
            lost = now
            break
    assert lost == 61 and 10 <= probes <= 13


@pytest.mark.row("G48")
def test_an_agent_that_is_dead_is_believed_only_while_it_is_silent() -> None:
    silent = a_host([HostEvent.STARTED, HostEvent.FELL_SILENT])
    assert silent.hear(HostEvent.REFUSED, 1.0) == (HostAction.LOSE_DEAD,)
    back = a_host([HostEvent.STARTED, HostEvent.FELL_SILENT, HostEvent.HEARD_AGAIN])
    assert back.hear(HostEvent.REFUSED, 1.0) == ()


@pytest.mark.row("G48")
def test_a_broken_tunnel_is_made_anew_by_one_at_a_time() -> None:
    silence = a_host([HostEvent.STARTED, HostEvent.FELL_SILENT])
    assert HostAction.REJOIN in silence.tick(1.0, broken=True)
    assert HostAction.REJOIN not in silence.tick(2.0, broken=True)
    silence.hear(HostEvent.TRIED, 3.0)
    assert HostAction.REJOIN in silence.tick(4.0, broken=True)


@pytest.mark.row("G48")
def test_a_server_that_is_silent_is_verified_and_put_off() -> None:
    silence = a_host([HostEvent.STARTED])
    silence.suspect(7, 5.0, 100.0)
    assert silence.tick(104.0, broken=False) == []
    assert silence.tick(105.0, broken=False) == [Verify(7)]
    assert silence.tick(106.0, broken=False) == []
    assert silence.tick(121.0, broken=False) == [Verify(7)]
    silence.trust(7)
    assert silence.tick(200.0, broken=False) == []


@pytest.mark.row("G48")
@pytest.mark.parametrize(
    ("asked", "answered", "guilty"),
    [(200.0, 201.0, True), (200.0, 208.0, False), (116.0, 117.0, False), (117.5, 118.0, True)],
    ids=["prompt", "late", "just back", "back for long enough"],
)
def test_only_a_prompt_answer_of_a_settled_host_proves_that_the_server_is_silent(
    asked: float, answered: float, guilty: bool
) -> None:
    silence = a_host([HostEvent.STARTED, HostEvent.FELL_SILENT])
    silence.hear(HostEvent.HEARD_AGAIN, 100.0)
    silence.suspect(7, 5.0, 101.0)
    assert silence.is_guilty(7, asked, answered) is guilty
    assert not silence.is_guilty(8, asked, answered)
    silence.hear(HostEvent.FELL_SILENT, answered)
    assert not silence.is_guilty(7, asked, answered)


@pytest.mark.row("G48")
@given(st.lists(st.one_of(st.sampled_from(HostEvent), st.tuples(st.floats(0.0, 100.0), st.booleans())), max_size=60))
def test_whatever_is_heard_in_any_order(story: list[HostEvent | tuple[float, bool]]) -> None:
    silence, now, started = Silence(LIMITS, RECONNECT_S), 0.0, False
    for word in story:
        before = silence.state
        if isinstance(word, HostEvent):
            actions: list[HostAction | Verify] = [*silence.hear(word, now)]
            started = started or word is HostEvent.STARTED
        else:
            now += word[0]
            actions = silence.tick(now, broken=word[1])
        outage = silence.outage(now)
        assert (silence.state is HostState.DOWN) == (not started)
        if silence.state is HostState.CONNECTED:
            assert outage is None
        elif silence.state in UNREACHABLE:
            assert outage is not None and outage >= 0.0
        if HostAction.LOSE_EXPIRED in actions and not isinstance(word, HostEvent):
            assert outage is not None and outage > LIMITS.orphan_s
        if actions:
            assert before not in (HostState.DOWN, HostState.LOST)
        for action in (HostAction.PROBE, HostAction.REJOIN):
            assert actions.count(action) <= 1
