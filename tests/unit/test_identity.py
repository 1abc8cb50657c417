"""What a run is known by."""

from __future__ import annotations

import pytest

from grid.commands.identity import key_of
from grid.commands.template import In, Out, fill

pytestmark = pytest.mark.row("A05")


def test_equal_runs_are_equal_and_others_are_not() -> None:
    line = fill("a {i} {o}", {"i": In("/d/x"), "o": Out("*.y")})
    key = key_of(line, {"x": "1"})
    assert key == key_of(fill("a  {i} {o}", {"i": In("/elsewhere/x"), "o": Out("*.y")}), {"x": "1"})
    others = [
        key_of(line, {"x": "2"}),
        key_of(line, {"x": "1"}, versions={"a": "2"}),
        key_of(line, {"x": "1"}, variables={"A": "2"}),
        key_of(line, {"x": "1"}, stdin="x"),
        key_of(fill("a {i} {o}", {"i": In("/d/x"), "o": Out("*.z")}), {"x": "1"}),
        key_of(fill("a x x.y", {}, shell=True), {"x": "1"}),
        key_of(fill(["a", "x x.y"], {}), {}),
    ]
    assert len({key, *others}) == 1 + len(others) and len(key) == 64
