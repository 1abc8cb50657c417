"""Mails about jobs that have ended: what they say, and sending them."""
