"""Who may speak to a server: the keys of one grid, made at the client and carried over the launch channel.

dill runs code, so a server listens only to those who prove that they hold the grid's keys:

- Small messages cross TCP under CURVE. The host's side has one key pair, the client another, and a gatekeeper (ZAP,
  ZeroMQ RFC 27) admits the client's public key only. A stranger gets silence, by design of CURVE.
- Bulk crosses TCP under TLS 1.3 with one self-signed certificate that both sides hold and demand of each other.
- On one machine messages go through UNIX sockets in a 0700 directory, and need neither.

Lives here: making keys, putting them on sockets.
Elsewhere:  who is let in (`gatekeeper`), how keys reach the host (`grids/`, over the launch channel's standard input:
            never argv or environment).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import zmq

if TYPE_CHECKING:
    import ssl  # takes 10 ms to load, and only other machines need it


@dataclass(frozen=True, repr=False)
class Keys:
    """One end's keys: its own CURVE pair, the other's public key, and the grid's TLS certificate (PEM)."""

    public: bytes
    secret: bytes
    other_public: bytes
    certificate: str
    certificate_key: str

    def __repr__(self) -> str:
        return "Keys(...)"  # never in a log or traceback

    def to_json(self) -> dict[str, str]:
        """Plain text values, for the launch channel only."""
        return {key: value.decode() if isinstance(value, bytes) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, str]) -> Keys:
        """The inverse of `to_json`."""
        curve = {key: data[key].encode() for key in ("public", "secret", "other_public")}
        return cls(**curve, certificate=data["certificate"], certificate_key=data["certificate_key"])

    def listen(self, socket: zmq.Socket[Any]) -> None:
        """Make `socket` the CURVE server; before bind."""
        socket.curve_secretkey, socket.curve_publickey = self.secret, self.public
        socket.curve_server = True
        socket.zap_domain = b"grid"

    def call(self, socket: zmq.Socket[Any]) -> None:
        """Make `socket` a CURVE client of the other end; before connect."""
        socket.curve_secretkey, socket.curve_publickey = self.secret, self.public
        socket.curve_serverkey = self.other_public

    def tls(self, *, server: bool) -> ssl.SSLContext:
        """A TLS 1.3 context that shows the grid's certificate and accepts no other."""
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # the certificate is ours alone: only we hold its key, whatever the name
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.certificate)
        with _as_file((self.certificate + self.certificate_key).encode()) as path:
            context.load_cert_chain(path)  # the standard library loads keys from files only
        return context


@contextmanager
def _as_file(secret: bytes) -> Iterator[str]:
    """A path at which it can be read meanwhile: in memory alone, where Linux has that; a kill leaves nothing then."""
    handle = -1
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        handle = os.memfd_create("grid-tls", os.MFD_CLOEXEC)
        path = f"/proc/self/fd/{handle}"
    else:
        handle, path = tempfile.mkstemp(prefix="grid-tls-")
    try:
        os.write(handle, secret)
        yield path
    finally:
        os.close(handle)
        if not path.startswith("/proc/"):
            os.unlink(path)


def make_keys() -> tuple[Keys, Keys]:
    """Fresh keys for one grid: (the client's, the hosts')."""
    ours, our_secret = zmq.curve_keypair()
    theirs, their_secret = zmq.curve_keypair()
    certificate, key = _certificate()
    return (
        Keys(ours, our_secret, theirs, certificate, key),
        Keys(theirs, their_secret, ours, certificate, key),
    )


def _certificate() -> tuple[str, str]:
    # here, not at the top: `cryptography` comes with paramiko at the client, and hosts don't have it
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "grid")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=7))  # hosts' clocks may be wrong
        .not_valid_after(now + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )
