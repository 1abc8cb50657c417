"""Services: the servers of a service, the callers that wait for one, and the proxy of the caller that has one.

`roster` (pure: states, queue, waiters) · `server` · `proxy` · `result` · `remote_value` · `front`
(parameters sent along)
"""
