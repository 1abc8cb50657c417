"""Proving to an ssh server who we are: keys of the agent and from files, in the order in which ssh tries them.

Lives here: which keys are offered, and what is said when none is taken.
Elsewhere:  the server's key (`known_hosts.py`), passwords and second factors (`openssh.py`: there ssh itself asks).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.agent import AgentSSH
from paramiko.pkey import PublicBlob, UnknownKeyType

from grid.errors import ConnectError, LoginError
from grid.launch.ssh_config import SshTarget
from grid.text import in_words

_AGENT_S = 10.0
"""Until an agent must have answered: it may ask its user for each key."""


@dataclass
class _Attempt:
    """What has been offered so far, for the message."""

    offered: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)


def log_in(transport: paramiko.Transport, target: SshTarget) -> None:
    """Log in with a key.

    Raises:
        LoginError: The server took none; the message says what was offered and what it would take.
        ConnectError: The link broke meanwhile, or the server fell silent.
    """
    attempt = _Attempt()
    try:
        transport.auth_none(target.user)
        return
    except paramiko.BadAuthenticationType as exc:
        attempt.allowed = list(exc.allowed_types)
    except paramiko.AuthenticationException as exc:
        if "timeout" in str(exc).lower():
            raise _silent(target) from exc
        raise _refused(target, attempt, "it hung up at the log-in") from exc
    except (paramiko.SSHException, EOFError, OSError) as exc:
        raise _broken(target, exc) from exc
    if "publickey" not in attempt.allowed:
        raise _refused(target, attempt, "it takes no keys")
    agent = _agent_of(target, attempt)
    try:
        for name, key in _keys(target, agent, attempt):
            attempt.offered.append(name)
            try:
                further = transport.auth_publickey(target.user, key)
            except paramiko.AuthenticationException as exc:
                if "timeout" in str(exc).lower():
                    raise _silent(target) from exc
                if not transport.is_active():
                    raise _refused(target, attempt, f"it hung up after {len(attempt.offered)} keys") from exc
            except (paramiko.SSHException, EOFError, OSError) as exc:
                if not transport.is_active():
                    raise _refused(target, attempt, f"it hung up after {len(attempt.offered)} keys") from exc
                attempt.unusable.append(f"{name} ({in_words(exc)})")
            else:
                if not further:
                    return
                attempt.allowed = list(further)
                raise _refused(target, attempt, "a key alone is not enough")
    finally:
        if agent is not None:
            agent.close()
    raise _refused(target, attempt, None)


class _AgentAt(AgentSSH):
    """An agent at a socket of its own: paramiko's own class knows $SSH_AUTH_SOCK alone."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._line.settimeout(_AGENT_S)
            self._line.connect(path)
            self._connect(self._line)  # type: ignore[attr-defined]  # as its own class does
        except BaseException:
            self._line.close()
            raise

    def close(self) -> None:
        """Close the connection to it."""
        self._line.close()


def _agent_of(target: SshTarget, attempt: _Attempt) -> paramiko.Agent | _AgentAt | None:
    if not target.agent:
        return None
    if target.agent_at is None:
        return paramiko.Agent()
    try:
        return _AgentAt(target.agent_at)
    except (OSError, paramiko.SSHException) as exc:
        attempt.unusable.append(f"the agent at {target.agent_at} ({getattr(exc, 'strerror', None) or exc})")
        return None


def _certified(file: str, target: SshTarget) -> Iterator[tuple[str, paramiko.PKey]]:
    """The key of a file with each certificate of CertificateFile that was made for it."""
    for certificate in target.certificates:
        try:
            key = paramiko.PKey.from_path(file)
            plain = key.asbytes()
            key.load_certificate(certificate)
        except (OSError, ValueError, TypeError, paramiko.SSHException, UnknownKeyType, UnsupportedAlgorithm):
            continue  # of another kind of key; a file that can't be read is told where it is offered alone
        blob = bytes(PublicBlob.from_file(certificate).key_blob)
        if plain[-32:] in blob:  # the number itself stands in its certificate
            yield f"{file} with {certificate}", key


def _keys(
    target: SshTarget, agent: paramiko.Agent | _AgentAt | None, attempt: _Attempt
) -> Iterator[tuple[str, paramiko.PKey]]:
    """Every key once: first those that are named and held by the agent, then the agent's, then files."""
    held = list(agent.get_keys()) if agent is not None else []
    named = {public: file for file in target.keys if (public := _public_half(file)) is not None}
    seen: set[bytes] = set()
    for key in sorted(held, key=lambda key: key.asbytes() not in named):
        file = named.get(key.asbytes())
        if file is None and target.keys_only:
            continue
        seen.add(key.asbytes())
        yield f"{file or key.comment or key.get_name()} (agent)", key
    for file in target.keys:
        yield from _certified(file, target)
        if _public_half(file) in seen:
            continue
        try:
            loaded = paramiko.PKey.from_path(file)
        except FileNotFoundError:
            attempt.unusable.append(f"{file} (no such file)")
        except (TypeError, paramiko.PasswordRequiredException):
            attempt.unusable.append(f"{file} (has a passphrase: `ssh-add {file}` unlocks it)")
        except (OSError, ValueError, paramiko.SSHException, UnknownKeyType, UnsupportedAlgorithm) as exc:
            attempt.unusable.append(f"{file} ({getattr(exc, 'strerror', None) or 'is no private key that grid reads'})")
        else:
            if loaded.asbytes() not in seen:
                seen.add(loaded.asbytes())
                yield file, loaded


def _public_half(file: str) -> bytes | None:
    """The public key beside a private one: names the agent's key for a file that we can't read ourselves."""
    path = Path(file if file.endswith(".pub") else file + ".pub")
    try:
        return bytes(PublicBlob.from_file(str(path)).key_blob)
    except (OSError, ValueError):
        return None


def _refused(target: SshTarget, attempt: _Attempt, why: str | None) -> LoginError:
    what = f"sshd refused user {target.user!r}"
    if why:
        what += f": {why}"
    what += f"; keys offered: {', '.join(attempt.offered) or 'none'}"
    absent = [text for text in attempt.unusable if "no such file" not in text or not attempt.offered]
    if absent:
        what += f"; not usable: {', '.join(absent)}"
    if attempt.allowed:
        what += f"; it takes: {', '.join(attempt.allowed)}"
    if attempt.allowed and "publickey" not in attempt.allowed:
        hint = "Set `ssh: openssh` for this host: then ssh itself asks you for a password or second factor"
    elif why and "hung up" in why:
        hint = "It allows few tries: name the right key with `key:` in the hosts file or IdentityFile"
    else:
        hint = (
            f"Is the user name right? Try `ssh {target.label} true`: if that works, set `ssh: openssh` for this host; "
            f"`ssh-copy-id {target.label}` installs a key"
        )
    return LoginError(
        what,
        host=target.label,
        hint=hint,
        user=target.user,
        keys=tuple(attempt.offered),
        methods=tuple(attempt.allowed),
    )


def _silent(target: SshTarget) -> ConnectError:
    return ConnectError(
        f"sshd answered nothing to the log-in of {target.user!r}",
        host=target.label,
        hint="Its user directory (LDAP, NFS home) may hang; try again later, or ask the administrator",
        stage="log-in",
    )


def _broken(target: SshTarget, exc: Exception) -> ConnectError:
    return ConnectError(
        f"the link broke during the log-in ({in_words(exc)})",
        host=target.label,
        hint="Try again; if it stays so, look at sshd's log",
        stage="log-in",
    )
