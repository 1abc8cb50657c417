"""Proxies of `multiprocessing.Manager` in messages: the key that their servers ask for goes along.

Such a proxy holds the address of its manager and takes the key from the process that it is in. Children of this process
inherit the key; servers are none. So a message that holds proxies begins with a word that gives its process the key.

Lives here: that word, both ends of it. Elsewhere: what else is in a message (`codec`).
"""

from __future__ import annotations

import os
import sys

_MARK = b"RebuildProxy"


def with_authkey(data: bytes) -> bytes:
    """A pickle, with the key of this process before it where it holds proxies of a manager; else as it is."""
    if "multiprocessing.managers" not in sys.modules or _MARK not in data:
        return data
    from multiprocessing import process

    key = bytes(process.current_process().authkey)
    if len(key) > 255:
        return data
    name = [b"\x8c" + bytes([len(word)]) + word for word in (__name__.encode(), b"accept")]
    call = name[0] + name[1] + b"\x93" + b"C" + bytes([len(key)]) + key + b"\x85R0"  # accept(key), its value dropped
    return data[:2] + call + data[2:]  # after PROTO; it puts nothing into the memo, so the rest stays as it is


def accept(key: bytes) -> None:
    """On a server: proxies that are unpickled from now on use this key."""
    if "GRID_SERVER" in os.environ:
        from multiprocessing import process

        process.current_process().authkey = key  # its setter makes a key of it
