"""Authenticated ssh connections, shared: one per user, host and way, however many ask.

Lives here: the handshake with its retries and limits, the watch over a silent link.
Elsewhere:  the bytes below (`wires.py`), keys (`known_hosts.py`, `login.py`), counting (`pool.py`), what runs on a
            line (`paramiko_ssh.py`).

A line through a jump host holds one loan of the jump host's line. Each paramiko transport has a thread of its own;
`_tick` runs there.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import paramiko
from paramiko.common import cMSG_GLOBAL_REQUEST

from grid.errors import ConnectError, HostError, HostKeyError
from grid.launch import known_hosts, wires
from grid.launch.known_hosts import Verdict
from grid.launch.limits import ConnectLimits
from grid.launch.login import log_in
from grid.launch.pool import Gates, Pool, Shared
from grid.launch.ssh_config import SshTarget
from grid.launch.transport import OrderedTransport

logger = logging.getLogger(__name__)
T = TypeVar("T")

# paramiko logs a traceback for every fault that it also raises. Its records go to a logger of ours that lets nothing
# through unless somebody asks for it: the user's own "paramiko" logger stays as it is.
_QUIET = "grid.launch.paramiko"
logging.getLogger(_QUIET).setLevel(logging.CRITICAL + 1)


class Line(Shared):
    """One authenticated transport. `sessions` counts the commands that may run on it at once."""

    def __init__(
        self,
        target: SshTarget,
        transport: paramiko.Transport,
        wire: wires.Wire,
        address: str | None,
        via: Line | None,
        limits: ConnectLimits,
    ) -> None:
        self.target = target
        self.transport = transport
        self.address = address
        self.sessions = threading.BoundedSemaphore(limits.sessions)
        self._wire = wire
        self._via = via
        self._limits = limits
        transport.packetizer.set_keepalive(limits.keepalive_s, self._tick)

    def alive(self) -> bool:
        """Whether its transport is active."""
        return self.transport.is_active()

    def close(self) -> None:
        """End the transport within `close_s`, and give back the line that it went through."""
        self.transport.close()
        self.transport.join(self._limits.close_s)
        if self._via is not None:
            via, self._via = self._via, None
            release(via)

    def _tick(self) -> None:
        """Called by the transport's thread after `keepalive_s` without traffic: ask, and give up on a silent host.

        paramiko's own keepalive asks for no answer, so it never notices one that doesn't come. TCP_USER_TIMEOUT is
        the kernel's own watch, but a wire through a jump host has no TCP of ours to the far end.
        """
        if time.monotonic() - self._wire.heard > self._limits.silence_s:
            logger.warning("link cut", extra={"action": "link_cut", "host": self.target.label})
            self.transport.close()
            return
        if not self.transport.clear_to_send.is_set():
            return  # amid a key exchange: sending would wait for it, in the very thread that has to read it
        question = paramiko.Message()
        question.add_byte(cMSG_GLOBAL_REQUEST)
        question.add_string("keepalive@openssh.com")
        question.add_boolean(True)
        # Private, for global_request() with an answer would wait for it in the thread that has to read it.
        self.transport._send_user_message(question)  # type: ignore[attr-defined]


_pool: Pool[SshTarget, Line] = Pool()
_gates = Gates()


def acquire(target: SshTarget, limits: ConnectLimits) -> Line:
    """Borrow the line to a target; it is made if there is none that lives.

    Raises:
        ConnectError, HostKeyError, LoginError: All who waited for the same line get the same error.
    """
    try:
        return _pool.acquire(target, lambda: open_line(target, limits), _patience(limits))
    except TimeoutError as exc:
        raise _too_many(target) from exc


def release(line: Line) -> None:
    """Give a line back; the last to do so closes it."""
    _pool.release(line.target, line)


def open_line(target: SshTarget, limits: ConnectLimits) -> Line:
    """Connect, check the host's key, log in.

    Raises:
        ConnectError, HostKeyError, LoginError: See there.
    """
    return _retried(_handshake, target, limits)


def show_key(target: SshTarget, limits: ConnectLimits) -> paramiko.PKey:
    """The key that the host shows now, judged by nobody: for `care/trust.py`."""
    return _retried(_ask_for_key, target, limits)


def _retried(work: Callable[[SshTarget, ConnectLimits], T], target: SshTarget, limits: ConnectLimits) -> T:
    """Do it when it is our turn; a server that hangs up on us is asked again, with growing pauses. Only that."""
    gate = _gates.get((target.hostname, target.port), limits.handshakes)
    for attempt in range(limits.retries + 1):
        if attempt:
            time.sleep(limits.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
        if not gate.acquire(timeout=_patience(limits)):
            raise _too_many(target)
        try:
            return work(target, limits)
        except wires.DroppedWire as exc:
            logger.debug("handshake dropped", extra={"host": target.label, "attempt": attempt, "reason": str(exc)})
            dropped = exc
        finally:
            gate.release()
    said = f" ({dropped})" if str(dropped) else ""
    raise ConnectError(
        f"sshd hung up during the handshake, {limits.retries + 1} times{said}",
        host=target.label,
        hint="It may be overloaded (MaxStartups), or ban this machine (fail2ban, hosts.deny): ask its administrator",
        stage="sshd",
    ) from dropped


def _ask_for_key(target: SshTarget, limits: ConnectLimits) -> paramiko.PKey:
    wire, _, via = _wire(target, limits)
    try:
        transport = _negotiate(wire, target, limits, ())
        try:
            return transport.get_remote_server_key()
        finally:
            transport.close()
    finally:
        if via is not None:
            release(via)


def _handshake(target: SshTarget, limits: ConnectLimits) -> Line:
    records = known_hosts.read_known_hosts(target.known_hosts)
    name = target.key_name or target.hostname
    wire, address, via = _wire(target, limits)
    try:
        types = known_hosts.known_types(records, name, target.port)
        transport = _negotiate(wire, target, limits, types)
        try:
            _check_key(target, name, transport.get_remote_server_key(), records)
            transport.auth_timeout = limits.auth_s
            log_in(transport, target)
        except BaseException:
            transport.close()
            raise
    except BaseException:
        if via is not None:
            release(via)
        raise
    wires.limit_silence(wire, limits.silence_s)
    return Line(target, transport, wire, address, via, limits)


def _wire(target: SshTarget, limits: ConnectLimits) -> tuple[wires.Wire, str | None, Line | None]:
    """The byte stream, the address if we dialled it ourselves, the jump host's line if there is one."""
    seconds = target.connect_s or limits.connect_s
    if target.via is not None:
        try:
            via = acquire(target.via, limits)
        except HostError as exc:
            what = f"on the way, jump host {exc.host!r}: {exc.what}"
            raise type(exc)(what, **{**exc.facts, "host": target.label, "stage": "way"}) from exc
        try:
            return wires.dial_through(via.transport, target, seconds), None, via
        except BaseException:
            release(via)
            raise
    if target.proxy_command is not None:
        return wires.dial_by_command(target), None, None
    wire, address = wires.dial(target, seconds)
    return wire, address, None


