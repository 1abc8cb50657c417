"""One server as its agent sees it: its output, its words, its kill time, its end.

A server has ended when its process was reaped (the zygote says so) and its output was read to the end. Its certificate
says how: exit status or signal, peak memory, the last lines that it printed.

Lives here: the state of one server, its output as lines, its signals, its certificate.
Elsewhere:  all of them together, and the zygote that forks them (`children`), lines of words (`control`).
"""

from __future__ import annotations

import os
import signal
from collections import deque
from pathlib import Path
from typing import Any

from grid.kernel import logs
from grid.kernel.control import Control
from grid.kernel.evidence import oom_kills
from grid.kernel.memory import look_again_s, taken
from grid.slots.needs import shown

_READ = 1 << 16
_PIPE = 1 << 20
"""Bytes that a pipe can hold, at most, unless root said otherwise."""
_TAIL = 200
"""Lines of output that are kept for the reason of its end."""


class Child:
    """See the module. It owns the pipe with the server's output and the line to it.

    Args:
        output: Reading end of the pipe; must not block.
        limit: Bytes of memory that it may have.
    """

    def __init__(
        self, name: str, peer: int, output: int, control: Control, log: Path, limit: int | None = None
    ) -> None:
        self.name, self.peer = name, peer
        self.output = output  # -1 once all of it was read
        self.control = control
        self.pid = 0  # until the zygote has forked it
        self.ready = False
        self.epoch = 0  # of the client that it listens to
        self.inlet = ""
        self.failed: str | None = None  # why it did not come up, in its own words
        self.exit: dict[str, Any] | None = None  # the zygote's word: status, peak_kb
        self.cancels: dict[int, int] = {}  # call of the server -> call of the client that asks to withdraw it
        self._log = log
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._partial = b""
        self._signals: list[tuple[float, int]] = []  # when to send which
        self._oom_kills = oom_kills()  # on this host, when it started
        self._limit, self._look_at = limit, 0.0
        self._took = 0  # bytes, more than it may have

    # -- output ----------------------------------------------------------------------------------------------------

    def read(self) -> str | None:
        """Whole lines that it has printed since, or None; at its end `output` is closed and the rest is given."""
        data = self._receive()
        if data is None:
            return None
        if not data:
            return self.last_words()
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()[-_READ:]
        return self._printed(b"\n".join(lines)) if lines else None

    def last_words(self) -> str | None:
        """It has ended: read the rest of the pipe, to the last byte. A process that it left may hold the pipe open."""
        data = self._partial
        while self.output >= 0 and len(data) < _PIPE and (more := self._receive()):
            data += more
        self.close_output()
        self._partial = b""
        return self._printed(data.removesuffix(b"\n")) if data else None

    def _receive(self) -> bytes | None:
        """Some output; nothing at its end, None if there is none now."""
        try:
            data = os.read(self.output, _READ)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        if data:
            logs.append(self._log, data)
        return data

    def _printed(self, data: bytes) -> str:
        text = data.decode(errors="replace")
        self._tail.extend(text.split("\n"))
        return text

    def close_output(self) -> None:
        """Read no more of it."""
        if self.output >= 0:
            os.close(self.output)
            self.output = -1

    def tail(self, lines: int) -> str:
        """The last lines that it printed."""
        return "\n".join(list(self._tail)[-lines:])

    # -- signals ---------------------------------------------------------------------------------------------------

    def condemn(self, signals: list[tuple[float, int]]) -> None:
        """Have it sent these signals: (when, which), in order. They take the place of others."""
        self._signals = signals

    @property
    def due(self) -> float | None:
        """When it gets its next signal; None for never, or not before it has a process."""
        return self._signals[0][0] if self.pid and self._signals else None

    def signal_due(self, now: float) -> None:
        """Send what is due."""
        while self.pid and self._signals and now >= self._signals[0][0]:
            self.signal(self._signals.pop(0)[1])

    def signal(self, which: int) -> None:
        """Send a signal to the server's process group."""
        if self.pid:
            try:
                os.killpg(self.pid, which)
            except (ProcessLookupError, PermissionError):
                pass

    # -- memory ----------------------------------------------------------------------------------------------------

    @property
    def look_at(self) -> float | None:
        """When to look at its memory; None for never, or not before it has a process."""
        return self._look_at if self.pid and self._limit and not self._took else None

    def look(self, now: float) -> None:
        """Look at its memory if it is time, and kill it if it has too much."""
        if self.look_at is None or self._limit is None or now < self._look_at:
            return
        used = taken(self.pid)
        self._look_at = now + look_again_s(used, self._limit)
        if used > self._limit:
            self._took = used
            self.signal(signal.SIGKILL)

    def killed_by_kernel(self, kills: int, peak: int) -> None:
        """Its group is gone: so many processes of it were killed there because it had too much, `peak` bytes."""
        if kills and self._limit:
            self._took = max(self._took, peak, self._limit)

    # -- the end ---------------------------------------------------------------------------------------------------

    def certificate(self, lines: int) -> dict[str, Any]:
        """How it ended, with this many of its last lines. `exit` must be known."""
        assert self.exit is not None, self.name
        status = self.exit["status"]
        by_signal = os.WIFSIGNALED(status)
        return {
            "exit_status": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            "signal": os.WTERMSIG(status) if by_signal else None,
            "peak_kb": self.exit["peak_kb"],
            "oom_kills": self._kills_since() if by_signal else 0,
            "last_output": self.tail(lines),
            **({"memory_limit": self._limit} if self._limit else {}),
            **({"memory_taken": self._took} if self._took and by_signal else {}),
        }

    def _kills_since(self) -> int:
        """How many processes the kernel killed here for lack of memory while the server ran."""
        now = oom_kills()
        return 0 if now is None or self._oom_kills is None else now - self._oom_kills

    def forget(self) -> None:
        """Close what is open still, and remove its log."""
        self.close_output()
        self.control.close()
        logs.remove(self._log)


def how_it_ended(certificate: dict[str, Any]) -> str:
    """One phrase for a server that had not come up."""
    if taken := certificate.get("memory_taken"):
        limit = shown(certificate["memory_limit"])
        return f"ended because it took {shown(taken)} of memory, and may have {limit} (needs: memory)"
    if certificate["signal"]:
        return f"ended by {signal.Signals(certificate['signal']).name}"
    return f"ended with exit status {certificate['exit_status']}"
