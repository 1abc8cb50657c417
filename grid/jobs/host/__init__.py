"""The parts that a job needs where its code runs: requests, services, messages, and two kinds of server.

Lives here: `request`, `service`, `messages`, `plain` (values as JSON), `errors`, `runner` (runs one job), `worker`
            (runs its units).
Elsewhere:  everything that decides or stores (`grid/jobs`).

This room is shipped to hosts with the kernel: standard library and dill only.
"""
