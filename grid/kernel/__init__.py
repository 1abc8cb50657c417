"""The programs that run on a host. Standard library, pyzmq and dill; of ours only `wire/`, `errors`, `limits`.

`boot` (first words over the launch channel) · `agent` (one per host: its loop, its end) · `ground` (its directories) ·
`children`, `child`, `control` (its servers, one of them, words to it) · `requests`, `answers` (what the client may ask,
what it is told) · `zygote` (forks servers) · `serve` (one server) · `hostend` (their end of a link) ·
`unpack` (staged files) · `lease` (who holds processes here, until when)
"""
