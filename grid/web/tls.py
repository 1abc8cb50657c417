"""Certificates of the web server: given as files, or one that it makes for itself and clients pin.

A certificate of one's own says nothing about who made it, so that clients compare its fingerprint, the SHA-256 of it,
with the one that they were told: `grid login https://host:8440 --fingerprint ...`, as one does with keys of ssh.

Lives here: `Certificate`.
Elsewhere:  the client's side of it (`client.py`).
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import socket
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from grid.jobs.host.errors import StoreError

DAYS = 3650


class Certificate:
    """A certificate and its key, in files. Raises StoreError if they can't be used."""

    def __init__(self, cert: str | os.PathLike[str], key: str | os.PathLike[str], *, is_own: bool = False) -> None:
        self.cert, self.key, self.is_own = Path(cert), Path(key), is_own
        self.context()

    @classmethod
    def own(cls, directory: Path, host: str) -> Certificate:
        """That of the server whose jobs lie there, made when it is first asked for: `tls.crt`, and `tls.key` (0600)."""
        cert, key = Path(directory) / "tls.crt", Path(directory) / "tls.key"
        if not (cert.exists() and key.exists()):
            _make(cert, key, host)
        return cls(cert, key, is_own=True)

    @property
    def fingerprint(self) -> str:
        """Of the certificate, in hex."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(_first(self.cert.read_text()))).hexdigest()

    def context(self) -> ssl.SSLContext:
        """For a server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as exc:
            raise StoreError(
                f"the certificate {self.cert} can't be used ({exc.strerror or exc})", hint="Both files must be PEM"
            ) from exc
        return context


def _first(pem: str) -> str:
    end = "-----END CERTIFICATE-----"
    return pem[pem.index("-----BEGIN") : pem.index(end) + len(end)]


def _make(cert: Path, key: Path, host: str) -> None:
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "grid job server")])
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.DNSName(socket.gethostname())]
    for each in dict.fromkeys(("127.0.0.1", "::1", host)):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(each)))
        except ValueError:
            names.append(x509.DNSName(each))
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    for path, data in ((key, pem), (cert, made.public_bytes(serialization.Encoding.PEM))):
        part = path.with_name(f"{path.name}.part")
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
        os.replace(part, path)
