"""The wire: what travels between a client and the processes on a host, and how.

`frames` (one message, byte by byte) · `codec` (objects to bytes and back) · `mainimage` (what `__main__` defines) ·
`keys` (who may speak) · `bulk` (large buffers) · `kept` (values that stay on a host) · `link` (the client's end) ·
`places` (private directories).

Shared by both ends, so: standard library, pyzmq and dill only.
"""
