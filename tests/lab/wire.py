"""A wire whose frames can be delayed and lost: a process between two TAP devices.

    wire.py LINK BRIDGE PID DIRECTORY

LINK stays here and joins BRIDGE; its other end becomes eth0 in the network namespace of process PID. DIRECTORY is only
there to be seen on the command line, by whoever clears up after a dead owner. Each line on standard input,
`delay_ms jitter_ms loss_percent`, holds from then on and is answered by `set`; end of input ends the wire.

Why not `tc netem`: many kernels are built without it.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000


def tap(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


def carry(near: int, far: int) -> None:
    delay_s = jitter_s = loss = 0.0
    other = {near: far, far: near}
    queue: list[tuple[float, int, int, bytes]] = []  # (due, running number, to, frame)
    number = 0
    pending = b""
    while True:
        wait_s = max(0.0, queue[0][0] - time.monotonic()) if queue else None
        for fd in select.select([0, near, far], [], [], wait_s)[0]:
            if fd == 0:
                text = os.read(0, 4096)
                if not text:
                    return
                *lines, pending = (pending + text).split(b"\n")
                for line in lines:
                    delay_ms, jitter_ms, loss = (float(word) for word in line.split())
                    delay_s, jitter_s = delay_ms / 1000, jitter_ms / 1000
                    os.write(1, b"set\n")
                continue
            while True:
                try:
                    frame = os.read(fd, 65536)
                except BlockingIOError:
                    break
                except OSError:
                    return  # the host, and with it the far end, is gone
                if random.random() * 100 < loss:
                    continue
                number += 1
                due = time.monotonic() + max(0.0, delay_s + random.uniform(-jitter_s, jitter_s))
                heapq.heappush(queue, (due, number, other[fd], frame))
        while queue and queue[0][0] <= time.monotonic():
            _, _, to, frame = heapq.heappop(queue)
            try:
                os.write(to, frame)
            except OSError:
                pass  # an end that is down loses the frame, as a cut wire does


def main(link: str, bridge: str, pid: str) -> None:
    near, far = tap(link), tap(f"{link}x")
    commands = f"link set {link} master {bridge} up\nlink set {link}x name eth0 netns {pid}\n"
    subprocess.run(["ip", "-batch", "-"], input=commands.encode(), check=True)
    carry(near, far)


if __name__ == "__main__":
    main(*sys.argv[1:4])
