"""Room for open files: the soft limit, the hard one, and what is left."""

from __future__ import annotations

from typing import Any

import pytest

from grid.kernel import descriptors

pytestmark = pytest.mark.row("M10")


class System:
    RLIMIT_NOFILE, RLIM_INFINITY = 7, -1

    def __init__(self, soft: int, hard: int, refuses: bool = False) -> None:
        self.limits, self.refuses, self.asked = (soft, hard), refuses, 0

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, _: int, limits: tuple[int, int]) -> None:
        self.asked += 1
        if self.refuses:
            raise ValueError("not allowed")
        self.limits = limits


def use(monkeypatch: pytest.MonkeyPatch, system: Any, open_files: int | None = 10) -> None:
    def listed(_: str) -> list[str]:
        if open_files is None:
            raise OSError("no such place")
        return [""] * open_files

    monkeypatch.setattr(descriptors, "resource", system)
    monkeypatch.setattr(descriptors.os, "listdir", listed)


def test_what_is_left_keeps_a_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, System(1024, 4096))
    assert descriptors.left() == 1024 - 10 - descriptors.SPARE and descriptors.limit() == "ulimit -n is 1024"


@pytest.mark.parametrize(("system", "files"), [(None, 10), (System(-1, -1), 10), (System(1024, 4096), None)])
def test_a_system_that_does_not_say_has_room(monkeypatch: pytest.MonkeyPatch, system: Any, files: int | None) -> None:
    use(monkeypatch, system, files)
    assert descriptors.left() == 1 << 30


@pytest.mark.parametrize(("count", "raised"), [(966, False), (967, True)])
def test_a_limit_is_raised_only_where_it_may_not_do(monkeypatch: pytest.MonkeyPatch, count: int, raised: bool) -> None:
    system = System(1024, 4096)
    use(monkeypatch, system)
    descriptors.make_room(count)
    assert system.limits == ((4096, 4096) if raised else (1024, 4096))


def test_a_system_that_refuses_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(1024, 4096, refuses=True)
    use(monkeypatch, system)
    descriptors.raise_limit()
    assert system.limits == (1024, 4096) and system.asked == 1
    use(monkeypatch, equal := System(4096, 4096))
    descriptors.raise_limit()
    assert equal.asked == 0
    use(monkeypatch, None)
    descriptors.raise_limit()
    assert descriptors.limit() == ""
