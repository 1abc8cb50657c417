"""The store of jobs: SQLite (WAL) in a directory, or PostgreSQL by URL; each state change is one transaction.

Lives here: tables (`tables`), reading and writing (`store`), schema versions (`migrations`).
Elsewhere:  who decides what changes (`grid/jobs/manager/job_manager.py`).
"""

from grid.extras import need

need("the store of jobs", "jobs", "sqlalchemy", "alembic")
