"""A crowd of strangers at ports: who comes, says little or nothing, stays, and comes again when shown the door.

Lives here: the program that is such a crowd, and `Crowd`, which runs it here or inside a test host.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.lab.host import RunningHost

HOST_PATH = "/usr/local/bin:/usr/bin:/bin"

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
HUGE = GREETING + b"\x06" + (900 << 20).to_bytes(8, "big")
"""The beginning of a ZMTP handshake, and of a command of 900 MB in it."""


class Crowd:
    """Use as a context manager; inside it all have come.

    Args:
        ports: Where to.
        each: How many come to each port.
        says: What they say, by turns.
        floods: Those that say something go on talking as fast as they can.
        host: The test host in which they are, as its user `eve`; else they are here.
    """

    def __init__(
        self,
        ports: list[tuple[str, int]],
        each: int,
        says: tuple[bytes, ...] = (b"",),
        *,
        floods: bool = False,
        host: RunningHost | None = None,
    ) -> None:
        words = json.dumps([ports, each, [part.hex() for part in says], floods])
        if host is None:
            command = [sys.executable, "-c", Path(__file__).read_text(), words]
        else:
            command = [*host._enter("--mount", "--uts", "--ipc", "--net", "--pid", "--root")]
            command += ["setpriv", "--reuid=eve", "--regid=eve", "--init-groups", "env", "-i", f"PATH={HOST_PATH}"]
            command += ["python3", "-c", Path(__file__).read_text(), words]
        self._command = command

    def __enter__(self) -> Crowd:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        if words[:1] != ["here"]:
            self.__exit__()
            raise RuntimeError("the crowd did not come; see standard error")
        self.came = int(words[1])
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.read()
        self._process.stdout.close()
        self._process.wait(30)


def be_a_crowd(ports: list[tuple[str, int]], each: int, says: list[bytes], floods: bool) -> None:
    """Until standard input ends."""
    import resource
    import select
    import socket

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    each = min(each, (hard - 100) // len(ports))
    epoll = select.epoll()
    here: dict[int, tuple[socket.socket, tuple[str, int], int]] = {}
    noise = bytes(1 << 16)

    def come(port: tuple[str, int], number: int) -> None:
        try:
            line = socket.create_connection(port, 2)
            line.setblocking(False)
            if says[number % len(says)]:
                line.send(says[number % len(says)])
        except OSError:
            return
        here[line.fileno()] = (line, port, number)
        talks = floods and says[number % len(says)]
        epoll.register(line.fileno(), select.EPOLLRDHUP | (select.EPOLLOUT if talks else 0))

    for port in ports:
        for number in range(each):
            come((port[0], port[1]), number)
    sys.stdout.write(f"here {len(here)}\n")
    sys.stdout.flush()
    pause = 0.0 if floods else 1.0
    while not select.select([0], [], [], pause)[0]:
        again = []
        for fd, events in epoll.poll(0.05, 4096):
            line, port, number = here[fd]
            if not events & ~select.EPOLLOUT:
                try:
                    line.send(noise)
                    continue
                except BlockingIOError:
                    continue
                except OSError:
                    pass
            epoll.unregister(fd)
            del here[fd]
            line.close()
            again.append((port, number))
        for port, number in again:
            come(port, number)
    os._exit(0)


if __name__ == "__main__":
    ports, each, says, floods = json.loads(sys.argv[1])
    be_a_crowd(ports, each, [bytes.fromhex(part) for part in says], floods)
