"""Every limit of the web server in one frozen value. Times in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WebLimits:
    """The resources that callers may use."""

    body: int = 16 << 20
    """Of a request, but for uploads."""
    head: int = 64 << 10
    """Of a request line and its headers."""
    upload: int = 96 << 20
    """Of a request with an archive to be installed, in base64."""
    bodies: int = 192 << 20
    """Of all requests that are being received; one more is refused with 503."""
    bytes_per_s: int = 256 << 10
    """A body comes as fast as this at least, after `header_s`, which each has in any case."""
    strangers: int = 256
    """Connections that have not shown a valid token, from the first byte of TCP on. One more displaces the oldest of
    the address that has the most."""
    stranger_s: float = 30.0
    """Longest life of such a connection, with all that it asks for; there is no second request on it."""
    connections: int = 1_000
    """With a valid token, at once. The longest idle one makes room for another; where none is idle it gets 503."""
    connections_each: int = 500
    """Of one user."""
    backlog: int = 512
    """Connections that the system keeps until they are taken."""
    wrong_free: int = 10
    """Wrong tokens of one address that are answered at once; each more doubles the wait, up to `wrong_wait_s`."""
    wrong_per_s: float = 0.2
    """How fast they are forgotten."""
    wrong_wait_s: float = 2.0
    wrong_addresses: int = 10_000
    """Addresses whose wrong tokens are counted."""
    streams: int = 600
    """Open streams at once, of all callers; more are refused with 503."""
    streams_each: int = 300
    """Of one user."""
    ring: int = 10_000
    """Changes of one stream that are kept for slow readers; a reader that is further behind begins again."""
    ring_bytes: int = 32 << 20
    """Of the improvements in one such ring; the last one is kept in any case."""
    linger_s: float = 60.0
    """A job's stream is kept this long after its last reader has left."""
    stall_s: float = 20.0
    """A reader that takes nothing for this time is disconnected."""
    alive_s: float = 10.0
    """After this many idle seconds the server sends a keep-alive line and checks the token again."""
    header_s: float = 15.0
    """For TLS; for the head of a request, also from the connection on; and for its body (see `bytes_per_s`)."""
    wait_s: float = 20.0
    """Longest wait of one call; clients ask again."""
    page: int = 1_000
    """Jobs in one answer, at most."""
