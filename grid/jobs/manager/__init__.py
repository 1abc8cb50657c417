"""The work of a job server with its jobs; start at `job_manager.py`. Nothing is imported here: clients use parts."""
