"""The load of one server: its last fifty run times, and how often it was used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.services.load import Load

pytestmark = pytest.mark.row("G18", "G41")


@given(st.lists(st.floats(0, 1e3), max_size=120))
def test_the_last_fifty_count_for_the_mean(times: list[float]) -> None:
    load = Load()
    for seconds in times:
        load.add(seconds)
    last = ([0.0, *times])[-50:]
    assert list(load.time) == last[::-1] and load.mean == pytest.approx(sum(last) / len(last))
    assert load.calls == len(times) and load.total == pytest.approx(sum(times))


def test_before_the_first_call() -> None:
    load = Load()
    assert list(load.time) == [0.0] and load.mean == 0.0 and (load.jobs, load.calls, load.acquired) == (0, 0, False)
