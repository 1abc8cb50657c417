"""The table of a grid's processes: by number while they can be spoken to, by name while they start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from grid.grids.processes import Processes

pytestmark = pytest.mark.row("G09", "G60")


class Life:
    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def suspect(self, number: int, patience_s: float) -> None:
        self.heard.append(("suspect", number, patience_s))

    def trust(self, number: int) -> None:
        self.heard.append(("trust", number))


def home(number: int = 1) -> Any:
    return SimpleNamespace(life=Life(), peer=SimpleNamespace(number=number))


def server(name: str) -> Any:
    return SimpleNamespace(name=name)


def test_a_server_is_watched_from_its_entry_to_its_end() -> None:
    table, there, one = Processes(), home(), server("a.0/1")
    table.add(7, one, there, 2.5)
    assert table.find(7) == (there, one) and table.named("a.0/1") is one
    table.remove(7)
    table.remove(7)
    assert table.find(7) is None and table.named("a.0/1") is None
    assert there.life.heard == [("suspect", 7, 2.5), ("trust", 7)]


def test_agents_are_processes_and_no_servers() -> None:
    table, there = Processes(), home(4)
    table.add_agent(there)
    table.add(5, server("a.0/1"), there, 1.0)
    assert table.find(4) == (there, None) and [one.name for one in table.servers()] == ["a.0/1"]


def test_a_server_that_moves_is_here_twice_for_a_while() -> None:
    table, old, new, one = Processes(), home(), home(), server("a.0/1")
    table.add(1, one, old, 1.0)
    table.add(2, one, new, 1.0)
    table.remove(1)
    assert table.find(2) == (new, one) and table.named("a.0/1") is one
    assert ("trust", 1) in old.life.heard and ("trust", 1) not in new.life.heard


def test_a_start_ends_once() -> None:
    table, one = Processes(), server("a.0/1")
    assert not table.is_starting(one)
    table.begin(one)
    assert table.is_starting(one) and table.has_begun("a.0/1") is one and table.named("a.0/1") is None
    assert table.end_start("a.0/1") is one and table.end_start("a.0/1") is None and table.has_begun("a.0/1") is None


def test_the_table_may_change_while_somebody_reads() -> None:
    table = Processes()
    for number in range(3):
        table.add(number, server(f"a.0/{number}"), home(), 1.0)
    for number, _ in enumerate(table.servers()):
        table.remove(number)
    assert list(table.servers()) == []
