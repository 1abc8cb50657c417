"""Things that a job server gets from elsewhere: files, news of other servers' jobs, the credentials for both."""