def _negotiate(wire: wires.Wire, target: SshTarget, limits: ConnectLimits, types: Iterable[str]) -> paramiko.Transport:
    """Greeting and key exchange: an encrypted transport to somebody whose key is still to be judged."""
    try:
        wire.await_greeting(limits.banner_s)
        transport = OrderedTransport(wire)  # type: ignore[arg-type]  # it has all that is used of a socket
    except TimeoutError as exc:
        wire.close()
        raise ConnectError(
            f"{target.hostname} port {target.port} takes connections but sent no ssh greeting "
            f"within {limits.banner_s:g} s",
            host=target.label,
            hint="Its sshd hangs, or something else listens on that port",
            stage="sshd",
        ) from exc
    except ValueError as exc:
        wire.close()
        raise ConnectError(
            f"what answers at {target.hostname} port {target.port} is no sshd: {exc}",
            host=target.label,
            hint="Is the port right?",
            stage="sshd",
        ) from exc
    except BaseException:
        wire.close()
        raise
    transport.set_log_channel(_QUIET)
    transport.banner_timeout = limits.banner_s
    transport.handshake_timeout = limits.auth_s
    transport.channel_timeout = limits.channel_s
    options = transport.get_security_options()
    first = {name for known in types for name in _ALGORITHMS.get(known, (known,))}
    options.key_types = sorted(options.key_types, key=lambda name: name not in first)
    finished = threading.Event()
    transport.start_client(event=finished)
    if finished.wait(limits.auth_s) and transport.is_active():
        return transport
    fault = transport.get_exception()
    silent = transport.is_active()
    transport.close()
    if silent:
        raise ConnectError(
            f"sshd greeted, but the key exchange was not done within {limits.auth_s:g} s",
            host=target.label,
            hint="The host is overloaded, or its sshd hangs",
            stage="sshd",
        )
    if fault is None or isinstance(fault, (EOFError, OSError)):
        raise wires.DroppedWire("during the key exchange") from fault
    raise ConnectError(
        f"the key exchange failed: {fault}",
        host=target.label,
        hint="Its sshd may be too old or too strict for paramiko: try `ssh: openssh` for this host",
        stage="sshd",
    ) from fault


