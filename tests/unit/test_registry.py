"""The services of a server: by name and version, brought up to date, and told when their file was edited."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from grid.jobs import Service
from grid.jobs.host.errors import RequestError, UnknownJobService
from grid.jobs.manager.registry import ServiceRegistry

pytestmark = pytest.mark.row("R02", "R03", "R08", "R12", "V01", "T11")


def made(name: str, version: str | None, **more: Any) -> type[Service]:
    return type("Made", (Service,), {"service": name, "version": version, **more})


def test_a_request_finds_the_class_of_its_version() -> None:
    registry = ServiceRegistry()
    one, two = registry.add(made("fit", "1")), registry.add(made("fit", "2"))
    assert registry.find("fit", "1") is one and registry.find("fit", "2") is two
    assert registry.services() == {"fit": ["1", "2"]} and registry.classes("fit") == [one, two]
    assert registry.classes("none") == []
    again = registry.add(made("fit", "2"))
    assert registry.find("fit", "2") is again


def test_a_class_may_take_other_versions() -> None:
    registry = ServiceRegistry()
    wide = registry.add(made("fit", "3", accepts=classmethod(lambda cls, version: version in ("1", "2"))))
    assert registry.find("fit", "2") is wide
    with pytest.raises(UnknownJobService, match="version 4 of fit, and this server has 3"):
        registry.find("fit", "4")


def test_what_is_not_there_names_what_there_is() -> None:
    registry = ServiceRegistry()
    with pytest.raises(UnknownJobService, match="none at all"):
        registry.find("fit", "1")
    registry.add(made("dock", "1"))
    with pytest.raises(UnknownJobService, match=r"no service 'fit'. It has dock") as caught:
        registry.find("fit", "1")
    assert caught.value.available == {"dock": ["1"]}


@pytest.mark.parametrize("wrong", [5, object, "fit"])
def test_what_is_no_service_class_is_refused(wrong: Any) -> None:
    with pytest.raises(RequestError, match=r"no service class"):
        ServiceRegistry().add(wrong)
    with pytest.raises(AttributeError, match="no version"):
        ServiceRegistry().add(made("fit", None))


def test_an_old_request_is_brought_up_to_date_by_the_newest_that_can() -> None:
    registry = ServiceRegistry()

    def upgrade(cls: Any, version: str, data: Any) -> Any:
        return {**data, "by": cls.version} if version == "1" else None

    registry.add(made("fit", "2", upgrade=classmethod(upgrade)))
    newest = registry.add(made("fit", "3", upgrade=classmethod(upgrade)))
    plain = {"grid_request": 1, "service": "fit", "version": "1", "data": {"a": 1}}
    assert registry.fit(plain) == (newest, {**plain, "version": "3", "data": {"a": 1, "by": "3"}})
    assert plain["version"] == "1"
    with pytest.raises(UnknownJobService):
        registry.fit({**plain, "version": "9"})
    exact = {**plain, "version": "2"}
    assert registry.fit(exact)[1] is exact


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("edited_service", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules["edited_service"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_file_that_was_edited_is_told_and_one_that_was_touched_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text = (
        tmp_path / "edited_service.py",
        "from grid.jobs import Service\nclass Fit(Service):\n    version = '1'\n",
    )
    path.write_text(text)
    monkeypatch.setitem(sys.modules, "edited_service", None)  # type: ignore[arg-type]
    registry = ServiceRegistry()
    service = registry.add(module_of(path).Fit)
    assert registry.edited(service) == ""
    os.utime(path, ns=(1, 1))
    assert registry.edited(service) == ""
    path.write_text(text + "# other\n")
    assert registry.edited(service) == str(path) == registry.edited(service)
    path.write_text(text)
    assert registry.edited(service) == ""
    path.unlink()
    assert registry.edited(service) == "" and registry.edited(made("other", "1")) == ""
