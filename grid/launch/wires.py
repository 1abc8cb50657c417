"""The byte stream under an ssh connection: dialled directly, by a ProxyCommand, or through another host.

Lives here: name look-up and TCP connect within a limit, the wait for the server's first line, faults told apart.
Elsewhere:  what is spoken on the wire (`lines.py`), where it should go (`ssh_config.py`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import paramiko

from grid.errors import ConnectError
from grid.launch.ssh_config import SshTarget

_PREAMBLE_BYTES = 65536


class DroppedWire(Exception):
    """The server hung up during the handshake: it may be busy (MaxStartups), so another try is sensible."""


class Wire:
    """A socket, or what looks like one, as paramiko's transport wants it; notes when something last arrived.

    It reads ahead: paramiko asks for 16 bytes and then for the rest of each packet, which costs two system calls.
    """

    def __init__(self, sock: Any, end: Callable[[], None] = lambda: None) -> None:
        self._sock = sock
        self._end = end
        self._ahead = b""
        self._at = 0  # how much of it has been read; cutting it off each time would copy the rest each time
        self._closed = False  # paramiko looks at this name
        self.heard = time.monotonic()

    def recv(self, size: int) -> bytes:
        """At most `size` bytes, first those that were read ahead."""
        if self._at >= len(self._ahead):
            self._ahead, self._at = self._more(), 0
        data = self._ahead[self._at : self._at + size]
        self._at += len(data)
        return data

    def _more(self) -> bytes:
        data: bytes = self._sock.recv(262144)
        self.heard = time.monotonic()
        return data

    def send(self, data: bytes) -> int:
        """Send some of it; how many bytes."""
        return int(self._sock.send(data))

    def settimeout(self, timeout: float | None) -> None:
        """Of both directions, in seconds; None waits for ever."""
        self._sock.settimeout(timeout)

    def close(self) -> None:
        """Close the socket, and end the command behind it if there is one."""
        if not self._closed:
            self._closed = True
            self._sock.close()
            self._end()

    def await_greeting(self, timeout: float) -> None:
        """Wait for the server's `SSH-` line, and leave it to be read.

        Raises:
            TimeoutError: Nothing, or no such line, came in time.
            Dropped: The server hung up before; the message is what it said.
            ValueError: What answers there is not ssh.
        """
        deadline = time.monotonic() + timeout
        while True:
            if any(line.startswith(b"SSH-") for line in self._ahead.split(b"\n")[:100]):
                return
            if len(self._ahead) > _PREAMBLE_BYTES:
                raise ValueError(self._ahead[:60].decode("ascii", "replace"))
            self.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                more = self._more()
            except TimeoutError:
                raise
            except OSError as exc:
                raise DroppedWire(exc.strerror or str(exc)) from exc
            if not more:
                raise DroppedWire(self._ahead.decode("ascii", "replace").strip())
            self._ahead += more


def dial(target: SshTarget, timeout: float) -> tuple[Wire, str]:
    """Connect by TCP: the wire, and the address that answered.

    Raises:
        ConnectError: Name unknown, refused, no route, or no answer: each in words of its own.
    """
    deadline = time.monotonic() + timeout
    faults: list[str] = []
    for family, address in _look_up(target, timeout):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            sock.connect(address)
        except OSError as exc:
            sock.close()
            faults.append(_fault(exc, address, timeout))
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return Wire(sock), str(address[0])
    where = f"{target.hostname} port {target.port}"
    if any("no answer" in fault for fault in faults):
        hint = "Is the host on? A firewall that drops packets looks the same"
    elif any("refused" in fault for fault in faults):
        hint = "The host is up but no sshd listens there: is the port right?"
        if target.hostname in ("localhost", "127.0.0.1", "::1"):
            hint += " This machine needs none: LocalGrid(), or Host('localhost', ssh='local') among others"
    else:
        hint = "Is this machine on a network that leads there?"
    raise ConnectError(f"can't connect to {where}: {'; '.join(faults)}", host=target.label, hint=hint, stage="port")


def limit_silence(wire: Wire, seconds: float) -> None:
    """Let the kernel give up on unanswered data after `seconds`; else a cut link is noticed after minutes."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None and isinstance(wire._sock, socket.socket) and wire._sock.family != socket.AF_UNIX:
        wire._sock.setsockopt(socket.IPPROTO_TCP, option, int(seconds * 1000))


