"""The keys of one grid: who gets in with them, and that no log shows them."""

from __future__ import annotations

import json
import ssl

import pytest
import zmq

from grid.wire import keys as keys_module
from grid.wire.keys import Keys, make_keys

pytestmark = pytest.mark.row("G68", "X08")


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """A handshake in memory: raises ssl.SSLError where one does not take the other."""
    ways = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(ways[0], ways[1]), server.wrap_bio(ways[1], ways[0], server_side=True)
    done: set[int] = set()
    for _ in range(10):
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                pass
        if len(done) == 2:
            ends[0].write(b"hello")
            assert ends[1].read() == b"hello"
            return
    raise AssertionError("no end of the handshake")


@pytest.fixture(scope="module")
def pair() -> tuple[Keys, Keys]:
    return make_keys()


def test_each_end_knows_the_others_public_key_and_no_other_secret(pair: tuple[Keys, Keys]) -> None:
    ours, theirs = pair
    assert (ours.public, ours.other_public) == (theirs.other_public, theirs.public)
    assert ours.secret != theirs.secret and zmq.curve_public(ours.secret) == ours.public
    assert zmq.curve_public(theirs.secret) == theirs.public


def test_keys_travel_as_json_and_show_nowhere(pair: tuple[Keys, Keys]) -> None:
    ours = pair[0]
    assert Keys.from_json(json.loads(json.dumps(ours.to_json()))) == ours
    assert repr(ours) == str(ours) == "Keys(...)"


def test_both_ends_of_one_grid_take_each_other(pair: tuple[Keys, Keys]) -> None:
    shake_hands(pair[0].tls(server=False), pair[1].tls(server=True))
    shake_hands(pair[1].tls(server=False), pair[0].tls(server=True))


def test_keys_of_another_grid_open_nothing(pair: tuple[Keys, Keys]) -> None:
    strange = make_keys()[0]
    with pytest.raises(ssl.SSLError):
        shake_hands(strange.tls(server=False), pair[1].tls(server=True))
    with pytest.raises(ssl.SSLError):
        shake_hands(pair[0].tls(server=False), strange.tls(server=True))
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError):  # who shows no certificate
        shake_hands(bare, pair[1].tls(server=True))


@pytest.mark.parametrize("in_memory", [True, False])
def test_no_key_stays_in_a_file(pair: tuple[Keys, Keys], in_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_memory:
        monkeypatch.delattr(keys_module.os, "memfd_create", raising=False)
    with keys_module._as_file(b"secret") as path:
        assert path.startswith("/proc/") is in_memory
        with open(path, "rb") as file:
            assert file.read() == b"secret"
        if not in_memory:
            assert keys_module.os.stat(path).st_mode & 0o077 == 0
    assert not keys_module.os.path.exists(path)
