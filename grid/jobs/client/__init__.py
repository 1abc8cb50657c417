"""Where jobs are submitted: job servers as a script sees them, handles of jobs, which server a script uses."""
