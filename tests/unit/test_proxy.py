"""Names on an acquired server, and what becomes of them."""

from __future__ import annotations

import pickle

import pytest

from grid.errors import Released
from grid.services.proxy import methods_of, proxy_type
from tests.grounds import Ground, Seat


class Model:
    greeting = "hello"

    def __init__(self) -> None:
        self.hook = print

    def f(self) -> None: ...

    def _inner(self) -> None: ...


@pytest.mark.row("G14")
def test_public_methods_are_known_by_name() -> None:
    assert methods_of(Model()) == {"f", "hook"}
    assert proxy_type(frozenset({"f"})) is proxy_type(frozenset({"f"})), "one class for each set of methods"


@pytest.mark.row("G14", "G17")
def test_methods_are_calls_and_other_names_are_attributes() -> None:
    seat = Seat("s/0")
    proxy = proxy_type(frozenset({"f"}))(Ground(), seat, frozenset({"f"}))
    proxy.f(1)
    proxy.get("greeting")
    proxy.set("greeting", "bye")
    proxy(2)
    assert [(due.method, due.args) for due in seat.made] == [
        ("f", (1,)),
        ("@get", ("greeting",)),
        ("@set", ("greeting", "bye")),
        ("@call", (2,)),
    ]
    with pytest.raises(AttributeError, match="can't be set"):
        proxy.f = 3
    with pytest.raises(AttributeError):
        _ = proxy._nothing
    with pytest.raises(TypeError, match="can't be sent"):
        pickle.dumps(proxy)
    proxy._hold.released = True
    for call in (lambda: proxy.f(1), lambda: proxy(1), lambda: proxy.get("x")):
        with pytest.raises(Released, match="Acquire the service again"):
            call()
