"""Requests and the values that they may hold."""

from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.jobs import Request, RequestError, Service, request
from grid.jobs.host.plain import dumps, from_plain, loads, to_plain


class Fit(Service):
    version = "2"


class Named(Service):
    service = "fits.Named"
    version = 3  # type: ignore[assignment]


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda key: key[:1] != "$"), inner),
    max_leaves=20,
)


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


@pytest.mark.row("R06")
@given(plain_values)
def test_primitive_values_survive_the_trip_through_json(value: object) -> None:
    assert from_plain(loads(dumps(to_plain(value)))) == value


@pytest.mark.row("R06")
def test_near_primitives_become_plain_and_the_rest_is_named() -> None:
    numpy = pytest.importorskip("numpy")

    @dataclass
    class Point:
        x: float
        tags: tuple[str, ...]

    assert to_plain(Point(1.0, ("a",))) == {"x": 1.0, "tags": ["a"]}
    assert to_plain({"a": numpy.arange(3), "b": numpy.float64(2.5)}) == {"a": [0, 1, 2], "b": 2.5}
    text = dumps(to_plain([math.inf, math.nan]))
    assert "NaN" not in text and from_plain(loads(text))[0] == math.inf and math.isnan(from_plain(loads(text))[1])
    with pytest.raises(RequestError, match=r"request.model\['f'\]\[1\] is a builtins.object"):
        request(Fit, model={"f": [1, object()]}).to_plain()
    with pytest.raises(RequestError, match="the key 1, which is no text"):
        to_plain({1: 2})
    with pytest.raises(RequestError, match=r"\$ref"):
        to_plain({"$ref": 1})
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(RequestError, match="holds itself"):
        to_plain(loop)


@pytest.mark.row("R09", "R11")
def test_the_hook_at_queue_time_is_nothing_by_default() -> None:
    with pytest.raises(NotImplementedError):
        Request().queue(None)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="'queue'"):
        Request(queue=1)
