"""Staging: the user's files on their way to the hosts.

`select` (which files a pattern takes) · `manifest` (hashes, and the archive that is sent) ·
`imports` (which modules an object needs).

The receiving end runs on hosts and so lives in `kernel/unpack.py`.
"""
