"""Grids: what a user starts, publishes to and acquires from.

`abstract` (services, queues, groups: any engine) · `grid` (our own kernels) · `local`, `ssh` (ready ones) ·
`hostlink` (one host's life) · `files` (staging over a grid) · `control` (status and stop from another process)
"""