def dial_by_command(target: SshTarget) -> Wire:
    """Start the ProxyCommand; its stdin and stdout are one end of a socket pair, so it can be waited for."""
    assert target.proxy_command is not None
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            # As ssh does: by the user's shell, replaced by the command so that the signal reaches it.
            ["/bin/sh", "-c", f"exec {target.proxy_command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as exc:
        ours.close()
        raise ConnectError(
            f"the ProxyCommand can't be started: {exc.strerror}", host=target.label, hint="See ~/.ssh/config"
        ) from exc
    finally:
        theirs.close()

    def end() -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(1)
                return
            except ProcessLookupError:
                process.wait()
                return
            except subprocess.TimeoutExpired:
                continue

    return Wire(ours, end)


def dial_through(jump: paramiko.Transport, target: SshTarget, timeout: float) -> Wire:
    """A channel of the jump host's connection that leads to the target's port."""
    assert target.via is not None
    try:
        channel = jump.open_channel(
            "direct-tcpip", (target.hostname, target.port), ("127.0.0.1", 0), window_size=8 << 20, timeout=timeout
        )
    except paramiko.ChannelException as exc:
        if exc.code == 1:
            what = f"jump host {target.via.label!r} forbids forwarding"
            hint = "Its sshd has AllowTcpForwarding off: ask its administrator, or use a ProxyCommand"
        else:
            what = f"jump host {target.via.label!r} can't connect to {target.hostname} port {target.port}"
            hint = f"Try `ssh {target.via.label}` and from there `ssh {target.hostname}`"
        raise ConnectError(what, host=target.label, hint=hint, stage="port") from exc
    except (paramiko.SSHException, EOFError, OSError) as exc:
        what = f"no way through jump host {target.via.label!r} to {target.hostname} port {target.port}"
        raise ConnectError(
            f"{what}: {str(exc).rstrip('.') or 'it hung up'}",
            host=target.label,
            hint=f"It gave no connection within {timeout:g} s: is the host on?",
            stage="port",
        ) from exc
    return Wire(channel)


def _look_up(target: SshTarget, timeout: float) -> list[tuple[socket.AddressFamily, Any]]:
    """getaddrinfo knows no limit of its own, so it runs beside us."""
    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(socket.getaddrinfo(target.hostname, target.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as exc:
            answer.append(exc)

    thread = threading.Thread(target=ask, name=f"grid-lookup-{target.hostname}", daemon=True)
    thread.start()
    thread.join(timeout)
    if not answer:
        raise ConnectError(
            f"no answer about the name {target.hostname!r} within {timeout:g} s",
            host=target.label,
            hint="The name server does not answer: see /etc/resolv.conf",
            stage="name",
        )
    found = answer[0]
    if isinstance(found, Exception):
        raise ConnectError(
            f"the name {target.hostname!r} is unknown ({getattr(found, 'strerror', None) or found})",
            host=target.label,
            hint="Is it spelt right? Names of your own go into ~/.ssh/config or /etc/hosts",
            stage="name",
        ) from found
    # The same address may come twice, one for each protocol.
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _fault(exc: OSError, address: Any, timeout: float) -> str:
    if isinstance(exc, TimeoutError):
        return f"no answer from {address[0]} within {timeout:g} s"
    if isinstance(exc, ConnectionRefusedError):
        return f"{address[0]} refused the connection"
    return f"{address[0]}: {exc.strerror or exc}"
