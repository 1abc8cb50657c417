"""The hosts of a grid that runs: to read, and nothing changes them in place."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from grid.errors import GridError
from grid.hosts import Host
from grid.hosts.fixed import FixedHosts

pytestmark = pytest.mark.row("U13")


class Running:
    halted = False

    def ishalted(self) -> bool:
        return self.halted


GRID = Running()


def hosts() -> FixedHosts:
    return FixedHosts([Host("a"), Host("b")], GRID)


CHANGES: list[Callable[[Any], Any]] = [
    lambda h: h.append(Host("c")), lambda h: h.extend([]), lambda h: h.insert(0, Host("c")), lambda h: h.remove(h[0]),
    lambda h: h.pop(), lambda h: h.clear(), lambda h: h.sort(key=str), lambda h: h.reverse(),
    lambda h: h.__setitem__(0, Host("c")), lambda h: h.__delitem__(0), lambda h: h.__iadd__([]),
    lambda h: h.__imul__(2),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_refused_with_what_to_do(change: Callable[[Any], Any]) -> None:
    found = hosts()
    with pytest.raises(GridError, match="add_hosts"):
        change(found)
    assert [host.name for host in found] == ["a", "b"]


def test_no_method_that_changes_a_list_is_forgotten() -> None:
    readers = {"copy", "count", "index", "__getitem__", "__contains__", "__iter__", "__len__", "__reversed__"}
    own = {name for name, each in inspect.getmembers(list, callable) if name not in dir(object)} - readers
    changing = {name for name in own if name not in ("__add__", "__mul__", "__rmul__", "__class_getitem__")}
    assert changing <= set(vars(FixedHosts))


@pytest.mark.parametrize("read", [lambda h: h[:], lambda h: h.__add__([]), lambda h: copy.copy(h), lambda h: h.copy()])
def test_what_is_made_of_it_is_a_plain_list(read: Callable[[Any], Any]) -> None:
    made = read(hosts())
    assert type(made) is list and len(made) == 2
    made.append(1)


def test_it_travels_as_a_list_and_its_hosts_are_held() -> None:
    found = hosts()
    assert type(pickle.loads(pickle.dumps(found))) is list
    with pytest.raises(GridError):
        found[0].niceness = 3
    GRID.halted = True
    found[0].niceness = 3
    GRID.halted = False
