"""What one server needs, and sizes as people write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.slots.needs import Needs, shown, size

pytestmark = pytest.mark.row("O01")


@given(st.integers(1, 2**50))
def test_a_number_of_bytes_is_itself(number: int) -> None:
    assert size(number) == number == size(str(number)) and Needs(memory=number).memory_bytes == number


@given(st.integers(1, 1023), st.sampled_from("KMGT"))
def test_a_size_is_read_as_it_is_shown(number: int, unit: str) -> None:
    found = size(f"{number}{unit}")
    assert found == number << {"K": 10, "M": 20, "G": 30, "T": 40}[unit] and shown(found) == f"{number}{unit}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("8G", 8 << 30),
        ("8 GiB", 8 << 30),
        ("8gb", 8 << 30),
        ("1.5 M", 3 << 19),
        (" 7 ", 7),
        ("5B", 5),
        ("512k", 1 << 19),
    ],
)
def test_forms_of_a_size(text: str, found: int) -> None:
    assert size(text) == found


@pytest.mark.parametrize(
    "wrong", ["", "G", "8 X", "-1G", "1e3", "8GG", 0, -5, "0", "0.0001", True, 1.5, None, [], "8G\nx"]
)
def test_what_is_no_size_is_refused_by_its_name(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^the cache must be"):
        size(wrong, "the cache")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("cores", 0), ("cores", -1), ("cores", True), ("cores", 1.0), ("cores", "2"), ("gpus", -1), ("gpus", None),
     ("gpus", True), ("memory", "much"), ("memory", 0)],
)  # fmt: skip
def test_wrong_needs_name_what_is_wrong(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"^needs: {name} must be"):
        Needs(**{name: wrong})


def test_in_words_and_in_plain_values() -> None:
    needs = Needs(cores=4, memory="8G", gpus=1)
    assert str(needs) == "4 cores, 8G of memory, 1 device" and str(Needs()) == "nothing"
    assert str(Needs(cores=1, gpus=2)) == "1 core, 2 devices" and shown(1023) == "1023 bytes"
    assert Needs(**needs.plain()) == needs and Needs(**Needs().plain()) == Needs()
