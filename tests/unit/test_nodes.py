"""Nodes of an allocation, from a name for each slot."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.batch_systems import nodes
from grid.batch_systems.nodes import Node, check_size, content_of, count_nodes, same_machine
from grid.errors import AllocationError

pytestmark = pytest.mark.row("B04", "B05")


@given(st.lists(st.sampled_from(["n1", "n2", "n3.cluster", "N-4"]), min_size=1))
def test_slots_add_up_in_order_of_first_mention(names: list[str]) -> None:
    found = count_nodes(names, "F")
    assert [node.name for node in found] == list(dict.fromkeys(names))
    assert {node.name: node.slots for node in found} == Counter(names)


@pytest.mark.parametrize("names", [[], [""], ["-n1"], ["n 1"], ["n1;x"], ["n1\n"], ["n1", "../x"]])
def test_what_names_no_node_says_where_it_was_read(names: list[str]) -> None:
    with pytest.raises(AllocationError, match=r"^PBS_NODEFILE names"):
        count_nodes(names, "PBS_NODEFILE")


def test_a_slip_does_not_fill_the_memory() -> None:
    check_size(nodes.MOST, "V")
    with pytest.raises(AllocationError, match="V tells of more"):
        check_size(nodes.MOST + 1, "V")


def test_a_file_that_a_variable_names() -> None:
    def fail(path: str) -> str:
        raise FileNotFoundError(2, "No such file", path)

    def binary(path: str) -> str:
        return b"\xff".decode()

    assert content_of({"F": "/x"}, "F", lambda path: f"of {path}") == "of /x"
    for environ in ({}, {"F": ""}):
        with pytest.raises(AllocationError, match="F is not set"):
            content_of(environ, "F", fail)
    for read in (fail, binary):
        with pytest.raises(AllocationError, match="F names /x, which can't be read"):
            content_of({"F": "/x"}, "F", read)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("n1", "n1.cluster", True), ("n1.a", "n1.b", True), ("n1", "n11", False), ("n1", "N1", False), ("n1", "n1", True)],
)
def test_names_of_one_machine(one: str, other: str, same: bool) -> None:
    assert same_machine(one, other) is same is same_machine(other, one)
    assert Node("n1", 2) == Node("n1", 2)
