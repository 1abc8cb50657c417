"""Which host keys are on record: known_hosts files, read and judged as OpenSSH does.

Lives here: the lines of the files, what they say about one key, fingerprints, adding a line.
Elsewhere:  asking a host for its key (`lines.py`, `care/trust.py`).

paramiko's own reader is not used because it knows neither patterns (`*.cluster`) nor `@revoked`, and takes a key of a
type that is not on record for a wrong one or a right one depending on the order of the lines.
"""

from __future__ import annotations

import base64
import binascii
import enum
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


class Verdict(enum.Enum):
    """The verdict of the records on a key that a host showed."""

    KNOWN = "known"
    UNKNOWN = "unknown"  # nothing is on record for this name
    CHANGED = "changed"  # something else is on record for this name
    REVOKED = "revoked"


@dataclass(frozen=True)
class KnownHostsLine:
    """One usable line: `[marker] names type key`."""

    marker: str
    names: str
    key_type: str
    key: str
    file: str
    number: int

    def matches(self, name: str) -> bool:
        """Whether the line is about this name: by hash, or by patterns of which none with `!` excludes it."""
        if self.names.startswith("|1|"):
            return _hash_matches(self.names, name)
        found = False
        for pattern in self.names.split(","):
            if fnmatch.fnmatchcase(name.lower(), _escape_brackets(pattern.removeprefix("!").lower())):
                if pattern.startswith("!"):
                    return False
                found = True
        return found


def read_known_hosts(files: Iterable[str]) -> list[KnownHostsLine]:
    """All lines of files that exist; comments and what is no key line are passed over, as ssh does."""
    lines = []
    for file in files:
        try:
            text = Path(file).expanduser().read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for number, row in enumerate(text.splitlines(), 1):
            words = row.split()
            marker = words.pop(0) if words and words[0].startswith("@") else ""
            if len(words) >= 3 and not words[0].startswith("#"):
                lines.append(KnownHostsLine(marker, words[0], words[1], words[2], file, number))
    return lines


def record_name(name: str, port: int) -> str:
    """How known_hosts calls a host: its name, or `[name]:port` where the port is not 22."""
    return name if port == 22 else f"[{name}]:{port}"


def known_types(lines: Sequence[KnownHostsLine], name: str, port: int) -> set[str]:
    """Key types on record for a host: asking for these first keeps a host with several keys from looking changed."""
    return {line.key_type for line in _about(lines, name, port) if not line.marker}


def judge(
    lines: Sequence[KnownHostsLine], name: str, port: int, key_type: str, key: str
) -> tuple[Verdict, KnownHostsLine | None]:
    """What the records say about the key (base64), and the line that says so.

    A key of a type that is not on record, where others are, counts as changed: else somebody in the middle only has
    to offer another type.
    """
    about = _about(lines, name, port)
    for line in about:
        if line.marker == "@revoked" and line.key == key:
            return Verdict.REVOKED, line
    plain = [line for line in about if not line.marker]
    # ssh also accepts the key that is on record under the name alone, when it asks at another port.
    for line in [*plain, *(line for line in lines if not line.marker and line.matches(name))]:
        if (line.key_type, line.key) == (key_type, key):
            return Verdict.KNOWN, line
    if plain:
        same = [line for line in plain if line.key_type == key_type]
        return Verdict.CHANGED, (same or plain)[0]
    return Verdict.UNKNOWN, None


def authority_for(lines: Sequence[KnownHostsLine], name: str, port: int) -> KnownHostsLine | None:
    """The line that lets an authority vouch for a host's key (`@cert-authority`), if there is one."""
    about = [*_about(lines, name, port), *(line for line in lines if line.matches(name))]
    return next((line for line in about if line.marker == "@cert-authority"), None)


def fingerprint(key: str) -> str:
    """`SHA256:...` of a key in base64, as `ssh-keygen -l` writes it."""
    digest = hashlib.sha256(base64.b64decode(key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def add_line(file: str, line: str) -> None:
    """Append `name type key` to a known_hosts file; file and directory are made (0600, 0700) if absent."""
    path = Path(file).expanduser()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with open(handle, "r+b", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        lead = b""
        if size and os.path.isfile(path):
            stream.seek(size - 1)
            lead = b"" if stream.read(1) == b"\n" else b"\n"
        # One write, so that two sessions which trust hosts at once don't mix their lines.
        stream.write(lead + f"{line}\n".encode())


def _about(lines: Sequence[KnownHostsLine], name: str, port: int) -> list[KnownHostsLine]:
    wanted = record_name(name, port)
    return [line for line in lines if line.matches(wanted)]


def _escape_brackets(pattern: str) -> str:
    # Only `*` and `?` mean something here; `[host]:port` must not become a set of characters.
    return pattern.replace("[", "[[]")


def _hash_matches(hashed: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part) for part in hashed[3:].split("|"))
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), "sha1").digest(), digest)
