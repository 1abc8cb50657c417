"""What a job server does with its jobs; start at `job_manager.py`. Nothing is imported here: clients use parts."""
