"""What runs on a host. Standard library, pyzmq and dill; of ours only `wire/`, `errors`, `limits`.

`boot` (first words over the launch channel) · `agent` (one per host) · `zygote` (forks servers) ·
`serve` (one server) · `hostend` (their end of a link) · `unpack` (staged files) ·
`lease` (who holds processes here, until when)
"""
