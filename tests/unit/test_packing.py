"""How many items travel together, tried against servers whose speed is made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.services.packing import LARGEST, TARGET_S, Packing

seconds = st.floats(1e-7, 100)


@pytest.mark.row("G45")
@given(seconds, st.integers(1, 64), st.integers(0, 100_000))
def test_every_item_goes_once_and_packs_fit_their_time(item_s: float, servers: int, items: int) -> None:
    packing, left, packs, tried = Packing(), items, 0, 1
    while left:
        size = packing.take(servers, left)
        assert 1 <= size <= max(1, left) and size <= LARGEST
        assert size == 1 or size * item_s <= 1.01 * TARGET_S, "a pack takes no longer than it should"
        assert size <= 4 * tried, "nor does it grow by leaps"
        packing.took(size, size * item_s, 0.0)
        tried = max(tried, size)
        left -= size
        packs += 1
        if packs > 3000:
            return
    ideal = items * item_s / TARGET_S
    assert packs <= 2 * ideal + items / LARGEST + 2 * servers * 20 + 60, "few packs, but for the ends"


@pytest.mark.row("G45")
@given(st.integers(1, 64), st.integers(1, 100_000))
def test_the_last_packs_are_small(servers: int, left: int) -> None:
    packing = Packing()
    for _ in range(12):
        size = packing.take(servers)
        packing.took(size, size * 1e-6, 0.0)
    assert packing.take(servers, left) <= max(1, -(-left // (2 * servers)))


@pytest.mark.row("G45")
def test_the_way_counts_where_it_is_longer_than_the_work() -> None:
    packing = Packing()
    packing.took(1, 0.0, 2.0)
    assert packing.take(2) == 1 and packing.ahead(1) == 1


@pytest.mark.row("G45")
def test_short_packs_are_sent_ahead_and_long_ones_not() -> None:
    quick, slow = Packing(), Packing()
    assert quick.ahead(1) == 1, "nothing is known yet"
    quick.took(1, 1e-5, 2e-5)
    slow.took(1, 3.0, 3.0)
    assert quick.ahead(quick.take(4)) == 2 and slow.ahead(slow.take(4)) == 1


@pytest.mark.row("G45")
@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 10), st.floats(0, 10)), max_size=30), st.integers(1, 500))
def test_a_fixed_size_stays(history: list[tuple[int, float, float]], size: int) -> None:
    packing = Packing(fixed=size)
    for took in history:
        packing.took(*took)
        assert packing.take(3, 1) == size


@pytest.mark.row("G45")
@pytest.mark.parametrize("bad", [{"target_s": 0}, {"largest": 0}, {"fixed": 0}])
def test_sizes_are_positive(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="0"):
        Packing(**bad)  # type: ignore[arg-type]
