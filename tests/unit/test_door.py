"""Who has a place at a job server, tried against crowds that connect, prove, rest and leave in any order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.web.door import Door, share_of
from grid.web.limits import WebLimits

LIMITS = WebLimits(strangers=4, connections=5, connections_each=3)

pytestmark = pytest.mark.row("Y05")

STEPS = st.tuples(
    st.sampled_from(["came", "proved", "works", "rests", "left"]), st.integers(0, 11), st.sampled_from("abc")
)


@given(st.lists(STEPS, max_size=80))
def test_no_crowd_has_more_places_than_there_are(steps: list[tuple[str, int, str]]) -> None:
    door, inside = Door(LIMITS), set()
    for what, key, who in steps:
        victim = None
        if what == "came" and key not in inside:
            inside.add(key)
            victim = door.came(key, f"10.0.0.{who}")
        elif what == "proved" and key in inside:
            has, victim = door.proved(key, who)
            if not has:
                inside.discard(key)
        elif what == "works":
            door.works(key)
        elif what == "rests":
            door.rests(key)
        elif what == "left":
            inside.discard(key)
            door.left(key)
        if victim is not None:
            inside.discard(victim)
            door.left(victim)
        strangers = [each for each in inside if door.is_stranger(each)]
        assert len(door) == len(inside), "everybody inside has a place, and nobody else"
        assert len(strangers) <= LIMITS.strangers and len(inside) - len(strangers) <= LIMITS.connections


def test_one_more_stranger_displaces_the_oldest_of_the_largest_crowd() -> None:
    door = Door(LIMITS)
    for key, address in (("one", "10.0.0.1"), ("crowd1", "10.0.0.2"), ("crowd2", "10.0.0.2"), ("crowd3", "10.0.0.2")):
        assert door.came(key, address) is None
    assert door.came("new", "10.0.0.3") == "crowd1"


def test_who_has_proved_it_is_not_displaced_by_strangers() -> None:
    door = Door(LIMITS)
    door.came("mara", "10.0.0.2")
    assert door.proved("mara", "mara") == (True, None) and not door.is_stranger("mara")
    cut = []
    for number in range(20):
        victim = door.came(f"s{number}", "10.0.0.2")
        if victim is not None:
            cut.append(victim)
            door.left(victim)
    assert cut == [f"s{number}" for number in range(16)]


def test_a_resting_connection_makes_room_and_a_working_one_does_not() -> None:
    door = Door(LIMITS)
    for number in range(3):
        door.came(number, "10.0.0.1")
        assert door.proved(number, "mara") == (True, None)
        door.works(number)
    door.came("more", "10.0.0.1")
    assert door.proved("more", "mara") == (False, None), "all of hers are at work"
    door.rests(1)
    door.came("again", "10.0.0.1")
    assert door.proved("again", "mara") == (True, 1)
    door.came("ole", "10.0.0.9")
    assert door.proved("ole", "ole") == (True, None), "others have theirs"


def test_a_subscriber_of_ipv6_is_one_share_however_many_addresses_he_uses() -> None:
    assert share_of("2001:db8::1") == share_of("2001:db8::ffff:2") != share_of("2001:db8:0:1::1")
    assert share_of("::ffff:10.0.0.1") == share_of("10.0.0.1") == "10.0.0.1"
    assert share_of("fe80::1%eth0") == share_of("fe80::2%eth0")
    assert share_of("a name") == "a name"
