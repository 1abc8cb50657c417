"""Bounds on what comes in at a listening socket, in one place. Times in seconds.

Lives here: numbers, and what follows for a process with fewer descriptors.
Elsewhere:  `grid/limits.py`, what users may change.
"""

from __future__ import annotations

try:
    import resource
except ImportError:  # no such limits there
    resource = None  # type: ignore[assignment]

STRANGERS = 2048
"""Connections to one listener that have not yet proved who they are, at most; then the oldest goes (`strangers`).
A stranger that waits in silence costs 4 kB. To turn one away that comes again costs more than to let it wait."""
SPEAKERS = 256
"""Of the strangers at one listener, those that say something, at most: each costs 15 kB (CURVE) or 50 kB (TLS)."""
STRANGER_S = 120.0
"""A stranger has this long to prove who it is, if there are that few (sshd's LoginGraceTime)."""
HANDSHAKE_BYTES = 4096
"""Bytes that a peer of a CURVE socket may send before it has proved its identity; it needs fewer than 700."""
LANE_STREAMS = 256
"""Streams of a lane whose other end holds the grid's certificate; more are closed, and tried again by their owner."""
ACCEPT_PAUSE_S = 0.1
"""A listener rests this long when the process has no descriptor left."""
LINE = 1024
"""Connections that stand in line until a listener accepts them."""
REQUEST_BYTES = 1 << 20
"""A message to an agent, at most: a request's words are less than `bulk.LARGE`, or lie apart as a blob."""
REQUESTS = 64
"""Messages of one connection that wait at an agent, at most. More stay with who sent them: its end of the connection
stops, and goes on when the agent has caught up. So 64 MB is the most that a client's haste costs a host."""
FILES = 16_384
"""Descriptors that an agent and its servers want: their soft limit is raised to it, if the hard one lets them."""
_OURS = 512
_LISTENERS = 3


def raise_files() -> None:
    """Have room for strangers and for ourselves; children inherit it."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            pass  # then fewer strangers may wait


def strangers() -> int:
    """How many may wait at each listener of this process: half a thousand descriptors stay for itself."""
    if resource is None:
        return STRANGERS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return STRANGERS
    return max(32, min(STRANGERS, (soft - _OURS) // _LISTENERS))
