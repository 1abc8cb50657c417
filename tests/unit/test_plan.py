"""What follows for pilots: the plan for each way that one may go, and what holds in any of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.grids.plan import (
    GRACE_POLLS,
    Accept,
    End,
    Fail,
    GiveBack,
    Leave,
    MoveServers,
    PilotAction,
    PilotSeen,
    PilotStage,
    RankSeen,
    Renew,
    Tell,
    Terms,
    Withdraw,
    pause_s,
    plan,
)

TERMS = Terms(ahead_s=900.0, handover_s=120.0, start_s=60.0)
SERVING = PilotSeen(
    started=0.0,
    ends_at=3600.0,
    answers=True,
    ranks=[RankSeen(number=0, reported=True, dealt_with=True)],
    settled=True,
    servers=frozenset({"a", "b"}),
    speaking=frozenset({"a", "b"}),
)


def planned(pilot: PilotSeen, now: float, renewals: int = 0) -> list[PilotAction]:
    return list(plan(pilot, TERMS, renewals, now))


@pytest.mark.row("B02")
def test_kernels_that_report_are_accepted_and_others_fail_in_time() -> None:
    ranks = [RankSeen(number=0, reported=True), RankSeen(number=1, status=77), RankSeen(number=2)]
    starting = PilotSeen(started=0.0, ends_at=3600.0, ranks=ranks)
    assert planned(starting, 1.0) == [Accept(0), Fail(1, "its kernel ended with status 77")]
    assert planned(starting, 61.0)[2] == Fail(2, "no kernel came up within 60 s")
    assert planned(replace(starting, ranks=[replace(rank, dealt_with=True) for rank in ranks]), 61.0) == []


@pytest.mark.row("L04")
def test_a_job_that_is_forgotten_has_ended_only_when_no_kernel_answers() -> None:
    forgotten = replace(SERVING, unknown=GRACE_POLLS)
    assert planned(forgotten, 100.0) == []
    assert planned(replace(forgotten, answers=False), 100.0) == [End(owed=False)]
    assert planned(replace(forgotten, answers=False, unknown=GRACE_POLLS - 1), 100.0) == []


@pytest.mark.row("B13")
@pytest.mark.parametrize(
    ("pilot", "owed"),
    [
        (SERVING, True),
        (replace(SERVING, has_successor=True), False),
        (replace(SERVING, stage=PilotStage.LEAVING), False),
        (replace(SERVING, started=None, ends_at=None), False),
    ],
    ids=["cut short", "renewed", "left", "never began"],
)
def test_only_a_pilot_that_was_cut_short_is_owed_a_successor(pilot: PilotSeen, owed: bool) -> None:
    assert planned(replace(pilot, status=0), 100.0, renewals=1) == [End(owed=owed)]
    assert planned(replace(pilot, status=0), 100.0, renewals=0) == [End(owed=False)]


@pytest.mark.row("B13")
def test_a_pilot_is_renewed_ahead_of_its_end_and_left_for_its_successor() -> None:
    assert planned(SERVING, 2600.0, renewals=1) == []
    assert planned(SERVING, 2800.0, renewals=1) == [Renew()]
    renewed = replace(SERVING, has_successor=True)
    assert planned(renewed, 2800.0) == []
    assert planned(renewed, 3500.0) == [Leave(), MoveServers(frozenset({"a", "b"}), 100.0)]
    left = replace(renewed, stage=PilotStage.LEAVING, told=frozenset({"a", "b"}))
    assert planned(left, 3510.0) == []
    late = replace(left, servers=frozenset({"c"}), speaking=frozenset({"c"}))
    assert planned(late, 3520.0) == [MoveServers(frozenset({"c"}), 80.0)]
    assert planned(replace(left, servers=frozenset(), speaking=frozenset()), 3530.0) == [GiveBack()]


@pytest.mark.row("B13")
def test_where_nobody_has_room_servers_are_told_once_and_move_when_somebody_has() -> None:
    assert planned(SERVING, 3500.0) == [Tell(frozenset({"a", "b"}), 100.0)]
    told = replace(SERVING, told=frozenset({"a"}))
    assert planned(told, 3500.0) == [Tell(frozenset({"b"}), 100.0)]
    assert planned(replace(told, told=frozenset({"a", "b"})), 3500.0) == []
    roomy = replace(told, room_elsewhere=True)
    assert planned(roomy, 3500.0) == [Leave(), MoveServers(frozenset({"a", "b"}), 100.0)]


@pytest.mark.row("B02")
def test_a_job_that_can_never_run_is_withdrawn() -> None:
    assert planned(PilotSeen(hopeless=True), 5.0) == [Withdraw()]


names = st.frozensets(st.sampled_from("abc"))
times = st.floats(0.0, 4000.0)
pilots = st.builds(
    PilotSeen,
    stage=st.sampled_from(PilotStage),
    started=st.none() | times,
    ends_at=st.none() | times,
    status=st.none() | st.just(0),
    unknown=st.integers(0, 5),
    hopeless=st.booleans(),
    answers=st.booleans(),
    has_successor=st.booleans(),
    settled=st.booleans(),
    servers=names,
    speaking=names,
    told=names,
    room_elsewhere=st.booleans(),
    ranks=st.lists(st.builds(RankSeen, number=st.integers(0, 3), reported=st.booleans(), dealt_with=st.booleans())),
)


@pytest.mark.row("B13")
@given(pilots, st.integers(0, 2), times)
def test_whatever_is_seen(pilot: PilotSeen, renewals: int, now: float) -> None:
    actions = planned(pilot, now, renewals)
    assert actions == planned(pilot, now, renewals), "same input, same plan"
    if pilot.stage is PilotStage.OVER:
        assert actions == []
    for action in actions:
        if isinstance(action, (Tell, MoveServers)):
            assert action.servers and action.servers <= pilot.speaking and action.seconds < TERMS.handover_s
            assert pilot.stage is not PilotStage.ENDING
        if isinstance(action, Renew):
            assert renewals and not pilot.has_successor and pilot.stage is PilotStage.HELD and action == actions[-1]
    last = [action for action in actions if isinstance(action, (End, Withdraw, GiveBack))]
    assert len(last) <= 1 and last in ([], actions[-1:])


def test_looks_are_frequent_while_something_is_to_be_seen() -> None:
    assert pause_s([], starting=True) == 0.25 == pause_s([1.0], starting=False)
    assert pause_s([], starting=False) == 2.0 == pause_s([3600.0], starting=False)
