"""Which of its own addresses a process listens at."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from grid.errors import ConnectError
from grid.kernel import address

pytestmark = pytest.mark.row("B14")
WAYS = {"far": "10.1.0.7", "other": "10.2.0.7", "self": "127.0.1.1", "self6": "::1"}


class Probe:
    def __init__(self, *_: Any) -> None:
        self.own = ""

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def connect(self, target: tuple[str, int]) -> None:
        if target[0] not in WAYS:
            raise OSError("no route")
        self.own = WAYS[target[0]]

    def getsockname(self) -> tuple[str, int]:
        return self.own, 1


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str, *_: Any, **__: Any) -> list[Any]:
        if name == "unknown":
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, 0, 0, "", (name, 9))]

    monkeypatch.setattr(address.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(address.socket, "socket", Probe)


@pytest.mark.parametrize(
    ("peers", "found"),
    [
        (["far", "other"], "10.1.0.7"),
        (["other", "far"], "10.2.0.7"),
        (["unknown", "cut off", "far"], "10.1.0.7"),
        (["self", "far"], "10.1.0.7"),
        (["self", "self6"], "127.0.1.1"),
        (["self6", "unknown"], "::1"),
    ],
)
def test_the_first_peer_with_a_way_decides_and_loopback_comes_last(peers: list[str], found: str) -> None:
    assert address.address_towards(iter(peers)) == found


@pytest.mark.parametrize("peers", [[], ["unknown"], ["cut off", "unknown"]])
def test_no_way_names_all_that_were_tried(peers: list[str]) -> None:
    with pytest.raises(ConnectError) as caught:
        address.address_towards(peers)
    assert all(peer in str(caught.value) for peer in peers)
