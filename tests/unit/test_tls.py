"""The certificate of a job server: made once, its key for its owner alone, and names by which it is reached."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import pytest

x509 = pytest.importorskip("cryptography.x509")
from grid.jobs.host.errors import StoreError  # noqa: E402
from grid.web.tls import Certificate  # noqa: E402

pytestmark = pytest.mark.row("P03", "Y11")


def test_it_is_made_once_and_its_key_is_its_owners(tmp_path: Path) -> None:
    first = Certificate.own(tmp_path, "10.0.0.1")
    again = Certificate.own(tmp_path, "other")
    assert first.fingerprint == again.fingerprint and first.is_own
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "tls.crt": 0o600,
        "tls.key": 0o600,
    }
    before = first.fingerprint
    first.key.unlink()
    assert Certificate.own(tmp_path, "10.0.0.1").fingerprint != before
    assert first.context().minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("host", ["10.0.0.1", "::1", "jobs.example.org", "127.0.0.1"])
def test_it_names_where_it_is_reached(tmp_path: Path, host: str) -> None:
    own = Certificate.own(tmp_path, host)
    loaded = x509.load_pem_x509_certificate(own.cert.read_bytes())
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    said = {str(name.value) for name in names}
    assert {host, "localhost", "127.0.0.1", "::1"} <= said and len(names) == len(said)
    with pytest.raises(x509.ExtensionNotFound):
        loaded.extensions.get_extension_for_class(x509.KeyUsage)
    assert own.fingerprint == hashlib.sha256(ssl.PEM_cert_to_DER_cert(own.cert.read_text())).hexdigest()


def test_of_a_chain_the_first_counts(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = Certificate.own(tmp_path / "a", "h"), Certificate.own(tmp_path / "b", "h")
    chain = tmp_path / "chain.pem"
    chain.write_text("words before\n" + one.cert.read_text() + other.cert.read_text())
    assert Certificate(chain, one.key).fingerprint == one.fingerprint


def test_what_can_not_be_used_is_named(tmp_path: Path) -> None:
    one = Certificate.own(tmp_path, "h")
    (tmp_path / "other").mkdir()
    other = Certificate.own(tmp_path / "other", "h")
    (tmp_path / "bad.pem").write_text("no certificate")
    for cert, key in ((tmp_path / "none", one.key), (tmp_path / "bad.pem", one.key), (one.cert, other.key)):
        with pytest.raises(StoreError, match="can't be used"):
            Certificate(cert, key)