_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""Type of a key on record -> the signature algorithms that show such a key, where the names differ."""


def _check_key(target: SshTarget, name: str, key: paramiko.PKey, records: list[known_hosts.KnownHostsLine]) -> None:
    blob = key.get_base64()
    verdict, line = known_hosts.judge(records, name, target.port, key.get_name(), blob)
    if verdict is Verdict.KNOWN:
        return
    seen = f"{key.get_name()} {known_hosts.fingerprint(blob)}"
    record = known_hosts.record_name(name, target.port)
    if verdict is Verdict.UNKNOWN and (authority := known_hosts.authority_for(records, name, target.port)):
        raise HostKeyError(
            f"an authority vouches for its key ({authority.file}:{authority.number}), which paramiko can't check",
            host=target.label,
            hint="Set `ssh: openssh` for this host: your own ssh checks it",
            fingerprint=known_hosts.fingerprint(blob),
        )
    if verdict is Verdict.UNKNOWN:
        if target.accept_new and target.known_hosts:
            known_hosts.add_line(target.known_hosts[0], f"{record} {key.get_name()} {blob}")
            logger.warning("key recorded", extra={"action": "key_recorded", "host": target.label, "key": seen})
            return
        raise HostKeyError(
            f"its key is unknown: {seen}",
            host=target.label,
            hint="Compare the fingerprint with the one that its administrator gives you, then accept it: "
            f"`grid hosts trust {target.label}`",
            fingerprint=known_hosts.fingerprint(blob),
        )
    assert line is not None
    where = f"{line.file}:{line.number}"
    if verdict is Verdict.REVOKED:
        what, hint = f"its key {seen} is marked as revoked in {where}", "Ask its administrator for the new one"
    else:
        old = f"{line.key_type} {known_hosts.fingerprint(line.key)}"
        what = f"its key is not the one on record: it shows {seen}, {where} has {old}"
        hint = (
            "Somebody may be in between. Ask its administrator; if the change is meant, "
            f"`ssh-keygen -R '{record}'` removes the old key, then `grid hosts trust {target.label}`"
        )
    raise HostKeyError(what, host=target.label, hint=hint, fingerprint=known_hosts.fingerprint(blob))


def _patience(limits: ConnectLimits) -> float:
    """How long to wait for a handshake that others make: theirs may use all its time, and all its retries."""
    once = limits.connect_s + limits.banner_s + 2 * limits.auth_s
    return float(once + 4 * limits.backoff_s * 2**limits.retries) * 2


def _too_many(target: SshTarget) -> ConnectError:
    return ConnectError(
        "too many log-ins were waiting for this host",
        host=target.label,
        hint="It answers slowly: try again later",
    )
