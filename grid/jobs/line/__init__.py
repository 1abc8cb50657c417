"""Between a client and a job server: the language of the socket, both of its ends, streams of messages, pinned TLS."""
