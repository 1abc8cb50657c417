"""OpenSSH control masters: one ssh process that logs in, and through which all else goes.

Lives here: starting and ending our own master, using one of the user's.
Elsewhere:  commands and forwards through a master (`openssh.py`), what ssh's complaints mean (`complaints.py`),
            sharing (`pool.py`).

Our master runs `cat` on the host with its input held open by us: when this process dies, however it dies, the pipe
closes, `cat` ends, and the master with it. `ssh -N` would outlive us.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from grid.errors import ConnectError, LoginError
from grid.hosts import Host
from grid.launch.complaints import Dropped, explain
from grid.launch.connection import Tail, shell_ended
from grid.launch.limits import ConnectLimits
from grid.launch.pool import Gates, Pool, Shared
from grid.launch.ssh_config import config_file
from grid.wire.places import SOCKET_PATH_BYTES, runtime_dir

_READY = b"grid-master-up"
_SUFFIX_BYTES = 17
"""ssh binds `path.XXXXXXXXXXXXXXXX` first and then renames it."""


class ControlMaster(Shared):
    """A control socket with a live master behind it: ours (`_process`), or the user's (None)."""

    def __init__(
        self,
        ssh: str,
        path: str,
        process: subprocess.Popen[bytes] | None,
        limits: ConnectLimits,
        alone: tuple[str, ...] = (),
    ) -> None:
        self._alone_words = alone  # a command line of ssh's that logs in by itself, without questions
        self.sessions = threading.BoundedSemaphore(limits.sessions)
        self._ssh = ssh
        self._path = path
        self._process = process
        self._limits = limits

    def client(self, *arguments: str) -> list[str]:
        """A command line for ssh through this master, and never past it.

        A client that finds no master would log in anew, with prompts and all: the ProxyCommand makes that fail. The
        config is left out because all that it can say has been said to the master.
        """
        fixed = ["-F", "/dev/null", "-S", self._path, "-o", "ProxyCommand=false", "-o", "BatchMode=yes"]
        return [self._ssh, *fixed, "-o", "LogLevel=ERROR", "-T", *arguments, "grid"]

    @property
    def can_log_in_alone(self) -> bool:
        """Whether `client_alone` is known: the master is ours."""
        return bool(self._alone_words)

    def client_alone(self) -> list[str]:
        """A command line for ssh that logs in anew: for hosts whose sshd allows one session to a connection."""
        return list(self._alone_words)

    def control(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Tell the master something: `ssh -O ...`."""
        return subprocess.run(
            self.client(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=self._limits.close_s,
            check=False,
        )

    def alive(self) -> bool:
        """Whether our master runs; the user's is asked (`ssh -O check`)."""
        if self._process is not None:
            return self._process.poll() is None
        try:
            return self.control("-O", "check").returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def close(self) -> None:
        """End our master and what it carries; the user's goes on."""
        if self._process is None:
            return  # the user's goes on
        try:
            self.control("-O", "exit")
        except subprocess.TimeoutExpired:
            pass  # it hangs: the signals below end it
        _end(self._process, self._limits.close_s)
        shutil.rmtree(os.path.dirname(self._path), ignore_errors=True)


Key = tuple[str, ...]
_pool: Pool[Key, ControlMaster] = Pool()
_gates = Gates()
_terminal = threading.Lock()
"""Held while ssh may ask the user something: two prompts at once can't be answered."""


def acquire(host: Host, limits: ConnectLimits) -> tuple[Key, ControlMaster, dict[str, str]]:
    """Borrow the master for a host, made if there is none; with what ssh says its config comes to.

    Raises:
        ConnectError, HostKeyError, LoginError: As ssh said; only dropped handshakes are retried.
    """
    ssh = shutil.which("ssh")
    if ssh is None:
        raise ConnectError("there is no ssh binary here", host=host.label, hint="Install it, or use `ssh: paramiko`")
    key = (ssh, *_way(host))
    config = _effective_config(host, key, limits)
    patience = (limits.connect_s + limits.auth_s) * 2 * (limits.retries + 1) + limits.prompt_s
    try:
        return key, _pool.acquire(key, lambda: _open(host, key, config, limits), patience), config
    except TimeoutError as exc:
        raise ConnectError("another log-in to it never ends", host=host.label, hint="Try again later") from exc


def release(key: Key, master: ControlMaster) -> None:
    """Give a master back; the last to do so ends it, if it is ours."""
    _pool.release(key, master)


def _way(host: Host) -> list[str]:
    """How ssh is told where to go: what the host says, put over the user's config."""
    arguments = []
    file = config_file()
    if file is not None:
        arguments += ["-F", file]
    if host.user is not None:
        arguments += ["-l", host.user]
    if host.port is not None:
        arguments += ["-p", str(host.port)]
    if host.key is not None:
        arguments += ["-i", os.path.expanduser(host.key), "-o", "IdentitiesOnly=yes"]
    if host.jump is not None:
        arguments += ["-J", host.jump]
    return [*arguments, host.name]


def _effective_config(host: Host, key: Key, limits: ConnectLimits) -> dict[str, str]:
    """`ssh -G`: lower-case keyword -> its first value."""
    ssh, *way = key
    try:
        found = subprocess.run(
            [ssh, "-G", *way], stdin=subprocess.DEVNULL, capture_output=True, timeout=limits.connect_s, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise ConnectError("`ssh -G` hangs", host=host.label, hint="Look at ~/.ssh/config (Match exec?)") from exc
    if found.returncode:
        raise ConnectError(
            f"ssh can't use its config: {found.stderr.decode('utf-8', 'replace').strip()}",
            host=host.label,
            hint=f"Try `ssh -G {host.name}`",
        )
    config: dict[str, str] = {}
    for line in found.stdout.decode("utf-8", "replace").splitlines():
        keyword, _, value = line.partition(" ")
        config.setdefault(keyword, value)
    return config


def _open(host: Host, key: Key, config: dict[str, str], limits: ConnectLimits) -> ControlMaster:
    path = config.get("controlpath", "none")
    if path != "none" and os.path.exists(path):
        theirs = ControlMaster(key[0], path, None, limits)
        if theirs.alive():
            return theirs
    gate = _gates.get((config.get("hostname"), config.get("port")), limits.handshakes)
    said = ""
    for attempt in range(limits.retries + 1):
        if attempt:
            time.sleep(limits.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
        if not gate.acquire(timeout=(limits.connect_s + limits.auth_s) * 4):
            break
        try:
            return _log_in(host, key, config, limits)
        except Dropped as exc:
            said = f" ({exc})" if str(exc) else ""
        finally:
            gate.release()
    raise ConnectError(
        f"sshd hung up during the handshake, {limits.retries + 1} times{said}",
        host=host.label,
        hint="It may be overloaded (MaxStartups), or ban this machine (fail2ban, hosts.deny): ask its administrator",
    )


def _log_in(host: Host, key: Key, config: dict[str, str], limits: ConnectLimits) -> ControlMaster:
    """First without questions, many hosts at once; where that is refused, with questions at the terminal."""
    try:
        return _start(host, key, config, limits, batch="yes", timeout=limits.connect_s + limits.auth_s)
    except LoginError:
        if not sys.stdin or not sys.stdin.isatty():
            raise
    with _terminal:
        return _start(host, key, config, limits, batch="no", timeout=limits.prompt_s)


def _start(
    host: Host, key: Key, config: dict[str, str], limits: ConnectLimits, *, batch: str, timeout: float
) -> ControlMaster:
    ssh, *way = key
    directory = tempfile.mkdtemp(prefix=f"ssh-{os.getpid()}-", dir=runtime_dir())
    path = os.path.join(directory, "m")
    options = {
        "BatchMode": batch,
        "ControlMaster": "yes",
        "ControlPath": path,
        "ControlPersist": "no",
        "ServerAliveInterval": str(max(1, round(limits.keepalive_s))),
        "ServerAliveCountMax": str(max(1, round(limits.silence_s / limits.keepalive_s))),
        "ClearAllForwardings": "yes",  # those of the user's config are for the user's own sessions
        "RemoteCommand": "none",
        "RequestTTY": "no",
        "ForwardAgent": "no",  # a socket of it would lie on the host as long as the grid lives, and we need none
        "ForwardX11": "no",
        "LogLevel": "INFO",
    }
    if config.get("connecttimeout", "none") == "none":
        options["ConnectTimeout"] = str(max(1, round(limits.connect_s)))
    # Keys are accepted by `grid hosts trust`, not in passing, unless the user has told ssh so; changed ones never.
    checking = config.get("stricthostkeychecking", "ask")
    options["StrictHostKeyChecking"] = "yes" if checking in ("ask", "true", "yes") else "accept-new"
    settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    # Ctrl-C at our terminal is for us, the master must see us through what we then do. It can't have a session of
    # its own: ssh asks its questions at the terminal of its session.
    shell = ["/bin/sh", "-c", 'trap "" INT QUIT; exec "$@"', "sh"]
    try:
        if len(os.fsencode(path)) + _SUFFIX_BYTES > SOCKET_PATH_BYTES:
            raise ConnectError(
                f"the path of ssh's control socket is too long: {path}",
                host=host.label,
                hint="Set GRID_RUNTIME_DIR to a shorter one on this machine",
            )
        process = subprocess.Popen(
            [*shell, ssh, *settings, *way, f"echo {_READY.decode()}; exec cat >/dev/null"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.write(b"\n" * 16)  # for a start-up file that asks something; `cat` takes what is left
        try:
            _await_master(process, host, key, config, timeout, show=batch == "no")
        except BaseException:
            _end(process, 1.0)
            raise
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    own = {**options, "ControlMaster": "no", "ControlPath": "none", "BatchMode": "yes", "LogLevel": "ERROR"}
    alone = (ssh, *(word for name, value in own.items() for word in ("-o", f"{name}={value}")), *way)
    return ControlMaster(ssh, path, process, limits, alone)


def _await_master(
    process: subprocess.Popen[bytes], host: Host, key: Key, config: dict[str, str], timeout: float, show: bool
) -> None:
    """Wait until the host answers through the master; drain what it says from then on."""
    assert process.stdout is not None and process.stderr is not None
    complaints = Tail(65536)
    answered = threading.Event()
    ready: list[bool] = []
    noise: list[bytes] = []
    stdout, stderr = process.stdout, process.stderr

    def read_stdout() -> None:
        seen = b""
        while chunk := os.read(stdout.fileno(), 4096):
            seen = (seen + chunk)[-4096:]
            noise[:] = [seen]
            if _READY in seen and not ready:
                ready.append(True)
                answered.set()
        answered.set()
        stdout.close()

    def read_stderr() -> None:
        while chunk := os.read(stderr.fileno(), 4096):
            complaints.feed(chunk)
            if show and not ready:
                sys.stderr.write(chunk.decode("utf-8", "replace"))
                sys.stderr.flush()
        complaints.end()
        stderr.close()

    for target in (read_stdout, read_stderr):
        threading.Thread(target=target, name=f"grid-master-{host.name}", daemon=True).start()
    in_time = answered.wait(timeout)
    if ready:
        return
    if in_time:
        complaints.ended.wait(1.0)
        with contextlib.suppress(subprocess.TimeoutExpired):
            if (status := process.wait(1.0)) != 255 and status >= 0:  # ssh itself was content
                printed = b"".join(noise) + b"\n" + complaints.content()
                raise shell_ended(host, status, printed.decode("utf-8", "replace"))
    text = complaints.content().decode("utf-8", "replace")
    raise explain(text, host, config, None if in_time else timeout)


def _end(process: subprocess.Popen[bytes], timeout: float) -> None:
    assert process.stdin is not None
    process.stdin.close()  # ends `cat` on the host, and so the master
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        process.send_signal(number)
        try:
            process.wait(timeout / 3)
            return
        except subprocess.TimeoutExpired:
            continue
