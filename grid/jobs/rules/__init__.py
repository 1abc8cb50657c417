"""Decisions about jobs, without IO or clocks: states, shares and credits, tags, what a remembered result is found by.

Lives here: `states`, `scheduler`, `credits`, `tags`.
Elsewhere:  conditions (`grid/jobs/conditions`), who acts on the decisions (`grid/jobs/manager/job_manager.py`).
"""
