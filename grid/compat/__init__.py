"""Grid behind the interfaces that other libraries already speak, so that they need not be rewritten.

`executor` (`concurrent.futures.Executor`) · `pool` (`multiprocessing.Pool`) · `joblib` (a backend of that name) ·
`crew` (one published runner per grid, functions shipped to its servers) · `work` (maps and single calls over it) ·
`runner` (what is published, and runs on hosts) · `imp` (replica exchange over ranks, on hosts).

Lives here: other people's interfaces, said in terms of a grid's own. They get a grid and never make one.
Elsewhere:  maps over services (`services/mapping.py`), services and queues (`grids/`).
"""
