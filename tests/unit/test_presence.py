"""Whether a client is there: what it says counts, and connections don't."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.kernel.presence import NAP_S, Presence

ORPHAN_S, LOST_S, BEAT_S = 60.0, 15.0, 5.0
PATIENCE_S = ORPHAN_S + LOST_S + BEAT_S


def presence(start_s: float = 20.0) -> Presence:
    return Presence(0.0, start_s=start_s, orphan_s=ORPHAN_S, lost_s=LOST_S, heartbeat_s=BEAT_S)


@pytest.mark.row("X01")
@given(st.lists(st.tuples(st.sampled_from(["says", "stranger comes", "stranger goes", "time"]), st.floats(0, 4))))
def test_a_client_is_given_up_exactly_when_it_was_silent_for_its_time(story: list[tuple[str, float]]) -> None:
    client, now, limit = presence(), 0.0, 20.0 + ORPHAN_S
    for what, seconds in story:
        now += seconds
        if what == "says":
            client.heard(now)
            limit = now + PATIENCE_S
        assert client.is_over(now) == (now >= limit)  # whatever strangers do: there is no way to tell it


def test_a_client_has_its_whole_time_from_the_last_moment_in_which_it_may_have_been_there() -> None:
    client = presence()
    client.heard(10.0)
    noticed_at = 10.0 + BEAT_S + LOST_S  # cut off just before its next word; the client counts from here
    for second in range(int(noticed_at + ORPHAN_S)):
        assert not client.is_over(float(second))
    assert client.is_over(noticed_at + ORPHAN_S)


def test_while_nobody_listens_nobody_is_silent() -> None:
    client = presence()
    client.heard(0.0)
    assert not client.is_over(1.0)
    assert not client.is_over(1.0 + 10_000.0)  # the agent was stopped as long
    for second in range(0, int(PATIENCE_S) - 1, int(NAP_S / 2)):
        assert not client.is_over(10_001.0 + second)
    assert client.is_over(10_001.0 + PATIENCE_S)


def test_a_client_that_never_came_is_told_from_one_that_did() -> None:
    client = presence()
    assert not client.came
    client.heard(1.0)
    assert client.came


def test_it_has_no_door_for_connections() -> None:
    public: Any = {name for name in dir(Presence) if not name.startswith("_")}
    assert public == {"over_at", "heard", "is_over"}
