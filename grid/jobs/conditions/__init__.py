"""Conditions: what a job waits for.

Lives here: the three-valued algebra (`algebra`), atoms (`atoms`), expressions over results (`expressions`), conditions
            as JSON (`tree`), and who is told when one is decided (`depends`). No IO, no clock.
Elsewhere:  the events that change atoms (`grid/jobs/manager/job_manager.py`).
"""
