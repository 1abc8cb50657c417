"""Requests: names, versions, saving, what is refused."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest

from grid.jobs import Request, RequestError, Service, request


class Fit(Service):
    version = "2"


class Named(Service):
    service = "fits.Named"
    version = 3  # type: ignore[assignment]


@pytest.mark.row("R01", "R02", "R03", "V01")
def test_a_request_names_its_service_and_version_and_holds_the_keywords() -> None:
    made = Fit.request(model="MGH09", steps=3)
    assert (made.service, made.version) == (f"{__name__}.Fit", "2")
    assert made.data == {"model": "MGH09", "steps": 3}
    assert made == request(Fit, model="MGH09", steps=3) != request(Fit, model="MGH10", steps=3)
    assert request(Named).service == "fits.Named" and request(Named).version == "3"
    assert Request.service is None and Request.version is None
    assert Service.service is None and Service.version is None


@pytest.mark.row("R04")
def test_a_request_without_service_or_version_says_which() -> None:
    bare = Request(a=1)
    with pytest.raises(AttributeError, match="no service"):
        bare.to_plain()
    bare.service = "x.Y"
    with pytest.raises(AttributeError, match="no version"):
        pickle.dumps(bare)

    class Unversioned(Service):
        pass

    with pytest.raises(AttributeError, match="Unversioned has no version"):
        Unversioned.request()


@pytest.mark.row("R04", "R05", "R07", "R08")
def test_saving_keeps_public_values_and_versions_from_the_class(tmp_path: Path) -> None:
    class Special(Request):
        service = "x.Special"
        version = "7"

    made = Special(a=[1, 2.5, None], b={"c": "d"})
    made._private = object()
    made.save(tmp_path / "r.json")
    for back in (Request.read(tmp_path / "r.json"), Request.from_plain(made.to_plain())):
        assert back == made and back.service == "x.Special" and back.version == "7"
        assert not hasattr(back, "_private")
    assert json.loads((tmp_path / "r.json").read_text())["grid_request"] == 1
    copied = copy.copy(made)
    assert copied == made and not hasattr(copied, "_private")


@pytest.mark.row("R05", "R08")
def test_what_is_no_request_or_newer_is_refused_before_its_values_are_looked_at(tmp_path: Path) -> None:
    good = request(Fit, a=1).to_plain()
    with pytest.raises(RequestError, match="format 2, and this grid knows 1"):
        Request.from_plain({**good, "grid_request": 2, "data": "nonsense"})
    with pytest.raises(RequestError, match="has no version"):
        Request.from_plain({**good, "version": 5})
    with pytest.raises(RequestError, match="not a saved request"):
        Request.from_plain({"a": 1})
    with pytest.raises(RequestError, match="'_x'"):
        Request.from_plain({**good, "data": {"_x": 1}})
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(RequestError, match="not JSON"):
        Request.read(tmp_path / "r.json")


@pytest.mark.row("R09", "R11")
def test_the_hook_at_queue_time_is_nothing_by_default() -> None:
    with pytest.raises(NotImplementedError):
        Request().queue(None)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="'queue'"):
        Request(queue=1)
