"""The first words of a kernel that starts on a host: its report, or why there is none; its greeting through a tunnel.

Lives here: telling the report from what start-up files print, the errors.
Elsewhere:  writing it (`kernel/boot.py`), the command and its input (`home.py`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import time
from typing import Any, Protocol

from grid import errors
from grid.errors import ConnectError, HostError, PythonError, SessionError
from grid.hosts import Host
from grid.kernel import boot
from grid.kernel.door import ask
from grid.launch import Connection, RemoteProcess
from grid.launch.command import why_not_started
from grid.limits import Limits
from grid.wire.keys import Keys

logger = logging.getLogger(__name__)


class Beginning(Protocol):
    """The host, as far as its start goes."""

    host: Host
    limits: Limits
    connection: Connection | None


def check(report: dict[str, Any], host: Host) -> None:
    """Raise the HostError that a kernel reported instead of its start."""
    if "error" in report:
        kind = getattr(errors, report["kind"], HostError)
        raise kind(report["error"], host=host.label, hint=report["hint"])


def report_of(home: Beginning, process: RemoteProcess, deadline: float) -> dict[str, Any]:
    """Wait for the report of a kernel that starts.

    Raises:
        HostError: No kernel answered in time (`deadline`: monotonic). PythonError: None could start.
    """
    noise: list[str] = []
    while True:
        try:
            line = process.read_line(max(0.1, deadline - time.monotonic())).decode(errors="replace")
        except TimeoutError as exc:
            raise silent(home, process) from exc
        except ValueError as exc:
            raise HostError(
                "it answers with something else than our words",
                host=home.host.label,
                hint="Does its login shell print much? See `grid doctor`",
            ) from exc
        _, found, words = line.partition(boot.MARK)  # a start-up file may have printed without an end of line
        if found:
            with contextlib.suppress(ValueError):
                report: dict[str, Any] = json.JSONDecoder().raw_decode(words)[0]
                return report
        if not line:
            status = process.wait(2.0)
            if not process.began and home.connection is not None:
                raise home.connection.no_command(process, status)
            told, hint = why_not_started(process.stderr_tail(2.0))
            said = (told or "\n".join(noise)).strip()[-2000:]
            raise PythonError(
                f"the kernel did not start (exit status {status}){': ' + said if said else ''}",
                host=home.host.label,
                hint=hint or f"Try `grid doctor {home.host.label}`",
            )
        noise.append(line.rstrip())


def silent(home: Beginning, process: RemoteProcess) -> HostError:
    """The error of a host that let us in and then said nothing of use."""
    said, _ = why_not_started(process.stderr_tail())
    said = said[-2000:]
    return HostError(
        f"it let us in, but no kernel answered within {home.limits.start_s:g} s"
        + (f"; it printed: {said}" if said else ""),
        host=home.host.label,
        hint=f"Try `grid doctor {home.host.label}`, or more time with GRID_START_S",
    )


def knock(endpoint: str, keys: Keys | None, words: dict[str, Any], timeout_s: float, label: str) -> dict[str, Any]:
    """Ask at the door of an agent that waits for its client.

    Raises:
        ConnectError: Nobody answers there. SessionError: It takes no other client.
    """
    try:
        answer = ask(endpoint, keys, words, timeout_s)
    except TimeoutError as exc:
        raise ConnectError(
            "its agent does not answer: it has ended, or can't be reached",
            host=label,
            hint="It is tried again until the session's time has passed",
        ) from exc
    if "refused" in answer:
        raise SessionError(f"host {label!r} takes no other client: {answer['refused']}", hint="See `grid sessions`")
    return answer


def choose_transport(connection: Connection, host: Host, address: str, port: int, patience_s: float) -> str:
    """`direct` or `tunnel`, for an agent that listens there."""
    if not connection.has_forwards:
        return "direct"
    if host.transport != "auto":
        return host.transport
    if connection.server_address() is None or address in ("127.0.0.1", "::1"):
        return "tunnel"
    try:
        socket.create_connection((address, port), timeout=patience_s).close()
    except OSError as exc:
        logger.info("host %s: no direct way to %s:%d (%s), taking the tunnel", host.label, address, port, exc)
        return "tunnel"
    return "direct"


def try_tunnel(connection: Connection, host: Host, address: str, port: int, patience_s: float) -> None:
    """See at once whether sshd lets us through: the agent greets, a forward that is forbidden ends.

    Raises:
        ConnectError: It does not.
    """
    path = connection.forward(address, port)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as near:
        near.settimeout(patience_s)
        try:
            near.connect(path)
            greeted = bool(near.recv(1))
        except TimeoutError:
            return  # slow, which the link has more patience for
        except OSError:
            greeted = False
    if not greeted and connection.alive():
        raise ConnectError(
            f"its sshd makes no tunnel to {address} port {port}"
            + ("" if host.transport == "tunnel" else ", and there is no direct way to it"),
            host=host.label,
            hint="Its sshd must allow forwarding (AllowTcpForwarding yes), or a firewall ports above 1023 "
            f"(then transport: direct): ask its administrator. `grid doctor {host.label}` looks again",
        )
