"""How long, how often, how much: the limits of everything that goes through a connection to a host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ConnectLimits:
    """Seconds end in `_s`, sizes in `_bytes`, all else is a count."""

    connect_s: float = 10  # name look-up and TCP connect together; ConnectTimeout of ssh_config comes first
    banner_s: float = 15  # from there to the server's first line
    auth_s: float = 30  # key exchange, and then the log-in
    prompt_s: float = 300  # openssh only: the time a person has to type a second factor
    channel_s: float = 20  # waiting for a free session and opening it
    command_s: float = 60  # one command of `run`, unless the caller says otherwise
    close_s: float = 5  # everything that happens on closing
    handshakes: int = 4  # at once per sshd: its MaxStartups (10:30:100) drops some beyond ten
    sessions: int = 9  # at once per connection: its MaxSessions is 10
    retries: int = 5  # after a dropped handshake or a refused channel; never after a refused key or log-in
    backoff_s: float = 0.4  # before the first retry; doubles, with jitter
    keepalive_s: float = 5  # between questions to a silent server
    silence_s: float = 15  # without a byte for this long the link counts as cut
    line_bytes: int = 1 << 20  # longest line of `read_line`
    stderr_bytes: int = 1 << 20  # kept of what a process writes to standard error: the end of it
    output_bytes: int = 256 << 20  # most that `run` collects


DEFAULT_LIMITS = ConnectLimits()
