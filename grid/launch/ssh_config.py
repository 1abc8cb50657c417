"""What we know before we connect: a `Host` and ~/.ssh/config become one `SshTarget`.

Lives here: reading the config (with Include), the fields of the host put over it, chains of jump hosts.
Elsewhere:  connecting (`lines.py`); the OpenSSH way in needs none of this, its binary reads the config itself.
"""

from __future__ import annotations

import getpass
import glob
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

from grid.errors import ConnectError
from grid.hosts import Host
from grid.text import in_words

_MAX_JUMPS = 8
_DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_DEFAULT_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


@dataclass(frozen=True)
class SshTarget:
    """All that decides a connection: equal targets may share one."""

    label: str = field(compare=False)  # how messages call it
    hostname: str
    port: int
    user: str
    keys: tuple[str, ...]
    keys_only: bool  # IdentitiesOnly, or a key named by the host: the agent offers no others
    agent: bool
    agent_at: str | None  # IdentityAgent: the socket of another agent than $SSH_AUTH_SOCK
    certificates: tuple[str, ...]  # CertificateFile, beside those that lie by their keys
    via: SshTarget | None
    proxy_command: str | None
    known_hosts: tuple[str, ...]
    key_name: str | None  # HostKeyAlias
    accept_new: bool  # StrictHostKeyChecking accept-new: the user has told ssh to record unknown keys
    connect_s: float | None


def config_file() -> str | None:
    """The ssh config that replaces the user's and the system's: $GRID_SSH_CONFIG."""
    return os.environ.get("GRID_SSH_CONFIG") or None


def resolve(host: Host) -> SshTarget:
    """What ~/.ssh/config (or $GRID_SSH_CONFIG) and the fields of the host say, the fields first.

    Raises:
        ConnectError: The config can't be used, or its jump hosts go in a circle.
    """
    try:
        config = paramiko.SSHConfig.from_text("\n".join(_config_lines()))
        return _resolve(config, host, 0)
    except (paramiko.ConfigParseError, paramiko.CouldNotCanonicalize, ImportError, KeyError, ValueError) as exc:
        raise ConnectError(
            f"the ssh config can't be used: {in_words(exc)}", host=host.label, hint=f"Try `ssh -G {host.name}`"
        ) from exc


def _resolve(config: paramiko.SSHConfig, host: Host, depth: int) -> SshTarget:
    if depth > _MAX_JUMPS:
        raise ConnectError(
            f"more than {_MAX_JUMPS} jump hosts: they seem to go in a circle",
            host=host.label,
            hint="Look at ProxyJump in ~/.ssh/config",
        )
    found = config.lookup(host.name)
    jump = host.jump if host.jump is not None else found.get("proxyjump")
    via = None
    if jump and jump.lower() != "none":
        # `a,b`: b is reached through a, whatever the config says about b; a by what the config says.
        before, _, last = jump.rpartition(",")
        # `ssh://user@host:port`, as well: Host takes it apart
        nearest = Host(last.strip().removeprefix("ssh://").rstrip("/"), jump=before.strip() or None)
        if nearest.name != host.name:  # `Host *` with a ProxyJump names the jump host, too; ssh passes over that
            via = _resolve(config, nearest, depth + 1)
    own_key = () if host.key is None else (host.key,)
    configured = tuple(found.get("identityfile", ()))
    files = own_key or configured or _DEFAULT_KEYS
    known = _files(found.get("userknownhostsfile"), _DEFAULT_KNOWN_HOSTS)
    known += _files(found.get("globalknownhostsfile"), _GLOBAL_KNOWN_HOSTS)
    timeout = found.get("connecttimeout", "none")
    port, user = host.port or int(found.get("port", 22)), host.user or found.get("user") or getpass.getuser()
    words = {"n": host.name, "h": found.get("hostname", host.name), "p": str(port), "r": user}
    agent_at = _filled_in(found.get("identityagent", "SSH_AUTH_SOCK"), words)
    return SshTarget(
        label=host.label,
        hostname=found.get("hostname", host.name),
        port=port,
        user=user,
        keys=tuple(_filled_in(name, words) for name in files if name.lower() != "none"),
        keys_only=bool(own_key) or found.get("identitiesonly", "no").lower() == "yes",
        agent=agent_at.lower() != "none",
        agent_at=None if agent_at in ("SSH_AUTH_SOCK", "none") else agent_at,
        certificates=tuple(
            _filled_in(name, words) for name in _several(found.get("certificatefile")) if name.lower() != "none"
        ),
        via=via,
        proxy_command=None if via or host.jump else found.get("proxycommand"),
        known_hosts=known,
        key_name=found.get("hostkeyalias"),
        accept_new=found.get("stricthostkeychecking", "ask").lower() in ("accept-new", "no", "off"),
        connect_s=None if timeout in ("none", "0") else float(timeout),
    )


def _several(value: str | list[str] | None) -> list[str]:
    return [] if value is None else [value.strip('"')] if isinstance(value, str) else [one.strip('"') for one in value]


def _filled_in(text: str, words: Mapping[str, str]) -> str:
    """A path of the config with its tokens: paramiko fills in some, and leaves others as they stand.

    Source: ssh_config(5), TOKENS and ENVIRONMENT VARIABLES.
    """
    text = text.strip('"')
    if text.startswith("$") and re.fullmatch(r"\$[A-Za-z_][A-Za-z0-9_]*", text):
        return os.environ.get(text[1:], "")
    text = re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", lambda found: os.environ.get(found[1], found[0]), text)
    known = {
        **words,
        "%": "%",
        "d": os.path.expanduser("~"),
        "u": getpass.getuser(),
        "i": str(os.getuid()),
        "l": socket.gethostname(),
        "L": socket.gethostname().partition(".")[0],
        "k": words["n"],
    }
    return os.path.expanduser(re.sub(r"%(.)", lambda found: known.get(found[1], found[0]), text))


def _files(value: str | None, default: tuple[str, ...]) -> tuple[str, ...]:
    names = default if value is None else tuple(value.replace('"', " ").split())
    return tuple(os.path.expanduser(name) for name in names if name.lower() != "none")


def _config_lines() -> Iterator[str]:
    named = config_file()
    if named is not None:
        yield from _read(Path(named), Path(named).parent, 0)
        return
    yield from _read(Path("~/.ssh/config").expanduser(), Path("~/.ssh").expanduser(), 0)
    yield "Host *"
    yield from _read(Path("/etc/ssh/ssh_config"), Path("/etc/ssh"), 0)


def _read(path: Path, base: Path, depth: int) -> Iterator[str]:
    """The lines of a config with its Includes in place: paramiko passes over them."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    section = "Host *"
    for line in lines:
        text = line.strip()
        if re.match(r"(host|match)[\s=]", text, re.IGNORECASE):
            section = text
        included = re.match(r"include[\s=]+(.+)", text, re.IGNORECASE)
        if included is None:
            yield line
            continue
        if depth < 16:
            for pattern in included.group(1).replace('"', " ").split():
                for name in sorted(glob.glob(str(base / Path(pattern).expanduser()))):
                    yield from _read(Path(name), base, depth + 1)
                    yield section  # the included file may have begun another one
