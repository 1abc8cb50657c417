"""Limits: every one is a positive number, said once in a frozen value, and wrong ones are refused by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from grid.jobs.host.limits import Limited
from grid.launch.limits import ConnectLimits
from grid.limits import Limits, checked_timeout
from grid.tasks.limits import TaskLimits
from grid.web.limits import WebLimits
from grid.wire import limits as wire


@pytest.mark.row("U16", "X03")
@pytest.mark.parametrize("kind", [Limits, TaskLimits, ConnectLimits, WebLimits])
def test_each_has_an_end_and_can_not_be_changed(kind: Any) -> None:
    value = kind()
    for each in dataclasses.fields(kind):
        assert 0 < getattr(value, each.name) < float("inf"), each.name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, each.name, 1)
    with pytest.raises(TypeError):
        kind(5)  # by name only


@pytest.mark.row("U16")
@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(Limits)])
def test_a_wrong_limit_of_a_grid_is_refused_by_name(name: str) -> None:
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=f"Limits.{name} must be more than 0"):
            Limits(**{name: wrong})
    for other in (True, "5", None):
        with pytest.raises(TypeError, match=f"Limits.{name} must be a number"):
            Limits(**{name: other})  # type: ignore[arg-type]


@pytest.mark.row("U16")
@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(TaskLimits)])
def test_a_wrong_limit_of_a_master_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"TaskLimits.{name} must be more than 0"):
        TaskLimits(**{name: 0})


@pytest.mark.row("G12", "U16")
@pytest.mark.parametrize("variable", ["GRID_START_S", "GRID_PUBLISH_S", "GRID_ORPHAN_S"])
def test_variables_give_the_default(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    field = variable.removeprefix("GRID_").lower()
    monkeypatch.delenv(variable, raising=False)
    before = getattr(Limits(), field)
    monkeypatch.setenv(variable, "")
    assert getattr(Limits(), field) == before
    monkeypatch.setenv(variable, "7.5")
    assert getattr(Limits(), field) == 7.5 and getattr(Limits(**{field: 3}), field) == 3
    monkeypatch.setenv(variable, "soon")
    with pytest.raises(ValueError, match=variable):
        Limits()


class Number:
    def __float__(self) -> float:
        return 2.5


@pytest.mark.row("U11")
def test_time_limits_of_callers() -> None:
    assert [checked_timeout(each) for each in (None, 3, 0.5, Number(), -1)] == [None, 3, 0.5, 2.5, -1]  # type: ignore[arg-type]
    for wrong in (True, "5", [], object()):
        with pytest.raises(TypeError):
            checked_timeout(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        checked_timeout(float("nan"))


class System:
    RLIMIT_NOFILE, RLIM_INFINITY = 7, -1

    def __init__(self, soft: int, hard: int, refuses: bool = False) -> None:
        self.limits, self.refuses = (soft, hard), refuses

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, _: int, limits: tuple[int, int]) -> None:
        if self.refuses:
            raise OSError("no")
        self.limits = limits


@pytest.mark.row("X02", "X03")
@pytest.mark.parametrize(
    ("system", "soft", "strangers"),
    [
        (System(1024, -1), wire.FILES, wire.STRANGERS),
        (System(1024, 4096), 4096, (4096 - 512) // 3),
        (System(20_000, 20_000), 20_000, wire.STRANGERS),
        (System(-1, -1), -1, wire.STRANGERS),
        (System(256, 4096, refuses=True), 256, 32),
    ],
)
def test_room_for_strangers(monkeypatch: pytest.MonkeyPatch, system: System, soft: int, strangers: int) -> None:
    monkeypatch.setattr(wire, "resource", system)
    wire.raise_files()
    assert system.limits[0] == soft and wire.strangers() == strangers
    monkeypatch.setattr(wire, "resource", None)
    wire.raise_files()
    assert wire.strangers() == wire.STRANGERS


@pytest.mark.row("J23")
def test_limits_of_a_job_are_set_and_lifted() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limited = Limited({"file_bytes": 12345, "cpu_s": 1e-9})
    try:
        assert resource.getrlimit(resource.RLIMIT_FSIZE) == (12345, before[1])
        sum(range(1000))  # some of it is used by now
        assert "limit cpu_s" in (limited.exceeded() or "")
    finally:
        limited.lift()
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before
    limited.lift()
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before


@pytest.mark.row("J23")
def test_a_limit_that_nobody_knows_is_refused_by_name_and_none_is_none() -> None:
    with pytest.raises(ValueError, match="no limit is called 'gpu_s'; there are cpu_s, memory_bytes, file_bytes"):
        Limited({"gpu_s": 3})
    assert Limited({}).exceeded() is None and Limited({"cpu_s": 1e9}).exceeded() is None
