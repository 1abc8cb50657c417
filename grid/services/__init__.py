"""Services: which servers a service has, who waits for one, and what the caller holds of it.

`roster` (pure: states, queue, waiters) · `server` · `proxy` · `result` · `remote_value` · `front`
(parameters sent along)
"""
