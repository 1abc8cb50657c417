"""The key of a manager's proxies goes with them, to servers only."""

from __future__ import annotations

import pickle
from multiprocessing import managers, process

import pytest

from grid.wire import authkey

pytestmark = pytest.mark.row("E11")
assert managers  # proxies can only be in a message where this was imported


class Secret:
    def __reduce__(self) -> tuple[object, ...]:
        return RebuildProxy, ()


def RebuildProxy() -> bytes:
    return bytes(process.current_process().authkey)


@pytest.fixture
def other_key(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """This process stands for a server with a key of its own."""
    before = process.current_process().authkey
    monkeypatch.setenv("GRID_SERVER", "a.0/1")
    yield b"the key of the client"  # type: ignore[misc]
    process.current_process().authkey = before


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_holds_proxies_brings_the_key(other_key: bytes, protocol: int) -> None:
    server = bytes(process.current_process().authkey)
    process.current_process().authkey = other_key
    data = authkey.with_authkey(pickle.dumps([Secret(), "x", Secret()], protocol))
    process.current_process().authkey = server
    assert pickle.loads(data) == [other_key, "x", other_key]


def test_other_messages_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = pickle.dumps([1, "x"])
    assert authkey.with_authkey(plain) is plain
    monkeypatch.delitem(authkey.sys.modules, "multiprocessing.managers")
    proxies = pickle.dumps(Secret())
    assert authkey.with_authkey(proxies) is proxies


def test_a_process_that_is_no_server_takes_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRID_SERVER", raising=False)
    before = bytes(process.current_process().authkey)
    authkey.accept(b"another")
    assert bytes(process.current_process().authkey) == before


def test_a_key_that_is_too_long_for_its_word_is_left_out(other_key: bytes) -> None:
    process.current_process().authkey = b"x" * 256
    data = pickle.dumps(Secret(), 5)
    assert authkey.with_authkey(data) is data
