"""What OpenSSH's words mean. The texts are what OpenSSH 9.2 wrote."""

from __future__ import annotations

import pytest

from grid.errors import ConnectError, HostError, HostKeyError, LoginError
from grid.hosts import Host
from grid.launch.complaints import Dropped, explain

CONFIG = {"hostname": "10.0.0.7", "port": "2222", "user": "mara"}

CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
The fingerprint for the ED25519 key sent by the remote host is
SHA256:pLQqPzX9cTqMZ0pUIYbDDG0zGzzWeyeTRM6C7zv9a5g.
Please contact your system administrator.
Add correct host key in /tmp/k to get rid of this message.
Offending ED25519 key in /tmp/k:7
Host key for [10.0.0.7]:2222 has changed and you have requested strict checking.
Host key verification failed.
"""

JUMP_FAILED = """\
channel 0: open failed: connect failed: Connection refused
stdio forwarding failed
Connection closed by UNKNOWN port 65535
"""


@pytest.mark.row("H11")
@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        (CHANGED, HostKeyError, "it shows SHA256:pLQqPzX9cTqMZ0pUIYbDDG0zGzzWeyeTRM6C7zv9a5g, another is in /tmp/k:7"),
        (CHANGED, HostKeyError, "ssh-keygen -R '[10.0.0.7]:2222'"),
        (
            "No ED25519 host key is known for n and you have requested strict checking.\nHost key verification failed.",
            HostKeyError,
            "grid hosts trust n",
        ),
        ("mara@n: Permission denied (publickey,password).", LoginError, "it takes: publickey, password"),
        ("mara@n: Permission denied (keyboard-interactive).", LoginError, "asks for more than a key"),
        ("Received disconnect from n port 22:2: Too many authentication failures", LoginError, "too many keys"),
        ("ssh: Could not resolve hostname nn: Name or service not known", ConnectError, "the name 'nn' is unknown"),
        ("ssh: connect to host n port 22: Connection refused", ConnectError, "connection refused"),
        ("ssh: connect to host n port 22: Connection timed out", ConnectError, "no answer"),
        ("ssh: connect to host n port 22: No route to host", ConnectError, "no route to host"),
        ("Connection timed out during banner exchange", ConnectError, "sent no ssh greeting"),
        (JUMP_FAILED, ConnectError, "the jump host can't connect to 10.0.0.7 port 2222"),
        (
            "channel 0: open failed: administratively prohibited: open failed\nstdio forwarding failed",
            ConnectError,
            "forbids forwarding",
        ),
        ("kex_exchange_identification: Connection closed by remote host", Dropped, "Connection closed"),
        ("kex_exchange_identification: read: Connection reset by peer", Dropped, "reset"),
        ("Unable to negotiate with n: no matching cipher found.", ConnectError, "no matching cipher"),
        ("", ConnectError, "without a word"),
    ],
)
def test_complaints(text: str, kind: type[Exception], says: str) -> None:
    error = explain(text, Host("n"), CONFIG, None)
    assert type(error) is kind and says in str(error)
    if isinstance(error, HostError):
        assert error.host == "n" and error.hint


@pytest.mark.row("H11")
@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("ssh: connect to host j port 22: Connection refused\n", ConnectError, "connection refused"),
        ("x@j: Permission denied (publickey).\n", LoginError, "it takes: publickey"),
        ("Host key verification failed.\n", HostKeyError, "grid hosts trust j"),
    ],
)
def test_complaints_of_a_jump_host(text: str, kind: type[Exception], says: str) -> None:
    text += "kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535\n"
    error = explain(text, Host("n"), {**CONFIG, "proxyjump": "j"}, None)
    assert type(error) is kind and says in str(error)
    assert isinstance(error, HostError)
    assert error.host == "n" and "on the way, jump host 'j'" in error.what and error.facts["stage"] == "way"


@pytest.mark.row("H11")
def test_no_end_in_time() -> None:
    assert "had not logged in after 7 s; it said: Hello" in str(explain("Hello\n", Host("n"), CONFIG, 7))
