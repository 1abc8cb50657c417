"""Names of a package that are loaded when they are first used: loaded once, named where they are absent."""

from __future__ import annotations

import sys
import types

import pytest

from grid.lazy import lazily


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("a_package")
    monkeypatch.setitem(sys.modules, "a_package", made)
    return made


@pytest.mark.row("D01")
def test_a_name_is_loaded_when_it_is_asked_for_and_kept(package: types.ModuleType) -> None:
    names, get, listed = lazily("a_package", {"json": ["loads", "dumps"], "string": ["digits"]})
    assert names == listed() == ["digits", "dumps", "loads"]
    assert not hasattr(package, "digits")
    assert get("digits") == "0123456789" and vars(package)["digits"] == "0123456789"
    with pytest.raises(AttributeError, match="module 'a_package' has no attribute 'nothing'"):
        get("nothing")


@pytest.mark.row("D02")
def test_what_a_host_does_not_have_can_be_imported_and_says_so_when_it_is_called(package: types.ModuleType) -> None:
    where = {"grid.no_such_room": ["Thing"], "no_such_library": ["other"]}
    _, get, _ = lazily("a_package", where, "grids are made by the client")
    thing = get("Thing")
    assert isinstance(thing, type)
    with pytest.raises(ImportError, match=r"a_package\.Thing is not on this host: grids are made by the client"):
        thing(2)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        get("other")
    _, get, _ = lazily("a_package", where)
    with pytest.raises(ModuleNotFoundError, match="no_such_room"):
        get("Thing")
