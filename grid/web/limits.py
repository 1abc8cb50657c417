"""Every limit of the web server in one frozen value. Times in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WebLimits:
    """What a caller may cost."""

    body: int = 16 << 20
    """Of a request, but for uploads."""
    head: int = 64 << 10
    """Of a request line and its headers."""
    upload: int = 96 << 20
    """Of a request with an archive to be installed, in base64."""
    connections: int = 1_000
    """At once; more are refused with 503."""
    streams: int = 600
    """Open streams at once, of all callers; more are refused with 503."""
    streams_each: int = 300
    """Of one user."""
    ring: int = 10_000
    """Changes of one stream that are kept for readers that are behind; who is further behind begins anew."""
    linger_s: float = 60.0
    """A job's stream is kept this long after its last reader has gone."""
    stall_s: float = 20.0
    """A reader that takes nothing for so long is dropped."""
    alive_s: float = 10.0
    """A line is sent after this silence; then it is looked whether the token still holds, too."""
    header_s: float = 15.0
    """For the head of a request, and for its body; also from a connection to its first request."""
    wait_s: float = 20.0
    """Longest wait of one call; clients ask again."""
    page: int = 1_000
    """Jobs in one answer, at most."""
