"""A blob from one host to another: straight where that is possible, else through the client, and never tried twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from grid.errors import ConnectError, DiskError
from grid.grids.between import carry

pytestmark = pytest.mark.row("S04", "H11")
WAY = ("10.0.0.1", 5)


class Side:
    """A host that has a lane or none, and what was asked of it."""

    def __init__(self, way: tuple[str, int] | None = WAY, error: Exception | None = None, local: bool = False) -> None:
        self.way, self.error, self.local = way, error, local
        self.unreached: set[Any] = set()
        self.asked: list[tuple[Any, ...]] = []
        self.limits = SimpleNamespace(control_s=30.0)
        self.host = SimpleNamespace(label="h")
        self.written: list[Any] = []

    def lane_address(self) -> tuple[str, int] | None:
        return self.way

    def ask_later(self, *question: Any, timeout: float) -> Any:
        self.asked.append((*question, timeout))

        def answer() -> str:
            if self.error is not None:
                raise self.error
            return "straight"

        return answer

    def store(self) -> Any:
        def write(parts: Any) -> str:
            self.written.append(parts)
            return "through here"

        return SimpleNamespace(read=lambda blob, sizes, drop: (blob, tuple(sizes), drop), write=write)


def refused() -> ConnectError:
    return ConnectError("refused", host="h", hint="a firewall")


def go(source: Side, target: Side) -> str:
    return carry(source, target, "blob", [1_000_000, 2_000_000])()  # type: ignore[arg-type]


def test_straight_with_time_in_proportion_to_the_size() -> None:
    source, target = Side(), Side()
    assert go(source, target) == "straight"
    assert target.asked == [("fetch", "blob", *WAY, 33.0)] and not target.written


@pytest.mark.parametrize(("source", "target"), [(Side(None), Side()), (Side(), Side(local=True))])
def test_without_a_lane_it_goes_through_the_client(source: Side, target: Side) -> None:
    assert go(source, target) == "through here"
    assert target.asked == [] and target.written == [("blob", (1_000_000, 2_000_000), False)]


def test_a_way_that_failed_is_not_asked_for_again() -> None:
    source, target = Side(), Side(error=refused())
    assert [go(source, target) for _ in range(3)] == ["through here"] * 3
    assert len(target.asked) == 1 and target.unreached == {WAY}
    assert go(Side(("10.0.0.2", 5)), target) == "through here" and len(target.asked) == 2  # another one is tried


def test_a_full_disk_is_no_missing_way() -> None:
    target = Side(error=DiskError("full", host="h", hint="make room"))
    with pytest.raises(DiskError):
        go(Side(), target)
    assert not target.unreached and not target.written
