"""The ground a lab stands on: one number per lab, and with it an address block and names of links that nobody else has.

Lives here: claiming a number, finding a free address block, clearing what a dead owner left, what the machine lacks.
Elsewhere:  building on it (`lab.py`).

A claim is a lock on a file, held open by the owner. The kernel drops it when the owner dies, however it dies; whoever
gets the lock of an existing claim therefore knows that its owner is gone and may clear up after it.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

CLAIMS = Path("/run/grid-lab")
NUMBERS = range(64)  # labs that can stand on one machine at once
COMMANDS = {  # what a lab calls -> the Debian package that has it
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
    "tc": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "pivot_root": "util-linux",
    "setpriv": "util-linux",
}
BATCH_COMMANDS = {
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "qsub": "slurm-wlm-torque",
    "munged": "munge",
}
FREEZER = Path("/sys/fs/cgroup/freezer")  # there where cgroups have version 1
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
CLEAN_ENVIRONMENT = {"PATH": SYSTEM_PATH, "LC_ALL": "C"}


class MissingPart(Exception):
    """This machine can't raise what was asked for; the message says which part is missing."""


class MissingPython(MissingPart):
    """This machine lacks a Python that only a few tests want."""


class MissingUnpacked(MissingPart):
    """This machine lacks what is no package that can be installed on it."""


def missing_parts(*, batch: bool = False) -> list[str]:
    """Why no lab (or none with a batch system) can stand on this machine; empty if one can."""
    if not sys.platform.startswith("linux"):
        return ["test hosts need Linux namespaces"]
    if os.geteuid() != 0:
        return ["test hosts need root"]
    wanted = {**COMMANDS, **(BATCH_COMMANDS if batch else {})}
    packages = {package for name, package in wanted.items() if shutil.which(name, path=SYSTEM_PATH) is None}
    if packages:
        return [f"Debian package {package} is not installed" for package in sorted(packages)]
    probe = subprocess.run(
        ["unshare", "--net", "--uts", "--mount", "--pid", "--ipc", "--fork", "true"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    return [f"namespaces are not allowed here: {probe.stderr.strip()}"] if probe.returncode else []


def call(*command: str, input: str | None = None, check: bool = True) -> str:
    """Run a system command, in no more environment than it needs, and give its output."""
    done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=60, env=CLEAN_ENVIRONMENT)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)} (input {input!r}): {done.stderr.strip()}")
    return done.stdout


class Ground:
    """One claimed number. `block` is its /20 of addresses, `tag` the start of its links' names (<= 4 characters)."""

    def __init__(self) -> None:
        clear_dead_claims()
        used = _used_networks()
        for number in NUMBERS:
            block = _block(number)
            if any(block.overlaps(other) for other in used):
                continue
            lock = _lock(CLAIMS / str(number))
            if lock is not None:
                break
        else:
            raise MissingPart("no free address block for a lab")
        self.number, self.block, self._lock = number, block, lock
        self.tag = f"gl{number}"
        # Addresses of the block that no link claims: an error at once, not a packet to the world outside.
        call("ip", "route", "replace", "unreachable", str(block))

    def record(self, directory: Path) -> None:
        """Remember what to remove, should we die. Processes end by themselves: each holds a pipe from us."""
        os.pwrite(self._lock, json.dumps({"owner": os.getpid(), "directory": str(directory)}).encode(), 0)

    def subnet(self, number: int) -> ipaddress.IPv4Network:
        return list(self.block.subnets(new_prefix=24))[number]

    def close(self) -> None:
        _remove_traces(self.number)
        _unlock(CLAIMS / str(self.number), self._lock)


def _block(number: int) -> ipaddress.IPv4Network:
    # From 10.140.0.0 in steps of a /20: seldom used by clouds, containers or home routers.
    return ipaddress.IPv4Network((int(ipaddress.IPv4Address("10.140.0.0")) + number * 4096, 20))


def _remove_traces(number: int) -> None:
    tag = f"gl{number}"
    for link in json.loads(call("ip", "-json", "link", "show") or "[]"):
        name = link["ifname"]
        if name.startswith(tag) and not name[len(tag) : len(tag) + 1].isdigit():  # gl1b, not gl10b
            call("ip", "link", "delete", name, check=False)  # takes the other end of a pair with it
    call("ip", "route", "delete", "unreachable", str(_block(number)), check=False)
    for path in FREEZER.glob(f"{tag}-*"):
        remove_cgroup(path)


def remove_cgroup(path: Path) -> None:
    """Remove a cgroup and those below it, whose processes have all ended."""
    for directory, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)  # the files in it are not real ones


def clear_dead_claims() -> None:
    for path in sorted(CLAIMS.glob("*")):
        lock = _lock(path, create=False)
        if lock is None:
            continue
        text = os.pread(lock, 10_000, 0)
        if text:
            directory = Path(json.loads(text)["directory"])
            _kill_users(directory)
            shutil.rmtree(directory, ignore_errors=True)
        if path.name.isdigit():
            _remove_traces(int(path.name))
        _unlock(path, lock)


def _kill_users(directory: Path) -> None:
    """End processes of a dead owner's lab: those that name its directory on their command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.fsencode(f"{directory}/") in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)


def _lock(path: Path, *, create: bool = True) -> int | None:
    """An open, locked file; None if someone has it (or, without `create`, if it isn't there)."""
    for _ in range(100):
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
        except FileNotFoundError:
            if create:
                continue  # somebody removed the empty directory between our two steps
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path).st_ino == os.fstat(fd).st_ino:
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass  # its owner withdrew it after we opened it
        os.close(fd)
    return None


def _unlock(path: Path, fd: int) -> None:
    path.unlink(missing_ok=True)
    os.close(fd)
    with contextlib.suppress(OSError):
        path.parent.rmdir()  # fails while other labs stand, as it should


def _used_networks() -> list[ipaddress.IPv4Network]:
    networks = []
    for route in json.loads(call("ip", "-json", "-4", "route", "show", "table", "all") or "[]"):
        destination = route["dst"]
        if destination != "default":
            networks.append(ipaddress.IPv4Network(destination, strict=False))
    return networks
