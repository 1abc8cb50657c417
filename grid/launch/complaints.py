"""What OpenSSH's words on standard error mean.

Lives here: from its text to our errors; a pure function.
Elsewhere:  running ssh (`masters.py`).

ssh has one exit status, 255, for everything that goes wrong before the command runs. Its messages are in English
whatever the locale, and have been stable for many years; what we don't know is passed on as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from grid.errors import ConnectError, HostError, HostKeyError, LoginError
from grid.hosts import Host
from grid.launch.known_hosts import record_name

_BY_JUMP = "Connection closed by UNKNOWN port 65535"
"""The last words of an ssh whose jump host gave up before the first byte."""


class Dropped(Exception):
    """The server hung up during the handshake: another try is sensible."""


def explain(text: str, host: Host, config: Mapping[str, str], timed_out_s: float | None) -> HostError | Dropped:
    """The error that ssh's complaints stand for.

    Args:
        text: What it wrote to standard error.
        config: Of `ssh -G`: hostname, port, user.
        timed_out_s: How long we waited if ssh has not ended by itself.
    """
    jump = config.get("proxyjump", "none")
    if jump == "none" or _BY_JUMP not in text or "open failed" in text:
        return _explain(text, host.label, config, timed_out_s)
    # The jump host's own ssh has failed, and says so in the same words.
    error = _explain(text.replace(_BY_JUMP, ""), jump, {**config, "hostname": jump}, timed_out_s)
    if isinstance(error, Dropped):
        return error
    what = f"on the way, jump host {jump!r}: {error.what}"
    return type(error)(what, **{**error.facts, "host": host.label, "stage": "way"})


def _explain(text: str, label: str, config: Mapping[str, str], timed_out_s: float | None) -> HostError | Dropped:
    where = f"{config.get('hostname', label)} port {config.get('port', '22')}"
    last = _last_line(text)

    def connect_error(stage: str, what: str, hint: str) -> ConnectError:
        return ConnectError(what, host=label, hint=hint, stage=stage)

    if "IDENTIFICATION HAS CHANGED" in text or "key is marked as revoked" in text.lower():
        return _changed_key(text, label, config)
    if "Host key verification failed" in text or "host key is known for" in text:
        return HostKeyError(
            "its key is unknown",
            host=label,
            hint=f"`grid hosts trust {label}` shows its fingerprint; accept it if it is the one that its "
            "administrator gives you",
        )
    if found := re.search(r"Could not resolve hostname ([^\s:]+)", text):
        return connect_error(
            "name",
            f"the name {found.group(1)!r} is unknown",
            "Is it spelt right? Names of your own go into ~/.ssh/config or /etc/hosts",
        )
    if "Permission denied" in text or "Too many authentication failures" in text:
        return _refused(text, label, config)
    if "during banner exchange" in text and "timed out" in text:
        return connect_error(
            "sshd",
            f"{where} takes connections but sent no ssh greeting in time",
            "Its sshd hangs, or something else listens on that port",
        )
    if "administratively prohibited" in text:
        return connect_error(
            "way",
            f"a jump host forbids forwarding to {where}",
            "Its sshd has AllowTcpForwarding off: ask its administrator",
        )
    if found := re.search(r"(?:stdio forwarding|open) failed(?:: connect failed)?(?:: (.*))?", text):
        return connect_error(
            "way",
            f"the jump host can't connect to {where}" + (f": {found.group(1)}" if found.group(1) else ""),
            "Log in to the jump host and try `ssh` from there",
        )
    if found := re.search(r"connect to (?:host|address) (\S+) port (\d+): (.+)", text):
        address, port, reason = found.group(1), found.group(2), found.group(3).strip()
        if "refused" in reason:
            hint = "The host is up but no sshd listens there: is the port right?"
        elif "timed out" in reason:
            hint = "Is the host on? A firewall that drops packets looks the same"
        else:
            hint = "Is this machine on a network that leads there?"
        words = "no answer" if "timed out" in reason else reason[:1].lower() + reason[1:]
        return connect_error("port", f"can't connect to {address} port {port}: {words}", hint)
    if re.search(
        r"kex_exchange_identification|Connection (?:closed|reset) by|ssh_exchange_identification|Broken pipe", text
    ):
        return Dropped(last)
    if timed_out_s is not None:
        return connect_error(
            "log-in",
            f"ssh had not logged in after {timed_out_s:g} s" + (f"; it said: {last}" if last else ""),
            f"Try `ssh -v {label} true`",
        )
    return connect_error("log-in", f"ssh failed: {last or 'without a word'}", f"Try `ssh -v {label} true`")


def _changed_key(text: str, label: str, config: Mapping[str, str]) -> HostKeyError:
    seen = re.search(r"(SHA256:\S+?)\.?\s", text)
    line = re.search(r"Offending \S+ key in (\S+)", text)
    fingerprint = seen.group(1) if seen else None
    if "revoked" in text.lower():
        return HostKeyError("its key is marked as revoked", host=label, hint="Ask its administrator")
    record = record_name(config.get("hostname", label), int(config.get("port", "22")))
    what = "its key is not the one on record"
    what += f": it shows {fingerprint}" if fingerprint else ""
    what += f", another is in {line.group(1)}" if line else ""
    return HostKeyError(
        what,
        host=label,
        hint="Somebody may be in between. Ask its administrator; if the change is meant, "
        f"`ssh-keygen -R '{record}'` removes the old key, then `grid hosts trust {label}`",
        fingerprint=fingerprint,
    )


def _refused(text: str, label: str, config: Mapping[str, str]) -> LoginError:
    user = config.get("user", "")
    found = re.search(r"Permission denied \(([^)]*)\)", text)
    methods = tuple(found.group(1).split(",")) if found else ()
    what = f"sshd refused user {user!r}"
    if "Too many authentication failures" in text:
        what += ": too many keys were offered"
        hint = "Name the right key with `key:` in the hosts file or IdentityFile"
    elif methods and "publickey" not in methods:
        hint = f"It asks for more than a key; try `ssh {label} true` and call grid from a terminal"
    else:
        hint = f"Is the user name right? Try `ssh {label} true`; `ssh-copy-id {label}` installs a key"
    what += f"; it takes: {', '.join(methods)}" if methods else ""
    return LoginError(what, host=label, hint=hint, user=user, methods=methods)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
