"""TLS with a server whose certificate is known by its fingerprint, as keys of ssh are.

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

    Names and dates are not looked at: who has that key is who we mean.
    """

    _pin: str

    def __new__(cls, fingerprint: str) -> Pinned:
        made = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        made._pin = check_fingerprint(fingerprint)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        return made

    def __init__(self, fingerprint: str) -> None:
        pass

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """See the class."""
        connection = super().wrap_socket(*arguments, **options)
        certificate = connection.getpeercert(binary_form=True) or b""
        if not hmac.compare_digest(hashlib.sha256(certificate).hexdigest(), self._pin):
            connection.close()
            raise ssl.SSLError("its certificate has another fingerprint than the one on record")
        return connection


def check_fingerprint(text: str) -> str:
    """64 hex digits; colons and case do not matter. Raises RequestError."""
    digits = text.replace(":", "").strip().lower().removeprefix("sha256=")
    if len(digits) != 64 or not all(c in "0123456789abcdef" for c in digits):
        raise RequestError(f"{text!r} is no fingerprint", hint="It has 64 hex digits; grid serve prints it")
    return digits
