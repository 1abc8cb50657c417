"""Records of host keys, judged as OpenSSH judges them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from grid.launch.known_hosts import (
    Verdict,
    add_line,
    fingerprint,
    judge,
    known_types,
    read_known_hosts,
    record_name,
)

ED = "ssh-ed25519"


def verdict(directory: Path, text: str, port: int = 22) -> Verdict:
    file = directory / "known_hosts"
    file.write_text(text)
    return judge(read_known_hosts([str(file)]), "n", port, ED, "AAAA")[0]


@pytest.mark.row("H11")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Verdict.UNKNOWN),
        ("# n ssh-ed25519 AAAA", Verdict.UNKNOWN),
        ("n ssh-ed25519", Verdict.UNKNOWN),
        ("m ssh-ed25519 AAAA", Verdict.UNKNOWN),
        ("n ssh-ed25519 AAAA", Verdict.KNOWN),
        ("N ssh-ed25519 AAAA comment", Verdict.KNOWN),
        ("m,n,10.0.0.1 ssh-ed25519 AAAA", Verdict.KNOWN),
        ("* ssh-ed25519 AAAA", Verdict.KNOWN),
        ("*,!n ssh-ed25519 AAAA", Verdict.UNKNOWN),
        ("[n]:22 ssh-ed25519 AAAA", Verdict.UNKNOWN),
        ("n ssh-ed25519 BBBB", Verdict.CHANGED),
        ("n ssh-rsa BBBB", Verdict.CHANGED),  # only another type on record: not to be waved through
        ("n ssh-rsa BBBB\nn ssh-ed25519 AAAA", Verdict.KNOWN),
        ("n ssh-ed25519 BBBB\nn ssh-ed25519 AAAA", Verdict.KNOWN),
        ("@revoked * ssh-ed25519 AAAA\nn ssh-ed25519 AAAA", Verdict.REVOKED),
        ("@revoked * ssh-ed25519 BBBB\nn ssh-ed25519 AAAA", Verdict.KNOWN),
        ("@cert-authority * ssh-ed25519 AAAA", Verdict.UNKNOWN),
    ],
)
def test_what_the_records_say(text: str, expected: Verdict, tmp_path: Path) -> None:
    assert verdict(tmp_path, text) is expected


@pytest.mark.row("H11")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[n]:2222 ssh-ed25519 AAAA", Verdict.KNOWN),
        ("[n]:2222 ssh-ed25519 BBBB", Verdict.CHANGED),
        ("[n]:2223 ssh-ed25519 AAAA", Verdict.UNKNOWN),
        ("n ssh-ed25519 AAAA", Verdict.KNOWN),  # as ssh does: the same key under the name alone
        ("n ssh-ed25519 BBBB", Verdict.UNKNOWN),
        ("[*]:2222 ssh-ed25519 AAAA", Verdict.KNOWN),
    ],
)
def test_other_ports_have_records_of_their_own(text: str, expected: Verdict, tmp_path: Path) -> None:
    assert verdict(tmp_path, text, port=2222) is expected


@pytest.mark.row("H11")
def test_hashed_names_of_ssh_keygen(tmp_path: Path) -> None:
    key, file = tmp_path / "key", tmp_path / "known_hosts"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
    key_type, public = (tmp_path / "key.pub").read_text().split()
    file.write_text(f"n {key_type} {public}\n[n]:2222 {key_type} {public}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", str(file)], check=True, capture_output=True)
    lines = read_known_hosts([str(file)])
    assert "n " not in file.read_text()[:2]
    assert known_types(lines, "n", 22) == known_types(lines, "n", 2222) == {key_type}
    assert judge(lines, "n", 22, key_type, public)[0] is Verdict.KNOWN
    assert judge(lines, "m", 22, key_type, public)[0] is Verdict.UNKNOWN
    listed = subprocess.run(["ssh-keygen", "-lf", str(key)], check=True, capture_output=True, text=True).stdout
    assert fingerprint(public) in listed


@pytest.mark.row("H11")
def test_a_line_is_added_to_whatever_is_there(tmp_path: Path) -> None:
    file = tmp_path / "new" / "known_hosts"
    add_line(str(file), f"{record_name('n', 22)} {ED} AAAA")
    assert file.read_text() == f"n {ED} AAAA\n"
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text("no newline at its end")
    add_line(str(file), f"{record_name('n', 2222)} {ED} AAAA")
    assert file.read_text() == f"no newline at its end\n[n]:2222 {ED} AAAA\n"
    add_line("/dev/null", "some who trust everybody keep their records there")


def test_files_that_are_not_there_say_nothing() -> None:
    assert read_known_hosts(["/nowhere/known_hosts", "~/../nowhere"]) == []
