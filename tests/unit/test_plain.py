"""Plain values: what survives the trip through JSON, what is named when it can't."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.jobs import RequestError, Service, request
from grid.jobs.host.plain import dumps, from_plain, loads, to_plain


class Fit(Service):
    version = "2"


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda key: key[:1] != "$"), inner),
    max_leaves=20,
)


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
