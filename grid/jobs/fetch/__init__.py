"""What a job server gets from elsewhere: files, news of jobs of other servers, the credentials for both."""
