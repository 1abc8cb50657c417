"""Hosts and servers that take no part are told once, those with one cause together."""

from __future__ import annotations

import pytest

from grid.errors import HostError
from grid.grids.absent import Absent, Missing, Rest, lines

pytestmark = pytest.mark.row("M01")


def down(host: str, why: str = "it refused the connection") -> Missing:
    return Missing(host, HostError(why, host=host, hint="Is it on?"))


def test_a_host_is_told_once_for_each_cause_until_it_comes() -> None:
    absent = Absent()
    absent.add(down("n1"))
    assert absent and [one.host for one in absent.take()] == ["n1"] and not absent
    absent.add(down("n1"))
    assert not absent
    absent.add(down("n1", "it has no Python"))
    assert len(absent.take()) == 1
    absent.came("n1")
    absent.add(down("n1", "it has no Python"))
    assert len(absent.take()) == 1


def test_servers_are_told_each_time() -> None:
    absent = Absent()
    for _ in range(2):
        absent.add(Missing("n1", "no memory", "Model.0/1"))
        assert len(absent.take()) == 1


def test_what_an_error_named_is_dropped_and_news_at_the_next_turn() -> None:
    absent = Absent()
    absent.add(down("n1"))
    absent.drop()
    assert absent.take() == []
    absent.add(down("n1"))
    assert len(absent.take()) == 1


@pytest.mark.parametrize(
    ("error", "first"),
    [
        (HostError("no way.", host="n1", hint="Is it on?"), "no way. Is it on?"),
        (HostError("no way\nTraceback ...", host="n1", hint="Is it on?"), "no way. g.failures has all of it"),
        (HostError("no way", host="n1", hint=""), "no way"),
        ("plain text\nmore", "plain text"),
    ],
)
def test_the_first_line(error: object, first: str) -> None:
    assert Missing("n1", error).first_line == first


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (Rest(1, 1, 3, 4), "the grid goes on with 3 of 4 servers"),
        (Rest(2, 3, 5, 6), "the grid goes on with 2 of 3 hosts (5 of 6 servers)"),
        (Rest(0, 2, 0, 4, 1), "the grid goes on with 0 of 2 hosts (0 of 4 servers), 1 of the hosts still starting"),
    ],
)
def test_those_that_take_part(rest: Rest, said: str) -> None:
    assert str(rest) == said


def test_one_line_for_each_cause() -> None:
    rest = Rest(2, 6, 4, 12)
    missing = [down(f"n{number}") for number in (1, 2, 3)] + [down("n4", "it has no Python")]
    missing += [Missing("n5", f"server Model.0/{each} ran out of memory", f"Model.0/{each}") for each in (7, 8)]
    said = lines(missing, rest)
    assert said[0] == f"3 hosts take no part, with one cause: n1, n2, n3. {missing[0].first_line} ({rest})"
    assert said[1].startswith("host 'n4': it has no Python. Is it on?") and said[1].endswith(f"({rest})")
    assert said[2].startswith("host 'n5': 2 servers did not start, with one cause. ") and len(said) == 3
    assert lines(missing[3:4], None) == ["host 'n4': it has no Python. Is it on?"]
    assert lines([], rest) == []
