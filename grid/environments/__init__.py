"""The environment travels: the packages that a script has here are what its servers have on their hosts.

`target` (what a host's Python takes) · `wanted` (what an environment is made of, from each form that names one) ·
`locks` (pylock.toml and uv.lock) · `fitting` (which wheel goes where, the name of what comes of it).

Elsewhere: what is done on a host (`kernel/environments.py`), which interpreter a kernel starts with (`launch/`),
           making a host ready for kernels alone (`care/`).
"""
