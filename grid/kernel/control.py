"""Words between the agent and its children, the zygote and the servers: lines of JSON over a socket.

    agent -> server   {"cancel": call} | {"debug": bool} | {"attach": epoch}
                      | {"profile": [seconds, interval, file]}
    server -> agent   {"ready": [inlet, outlet], "pid": p} | {"failed": what, "traceback": text}
                      | {"cancelled": call, "granted": bool}
                      | {"attached": epoch, "outlet": outlet, "numbers": [received, posted, confirmed]}

What agent and zygote say to each other stands in `zygote`.

Lives here: the agent's end of such a line.
Elsewhere:  what the words mean (`children`), the other ends (`serve`, `zygote`).
"""

from __future__ import annotations

import json
import socket
from typing import Any

_READ = 1 << 16


class Control:
    """The agent's end. `ended`: the other end was closed, or this one; nothing can be heard or said any more."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._partial = b""
        self.ended = False

    def fileno(self) -> int:
        """Its descriptor, for a poller; -1 once it is closed."""
        return self._line.fileno()

    def say(self, words: dict[str, Any]) -> None:
        """Send words; they are lost if the other end has ended, or takes nothing in."""
        try:
            self._line.send(json.dumps(words).encode() + b"\n")
        except OSError:
            pass  # it is ending

    def hear(self) -> list[dict[str, Any]]:
        """The words that have arrived. A socket that blocks must be readable."""
        try:
            data = self._line.recv(_READ)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.ended = True
            return []
        *lines, self._partial = (self._partial + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close it; the other end notices."""
        self.ended = True
        self._line.close()
