"""Names and addresses: which are this machine's own.

Lives here: `is_loopback`; needs nothing.
"""

from __future__ import annotations

import ipaddress


def is_loopback(name: str) -> bool:
    """Whether a name or address is this machine's own loopback."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
