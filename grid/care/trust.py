"""Accepting a host's key, on purpose and by name.

Lives here: asking a host for its key, writing it down.
Elsewhere:  judging keys (`launch/known_hosts.py`), refusing hosts whose key is not on record (`launch/lines.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from grid.errors import HostKeyError
from grid.hosts import Host
from grid.launch import known_hosts, lines
from grid.launch.known_hosts import Verdict
from grid.launch.limits import DEFAULT_LIMITS, ConnectLimits
from grid.launch.ssh_config import resolve


@dataclass(frozen=True, kw_only=True)
class ShownKey:
    """The key that a host shows at this moment, and what is on record about it."""

    host: str
    name: str  # as known_hosts has it: `name` or `[name]:port`
    key_type: str
    key: str  # base64
    fingerprint: str  # SHA256:..., to be compared with what the administrator says
    verdict: Verdict
    file: str  # where it is recorded, or would be


def fetch_key(host: Host, limits: ConnectLimits = DEFAULT_LIMITS) -> ShownKey:
    """Ask a host for its key, through its jump hosts, whose keys must be known already.

    Raises:
        ConnectError: No way to its sshd; HostKeyError: a jump host's key is unknown or has changed.
    """
    target = resolve(host)
    key = lines.show_key(target, limits)
    name = target.key_name or target.hostname
    records = known_hosts.read_known_hosts(target.known_hosts)
    verdict, line = known_hosts.judge(records, name, target.port, key.get_name(), key.get_base64())
    if line is None and not target.known_hosts:
        raise HostKeyError("the ssh config names no file to record keys in", host=host.label, hint="See ~/.ssh/config")
    return ShownKey(
        host=host.label,
        name=known_hosts.record_name(name, target.port),
        key_type=key.get_name(),
        key=key.get_base64(),
        fingerprint=known_hosts.fingerprint(key.get_base64()),
        verdict=verdict,
        file=target.known_hosts[0] if line is None else line.file,
    )


def trust(shown: ShownKey) -> None:
    """Record a key, once the user has agreed to its fingerprint; one that is on record already stays as it is.

    Raises:
        HostKeyError: Another key is on record, or this one is revoked: removing that takes the user's own hands.
    """
    if shown.verdict is Verdict.KNOWN:
        return
    if shown.verdict is not Verdict.UNKNOWN:
        raise HostKeyError(
            f"its key {shown.fingerprint} is {shown.verdict.value}: see {shown.file}",
            host=shown.host,
            hint=f"If its administrator confirms the new one, `ssh-keygen -R '{shown.name}'` removes the old",
        )
    known_hosts.add_line(shown.file, f"{shown.name} {shown.key_type} {shown.key}")
