"""TLS with a server whose certificate is known by its fingerprint, as keys of ssh are.

The certificate is compared where a handshake ends, on both ways that Python has: sockets (`SSLSocket`), and memory
(`SSLObject`, which asyncio and TLS within the TLS of an https proxy use).

Lives here: `Pinned`.
Elsewhere:  such certificates (`grid/web/tls.py`).
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from typing import Any

from grid.jobs.host.errors import RequestError


class Pinned(ssl.SSLContext):
    """A client's context for one certificate: anything else ends the handshake, before a byte of ours is sent.

    Names and dates do not count: the holder of that key is the one we mean.
    """

    _pin: str

    def __new__(cls, fingerprint: str) -> Pinned:
        made = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        made._pin = check_fingerprint(fingerprint)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.sslsocket_class = _PinnedSocket
        made.sslobject_class = _PinnedObject
        return made

    def __init__(self, fingerprint: str) -> None:
        pass


class _PinnedSocket(ssl.SSLSocket):
    _is_compared = False

    def do_handshake(self, block: bool = False) -> None:
        """As for any, and then the certificate is compared."""
        super().do_handshake(block)
        try:
            _compare(self)
        except ssl.SSLError:
            self.close()
            raise

    # what would shake hands by the way, or go on after a handshake that was refused

    def send(self, *arguments: Any) -> int:
        """See SSLSocket."""
        _check(self)
        return super().send(*arguments)

    def write(self, *arguments: Any) -> int:
        """See SSLSocket."""
        _check(self)
        return super().write(*arguments)

    def read(self, *arguments: Any) -> Any:
        """See SSLSocket; recv and recv_into call it."""
        _check(self)
        return super().read(*arguments)


class _PinnedObject(ssl.SSLObject):
    _is_compared = False

    def do_handshake(self) -> None:
        """As for any, and then the certificate is compared."""
        super().do_handshake()
        _compare(self)

    def write(self, *arguments: Any) -> int:
        """See SSLObject."""
        _check(self)
        return super().write(*arguments)

    def read(self, *arguments: Any) -> Any:
        """See SSLObject."""
        _check(self)
        return super().read(*arguments)


def _compare(connection: Any) -> None:
    certificate = connection.getpeercert(binary_form=True) or b""
    if not hmac.compare_digest(hashlib.sha256(certificate).hexdigest(), connection.context._pin):
        raise _refused("its certificate has another fingerprint than the one on record")
    connection._is_compared = True


def _refused(why: str) -> ssl.SSLError:
    """With a number, as those of OpenSSL have one: the text of an SSLError without is a tuple."""
    return ssl.SSLError(ssl.SSL_ERROR_SSL, why)


def _check(connection: Any) -> None:
    if not connection._is_compared:
        raise _refused("its certificate was not compared with the one on record: shake hands first")


def check_fingerprint(text: str) -> str:
    """64 hex digits; colons and case do not matter. Raises RequestError."""
    digits = text.replace(":", "").strip().lower().removeprefix("sha256=")
    if len(digits) != 64 or not all(c in "0123456789abcdef" for c in digits):
        raise RequestError(f"{text!r} is no fingerprint", hint="It has 64 hex digits; grid serve prints it")
    return digits
