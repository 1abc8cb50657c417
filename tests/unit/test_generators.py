"""Random generators that go to many servers alike are told of, each name once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from grid.grids import generators

pytestmark = pytest.mark.row("M23")


@pytest.fixture(autouse=True)
def nothing_told() -> Iterator[None]:
    before = set(generators._told)
    generators._told.clear()
    yield
    generators._told.clear()
    generators._told.update(before)


def test_a_name_of_the_script_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    generators.warn(None, ["rng", "a"], instance=False)
    generators.warn("Model.0", ["rng", "a"], instance=False)
    generators.warn(None, [], instance=False)
    assert len(caplog.records) == 1
    assert caplog.messages[0].startswith("all servers draw the same random numbers: a, rng of the script hold ")
    assert "reseed=True of the grid" in caplog.messages[0]


def test_an_instance_is_told_each_time_with_what_is_new(caplog: pytest.LogCaptureFixture) -> None:
    generators.warn("Model.0", ["rng"], instance=True)
    generators.warn("Model.1", ["rng"], instance=True)
    assert (
        "service 'Model.0': " in caplog.messages[0]
        and "the instance and rng of the script hold a" in caplog.messages[0]
    )
    assert "the instance holds a generator" in caplog.messages[1] and "publish(..., reseed=True)" in caplog.messages[1]
